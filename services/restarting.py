"""Actors that Ray starts again where they die, under the handle that others hold.

For what only passes on or holds for a moment: a new process has nothing of what the old one knew,
and whoever needs it to know something tells it again. Each such actor answers `ping` with a
`birth()` of its own, by which a new process is told from the old one.
"""

import asyncio
import uuid
from typing import Any, Final

import ray

from services.ray_errors import answered

RESTARTED: Final = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
"""Options of such an actor. A call that was on its way is made once more: each must stand that."""
_HANGS_S = 5.0


def birth() -> str:
    """A name that no other process has."""
    return uuid.uuid4().hex


class RestartingHandle:
    """Such an actor as the orchestrator sees it."""

    name: str

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    async def ping(self) -> str:
        """Which process answers, "" where it does not work yet; while there is none, it waits."""
        born: str = await self._call("ping")
        return born

    async def revive(self) -> None:
        """Until it answers, from a new process where the present one hangs. No deadline."""
        try:
            async with asyncio.timeout(_HANGS_S):
                await self.ping()
        except TimeoutError:
            ray.kill(self.actor, no_restart=False)
            await self.ping()

    def kill(self) -> None:
        """End the process now, for good."""
        ray.kill(self.actor)

    async def _call(self, method: str, *arguments: Any) -> Any:
        return await answered(getattr(self.actor, method).remote(*arguments), self.name)
