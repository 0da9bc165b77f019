"""The way of events from any process of the run to the orchestrator: one small Ray actor."""

import asyncio
from typing import Any

import ray

from services.telemetry.record.events import EVENT, Event


class EventSink:
    """Collects events until the orchestrator takes them; order of arrival is kept."""

    def __init__(self) -> None:
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

    async def ping(self) -> None:
        """Answers while the process lives and works."""


def start_sink() -> Any:
    """The sink as a Ray actor."""
    return ray.remote(num_cpus=0, max_concurrency=64)(EventSink).remote()


class Reporter:
    """What a worker holds: `report(event)` and forget. Never blocks the work."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def __call__(self, event: Event) -> None:
        """Send one event."""
        self._sink.push.remote(event.model_dump())


def parse(event: dict[str, Any]) -> Event:
    """The typed event that `push` was given."""
    return EVENT.validate_python(event)
