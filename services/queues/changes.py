"""Waiting for a change of a run: what is announced wakes, a time limit makes sure.

The scripts that change what somebody may wait for (an episode's state, that nothing of it is in
flight or that more may be dispatched, a checkpoint's commit) add a line to a stream that keeps the
last one. A stream and not a message of PUBLISH: who comes a moment too late finds it there, and
it goes where the run's other keys are. An announcement says only that a look is worth it. One that
a server lost costs the time limit, so it decides nothing.
"""

from contextvars import ContextVar

from services.queues.client import Client
from services.queues.keys import Keys

_NONE = "0-0"
_seen: ContextVar[dict[str, str]] = ContextVar("seen")
"""The last announcement that a task has seen, by key: two tasks that wait take none from each
other, and what comes between a task's look and its next wait ends that wait at once."""


async def changed(client: Client, keys: Keys, seconds: float) -> None:
    """Return once there is an announcement that this task has not seen, or after `seconds`.

    Raises UnreachableError.
    """
    seen = _seen.get({})
    last = await client.newest(keys.changes, seen.get(keys.changes, _NONE), seconds)
    if last:
        _seen.set(seen | {keys.changes: last})
