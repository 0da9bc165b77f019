"""The way of events from any process of the run to the orchestrator: one small Ray actor."""

import asyncio
from typing import Any

import ray

from services.restarting import RESTARTED, RestartingHandle, birth
from services.telemetry.record.events import EVENT, Event


class EventSink:
    """Collects events until the orchestrator takes them; order of arrival is kept.

    Those of a moment go with its process: the run's own record is written by the orchestrator.
    """

    def __init__(self) -> None:
        self._born = birth()
        self._events: list[dict[str, Any]] = []
        self._arrived = asyncio.Event()

    async def push(self, event: dict[str, Any]) -> None:
        """Add one event, as its JSON-able dict."""
        self._events.append(event)
        self._arrived.set()

    async def take(self, timeout_s: float) -> list[dict[str, Any]]:
        """Everything that arrived since the last call; waits up to `timeout_s` for the first."""
        if not self._events:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        events, self._events = self._events, []
        return events

    async def ping(self) -> str:
        """Its birth; it answers while the process lives and works."""
        return self._born


class SinkHandle(RestartingHandle):
    """The sink's actor as the orchestrator sees it."""

    name = "the event sink"

    async def take(self, timeout_s: float) -> list[Event]:
        """As EventSink.take, typed."""
        return [EVENT.validate_python(event) for event in await self._call("take", timeout_s)]


def start_sink() -> SinkHandle:
    """The sink as a Ray actor."""
    return SinkHandle(ray.remote(**RESTARTED, max_concurrency=64)(EventSink).remote())


class Reporter:
    """What a worker holds: `report(event)` and forget. Never blocks the work."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def __call__(self, event: Event) -> None:
        """Send one event."""
        self._sink.push.remote(event.model_dump())
