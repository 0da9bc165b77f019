"""docs/config.md is what the settings declare, and leaves no key without a word."""

import re
from pathlib import Path

import pytest
from pydantic import Field

from orchestrator.config.reference import blocks, config_page, keys_of, meaning, title_of
from orchestrator.jobs.job import Job
from orchestrator.jobs.registry import JOBS, job_class
from services.settings import Settings
from tests import toy_job

PAGE = Path(__file__).resolve().parents[2] / "docs" / "config.md"


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[type[Job]]:
    """Those of the project, without what other tests add."""
    for name in toy_job.LINE:
        monkeypatch.delitem(JOBS, name, raising=False)
    return [job_class(name) for name in JOBS]


def test_the_page_is_what_the_settings_declare(jobs: list[type[Job]]) -> None:
    assert PAGE.read_text(encoding="utf-8") == config_page()


def test_every_key_has_a_meaning(jobs: list[type[Job]]) -> None:
    everything = [*jobs, *blocks()]
    unsaid = {
        f"{title_of(each)}.{name}"
        for each in everything
        for name, field in keys_of(each)
        if not meaning(field)
    }
    assert unsaid == set()


def test_every_row_has_its_cells_and_every_link_its_heading() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^##+ (.+)$", text, re.MULTILINE)
    anchors = [heading.lower().replace(" ", "-") for heading in headings]
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= set(anchors)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {7}


class Inner(Settings):
    """What is inside."""

    kind: str = "a"


class Toy(Settings):
    kind: str = "toy"
    a: Inner = Inner()
    b: float | None = Field(None, gt=0.5)
    """Says <this> and `<that>`."""


def test_a_meaning_is_the_field_s_own_or_that_of_its_block() -> None:
    fields = dict(keys_of(Toy))
    assert list(fields) == ["kind", "a", "b"]
    assert meaning(fields["a"]) == "What is inside."
    assert meaning(fields["b"]) == "Says &lt;this> and `<that>`."
    assert meaning(fields["kind"]) == ""


@pytest.mark.parametrize(
    "row",
    [
        "| `ray` | [Ray](#ray) | its defaults | operational | Where it runs. |",
        "| `count` | integer, ≥ 1 | `8` | extent |",
        "| `reserve` | number, > 0, ≤ 1 | `0.1` | identity | p: the probability that a value is",
        "| `tokenizer` | [Tokenizer](#tokenizer) or text | its defaults | identity |",
        "| `optimizer` | [AdamW](#adamw) or [OnDARE](#ondare) or [OnTIES](#onties) | `kind: adamw`",
        "| `payloads` | `folder` or `redis` | `folder` | operational |",
        "`kind: ondare` at `Train.optimizer`.",
        "At `dpo`.",
        "metadata \"answer\": equal after whitespace is normalised",
    ],
)  # fmt: skip
def test_what_a_row_says(row: str) -> None:
    assert any(line.startswith(row) for line in PAGE.read_text(encoding="utf-8").splitlines())
