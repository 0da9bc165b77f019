"""The replay as a job: what it takes over from the recorded run, and what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts.lineage import Lineage
from orchestrator.artifacts.store import Artifact, finish
from orchestrator.checks.preflight import check
from orchestrator.config.reading import read_config, to_yaml
from orchestrator.jobs.replay_dpo import ReplayDPO
from orchestrator.stages.outlook import outlook
from services.errors import ArtifactError, ConfigError, LineageError
from services.learner.model.export import export_model
from services.learner.model.load import new_model
from services.learner.online.rollouts import write_rollouts
from services.learner.settings import AdamWSettings
from tests.unit import learner_parts as parts

RECORDED: dict[str, Any] = {
    "seed": 5,
    "episodes": {"count": 2, "prompts": 12},
    "dpo": {"beta": 0.3, "label_smoothing": 0.1},
    "train": {"optimizer": {"kind": "ondare", "lr": 3e-5, "reserve": 0.2}, "batch_size": 8},
    "sampling": {"n": 4},
}


def artifact(folder: Path, kind: str, seed: int, **parents: str) -> str:
    """A finished policy of a run."""
    parts.policy(partial := folder.with_name(f"{folder.name}.partial"), seed=seed)
    finish(partial, folder, Artifact(kind=kind, fingerprint=f"f{seed}", parents=parents))
    return str(folder)


def online_run(tmp_path: Path, episodes: int = 2) -> Path:
    """base -> sft -> offline_dpo -> online_dpo, the last one recorded."""
    run = tmp_path / "first"
    run.mkdir(exist_ok=True)
    base = artifact(run / "pretrain", "pretrain", 1)
    sft = artifact(run / "sft", "sft", 2, policy=base)
    offline = artifact(run / "offline_dpo", "offline_dpo", 3, policy=sft, reference=sft, base=base)
    models = {"policy": offline, "reference": sft, "base": base}
    partial = run / "online_dpo.partial"
    parts.policy(partial, seed=4)
    for episode in range(1, episodes + 1):
        write_rollouts(partial, episode, [parts.sampled_pair(parts.tokenizer(), episode, 0)])
    made = Artifact(kind="online_dpo", fingerprint="f4", parents=models, config=RECORDED)
    finish(partial, run / "online_dpo", made)
    return run / "online_dpo"


def job(tmp_path: Path, rollouts: Path | str, *overrides: str) -> ReplayDPO:
    (tmp_path / "replay.yaml").write_text("job: replay_dpo\n")
    words = [f"rollouts={rollouts}", f"output={tmp_path}/runs", *overrides]
    found = read_config(tmp_path / "replay.yaml", words)
    assert isinstance(found, ReplayDPO)
    return found


def test_what_is_not_set_is_that_of_the_recorded_run(tmp_path: Path) -> None:
    online = online_run(tmp_path)
    found = job(tmp_path, online, "dpo.beta=0.5")
    run = online.parent
    assert found.policy == str(run / "offline_dpo")
    assert (found.reference, found.base) == (str(run / "sft"), str(run / "pretrain"))
    assert (found.seed, found.episodes.count, found.episodes.prompts) == (5, 2, 12)
    assert (found.dpo.beta, found.dpo.label_smoothing) == (0.5, 0.1)
    assert found.train.batch_size == 8
    assert found.train.optimizer.lr == 3e-5
    check(found)
    # The folder of the record stands for the artifact.
    assert job(tmp_path, online / "rollouts").policy == found.policy
    # Another optimizer keeps what it shares with the recorded one.
    other = job(tmp_path, online, "train.optimizer.kind=adamw", "train.optimizer.eps=1.0e-6")
    assert other.train.optimizer == AdamWSettings(lr=3e-5, eps=1e-6)
    assert other.train.batch_size == 8
    with pytest.raises(ConfigError, match=r"unknown key 'train\.optimizer\.reserve'"):
        job(tmp_path, online, "train.optimizer={kind: adamw, reserve: 0.5}")


def test_with_a_policy_everything_is_as_it_is_written(tmp_path: Path) -> None:
    online = online_run(tmp_path)
    found = job(tmp_path, online, f"policy={online.parent}/offline_dpo")
    assert (found.seed, found.dpo.beta, found.train.batch_size) == (0, 0.1, 64)
    # Reference and base by lineage, as for any job on preferences.
    parents = found.parents(Lineage())
    assert parents["reference"] == str(online.parent / "sft")


def test_a_moved_run_is_replayed_from_where_it_lies_now(tmp_path: Path) -> None:
    online = online_run(tmp_path)
    shutil.move(online.parent, tmp_path / "elsewhere")
    found = job(tmp_path, tmp_path / "elsewhere" / "online_dpo")
    assert found.policy == str(tmp_path / "elsewhere" / "offline_dpo")
    check(found)


def test_the_dry_run_shows_every_value_and_reads_back(tmp_path: Path) -> None:
    found = job(tmp_path, online_run(tmp_path), "dpo.beta=0.5")
    shown = to_yaml(found) + outlook(found)
    assert "beta: 0.5" in shown
    assert "# What a run does (1 stage):\n#  1 replay_dpo: will be made" in shown
    assert f"reference: {tmp_path}/first/sft (as given)" in shown
    (tmp_path / "resolved.yaml").write_text(shown)
    assert read_config(tmp_path / "resolved.yaml") == found


def test_what_cannot_be_replayed_is_refused_with_what_to_do(tmp_path: Path) -> None:
    online = online_run(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no folder .*did you mean .*online_dpo\?"):
        job(tmp_path, online.with_name("online_dp"))
    with pytest.raises(ConfigError, match=r"'rollouts': .*/first is no artifact of an online run"):
        job(tmp_path, online.parent)
    policy = f"policy={online.parent}/offline_dpo"
    with pytest.raises(ArtifactError, match=r"there is no folder .*did you mean .*online_dpo\?"):
        check(job(tmp_path, online.with_name("online_dp"), policy))
    with pytest.raises(ArtifactError, match=r"sft holds no recorded rollouts"):
        check(job(tmp_path, online.with_name("sft"), policy))
    with pytest.raises(ConfigError, match=r"3 episodes .* no record of episode 3; set a smaller"):
        check(job(tmp_path, online, "episodes.count=3"))
    shutil.rmtree(online / "rollouts")
    with pytest.raises(ArtifactError, match=r"record=true and --fresh online_dpo"):
        check(job(tmp_path, online))


def test_a_policy_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    online = online_run(tmp_path)
    other = shutil.copytree(online.parent / "sft", tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"red"', '"der"').replace('"r"', '"@@"'))
    models = [f"{role}={other}" for role in ("policy", "reference", "base")]
    with pytest.raises(LineageError, match="'rollouts': the tokenizer of"):
        check(job(tmp_path, online, *models))


def recipe(tmp_path: Path, record: str, replay: str) -> Path:
    tokenizer = parts.tokenizer()
    shape = parts.SHAPE.model_copy(update={"heads": 1, "kv_heads": 1})
    export_model(new_model(shape, tokenizer, 0), tokenizer, tmp_path / "policy")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "red", "answer": "blue"}\n')
    text = f"""
job: recipe
output: {tmp_path}/runs
stages:
  online_dpo:
    job: online_dpo
    policy: {tmp_path}/policy
    prompts: {{path: {tmp_path}/prompts.jsonl}}
    reward: {{parts: [{{kind: checker}}]}}
    sampling: {{n: 4, max_tokens: 16}}
    engine: {{max_model_len: 64}}
    record: {record}
  replay: {replay}
"""
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path / "recipe.yaml"


def test_in_a_recipe_the_stage_must_record_and_the_replay_say_everything(tmp_path: Path) -> None:
    replay = f'{{job: replay_dpo, rollouts: "@online_dpo", policy: {tmp_path}/policy}}'
    check(read_config(recipe(tmp_path, "true", replay)), addresses=False)
    with pytest.raises(ConfigError, match=r"'stages\.replay\.rollouts': online_dpo records no"):
        check(read_config(recipe(tmp_path, "false", replay)), addresses=False)
    bare = '{job: replay_dpo, rollouts: "@online_dpo"}'
    with pytest.raises(ConfigError, match=r"'policy' is missing: @online_dpo is still to be made"):
        read_config(recipe(tmp_path, "true", bare))
