"""The doctor on this machine: real sockets, real Redis servers, real configs."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.doctor.command import main
from tests.integration.redis_servers import Servers
from tests.unit.test_imports import HEAVY, loaded

ROOT = Path(__file__).resolve().parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")
PASSWORD = "open-sesame"  # noqa: S105  of a server of this test


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    several = Servers(tmp_path / "servers")
    several.folder.mkdir()
    yield several
    several.end()


def examined(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, str]]:
    """The findings by check, the worst of each; the status is held to them."""
    status = main([*arguments, "--json"])
    text = capsys.readouterr().out
    assert PASSWORD not in text
    found = json.loads(text)
    assert status == (3 if any(each["level"] == "problem" for each in found) else 0)
    assert all(each["advice"] for each in found if each["level"] != "ok")
    order = ["ok", "warning", "problem"]
    return {each["check"]: each for each in sorted(found, key=lambda e: order.index(e["level"]))}


def test_this_machine_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = examined(capsys)
    assert set(found) == {
        "python", "packages", "vllm", "lock", "machine", "gpus", "shared memory", "disk",
        "open files", "ports", "redis", "ray",
    }  # fmt: skip
    assert {found[name]["level"] for name in ("python", "packages", "vllm", "redis")} == {"ok"}
    assert "(embedded) starts; append-only file" in found["redis"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_a_config_is_held_to_its_plan(capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(capsys, DEMO)
    assert found["inputs"]["level"] == "ok"
    assert found["memory plan"]["found"].endswith("at the fullest moment, in online_dpo")

    large = ("stages.pretrain.model.hidden_size=65536", "stages.pretrain.train.num_gpus=512")
    found = examined(capsys, DEMO, *large)
    assert found["memory plan"]["level"] == "problem"
    assert found["gpus"]["found"].endswith("; pretrain reserves 512 at once")
    assert found["disk"]["level"] == "problem"


def test_what_a_config_reads_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(capsys, DEMO, "stages.sft.demonstrations.path=gone.jsonl")
    assert found["inputs"]["level"] == "problem"
    assert "gone.jsonl" in found["inputs"]["found"]


def test_a_config_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([DEMO, "sed=1"]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == (
        "", "pairloop: override 'sed=1': unknown key 'sed'; did you mean 'seed'?\n",
    )  # fmt: skip


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = examined(capsys, DEMO, f"admin.port={port}")["ports"]
    assert found["level"] == "problem"
    assert f"port {port} on 127.0.0.1 cannot be taken" in found["found"]
    assert found["advice"].endswith("set admin.port to another, or to 0 for a free one")


def test_redis_is_asked_what_it_is(
    capsys: pytest.CaptureFixture[str], servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = servers.start(f"requirepass {PASSWORD}", "appendonly yes")
    monkeypatch.setenv("REDIS_URL", f"redis://:{PASSWORD}@{good.address}")
    found = examined(capsys)
    assert f"at redis://{good.address}; append-only file" in found["redis"]["found"]
    assert found["clock"]["level"] == "ok"

    forgetful = servers.start('save ""')
    online = f"stages.online_dpo.queues.url=redis://{forgetful.address}"
    found = examined(capsys, DEMO, online)
    assert (found["redis"]["level"], found["redis"]["advice"]) == ("warning", "set appendonly yes")

    monkeypatch.setenv("REDIS_URL", f"redis://:{PASSWORD}-wrong@{good.address}")
    assert examined(capsys)["redis"]["level"] == "problem"

    servers.started[0].asked(PASSWORD).config_set("maxmemory", "100mb")
    servers.started[0].asked(PASSWORD).config_set("maxmemory-policy", "allkeys-lru")
    monkeypatch.setenv("REDIS_URL", f"redis://:{PASSWORD}@{good.address}")
    evicting = examined(capsys)["redis"]
    assert evicting["level"] == "problem"
    assert evicting["advice"] == "set maxmemory-policy noeviction there"


def test_a_redis_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        url = f"stages.online_dpo.queues.url=redis://:{PASSWORD}@{address}"
        found = examined(capsys, DEMO, url)["redis"]
    assert (found["level"], address in found["found"]) == ("problem", True)


def test_a_ray_that_does_not_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{bound.getsockname()[1]}")
        found = examined(capsys)
    assert found["ray"]["level"] == "problem"
    assert "shared memory" not in found


def test_nothing_heavy_is_imported() -> None:
    code = f"from orchestrator.doctor.command import main\nmain([{DEMO!r}])"
    assert loaded(code, HEAVY) == []
