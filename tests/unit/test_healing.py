"""What is replaced, how often, and after how long."""

import pytest

from orchestrator.online.healing import Budget, kept, replaceable, restarted
from orchestrator.online.settings import RestartSettings
from services.errors import (
    AttestationError,
    LedgerError,
    OutOfMemoryError,
    PairloopError,
    ReplacedError,
    StallError,
    UnreachableError,
    WorkerDiedError,
    WorkerError,
)


class Time:
    """A clock that passes in sleeps alone."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.replaced: list[str] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def budget(self, **settings: float) -> Budget:
        asked = RestartSettings.model_validate(settings)
        told = self.replaced.append
        return Budget(asked, "online", self.said.append, lambda: self.now, self.sleep, told)


DEATH = WorkerDiedError("online: rollout-0 died: killed; the same command goes on where it stood")


async def test_each_replacement_waits_twice_as_long_and_the_last_one_ends_the_run() -> None:
    time = Time()
    budget = time.budget(count=3, backoff_s=2.0)
    for waited in (2.0, 6.0, 14.0):
        await budget.spend("rollout-0", DEATH)
        assert time.now == waited
    await budget.spend("rollout-1", DEATH)  # another part has its own
    with pytest.raises(WorkerError, match=r"rollout-0 was replaced 3 times .*: online: rollout-0"):
        await budget.spend("rollout-0", DEATH)
    assert time.said == ["rollout-0 died: killed; it is replaced"] * 4
    assert time.replaced == ["rollout-0", "rollout-0", "rollout-0", "rollout-1"]


async def test_an_end_of_long_ago_is_forgotten() -> None:
    time = Time()
    budget = time.budget(count=1, within_s=100.0, backoff_s=1.0)
    for _ in range(5):
        await budget.spend("rollout-0", DEATH)
        time.now += 100.0


async def test_with_no_restarts_the_first_end_is_raised_as_it_is() -> None:
    with pytest.raises(WorkerDiedError) as caught:
        await Time().budget(count=0).spend("rollout-0", DEATH)
    assert caught.value is DEATH


@pytest.mark.parametrize(
    ("error", "mends"),
    [
        (DEATH, True),
        (WorkerError("rollout-0: CUDA error"), True),
        (StallError("rollout-0 did not answer for 60 s"), True),
        (ReplacedError("another orchestrator has taken this run over"), False),
        (OutOfMemoryError("rollout-0 needs more memory"), False),
        (AttestationError("rollout-0 does not hold version 3"), False),
        (LedgerError("sides"), False),
        (UnreachableError("Redis"), False),
    ],
)
async def test_a_new_process_mends_deaths_and_hangs_alone(
    error: PairloopError, mends: bool
) -> None:
    assert replaceable(error) is mends
    history: list[str] = []

    async def work() -> None:
        history.append("work")
        raise error if len(history) == 1 else LedgerError("enough")

    async def replace() -> None:
        history.append("replace")

    with pytest.raises(PairloopError) as caught:
        await kept("rollout-0", work, replace, Time().budget(count=5))
    assert history == (["work", "replace", "work"] if mends else ["work"])
    assert (caught.value is error) is not mends


async def test_a_replacement_that_fails_is_tried_again_and_costs_the_budget() -> None:
    history: list[str] = []

    async def work() -> None:
        history.append("work")

    async def replace() -> None:
        history.append("replace")
        raise StallError("not up in time")

    with pytest.raises(WorkerError, match=r"replaced 2 times .* not up in time"):
        await kept("rollout-0", work, replace, Time().budget(count=2))
    assert history == ["work", "replace", "replace"]


async def test_a_learner_goes_on_after_its_deaths_alone() -> None:
    ends: list[PairloopError] = [DEATH, DEATH]

    async def start() -> int:
        if ends:
            raise ends.pop()
        return 7

    assert await restarted("the learner", start, Time().budget(count=2)) == 7
    ends = [WorkerError("a bug, which the next one has as well")]
    with pytest.raises(WorkerError, match="a bug"):
        await restarted("the learner", start, Time().budget(count=2))
