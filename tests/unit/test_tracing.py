"""Ids of spans that every process computes alike, and where spans go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.telemetry.tracing.ids import STEPS, before, in_sample, span_id, trace_id
from services.telemetry.tracing.settings import TracingSettings
from services.telemetry.tracing.spans import VARIABLE, process_spans, tracing_environment

PROMPT = "demo.online.12ab/e00001/p00007"


def test_ids_are_of_the_run_the_prompt_and_the_step_alone() -> None:
    # Written down: processes of another version of the code must find the same.
    assert f"{trace_id('demo-1', PROMPT):032x}" == "412a95f2ee16a5fe371d61cb8c53c590"
    assert f"{span_id('demo-1', PROMPT, 'sample'):016x}" == "71f9003cb995f56d"
    ids = {span_id(run, PROMPT, step) for run in ("a", "b") for step in STEPS}
    assert len(ids) == 12
    assert trace_id("a", PROMPT) != trace_id("b", PROMPT)


def test_each_step_is_the_parent_of_the_next() -> None:
    chain = ["publish"]
    while (step := before(chain[-1])) is not None:  # type: ignore[arg-type]
        chain.append(step)
    assert chain == ["publish", "train", "pair", "score", "sample", "dispatch"]


def test_a_share_of_the_prompts_is_traced_as_opentelemetry_s_sampler_has_it() -> None:
    from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

    traces = [trace_id("run", f"p{n}") for n in range(2000)]
    sampler = TraceIdRatioBased(0.25)
    kept = [in_sample(trace, 0.25) for trace in traces]
    assert kept == [
        sampler.should_sample(None, trace, "x").decision is Decision.RECORD_AND_SAMPLE
        for trace in traces
    ]
    assert 400 < sum(kept) < 600
    assert all(in_sample(trace, 1.0) for trace in traces)


def test_off_is_no_variable_and_no_import(tmp_path: Path) -> None:
    assert tracing_environment(TracingSettings(), "run", tmp_path) == {}
    code = (
        "import sys, services.rollout.worker, services.pairs.actor\n"
        "from services.telemetry.tracing.spans import process_spans\n"
        "assert process_spans('x') is None\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_processes_append_to_one_file_in_the_run_s_folder(tmp_path: Path) -> None:
    settings = TracingSettings(endpoint="file:spans.jsonl")
    variables = tracing_environment(settings, "demo-1", tmp_path)
    code = (
        "import sys\nfrom services.telemetry.tracing.spans import now, process_spans\n"
        "spans = process_spans(sys.argv[1])\n"
        "for n in range(300): spans.record(sys.argv[2], f'p{n}', now(), about={'version': 3})\n"
        "spans.flush()"
    )
    steps = {"loop": "dispatch", "rollout-0": "sample"}
    running = [
        subprocess.Popen([sys.executable, "-c", code, *each], env={**os.environ, **variables})
        for each in steps.items()
    ]
    assert [each.wait(60) for each in running] == [0, 0]
    rows = [json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines()]
    assert len(rows) == 600
    by_name = {(row["name"], row["attributes"]["pairloop.prompt"]): row for row in rows}
    for n in range(300):
        first, then = by_name["dispatch", f"p{n}"], by_name["sample", f"p{n}"]
        assert first["trace"] == then["trace"] == f"{trace_id('demo-1', f'p{n}'):032x}"
        assert (first["parent"], then["parent"]) == (None, first["span"])
        assert (then["process"], then["attributes"]["pairloop.version"]) == ("rollout-0", 3)


def test_a_collector_gets_them_over_http(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    got: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        variables = tracing_environment(TracingSettings(endpoint=endpoint), "run", tmp_path)
        monkeypatch.setenv(VARIABLE, variables[VARIABLE])
        spans = process_spans("learner")
        assert spans is not None
        spans.record("train", PROMPT, 1, end=2)
        spans.flush()
        server.shutdown()
    ((path, body),) = got
    (span,) = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    assert (path, span.name) == ("/v1/traces", "train")
    assert int.from_bytes(span.parent_span_id) == span_id("run", PROMPT, "pair")
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1, 2)
