"""A policy that does not train, run on weights as they are stored: a file's pages, a snapshot.

Nothing is copied to hold it. To compute in float32, a matrix of 16 bits is cast as its layer runs
and let go after it; to compute in bfloat16, matrices stored in another dtype are cast once.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from services.errors import ArtifactError
from services.learner.model import attention
from services.learner.model.fused import fuse
from services.learner.model.head import token_logprobs
from services.learner.model.packing import PrefixGroup, pack_groups
from services.learner.model.policy import LogProbs, body_states
from services.learner.model.precision import Dtype


class FrozenPolicy:
    """Log-probabilities under fixed weights, without gradients.

    `tensors` by Hugging Face name in any float dtype; they may be memory-mapped, and are looked up
    again after each `release`. A tied head may be left out. `config` is the model's. On a GPU they
    are copied there. Raises ArtifactError when the names are not those of the model.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], config: Any, dtype: Dtype, device: torch.device
    ) -> None:
        with init_empty_weights(include_buffers=False):
            self._module = AutoModelForCausalLM.from_config(copy.deepcopy(config))
        for part in self._module.modules():  # the buffers alone: there are no weights yet
            part._buffers.update(
                {key: b.to(device) for key, b in part._buffers.items() if b is not None}
            )
        self._module.eval()
        self._module.config._attn_implementation = attention.NAME
        fuse(self._module)
        self._dtype, self._device, self._tensors = getattr(torch, dtype), device, tensors
        self._places = self._named_places()
        self._held = False
        self._stored: dict[nn.Module, dict[str, Any]] = {}
        if dtype == "float32":
            for part in {part for part, _, _ in self._places}:
                part.register_forward_pre_hook(self._cast)
                part.register_forward_hook(self._let_go)

    @property
    def config(self) -> Any:
        """The model's Hugging Face configuration."""
        return self._module.config

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device

    def logprobs(self, groups: Sequence[PrefixGroup]) -> LogProbs:
        """As `Policy.logprobs`."""
        self._hold()
        packing = pack_groups(groups, self._device, self._dtype)
        table, head = self._module.get_input_embeddings(), self._module.get_output_embeddings()
        with torch.no_grad():
            if type(table) is nn.Embedding:  # rows alone are cast, not the table
                embedded = table.weight[packing.ids].float()
            else:
                embedded = table(packing.ids)
            hidden = body_states(self._module.base_model, embedded, packing, self._dtype)
            hidden = hidden[packing.sources].to(self._dtype)
            values = token_logprobs(hidden, head.weight, packing.targets, bias=head.bias)
        return LogProbs(values, packing.suffix, packing.suffixes)

    def release(self) -> None:
        """Let the weights go until they are asked for again."""
        for part, key, _ in self._places:
            part._parameters[key] = None
        self._held = False

    def _hold(self) -> None:
        if self._held:
            return
        held: dict[str, nn.Parameter] = {}
        for part, key, name in self._places:
            if name not in held:
                held[name] = nn.Parameter(self._kept(self._tensors[name]), requires_grad=False)
            part._parameters[key] = held[name]
        self._held = True

    def _kept(self, tensor: Tensor) -> Tensor:
        if tensor.ndim < 2:
            tensor = tensor.float()
        elif self._dtype != torch.float32:
            tensor = tensor.to(self._dtype)
        return tensor.to(self._device)

    def _cast(self, part: nn.Module, _inputs: Any) -> None:
        self._stored[part] = dict(part._parameters)
        for key, value in self._stored[part].items():
            if value is not None and value.dtype != self._dtype:
                part._parameters[key] = nn.Parameter(value.to(self._dtype), requires_grad=False)

    def _let_go(self, part: nn.Module, _inputs: Any, _outputs: Any) -> None:
        part._parameters.update(self._stored.pop(part))

    def _named_places(self) -> list[tuple[nn.Module, str, str]]:
        """Each parameter of the skeleton: its module, its key there, the name of its tensor."""
        module, places = self._module, []
        names, head = set(self._tensors), module.get_output_embeddings()
        table = module.get_input_embeddings()
        (of_table,) = (name for name, part in module.named_modules() if part is table)
        for prefix, part in module.named_modules():
            for key, parameter in part._parameters.items():
                if parameter is None:
                    continue
                name = f"{prefix}.{key}" if prefix else key
                if name not in names and part is head:  # tied
                    name = f"{of_table}.{key}"
                if name not in names:
                    raise ArtifactError(f"the model has {name}, and its stored weights do not")
                places.append((part, key, name))
        if unknown := names - {name for _, _, name in places}:
            raise ArtifactError(f"the stored weights have {min(unknown)}, and the model does not")
        return places
