"""Where the learner leaves a new weight version and the orchestrator finds it."""

import asyncio
from collections import OrderedDict
from typing import Any, NamedTuple

import ray

from services.errors import StallError
from services.ray_errors import answered

KEPT = 2


class Held(NamedTuple):
    """A published version."""

    version: int
    manifest: bytes
    """Serialized WeightManifest."""
    refs: list[Any]
    metrics: dict[str, float]


class VersionStore:
    """Holds the last `KEPT` versions as object references, never as bytes.

    A reference is `ray.put` of a dict from parameter names to arrays. The process that put it
    owns it, and it is gone when that process ends: publish from one that outlives the sync.
    """

    def __init__(self) -> None:
        self._versions: OrderedDict[int, Held] = OrderedDict()
        self._changed = asyncio.Condition()

    async def publish(
        self, version: int, manifest: bytes, refs: list[Any], metrics: dict[str, float]
    ) -> None:
        """Offer a version; `refs` is a list of one, so that Ray hands over the reference itself.

        `metrics` are of the training that made it.
        The same version again replaces what was there: a learner that restarts repeats itself.
        """
        async with self._changed:
            self._versions.pop(version, None)
            self._versions[version] = Held(version, manifest, refs, metrics)
            while len(self._versions) > KEPT:
                self._versions.popitem(last=False)
            self._changed.notify_all()

    async def wait(self, version: int, timeout_s: float) -> Held:
        """The newest version, once it is this one or later. Raises StallError past `timeout_s`."""

        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: max(self._versions, default=-1) >= version)
        except TimeoutError:
            held = ", ".join(map(str, self._versions)) or "none"
            raise StallError(
                f"weight version {version} was not published within {timeout_s:g} s (held: {held});"
                " see the learner's log, or raise episodes.timeout_s"
            ) from None
        return self._versions[max(self._versions)]

    async def ping(self) -> None:
        """Answers while the process lives and works."""


class VersionStoreHandle:
    """The store's actor as the orchestrator sees it: typed, one-line errors."""

    name = "the weight version store"

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    async def wait(self, version: int, timeout_s: float) -> Held:
        """As VersionStore.wait."""
        held: Held = await answered(self.actor.wait.remote(version, timeout_s), self.name)
        return held

    async def ping(self) -> None:
        """As VersionStore.ping."""
        await answered(self.actor.ping.remote(), self.name)

    def kill(self) -> None:
        """End the process now."""
        ray.kill(self.actor)


def start_version_store() -> VersionStoreHandle:
    """The store as a Ray actor."""
    actor = ray.remote(num_cpus=0, max_concurrency=64)(VersionStore).remote()
    return VersionStoreHandle(actor)
