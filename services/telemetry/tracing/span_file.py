"""Spans as JSON lines in a file that all processes of a run append to: no collector is needed."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


class SpanFile(SpanExporter):
    """Appends each batch with one write, which the system does not mix with another's."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """A line a span."""
        lines = "".join(json.dumps(_row(span)) + "\n" for span in spans).encode()
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(file, lines)
        finally:
            os.close(file)
        whole = written == len(lines)
        return SpanExportResult.SUCCESS if whole else SpanExportResult.FAILURE


def _row(span: ReadableSpan) -> dict[str, Any]:
    context, attributes = span.get_span_context(), dict(span.attributes or {})
    return {
        "trace": f"{context.trace_id:032x}" if context else "",
        "span": f"{context.span_id:016x}" if context else "",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "name": span.name,
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "process": span.resource.attributes.get("service.instance.id", ""),
        "attributes": attributes,
    }
