"""What a hub name is, and that a hub which is silent, empty or full is told apart in seconds."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from services.hub import is_hub_name

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("path", "is_name"),
    [
        ("Qwen/Qwen2-0.5B", True),
        ("owner/name.with-dots_1", True),
        ("gpt2", False),
        ("./owner/name", False),
        ("/owner/name", False),
        ("data/pairs.jsonl", False),
        ("data/pairs.parquet", False),
        ("a/b/c", False),
        ("@sft", False),
        ("@data/x", False),
    ],
)
def test_a_hub_name_is_owner_and_name(path: str, is_name: bool) -> None:
    assert is_hub_name(path) is is_name


def test_what_is_there_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("owner/model")
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert not is_hub_name("owner/model")


class Hub(BaseHTTPRequestHandler):
    """Knows one model; everything else is not there."""

    def do_GET(self) -> None:
        known = self.path.startswith("/api/models/owner/known")
        body = json.dumps({"id": "owner/known", "modelId": "owner/known", "siblings": []}).encode()
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def asked(name: str, home: Path, **environment: str) -> str:
    """What `require_on_hub` raises in a process of its own, where the endpoint is read anew."""
    program = (
        "import sys\n"
        "from services.errors import PairloopError\n"
        "from services.hub import require_on_hub\n"
        "try: require_on_hub(sys.argv[1], 'model', 'policy')\n"
        "except PairloopError as error: print(error)"
    )
    cleared = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        cwd=ROOT,
        env=cleared | {"HF_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_name_the_hub_has_passes_and_another_does_not(tmp_path: Path, endpoint: str) -> None:
    assert asked("owner/known", tmp_path, HF_ENDPOINT=endpoint) == ""
    said = asked("owner/nosuch", tmp_path, HF_ENDPOINT=endpoint)
    assert said.startswith(
        "'policy': there is no folder owner/nosuch, and no such model on the hub"
    )
    assert len(said) <= 300


def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    said = asked("owner/known", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "the hub at http://127.0.0.1:9 does not answer" in said
    assert said.endswith("; give a folder, or reach the hub")
    assert "\n" not in said
    assert len(said) <= 300


def test_what_was_fetched_before_needs_no_hub(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--owner--known" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert asked("owner/known", tmp_path, HF_ENDPOINT="http://127.0.0.1:9") == ""
    said = asked("owner/other", tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith(
        "'policy': owner/other is not in the hub's cache here and HF_HUB_OFFLINE"
    )
