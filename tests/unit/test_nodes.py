"""What is refused on several machines; the checks that need a cluster are not here."""

from pathlib import Path

import pytest

from orchestrator.artifacts.store import shown
from orchestrator.checks.nodes import _sees, refuse_loopback
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.jobs.sft import SFT
from services.errors import ConfigError


def online(**changes: object) -> OnlineDPO:
    given = {
        "policy": "some/policy",
        "base": "some/base",
        "prompts": {"path": "prompts.jsonl"},
        "reward": {"parts": [{"kind": "missing_eos"}], "host": "0.0.0.0"},  # noqa: S104
        "queues": {"url": "redis://redis.example:6379"},
    }
    return OnlineDPO.model_validate(given | changes)


def test_a_job_that_every_node_reaches_passes() -> None:
    refuse_loopback([online()], 3)


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:6379", "redis://localhost/0"])
def test_redis_on_one_machine_of_several_is_refused(
    url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    job = online(queues={"url": url})
    with pytest.raises(ConfigError, match=r"2 machines.*REDIS_URL"):
        refuse_loopback([job], 2)
    refuse_loopback([job], 1)


def test_redis_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://redis.example:6379")
    refuse_loopback([online(queues={})], 2)


def test_a_gateway_on_loopback_is_refused() -> None:
    job = online(reward={"parts": [{"kind": "missing_eos"}]})
    with pytest.raises(ConfigError, match=r"'reward.host'.*127.0.0.1"):
        refuse_loopback([job], 2)


def test_other_jobs_listen_nowhere() -> None:
    sft = SFT.model_validate({"policy": "some/policy", "demonstrations": {"path": "d.jsonl"}})
    refuse_loopback([sft], 8)


def test_a_folder_of_the_same_name_is_not_the_same_folder(tmp_path: Path) -> None:
    mark = tmp_path / ".seen"
    mark.write_text("one run's")
    assert _sees(str(mark), "one run's")
    assert not _sees(str(mark), "another's")


def test_paths_are_shown_as_a_user_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "runs").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown(Path("runs")) == "runs"
    assert shown(tmp_path / "here" / "runs") == "runs"
    assert shown(Path("../there")) == str(tmp_path / "there")
