"""A weight version as it goes out: the policy in the engines' dtype, its changes, its canary."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from services.full_disk import when_there_is_room
from services.learner.jobs.settings import OnlinePlace
from services.learner.model.frozen import FrozenPolicy
from services.learner.model.packing import PrefixGroup
from services.learner.model.policy import Policy
from services.learner.online.ports import Publisher, WeightVersion
from services.learner.online.published import record_published
from services.weights.manifest import Array, Tensors
from services.weights.snapshot import to_array, to_tensor


class Outgoing:
    """Sends one version after the other, and counts what changed from one to the next.

    `changed`: by parameter name, of the version sent last; a restored one's is set from outside.
    """

    def __init__(
        self,
        publish: Publisher,
        place: OnlinePlace,
        changed: dict[str, int],
        tell: Callable[[str], None],
    ) -> None:
        """`tell` hears of a disk that is full."""
        self._publish, self._place, self._tell = publish, place, tell
        self.changed = changed
        self._first = True

    def send(self, policy: Policy, version: int, metrics: dict[str, float]) -> float | None:
        """Share the policy's weights, describe them and hand them out.

        Returns the fraction of the values that changed, None where nothing was sent before; it is
        in the version's metrics as "changed_fraction".
        """
        place = self._place
        shared = self._publish.share(engine_tensors(policy, place.engine_dtype))
        fraction = None
        if shared.changed and not self._first:
            self.changed = dict(shared.changed)
            values = sum(array.size for array in shared.tensors.values())
            fraction = sum(self.changed.values()) / values
            metrics = metrics | {"changed_fraction": fraction}
        self._first = False
        digest = self._publish(
            WeightVersion(
                run=place.run,
                version=version,
                base_version=max(0, version - 1),
                dtype=place.engine_dtype,
                tensors=shared.tensors,
                changed=self.changed,
                canary_tokens=place.canary_tokens,
                canary_logprobs=canary_logprobs(
                    shared.tensors, policy.config, place.canary_tokens, policy.device
                ),
                canary_tolerance=place.canary_tolerance,
                metrics=metrics,
            )
        )
        if digest:
            record = partial(record_published, Path(place.folder), version, digest)
            when_there_is_room(record, "the learner's", self._tell)
        return fraction

    def look(self) -> None:
        """As Publisher.look."""
        self._publish.look()


def engine_tensors(policy: Policy, dtype: str) -> Iterator[tuple[str, Array]]:
    """The parameters in `dtype`, one at a time; bfloat16 as its bits in uint16.

    What the policy holds in this dtype already is not copied: to be read before the next step.
    """
    for name, value in policy.in_dtype(getattr(torch, dtype)):
        yield name, to_array(value)


def canary_logprobs(
    tensors: Tensors, config: Any, token_ids: Sequence[int], device: torch.device
) -> list[float]:
    """Log-probabilities in nats of token_ids[1:], by a float32 forward of the tensors."""
    frozen = FrozenPolicy(
        {name: to_tensor(array) for name, array in tensors.items()}, config, "float32", device
    )
    found: list[float] = frozen.logprobs([PrefixGroup((), (token_ids,))]).values.tolist()
    return found
