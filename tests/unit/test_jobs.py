"""What a job declares is all that others know of it: held with one that is in no other file."""

import asyncio
import importlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from orchestrator.checks.preflight import check
from orchestrator.config.reading import read_config, to_yaml
from orchestrator.jobs.job import Job, Makes
from orchestrator.jobs.registry import JOBS, job_class
from orchestrator.jobs.table import jobs_page
from orchestrator.jobs.training import part_of
from orchestrator.stages.context import RunContext
from orchestrator.stages.outlook import outlook
from orchestrator.stages.plan import plan_stages
from orchestrator.stages.run import run
from orchestrator.stages.stage import run_stage
from services.errors import ConfigError, DataError, Waiting, WorkerError
from services.learner.jobs.settings import SFTSettings
from services.settings import fields_of
from services.telemetry.record.events import Event, StageFinished, StageWaiting
from tests import toy_job


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, path in toy_job.LINE.items():
        monkeypatch.setitem(JOBS, name, path)


@dataclass
class Run:
    """A run of stages without a cluster."""

    folder: Path
    events: list[Event] = field(default_factory=list)

    async def all(self, job: Job) -> dict[str, Path]:
        context = RunContext("run", self.folder, self.events.append)
        made: dict[str, Path] = {}
        planned = plan_stages(job)
        for index, stage in enumerate(planned, start=1):
            made[stage.key] = await run_stage(stage, made, index, len(planned), context)
        return made


CONFIG = """\
job: recipe
name: toys
stages:
  first:
    job: count_answers
    prompts: {path: PROMPTS}
  second:
    job: count_answers
    prompts: {path: PROMPTS}
    step: 2
"""


def config(tmp_path: Path, text: str = CONFIG) -> Job:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("PROMPTS", str(tmp_path / "prompts.jsonl")))
    return read_config(path, [f"output={tmp_path / 'runs'}"])


async def test_a_job_of_one_file_and_one_line_is_read_checked_run_and_reused(
    tmp_path: Path,
) -> None:
    job = config(tmp_path)
    check(job)
    assert "job: count_answers" in to_yaml(job)
    assert "#  2 second: will be made" in outlook(job)
    run = Run(tmp_path / "runs" / "toys")
    made = await run.all(job)
    assert [(made[key] / "count.txt").read_text() for key in made] == ["2\n", "4\n"]
    again = Run(run.folder)
    assert await again.all(job) == made
    told = [e for e in again.events if isinstance(e, StageFinished)]
    assert [(e.stage, e.reused, e.metrics) for e in told] == [
        ("first", True, {"count": 2.0}),
        ("second", True, {"count": 4.0}),
    ]


async def test_a_finished_run_computes_nothing_and_needs_no_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = config(tmp_path)
    folder = tmp_path / "runs" / "toys"
    await Run(folder).all(job)
    await asyncio.to_thread(run, job)
    printed = capsys.readouterr().out
    assert printed.count(": reused") == 2
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    summary = json.loads((folder / "summary.json").read_text())
    assert [stage["reused"] for stage in summary["stages"].values()] == [True, True]
    assert "error" not in summary["run"] or summary["run"]["error"] is None


async def test_a_job_that_waits_ends_the_run_and_goes_on_later(tmp_path: Path) -> None:
    answers = tmp_path / "answers.txt"
    job = config(tmp_path, CONFIG + f"    waits_for: {answers}\n")
    run = Run(tmp_path / "runs" / "toys")
    with pytest.raises(Waiting, match=r"second waits for .*answers\.txt; the same command") as w:
        await run.all(job)
    assert w.value.exit_code == 4
    assert isinstance(run.events[-1], StageWaiting)
    assert run.events[-1].stage == "second"
    assert plan_stages(job)[1].outlook == "goes on where it stood"
    answers.touch()
    assert (await run.all(job))["second"] == run.folder / "second"


async def test_a_job_that_waits_must_say_so_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_job.CountAnswers, "may_wait", False)
    job = config(tmp_path, CONFIG + f"    waits_for: {tmp_path / 'never'}\n")
    with pytest.raises(WorkerError, match="second: job count_answers waits"):
        await Run(tmp_path / "runs" / "toys").all(job)


@pytest.mark.parametrize(
    ("edit", "kind", "said"),
    [
        (("step: 2", "step: 13"), ConfigError, "13 brings no luck"),
        (("step: 2", "stop: 2"), ConfigError, "did you mean 'stages.second.step'?"),
        (
            ("PROMPTS}\n    step", "none.jsonl}\n    step"),
            DataError,
            "'stages.second.prompts.path'",
        ),
    ],
)
def test_what_is_wrong_with_it_is_found_before_it_runs(
    tmp_path: Path, edit: tuple[str, str], kind: type[Exception], said: str
) -> None:
    assert edit[0] in CONFIG
    with pytest.raises(kind) as caught:
        check(config(tmp_path, CONFIG.replace(*edit)))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", [*JOBS, *toy_job.LINE])
def test_every_job_declares_itself(name: str) -> None:
    job = job_class(name)
    assert job.model_fields["job"].default == name
    assert job.makes in get_args(Makes)
    assert (job.__doc__ or "").strip()


def test_an_evaluations_name_is_taken() -> None:
    stage = {"job": "count_answers", "prompts": {"path": "p.jsonl"}}
    base = {"job": "pretrain", "texts": {"path": "t.jsonl"}}
    with pytest.raises(ValidationError, match=r"stages\.base-evaluation: the name of base's"):
        job_class("recipe").model_validate(
            {
                "stages": {"base": base, "base-evaluation": stage},
                "evaluate": {"texts": base["texts"]},
            }
        )


def test_the_docs_table_is_what_the_jobs_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in toy_job.LINE:
        monkeypatch.delitem(JOBS, name)
    page = Path(__file__).resolve().parents[2] / "docs" / "jobs.md"
    assert page.read_text(encoding="utf-8") == jobs_page()


def test_a_service_is_told_its_own_fields_alone() -> None:
    sft = job_class("sft").model_validate(
        {"policy": "a/b", "demonstrations": {"path": "d.jsonl"}, "seed": 7}
    )
    part = part_of(sft, SFTSettings)
    assert type(part) is SFTSettings
    assert {name for name, _, _ in fields_of(part)} == {"policy", "demonstrations", "train"}
    assert part == SFTSettings.model_validate(
        {"policy": "a/b", "demonstrations": {"path": "d.jsonl"}}
    )


@pytest.mark.parametrize(
    "task",
    [
        "services.learner.jobs.lm:train_base",
        "services.learner.jobs.lm:train_sft",
        "services.learner.jobs.reward_model:train_reward_model",
        "services.learner.jobs.offline_dpo:train_offline_dpo",
        "services.learner.online.learner:online_learner",
    ],
)
def test_the_learners_tasks_are_where_jobs_say(task: str) -> None:
    module, name = task.split(":")
    assert callable(getattr(importlib.import_module(module), name))
    users = [p for p in Path("orchestrator").rglob("*.py") if f'"{task}"' in p.read_text()]
    assert len(users) == 1
