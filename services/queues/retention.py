"""How long Redis keeps a run: from the last word of an orchestrator on, or from its end."""

import asyncio
from typing import NoReturn

from services.queues.client import Client
from services.queues.keys import Keys

_KEYS = 1000
"""In one script: the server does nothing else meanwhile."""
_EVERY_S = 3600.0
"""Between two renewals; sooner where keys live short."""


async def expire(client: Client, keys: Keys, seconds: int | None) -> None:
    """Every key of the run lives so long from now on; None: for ever.

    By their names, as a walk over a server that others use as well would take long. What scripts
    make meanwhile lives as long as these (lua/expiry.lua).
    """
    names = keys.every(int(await client.get(keys.episodes) or 0))
    for start in range(0, len(names), _KEYS):
        term = "" if seconds is None else seconds
        await client.script("expire", names[start : start + _KEYS], [term])


async def keep(client: Client, keys: Keys, seconds: int) -> NoReturn:
    """Renew it for ever, so that the run is forgotten so long after this ends; 0: never."""
    while True:
        await expire(client, keys, seconds or None)
        await asyncio.sleep(min(_EVERY_S, seconds / 10 if seconds else _EVERY_S))
