"""What the loop asks of all engines, whichever they are at that moment."""

import asyncio
from collections.abc import Sequence

from orchestrator.online.fleet import Fleet
from orchestrator.online.healing import replaceable
from orchestrator.online.slots import EngineSlot, Newest
from orchestrator.online.supervision import EVERY_S
from pairloop.data.v1.weights_pb2 import WeightManifest
from services.data.rows import Messages
from services.errors import PairloopError
from services.telemetry.record.events import WeightsPublished
from services.weights.broadcaster import broadcast

_LOOK_S = 0.1


async def publish(
    engines: Fleet[EngineSlot],
    newest: Newest,
    manifest: bytes,
    weights: object,
    timeout_s: float,
    *,
    stage: str,
) -> WeightsPublished:
    """Have every engine that samples from now on hold a version; as `broadcast`.

    One that is there loads it now, also while it leaves. One that is being started, or ends
    meanwhile, is not waited for: it takes nothing before it holds `newest`. One at least has it.
    """
    newest.version = WeightManifest.FromString(manifest).version
    while True:
        there = await _there(engines)
        event = await broadcast(there, manifest, weights, timeout_s, stage=stage)
        if event.workers:
            return event


async def render(
    engines: Fleet[EngineSlot], policy: str, dialogues: Sequence[Messages]
) -> list[tuple[str, list[int]]]:
    """Text and token ids of each dialogue by the policy's tokenizer, from any engine."""
    while True:
        slot = (await _there(engines))[0]
        engine = slot.engine
        try:
            return await engine.render(policy, dialogues)
        except PairloopError as error:
            if not replaceable(error):
                raise
            await asyncio.sleep(EVERY_S)  # by then it is known whether it lives
            if engine is slot.engine and slot.up.is_set():
                raise


async def _there(engines: Fleet[EngineSlot]) -> list[EngineSlot]:
    """Those that are connected, once one is. Whoever keeps the fleet bounds the wait."""
    while not (there := [slot for slot in engines.slots if slot.up.is_set()]):
        await asyncio.sleep(_LOOK_S)
    return there
