"""A process's spans: made where a step of a prompt ends, exported in the background.

The environment says whether and where to, as it reaches each process before its first line: a Ray
worker inherits it, on a cluster it is part of the job's runtime environment. Without it nothing is
imported, and a step costs one `if`.
"""

import atexit
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from services.telemetry.tracing.ids import Step, before, in_sample, span_id, trace_id
from services.telemetry.tracing.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

VARIABLE = "PAIRLOOP_TRACING"

_ROOM = 8192
"""Spans that wait for the exporter; the oldest are dropped beyond."""
_EVERY_MS = 1000.0
_FLUSH_S = 3.0

now: Callable[[], int] = time.time_ns
"""The clock of spans: nanoseconds since the epoch, as several machines make one trace."""


About = Mapping[str, str | int | float]
"""Attributes of a span, without the prefix that all have."""
_NOTHING: About = {}


class Sink(Protocol):
    """OpenTelemetry's span processor, as far as it is used."""

    def on_end(self, span: "ReadableSpan") -> None:
        """Take a span that is over. Returns at once."""

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Export what waits."""


class Spans:
    """`record` a step when it is over; what is not in the sample is left out."""

    def __init__(self, sink: Sink, run: str, ratio: float, process: str) -> None:
        from opentelemetry.sdk.resources import Resource

        self._sink, self._run, self._ratio = sink, run, ratio
        self._resource = Resource(
            {"service.name": "pairloop", "service.instance.id": process, "pairloop.run": run}
        )

    def record(
        self,
        step: Step,
        prompt: str,
        start: int,
        *,
        end: int | None = None,
        after: Step | None = None,
        about: About = _NOTHING,
    ) -> None:
        """A step of a prompt, by its id. `end`: now unless told. `after`: the step before this
        one, where it is another than usual."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, TraceFlags

        trace = trace_id(self._run, prompt)
        if not in_sample(trace, self._ratio):
            return
        sampled = TraceFlags(TraceFlags.SAMPLED)

        def context(of: Step, remote: bool) -> SpanContext:
            return SpanContext(trace, span_id(self._run, prompt, of), remote, sampled)

        parent = after or before(step)
        self._sink.on_end(
            ReadableSpan(
                step,
                context=context(step, False),
                parent=context(parent, True) if parent else None,
                resource=self._resource,
                attributes={"pairloop.prompt": prompt}
                | {f"pairloop.{name}": value for name, value in about.items()},
                start_time=start,
                end_time=now() if end is None else end,
            )
        )

    def record_all(
        self, step: Step, prompts: Iterable[str], start: int, about: About = _NOTHING
    ) -> None:
        """One step that many prompts went through together."""
        end = now()
        for prompt in prompts:
            self.record(step, prompt, start, end=end, about=about)

    def flush(self) -> None:
        """Export what waits, as far as that is done in a few seconds; before a process ends."""
        thread = threading.Thread(target=self._sink.force_flush, daemon=True)
        thread.start()
        thread.join(_FLUSH_S)


def tracing_environment(settings: TracingSettings, run: str, folder: Path) -> dict[str, str]:
    """The variables that switch tracing on in the processes of a run; none where it is off."""
    if settings.endpoint is None:
        return {}
    endpoint = settings.endpoint
    if endpoint.startswith("file:"):
        endpoint = f"file:{folder.resolve() / endpoint.removeprefix('file:')}"
    value = {"endpoint": endpoint, "ratio": settings.sample_ratio, "run": run}
    return {VARIABLE: json.dumps(value)}


def process_spans(process: str) -> Spans | None:
    """Of this process, named so; None where tracing is off."""
    configured = os.environ.get(VARIABLE)
    return _opened(configured, process) if configured else None


@cache
def _opened(configured: str, process: str) -> Spans:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    value = json.loads(configured)
    sink = BatchSpanProcessor(
        _exporter(value["endpoint"]), max_queue_size=_ROOM, schedule_delay_millis=_EVERY_MS
    )
    spans = Spans(sink, value["run"], value["ratio"], process)
    atexit.register(spans.flush)
    return spans


def _exporter(endpoint: str) -> Any:
    if endpoint.startswith("file:"):
        from services.telemetry.tracing.span_file import SpanFile

        return SpanFile(Path(endpoint.removeprefix("file:")))
    from urllib.parse import urlsplit

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    bare = urlsplit(endpoint).path in ("", "/")
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces" if bare else endpoint)
