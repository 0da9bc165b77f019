"""Where the learner leaves a new weight version and the orchestrator finds it."""

import asyncio
from typing import Any, NamedTuple

import ray

from services.errors import StallError
from services.restarting import RESTARTED, RestartingHandle, birth


class Held(NamedTuple):
    """A published version."""

    version: int
    manifest: bytes
    """Serialized WeightManifest."""
    refs: dict[str, Any]
    """Object references of the arrays, by parameter name."""
    metrics: dict[str, float]


class VersionStore:
    """Holds the newest version as object references, never as bytes.

    A reference is `ray.put` of an array. The process that put it owns it, and it is gone when
    that process ends: publish from one that outlives the sync.
    """

    def __init__(self) -> None:
        self._born = birth()
        self._held: Held | None = None
        self._changed = asyncio.Condition()

    async def publish(
        self, version: int, manifest: bytes, refs: dict[str, Any], metrics: dict[str, float]
    ) -> None:
        """Offer a version in place of the one before; `metrics` are of the training that made it.

        The same version again replaces what was there: a learner that restarts repeats itself.
        """
        async with self._changed:
            self._held = Held(version, manifest, refs, metrics)
            self._changed.notify_all()

    async def withdraw(self) -> None:
        """Let the version go: its owner is about to put the next one in its place.

        Whoever needed it has it: an episode trains once every engine has attested the one before.
        """
        self._held = None

    async def wait(self, version: int, timeout_s: float) -> Held:
        """The newest version, once it is this one or later. Raises StallError past `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._number() >= version)
        except TimeoutError:
            held = self._held.version if self._held else "none"
            raise StallError(
                f"weight version {version} was not published within {timeout_s:g} s (held: {held});"
                " see the learner's log, or raise episodes.timeout_s"
            ) from None
        assert self._held is not None  # noqa: S101 - what the wait was for
        return self._held

    async def number(self) -> int:
        """Of the version it holds; -1: none."""
        return self._number()

    async def ping(self) -> str:
        """Its birth; it answers while the process lives and works."""
        return self._born

    def _number(self) -> int:
        return self._held.version if self._held else -1


class VersionStoreHandle(RestartingHandle):
    """The store's actor as the orchestrator sees it: typed, one-line errors.

    A new process holds nothing: the learner offers its version again (StorePublisher.look).
    """

    name = "the weight version store"

    async def wait(self, version: int, timeout_s: float) -> Held:
        """As VersionStore.wait."""
        held: Held = await self._call("wait", version, timeout_s)
        return held

    async def withdraw(self) -> None:
        """As VersionStore.withdraw: the learner that owned the version is gone."""
        await self._call("withdraw")


def start_version_store() -> VersionStoreHandle:
    """The store as a Ray actor."""
    actor = ray.remote(**RESTARTED, max_concurrency=64)(VersionStore).remote()
    return VersionStoreHandle(actor)
