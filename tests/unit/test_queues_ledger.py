"""The audit finds every way a ledger can be wrong."""

import pytest

from services.queues.ledger import LedgerEvent, ledger_audit


def ledger(*steps: str) -> list[LedgerEvent]:
    """Each step is "kind id", "kind id episode" or "kind id episode detail"."""
    events = []
    for place, step in enumerate(steps):
        words = step.split()
        kind, id_, episode, detail = (*words, *("", "", "1", "")[len(words) :])
        events.append(LedgerEvent(f"{place}-0", kind, id_, int(episode), detail))
    return events


PLAN = {1: ["a"]}
WHOLE = ("dispatched a", "sampled a", "scored a", "paired a", "trained a")


BACK = ("dispatched a", "dropped a 1 DEAD_LETTER", "replayed a 1 prompts")
LOST = "dropped a 1 DEAD_LETTER"


def test_a_dead_letter_may_be_tried_again_where_it_was() -> None:
    for steps in (
        (*WHOLE[:1], LOST, "replayed a 1 prompts", *WHOLE[1:]),
        (*WHOLE[:2], LOST, "replayed a 1 rollouts", *WHOLE[2:]),
        (*WHOLE[:2], LOST, "replayed a 1 rollouts", LOST, "replayed a 1 rollouts", "dropped a"),
        (*WHOLE[:2], LOST, "replayed a 1 rollouts", "restored a", "trained a"),
    ):
        assert ledger_audit(ledger(*steps), PLAN) == []


def test_whole_ledgers_have_no_problem() -> None:
    assert ledger_audit([], {}) == []
    assert ledger_audit(ledger(*WHOLE, "published - 1", "published - 2"), PLAN) == []
    assert ledger_audit(ledger("dispatched a", "dropped a"), PLAN) == []
    assert ledger_audit(ledger("dispatched a", "sampled a", "dropped a"), PLAN) == []
    assert ledger_audit(ledger(*WHOLE[:4], "dropped a"), PLAN) == []
    for lost in range(5):
        assert ledger_audit(ledger(*WHOLE[:lost], "restored a", "trained a"), PLAN) == []
    assert ledger_audit(ledger("dispatched a", "dropped a", "restored a", "trained a"), PLAN) == []
    assert ledger_audit(ledger("dispatched a", "dispatched b", "sampled b", "dropped a",
                               "scored b", "dropped b"), {1: ["a", "b"]}) == []  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ((*WHOLE, "trained a"), "a: trained at 5-0 after trained"),
        ((*WHOLE, "dropped a"), "a: dropped at 5-0 after trained"),
        ((*WHOLE, "dispatched a", "dropped a"), "a: dispatched at 5-0 after trained"),
        (("dispatched a", "dispatched a", "dropped a"), "a: dispatched at 1-0 after dispatched"),
        (("sampled a", "dropped a"), "a: sampled at 0-0 after nothing"),
        (("dispatched a", "trained a"), "a: trained at 1-0 after dispatched"),
        (("dispatched a", "dropped a", "dropped a"), "a: dropped at 2-0 after dropped"),
        (("dispatched a", "dropped a 2"), "a: in the ledger of episode 2, of episode 1"),
        ((*WHOLE, "dispatched b", "dropped b"), "b: in the ledger of episode 1, of none"),
        ((), "a: never dispatched"),
        ((*WHOLE, "restored a", "trained a"), "a: restored at 5-0 after trained"),
        ((*WHOLE, "published - 1", "published - 1"), "episode 1: published again at 6-0"),
        (
            ("dispatched a", "dropped a 1 TIE", "replayed a 1 prompts", "dropped a"),
            "a: replayed at 2-0 after dropped",
        ),
        (
            (*WHOLE[:1], LOST, "replayed a 1 prompts", *WHOLE[2:]),
            "a: scored at 3-0 after replayed",
        ),
        (
            (*WHOLE[:2], LOST, "replayed a 1 rollouts", *WHOLE[1:]),
            "a: sampled at 4-0 after replayed",
        ),
        ((*WHOLE[:1], "replayed a 1 prompts", LOST), "a: replayed at 1-0 after dispatched"),
        (("replayed a 1 prompts", LOST), "a: replayed at 0-0 after nothing"),
        (("dispatched a", "mislaid a", "dropped a"), "a: mislaid at 1-0 after dispatched"),
    ],
)
def test_each_problem_is_named(steps: tuple[str, ...], problem: str) -> None:
    assert ledger_audit(ledger(*steps), PLAN) == [problem]


@pytest.mark.parametrize(
    "steps", [WHOLE[:1], WHOLE[:2], WHOLE[:3], WHOLE[:4], ("restored a",), BACK]
)
def test_a_lost_prompt_is_a_problem_once_the_run_is_finished(steps: tuple[str, ...]) -> None:
    (problem,) = ledger_audit(ledger(*steps), PLAN)
    assert problem.startswith("a: never trained or dropped, last ")
    assert ledger_audit(ledger(*steps), PLAN, finished=False) == []
