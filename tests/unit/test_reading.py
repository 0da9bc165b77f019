from pathlib import Path

import pytest

from orchestrator.config.reading import read_config, to_yaml
from orchestrator.jobs.online_dpo import OnlineDPO
from services.errors import ConfigError
from services.learner.settings import AdamWSettings

CONFIG = """\
job: online_dpo
policy: some/model
prompts: {path: prompts.jsonl}
reward:
  parts:
    - {kind: checker, weight: 2}
train:
  optimizer:
    kind: ondare
    reserve: 0.1
"""


def write(folder: Path, text: str = CONFIG) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_config_becomes_a_typed_job(tmp_path: Path) -> None:
    job = read_config(write(tmp_path), ["train.batch_size=7", "seed=3"])
    assert isinstance(job, OnlineDPO)
    assert (job.train.batch_size, job.seed, job.reward.parts[0].weight) == (7, 3, 2.0)


def test_a_mapping_override_replaces_the_mapping(tmp_path: Path) -> None:
    job = read_config(write(tmp_path), ["train.optimizer={kind: adamw, lr: 0.5}"])
    assert isinstance(job, OnlineDPO)
    assert job.train.optimizer == AdamWSettings(lr=0.5)


def test_a_list_is_reached_by_number(tmp_path: Path) -> None:
    job = read_config(write(tmp_path), ["reward.parts.0.weight=5"])
    assert isinstance(job, OnlineDPO)
    assert job.reward.parts[0].weight == 5.0
    assert "1 entries" in refused(write(tmp_path), "reward.parts.1={kind: checker}")


def test_the_resolved_config_reads_back_as_itself(tmp_path: Path) -> None:
    job = read_config(write(tmp_path))
    assert read_config(write(tmp_path, to_yaml(job))) == job


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("weight: 2", "wieght: 2"), "line 6: unknown key 'reward.parts.0.wieght'; did you mean"),
        (("reserve: 0.1", "reserve: 2"), "line 10: 'train.optimizer.reserve'"),
        (("kind: ondare", "kind: sgd"), "line 9: 'train.optimizer.kind' must be one of 'adamw'"),
        (("kind: ondare\n    ", ""), "line 8: missing key 'train.optimizer.kind'"),
        (("job: online_dpo", "job: onlin"), "line 1: 'job' must be one of"),
        (("policy: some/model\n", ""), "missing key 'policy'"),
        (("policy: some/model", "policy: [a"), "line 3: not valid YAML"),
        (("policy: some/model", "policy: a/b\npolicy: c/d"), "line 3: 'policy' is given twice"),
        (("parts:\n    - {kind: checker, weight: 2}", "parts: []"), "line 5: 'reward.parts'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, edit: tuple[str, str], said: str
) -> None:
    assert edit[0] in CONFIG
    assert said in refused(write(tmp_path, CONFIG.replace(*edit)))


def test_a_wrong_override_is_named_itself(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert "override 'train.batch_size=x'" in refused(path, "train.batch_size=x")
    assert "override 'nonsense': write it as key=value" in refused(path, "nonsense")
    assert "override 'tarin.lr=1': unknown key 'tarin'" in refused(path, "tarin.lr=1")


def test_a_link_needs_no_quotes_in_an_override(tmp_path: Path) -> None:
    job = read_config(write(tmp_path), ["prompts.path=@data/prompts.jsonl"])
    assert isinstance(job, OnlineDPO)
    assert job.prompts.path == "@data/prompts.jsonl"


def test_what_is_wrong_inside_an_override_is_the_overrides(tmp_path: Path) -> None:
    override = "reward.parts=[{kind: magic}]"
    said = refused(write(tmp_path), override)
    assert said.startswith(f"override '{override}': 'reward.parts.0.kind' must be one of")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sampling.n=1", "a pair needs two answers"),
        ("sampling.temperature=0", "every answer to a prompt would be the same"),
        ("sampling.max_tokens=2048", "leaves no room for a prompt in engine.max_model_len 2048"),
        ("queues.credits=8", "no episode would ever be complete"),
    ],
)
def test_settings_under_which_no_pair_could_come(tmp_path: Path, override: str, said: str) -> None:
    assert said in refused(write(tmp_path), override)


def test_a_password_is_in_no_message_and_in_no_resolved_config(tmp_path: Path) -> None:
    path = write(tmp_path)
    for url in ("http://:s3cret@here", "redis.here:s3cret"):
        said = refused(path, f"queues.url={url}")
        assert said.startswith("override 'queues.url=...': 'queues.url': no Redis address")
        assert "s3cret" not in said
    job = read_config(path, ["queues.url=redis://me:s3cret@here:6379/1"])
    assert isinstance(job, OnlineDPO)
    assert job.queues.url == "redis://me:s3cret@here:6379/1"
    assert "url: redis://me:***@here:6379/1" in to_yaml(job)
    assert "s3cret" not in to_yaml(job)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    assert "no such config file" in refused(tmp_path / "none.yaml")
