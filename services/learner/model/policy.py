"""The policy: the one place that knows a language model's body and head.

    groups -> packing -> embeddings -> body -> hidden states -> head in tiles -> log-probabilities

Everything else asks for log-probabilities and sees float32 parameters by name. How the weights are
held (float32 masters with bfloat16 working copies; later also shards) is decided in here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from services.learner.model import attention
from services.learner.model.activations import pass_tokens
from services.learner.model.export import export_model
from services.learner.model.fused import fuse
from services.learner.model.head import gradient_of, token_logprobs
from services.learner.model.packing import Packing, PrefixGroup, pack_groups, taken
from services.learner.model.precision import Dtype, WorkingWeights
from services.learner.train.limit import FlopCount, Work, matmul_rate
from services.model_size import known_size


@dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of the learnt tokens, in the order of the groups and their suffixes."""

    values: Tensor
    """float32 [learnt tokens], nats."""
    suffix: Tensor
    """int64 [learnt tokens]: the suffix each belongs to, counted through all groups."""
    suffixes: int
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    """Losses of the model's own, by name (a router's load balance); a dense model has none."""

    def summed(self) -> Tensor:
        """By suffix, float32 [suffixes]."""
        return self.values.new_zeros(self.suffixes).index_add(0, self.suffix, self.values)

    def by_suffix(self) -> list[Tensor]:
        """Each suffix's values without their gradient, float32 on the CPU."""
        sizes = torch.bincount(self.suffix, minlength=self.suffixes).tolist()
        return list(self.values.detach().cpu().split(sizes))


class TokenLogProbs(Protocol):
    """A language model, in training or frozen."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def logprobs(self, groups: Sequence[PrefixGroup]) -> LogProbs:
        """Per-token log-probabilities of what is learnt in each group's suffixes."""


class Trained:
    """A module whose float32 weights train, run over packed groups: body, precision, export."""

    def __init__(self, module: Any, dtype: Dtype) -> None:
        self._module = module
        self._weights = WorkingWeights(module, dtype)
        self.size = known_size(module.config.to_dict())
        self._count = FlopCount.of(self.size)
        self.useful_flops = 0
        """Of all passes so far, forward and backward, each product once."""
        module.config._attn_implementation = attention.NAME
        fuse(module)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self._module.parameters()).device
        return device

    @property
    def config(self) -> Any:
        """The model's Hugging Face configuration."""
        return self._module.config

    @property
    def pass_tokens(self) -> int:
        """Tokens that go through it at once with gradients, unless told otherwise."""
        checkpointing = bool(getattr(self._module, "is_gradient_checkpointing", False))
        width = int(self._weights.dtype.itemsize)
        return pass_tokens(self.size, width, checkpointing, self.device.type)

    @property
    def flops_limit(self) -> float:
        """Operations a second that the device reaches on these matrices; measured once."""
        return matmul_rate(self._weights.dtype, self.device, self._count.shapes())

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Float32 weights by Hugging Face name, tied ones once; their gradients are float32."""
        return self._weights.masters

    def refresh(self) -> None:
        """After the float32 weights were changed: the next pass computes with the new ones."""
        self._weights.refresh()

    def in_dtype(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """The weights by name as rounded to `dtype`; read them before the next step."""
        return self._weights.in_dtype(dtype)

    def train(self, mode: bool = True) -> None:
        """Dropout and the like on or off."""
        self._module.train(mode)

    def export(self, tokenizer: Any, out: Path) -> None:
        """Write the float32 weights as a Hugging Face folder; complete or absent."""
        export_model(self._module, tokenizer, out, weights=self._weights.masters)

    def _packed(self, groups: Sequence[PrefixGroup], *, head: bool) -> Packing:
        """The groups as one row; their operations are counted, `head`: with the vocabulary's."""
        packing = pack_groups(groups, self.device, self._weights.dtype)
        work = Work(learnt=len(packing.targets) if head else 0)
        for group in groups:
            work += Work.of(len(group.prefix), [len(suffix) for suffix in group.suffixes])
        self.useful_flops += self._count.useful(work)
        return packing

    def _hidden(self, packing: Packing) -> Tensor:
        """Hidden states after the last norm, [tokens, hidden_size]."""
        table = self._module.get_input_embeddings()
        if type(table) is nn.Embedding:
            master = self._weights.master_of(table.weight)
            embedded: Tensor = _EmbeddingRows.apply(
                table.weight, packing.ids, master, table.padding_idx
            )
        else:
            embedded = table(packing.ids)
        return body_states(self._module.base_model, embedded, packing, self._weights.dtype)


class Policy(Trained):
    """A causal language model in training."""

    def logprobs(self, groups: Sequence[PrefixGroup]) -> LogProbs:
        """Per-token log-probabilities of what is learnt in each group's suffixes."""
        packing = self._packed(groups, head=True)
        hidden = taken(self._hidden(packing), packing.sources).to(self._weights.dtype)
        head = self._module.get_output_embeddings()
        values = token_logprobs(
            hidden, head.weight, packing.targets, self._weights.master_of(head.weight), head.bias
        )
        return LogProbs(values, packing.suffix, packing.suffixes)

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """The bare transformers module for `generate`, with its usual attention meanwhile."""
        self._module.config._attn_implementation = "sdpa"
        try:
            yield self._module
        finally:
            self._module.config._attn_implementation = attention.NAME


class ScoreModel(Trained):
    """A reward model in training: one scalar for each suffix, read at its last token."""

    def scores(self, groups: Sequence[PrefixGroup]) -> Tensor:
        """float32 [suffixes]; the head's product is float32 whatever the body computes in."""
        packing = self._packed(groups, head=False)
        last = taken(self._hidden(packing), packing.last).float()
        return F.linear(last, self._weights.master_of(self._module.score.weight))[:, 0]


def body_states(body: Any, embedded: Tensor, packing: Packing, dtype: torch.dtype) -> Tensor:
    """Hidden states of packed embeddings [tokens, hidden_size], after the last norm."""
    with torch.autocast(embedded.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        found: Tensor = body(
            inputs_embeds=embedded[None],
            position_ids=packing.positions[None],
            use_cache=False,
            packing=packing,
        ).last_hidden_state
    return found[0]


class _EmbeddingRows(torch.autograd.Function):  # type: ignore[misc]
    """Rows of the embedding, whose gradient is added to the master's in place.

    The usual backward makes a second gradient of the whole table, 545 MB at Qwen2's vocabulary.
    As in torch's own, the row of `padding` gets none.
    """

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, ids: Tensor, master: Tensor, padding: int | None
    ) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.master, ctx.padding = master, padding
        return table[ids].float()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, None, None, None]:
        (ids,) = ctx.saved_tensors
        (upstream,) = grads
        if ctx.master.requires_grad:
            if ctx.padding is not None:
                upstream = upstream.masked_fill((ids == ctx.padding)[:, None], 0.0)
            gradient_of(ctx.master).index_add_(0, ids, upstream.float())
        return None, None, None, None
