"""The boundary between the rollout worker and whatever generates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from pairloop.data.v1.weights_pb2 import Attestation, WeightManifest

if TYPE_CHECKING:
    import numpy as np


class Engine(Protocol):
    """Continuous batching with weights that can be exchanged between two steps."""

    def has_room(self, samples: int) -> bool:
        """Whether a prompt with this many samples can start without waiting."""

    def add(self, prompt: Prompt) -> None:
        """Admit a prompt; its samples come out of a later `step`."""

    def step(self) -> list[Rollout]:
        """Advance every running sequence by a token; returns the rollouts that are complete."""

    @property
    def running(self) -> int:
        """Prompts admitted and not yet returned."""

    @property
    def version(self) -> int:
        """The weight version that the next token is sampled from."""

    def load_weights(
        self, manifest: WeightManifest, tensors: Mapping[str, "np.ndarray"]
    ) -> Attestation:
        """Check the tensors against the manifest, load them, drop the prefix cache, attest.

        `tensors` maps Hugging Face names to arrays (bfloat16 travels as uint16 bits). May only
        be called when `running` is 0. Raises WeightsError when the manifest is a delta over a
        base that is not held; a value that differs is reported in the attestation instead.
        """

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probabilities of token_ids[1:] under the current weights, in nats."""
