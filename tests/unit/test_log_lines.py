"""A process that speaks JSON: one object for every line that it would print as text."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from services.telemetry.log.lines import json_line, log_format
from services.telemetry.record.events import Event, Note
from services.telemetry.record.recorder import Recorder, read_line
from services.telemetry.views.json_lines import JsonView
from services.telemetry.views.live import view_for
from services.telemetry.views.plain import PlainView
from tests.sample_events import run_events

RECORDED = Path("tests/recorded/online_run.jsonl")


def both(folder: Path, events: Iterable[Event]) -> tuple[list[str], list[dict[str, Any]]]:
    """What the plain view prints, and what the JSON view does."""
    text, lines, now = io.StringIO(), io.StringIO(), [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    views = [PlainView(text, every_s=0.0), JsonView(lines, "demo", every_s=0.0)]
    with Recorder(folder, views, clock) as record:
        for event in events:
            record(event)
    return text.getvalue().splitlines(), [
        json.loads(line) for line in lines.getvalue().splitlines()
    ]


@pytest.mark.parametrize("recorded", [True, False])
def test_every_line_of_a_run_is_an_object_with_its_words(tmp_path: Path, recorded: bool) -> None:
    lines = RECORDED.read_text().splitlines()
    events = [read_line(line)[1] for line in lines] if recorded else list(run_events())
    text, rows = both(tmp_path, events)
    marks = {"info": "", "warning": "warning: "}
    assert [marks[row["level"]] + told(row) for row in rows] == text
    assert len(rows) > 20
    assert {row["run"] for row in rows} == {"demo"}
    for row in rows:
        assert {"time", "level", "run", "event", "text"} <= row.keys()
    finished = [row for row in rows if row["event"] == "episode_finished"]
    assert [row["episode"] for row in finished] == list(range(1, len(finished) + 1))
    for row in finished:
        assert row["stage"] == "online_dpo"
        assert {"reward_mean", "pairs", "version", "loss"} <= row["numbers"].keys()


def told(row: dict[str, Any]) -> str:
    text: str = row["text"]
    return text


def test_a_line_names_its_worker_and_hides_passwords(tmp_path: Path) -> None:
    note = Note(stage="online", text="rollout-1 lost redis://me:secret@host", level="warning")
    _, (row,) = both(tmp_path, [note])
    assert row == {
        "time": "1970-01-01T00:00:01.000Z", "level": "warning", "run": "demo", "stage": "online",
        "worker": "rollout-1", "event": "note",
        "text": "online: rollout-1 lost redis://me:***@host",
    }  # fmt: skip


def test_a_line_is_one_line_and_its_numbers_are_finite() -> None:
    line = json_line("a\nb\x1b[31m", event="x", at=0.5, numbers={"a": float("nan"), "b": 2.0})
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.500Z", "level": "info", "event": "x", "text": "a b",
        "numbers": {"b": 2.0},
    }  # fmt: skip


def test_the_config_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRLOOP_LOG_FORMAT", "json")
    assert (log_format(None), log_format("text")) == ("json", "text")
    monkeypatch.delenv("PAIRLOOP_LOG_FORMAT")
    assert log_format(None) == "text"
    assert isinstance(view_for(io.StringIO(), shown="json"), JsonView)


@pytest.mark.parametrize("by", ["override", "file", "environment"])
def test_a_failing_config_ends_in_one_json_line(tmp_path: Path, by: str) -> None:
    config = tmp_path / "config.yaml"
    log = "log: {format: json}\n" if by == "file" else ""
    config.write_text(f"job: sft\n{log}polcy: x\n")
    words = ["log.format=json"] if by == "override" else []
    environment = {"PAIRLOOP_LOG_FORMAT": "json"} if by == "environment" else {}
    done = subprocess.run(
        [sys.executable, "orchestrator/run.py", str(config), *words],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    row = json.loads(line)
    assert (row["level"], row["event"], row["numbers"]) == (
        "error",
        "ConfigError",
        {"exit_code": 2},
    )
    assert "missing key 'policy'" in row["text"]
