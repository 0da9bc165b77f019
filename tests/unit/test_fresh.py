"""--fresh STAGE: what is begun anew, what moves where, and what the stages after it hear."""

from pathlib import Path

import pytest

from orchestrator import run as command
from orchestrator.artifacts.store import Artifact, finish, read_begun
from orchestrator.stages.fresh import came_out_otherwise, stood_before
from orchestrator.stages.outlook import outlook
from orchestrator.stages.plan import begin, check_stage_names, notices, plan_stages, renew
from services.errors import ConfigError
from services.queues.ledger import LedgerEvent
from services.queues.ledger_file import LEDGER, packed
from tests.unit.test_plan import made, recipe

GO_ON = "to go on after an interruption leave --fresh out"


def run_of(tmp_path: Path) -> Path:
    """A finished run; its folder."""
    for stage in plan_stages(recipe(tmp_path)):
        made(stage)
    return tmp_path / "runs" / "run"


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_dry_run_says_what_moves_and_moves_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    before = tree(run)
    lines = outlook(recipe(tmp_path), ["sft"]).splitlines()
    said = f"begins anew, as --fresh asks: {run / 'sft'} moves to .replaced/; {GO_ON}"
    assert lines[2:5] == [
        f"#  1 pretrain: is reused from {run / 'pretrain'}",
        f"#  2 sft: {said}",
        f"#  3 online_dpo: is reused from {run / 'online_dpo'}",
    ]
    assert notices(plan_stages(recipe(tmp_path), ["sft"])) == [f"sft {said}"]
    assert tree(run) == before


def test_finished_and_begun_work_moves_and_an_interruption_goes_on_without_the_flag(
    tmp_path: Path,
) -> None:
    run = run_of(tmp_path)
    scratch = plan_stages(recipe(tmp_path))[1].scratch
    (scratch / "train").mkdir(parents=True)
    planned = plan_stages(recipe(tmp_path), ["sft"])
    assert planned[1].outlook == (
        f"begins anew, as --fresh asks: {run / 'sft'} and what was begun move to .replaced/;"
        f" {GO_ON}"
    )
    renew(planned)
    assert not (run / "sft").exists()
    assert (run / ".replaced" / "sft-1" / "artifact.json").is_file()
    assert (run / ".replaced" / "sft-begun-1" / "train").is_dir()
    pretrain, sft, online = plan_stages(recipe(tmp_path))
    assert (pretrain.found, online.found) == (run / "pretrain", run / "online_dpo")
    assert (sft.found, sft.outlook) == (None, "goes on where it stood")
    assert stood_before(sft) == run / ".replaced" / "sft-1"
    # With the flag it begins again, and what had been begun is kept as well.
    (sft.scratch / "half").mkdir()
    renew(plan_stages(recipe(tmp_path), ["sft"]))
    assert (run / ".replaced" / "sft-begun-2" / "half").is_dir()
    assert not (sft.scratch / "half").exists()
    # Once it is made it is reused again.
    made(plan_stages(recipe(tmp_path))[1])
    assert plan_stages(recipe(tmp_path))[1].found == run / "sft"


def test_what_another_run_has_made_is_not_taken_for_it(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    other = recipe(tmp_path).model_copy(update={"name": "other"})
    assert plan_stages(other)[1].found == run / "sft"
    fresh = plan_stages(other, ["sft"])
    said = f"begins anew, as --fresh asks: {run / 'sft'} is not reused; {GO_ON}"
    assert fresh[1].outlook == said
    renew(fresh)
    again = plan_stages(other)
    assert [stage.found for stage in again] == [run / "pretrain", None, run / "online_dpo"]
    # It goes on also when the attempt itself begins and records its work once more.
    begin(again[1])
    assert plan_stages(other)[1].found is None
    assert (run / "sft" / "artifact.json").is_file()


def test_what_is_not_there_is_simply_made(tmp_path: Path) -> None:
    planned = plan_stages(recipe(tmp_path), ["sft"])
    assert planned[1].outlook == "will be made (there is nothing yet that it could reuse)"
    assert notices(planned) == []
    renew(planned)
    assert read_begun(planned[1].scratch) is not None


def test_a_smaller_extent_may_begin_anew(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    shorter = recipe(tmp_path, {"online_dpo": {"episodes": {"count": 4}}})
    with pytest.raises(ConfigError, match=r"is less; .* or begin anew: --fresh online_dpo$"):
        plan_stages(shorter)
    renew(plan_stages(shorter, ["online_dpo"]))
    online = plan_stages(shorter)[2]
    assert (online.extends, online.outlook) == (None, "goes on where it stood")
    assert (run / ".replaced" / "online_dpo-1").is_dir()


@pytest.mark.parametrize("same", [True, False])
def test_stages_made_from_other_weights_are_named(tmp_path: Path, same: bool) -> None:
    run = run_of(tmp_path)
    (run / "sft" / "model.safetensors").write_text("old")
    renew(plan_stages(recipe(tmp_path), ["sft"]))
    planned = plan_stages(recipe(tmp_path))
    before = stood_before(planned[1])
    (now := tmp_path / "now").mkdir()
    (now / "model.safetensors").write_text("old" if same else "new")
    text = came_out_otherwise(planned[1], planned, before, now)
    assert stood_before(planned[2]) is None
    if same:
        assert text == ""
        return
    assert text == (
        f"came out other than {run / '.replaced' / 'sft-1'}; reused as made from that one:"
        " online_dpo; to make them anew too: --fresh online_dpo"
    )


def test_an_unknown_stage_is_one_line_with_those_that_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^--fresh online: there is no such stage; did you mean online_dpo\? stages: "
        "pretrain, sft, online_dpo$",
    ):
        check_stage_names(recipe(tmp_path), ["sft", "online"])
    (config := tmp_path / "sft.yaml").write_text(
        f"{{job: sft, policy: a/b, demonstrations: {{path: {tmp_path / 'data.jsonl'}}}}}"
    )
    assert command.main(["--fresh", "sft", str(config), "--fresh", "ftt", "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        "pairloop: --fresh ftt: there is no such stage; did you mean sft? stages: sft\n"
    )


def test_an_artifact_that_trained_on_nothing_is_never_reused(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    online = run / "online_dpo"
    events = [LedgerEvent("1-0", kind, "p", 1, "") for kind in ("dispatched", "dropped")]
    (online / LEDGER).write_bytes(packed(events))
    planned = plan_stages(recipe(tmp_path))
    assert (planned[2].found, planned[2].made_anew) == (None, True)
    words = f"begins anew: {online} trained on nothing, and moves to .replaced/ when it is done"
    assert notices(planned) == [f"online_dpo {words}"]
    longer = plan_stages(recipe(tmp_path, {"online_dpo": {"episodes": {"count": 12}}}))[2]
    assert (longer.extends, longer.outlook) == (None, words)
    (online / LEDGER).write_bytes(packed([LedgerEvent("2-0", "trained", "p", 1, "1")]))
    assert plan_stages(recipe(tmp_path))[2].found == online


@pytest.mark.parametrize("metrics", [{"steps": 0.0}, {"examples": 0.0}, {"trained_pairs": 0.0}])
def test_nor_is_an_offline_one(tmp_path: Path, metrics: dict[str, float]) -> None:
    run_of(tmp_path)
    sft = plan_stages(recipe(tmp_path))[1]
    (partial := tmp_path / "partial").mkdir()
    artifact = Artifact(
        kind="sft", fingerprint=sft.fingerprint, trunk=sft.trunk, metrics={"loss": 1.0} | metrics
    )
    finish(partial, tmp_path / "runs" / "run" / "sft", artifact)
    assert "trained on nothing" in plan_stages(recipe(tmp_path))[1].outlook
