"""Scores from a reward model: Qwen2 with one scalar head, read at the last token.

Every group is a forward pass of its own. Matrix products round differently for different
shapes, so a pass over several groups would give a group scores that depend on its company,
and two runs of the same seed different pairs. What is shared by a batch is the way there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from pairloop.data.v1.rollout_pb2 import Prompt, Sample
from services.data.chat import load_tokenizer, tokenizer_fingerprint
from services.errors import ArtifactError, WorkerError

TOKENS_A_PASS = 32_768
"""Rows of a group are split so that one pass holds at most so many padded tokens."""


class RewardModel:
    """One loaded reward model and its tokenizer's fingerprint."""

    def __init__(self, path: str, dtype: str, max_length: int, device: str) -> None:
        self.fingerprint = tokenizer_fingerprint(load_tokenizer(path))
        self._model = _load_model(path, getattr(torch, dtype), device)
        self._path = path
        self._device = device
        self._max_length = max_length

    def score(self, prompt: Prompt, samples: Sequence[Sample]) -> list[float]:
        """The scalar at the last token of prompt and answer, one a sample, in order.

        A text above `max_length` tokens is cut from the left. Raises WorkerError when the
        model has no embedding for a token.
        """
        head = list(prompt.token_ids)
        rows = [(head + list(sample.token_ids))[-self._max_length :] for sample in samples]
        vocabulary = self._model.get_input_embeddings().num_embeddings
        highest = max((max(row) for row in rows if row), default=-1)
        if not all(rows) or highest >= vocabulary:
            problem = f"token {highest}, above {vocabulary}" if all(rows) else "no tokens"
            raise WorkerError(f"reward model {self._path}: {prompt.id} holds {problem}")
        step = max(1, TOKENS_A_PASS // max(len(row) for row in rows))
        return [
            value
            for start in range(0, len(rows), step)
            for value in self._forward(rows[start : start + step])
        ]

    def check(self) -> None:
        """Touch the device; raises when it is gone."""
        torch.zeros(1, device=self._device).item()

    def _forward(self, rows: list[list[int]]) -> list[float]:
        """Right-padded rows; attention is causal, so padding after the last token is unseen.

        The head is applied here and not by transformers, which looks for the last token that
        is not padding by its id and would misread an answer that ends in that id.
        """
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.tensor(row)
        ids = ids.to(self._device)
        mask = torch.arange(ids.shape[1], device=self._device)[None, :] < lengths[:, None]
        with torch.inference_mode():
            hidden = self._model.base_model(
                input_ids=ids, attention_mask=mask.long(), use_cache=False
            ).last_hidden_state
            last = hidden[torch.arange(len(rows), device=self._device), lengths - 1]
            values: list[float] = self._model.score(last)[:, 0].float().cpu().tolist()
        return values


def set_threads(threads: int) -> None:
    """Torch threads of this process."""
    torch.set_num_threads(threads)


def _load_model(path: str, dtype: torch.dtype, device: str) -> Any:
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=1, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"reward model {path} does not load: {_first_line(error)}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        # transformers fills these with random values and goes on
        raise ArtifactError(
            f"reward model {path} has no {', '.join(missing[:3])}: it is not a reward model, "
            "make one with the reward_model job"
        )
    return model.to(device).eval()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
