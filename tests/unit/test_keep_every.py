"""Models of the way: kept as folders that load, whatever happens to the run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from orchestrator.artifacts.lineage import Lineage
from orchestrator.artifacts.store import CHECKPOINTS, Artifact, Begun, finish, write_begun
from orchestrator.jobs.job import Job
from orchestrator.stages.context import RunContext, StageContext
from orchestrator.stages.plan import plan_stages
from orchestrator.stages.stage import run_stage
from services.errors import LineageError
from services.learner.jobs.lm import train_sft
from services.learner.jobs.settings import OnlineDPOSettings, Place, SFTSettings
from services.learner.model.load import load_policy
from services.learner.online.learner import online_learner
from tests.toy_job import CountAnswers
from tests.unit import learner_parts as parts
from tests.unit.test_online_learner import queues, setting


def test_an_online_run_keeps_the_version_that_it_published(tmp_path: Path) -> None:
    settings, place = setting(tmp_path, "a", keep_every=2)
    place = place.model_copy(update={"kept": str(tmp_path / "kept")})
    source = queues()
    board = parts.FakeBoard(source.history, fail_at=2)  # after episode 2 was trained
    with pytest.raises(ConnectionError):
        online_learner(settings, place, lambda _: None, source.open, board)
    board = parts.FakeBoard(source.history)
    online_learner(settings, place, lambda _: None, source.open, board)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["episode-0002"]
    written = load_file(tmp_path / "kept" / "episode-0002" / "model.safetensors")
    for name, value in board.weights(2).items():
        assert np.array_equal(written[name], value)
    load_policy(str(tmp_path / "kept" / "episode-0002"))
    with pytest.raises(ValueError, match=r"set episodes\.keep_every"):
        OnlineDPOSettings.model_validate({"policy": "a/b", "train": {"keep_every": 2}})


def test_a_training_job_keeps_every_so_many_steps(tmp_path: Path) -> None:
    rows = [{"prompt": "red", "completion": f"blue {word}"} for word in parts.WORDS]
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def weights(out: str, steps: int, keep_every: int) -> dict[str, np.ndarray]:
        train = {"max_steps": steps, "batch_size": 2, "keep_every": keep_every}
        given = {
            "policy": parts.policy(tmp_path / "policy"),
            "demonstrations": {"path": str(data)},
            "train": train
            | {"optimizer": {"kind": "adamw", "lr": 1e-2}, "schedule": {"kind": "constant"}},
        }
        place = Place(stage="sft", out=str(tmp_path / out), kept=str(tmp_path / f"{out}-kept"))
        train_sft(SFTSettings.model_validate(given), place, lambda _: None)
        return dict(load_file(tmp_path / out / "model.safetensors"))

    weights("long", 5, keep_every=2)
    kept = tmp_path / "long-kept"
    assert sorted(path.name for path in kept.iterdir()) == ["step-000002", "step-000004"]
    short = weights("short", 2, keep_every=0)
    assert not (tmp_path / "short-kept").exists()
    on_the_way = load_file(kept / "step-000002" / "model.safetensors")
    assert all(np.array_equal(on_the_way[name], value) for name, value in short.items())


class Keeps(CountAnswers):
    """Leaves a model of the way in its scratch."""

    async def run(self, context: StageContext) -> dict[str, float]:
        (context.scratch / CHECKPOINTS / "step-000001").mkdir(parents=True)
        (context.scratch / CHECKPOINTS / "step-000001" / "config.json").write_text("{}")
        (context.scratch / CHECKPOINTS / ".step-000002.3f.tmp").mkdir()
        return await super().run(context)


async def test_the_artifact_holds_what_was_kept(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    given = {
        "prompts": {"path": str(tmp_path / "p.jsonl")},
        "output": str(tmp_path),
        "name": "r",
    }
    job: Job = Keeps.model_validate(given)
    (stage,) = plan_stages(job)
    made = await run_stage(stage, {}, 1, 1, RunContext("r", tmp_path / "r", lambda _: None))
    assert (made / "checkpoints" / "step-000001" / "config.json").read_text() == "{}"
    assert [path.name for path in (made / "checkpoints").iterdir()] == ["step-000001"]


def test_a_model_of_the_way_has_the_parents_of_the_last_one(tmp_path: Path) -> None:
    def make(name: str, kind: str, **parents: str) -> str:
        (tmp_path / f"{name}.partial").mkdir()
        artifact = Artifact(kind=kind, fingerprint=name, parents=parents)
        finish(tmp_path / f"{name}.partial", tmp_path / name, artifact)
        return str(tmp_path / name)

    sft = make("sft", "sft", policy=make("base", "pretrain"))
    online = make("online", "online_dpo", policy=sft)
    kept = f"{online}/checkpoints/episode-0002"
    Path(kept).mkdir(parents=True)
    reference = Lineage().reference(kept, None)
    assert (reference, reference.source) == (sft, "lineage")
    assert Lineage().base(reference, None, "ondare") == str(tmp_path / "base")
    scratch = tmp_path / ".work" / "online_dpo-1"
    write_begun(scratch, Begun(kind="online_dpo"), {"policy": sft})
    (scratch / CHECKPOINTS / "episode-0001").mkdir(parents=True)
    begun = Lineage().reference(f"{scratch}/{CHECKPOINTS}/episode-0001", None)
    assert (begun, begun.source) == (sft, "lineage")


def test_a_model_of_the_way_is_found_where_it_went(tmp_path: Path) -> None:
    """The run it is of ends; another one takes its place."""

    def make(name: str, kind: str, mark: str, **parents: str) -> str:
        (partial := tmp_path / f"{name}.partial").mkdir()
        artifact = Artifact(kind=kind, fingerprint=mark, trunk=f"t-{mark}", parents=parents)
        finish(partial, tmp_path / name, artifact)
        return str(tmp_path / name)

    def keep(folder: Path) -> Path:
        (kept := folder / CHECKPOINTS / "step-000002").mkdir(parents=True)
        return kept

    base = make("base", "pretrain", "1")
    scratch = tmp_path / ".work" / "sft-3f"
    write_begun(scratch, Begun(kind="sft", fingerprint="2", trunk="t-2"), {"policy": base})
    kept = keep(scratch)
    tuned = make("tuned", "offline_dpo", "9", policy=str(kept))
    assert Lineage().reference(tuned, None) == str(kept)
    assert Lineage().base(str(kept), None, "ondare") == base
    # The run ends: the scratch folder is gone, and the artifact has it.
    shutil.rmtree(scratch)
    in_artifact = keep(Path(make("sft", "sft", "2", policy=base)))
    assert Lineage().reference(tuned, None) == str(in_artifact)
    # Other work takes the artifact's place.
    keep(Path(make("sft", "sft", "3", policy=base)))
    replaced = tmp_path / ".replaced" / "sft-1" / CHECKPOINTS / "step-000002"
    assert Lineage().reference(tuned, None) == str(replaced)
    # A parent that is in an artifact is never taken from another one.
    later = make("later", "offline_dpo", "8", policy=str(replaced))
    shutil.rmtree(replaced)
    keep(Path(make(".replaced/sft-1", "sft", "4", policy=base)))
    with pytest.raises(LineageError, match=r"later, its policy: .* holds another artifact by now"):
        Lineage().reference(later, None)
