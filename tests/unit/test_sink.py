"""The sink hands on every event once, in the order of arrival."""

import asyncio

from services.telemetry.record.events import EVENT, Note
from services.telemetry.record.sink import EventSink, Reporter


class Handle:
    """The sink as an actor's handle: `push.remote` returns at once."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self.push = self

    def remote(self, event: dict[str, object]) -> "asyncio.Task[None]":
        return asyncio.ensure_future(self._sink.push(event))


async def test_events_arrive_typed_in_order_and_are_taken_once() -> None:
    sink = EventSink()
    report = Reporter(Handle(sink))
    waiting = asyncio.ensure_future(sink.take(timeout_s=30.0))
    await asyncio.sleep(0)
    report(Note(stage="sft", text="one"))
    assert [EVENT.validate_python(event) for event in await waiting] == [
        Note(stage="sft", text="one")
    ]
    report(Note(text="two"))
    report(Note(text="three", level="warning"))
    await asyncio.sleep(0)
    assert [EVENT.validate_python(event) for event in await sink.take(timeout_s=30.0)] == [
        Note(text="two"),
        Note(text="three", level="warning"),
    ]
    assert await sink.take(timeout_s=0.0) == []
