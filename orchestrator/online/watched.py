"""Who looks after the parts of an online run while the loop goes on."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.online.fleet import Fleet
from orchestrator.online.healing import Budget, reborn
from orchestrator.online.parts import kill_all
from orchestrator.online.services import Services
from orchestrator.online.slots import EngineSlot, PairSlot

if TYPE_CHECKING:
    from services.reward.launch import RunningReward


def watched(services: Services, load_s: float, budget: Budget) -> dict[str, Awaitable[Any]]:
    """What must not end before the loop does: the work of each part, and its heartbeat.

    Each is replaced within the budget; the reward's replicas are Serve's to look after.
    `load_s`: the longest that an engine may take to load weights (sync.timeout_s). The learner has
    no heartbeat: Ray Train looks after its workers, and the loop waits for weights no longer than
    episodes.timeout_s. Redis is asked all the time.
    """
    parts: dict[str, Awaitable[Any]] = {"learner": _failure(services.learner)}
    queues = services.queues
    sample = partial(EngineSlot.keep, queues=queues, budget=budget, load_s=load_s)
    pair = partial(PairSlot.keep, queues=queues, budget=budget)
    parts["rollout workers"] = services.engines.keep(queues, sample)
    parts["pairing workers"] = services.pairing.keep(queues, pair)
    for part in (services.version_store, _Gateway(services.reward, services.pairing)):
        parts[part.name] = reborn(part, budget)
    return parts


class _Gateway:
    """The way to the reward, and those who hold its address."""

    def __init__(self, reward: "RunningReward", pairing: Fleet[PairSlot]) -> None:
        self.name = reward.name
        self._reward, self._pairing = reward, pairing
        self.ping = reward.ping

    async def revive(self) -> None:
        """As RunningReward.revive. Elsewhere, on another machine, new workers find it."""
        before = self._reward.address
        await self._reward.revive()
        if self._reward.address != before:
            kill_all(self._pairing)


async def _failure(learner: "asyncio.Future[dict[str, float]]") -> None:
    """Ends only when the learner fails: it returns a moment before the loop does."""
    await asyncio.shield(learner)
    await asyncio.Event().wait()
