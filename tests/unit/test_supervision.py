"""The first part that fails ends the run with its cause, whoever says it first."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from ray.exceptions import ActorDiedError

from orchestrator.online.supervision import heartbeat, supervise, together
from services.errors import (
    AttestationError,
    DataError,
    StallError,
    UnreachableError,
    WorkerDiedError,
    WorkerError,
)

PATIENCE_S = 0.02


async def forever() -> None:
    await asyncio.Event().wait()


async def fails(error: BaseException) -> None:
    raise error


async def fails_after(gate: asyncio.Event, error: BaseException) -> None:
    await gate.wait()
    raise error


async def ends() -> None:
    return


async def test_a_run_that_ends_ends_its_parts() -> None:
    ended: list[str] = []

    async def part() -> None:
        try:
            await forever()
        finally:
            ended.append("part")

    await supervise(asyncio.sleep(0), {"part": part()})
    assert ended == ["part"]


async def test_an_error_of_ours_comes_out_as_it_is_and_ends_the_run() -> None:
    ended: list[str] = []

    async def main() -> None:
        try:
            await forever()
        finally:
            ended.append("main")

    ours = DataError("rows.jsonl:3: no prompt; add one")
    with pytest.raises(DataError) as caught:
        await supervise(main(), {"pairs-0": fails(ours), "rollout-0": forever()})
    assert caught.value is ours
    assert ended == ["main"]


async def test_a_foreign_error_of_a_part_is_named_and_keeps_its_cause() -> None:
    foreign = ValueError("no\nsuch thing")
    with pytest.raises(WorkerError) as caught:
        await supervise(forever(), {"pairs-0": fails(foreign)}, PATIENCE_S)
    assert str(caught.value) == "pairs-0: ValueError: no such thing"
    assert caught.value.__cause__ is foreign


async def test_a_foreign_error_of_the_loop_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await supervise(fails(ZeroDivisionError("/")), {"pairs-0": forever()})


async def test_a_part_that_just_ends_is_a_failure_by_name() -> None:
    with pytest.raises(WorkerError, match="rollout-0 ended before the run did; the same command"):
        await supervise(forever(), {"rollout-0": ends()}, PATIENCE_S)


async def test_a_part_that_is_cancelled_from_outside_is_a_failure_too() -> None:
    part = asyncio.ensure_future(forever())
    asyncio.get_running_loop().call_soon(part.cancel)
    with pytest.raises(WorkerError, match="rollout-0 ended before the run did"):
        await supervise(forever(), {"rollout-0": part}, PATIENCE_S)


async def test_a_loop_that_is_cancelled_from_outside_is_not_taken_for_done() -> None:
    main = asyncio.ensure_future(forever())
    asyncio.get_running_loop().call_soon(main.cancel)
    with pytest.raises(asyncio.CancelledError):
        await supervise(main, {"rollout-0": forever()}, PATIENCE_S)


async def test_a_part_goes_before_what_the_loop_says_of_it() -> None:
    bad = AttestationError("rollout-0 does not hold version 3")
    with pytest.raises(AttestationError):
        await supervise(fails(StallError("nothing moved")), {"rollout-0": fails(bad)})


async def test_the_death_behind_a_failure_is_waited_for() -> None:
    """The reward dies: pairing says so before its heartbeat does."""
    seen = asyncio.Event()

    async def pairing() -> None:
        seen.set()
        raise UnreachableError("the reward is not reachable")

    death = WorkerDiedError("the reward gateway died")
    with pytest.raises(WorkerDiedError) as caught:
        await supervise(
            forever(), {"pairs-0": pairing(), "the reward gateway": fails_after(seen, death)}
        )
    assert caught.value is death


async def test_a_failure_without_a_death_stays_what_it_is() -> None:
    first = WorkerError("rollout-0: ValueError: x")
    with pytest.raises(WorkerError) as caught:
        await supervise(
            fails(UnreachableError("a consequence")), {"rollout-0": fails(first)}, PATIENCE_S
        )
    assert caught.value is first


def answers(*given: BaseException | None) -> Callable[[], Awaitable[None]]:
    """A ping that answers so, one after the other, and then never again."""
    left = list(given)

    async def ping() -> None:
        if not left:
            await forever()
        if error := left.pop(0):
            raise error

    return ping


async def test_silence_is_a_stall_that_names_the_part_and_how_long_it_was_silent() -> None:
    with pytest.raises(StallError, match=r"the event sink did not answer for 0\.03 s; the same"):
        await heartbeat("the event sink", answers(None, None), lambda: 0.03, every_s=0.01)


async def test_a_death_between_two_pings_is_a_death() -> None:
    with pytest.raises(WorkerDiedError, match="rollout-0 died: its process was killed"):
        await heartbeat("rollout-0", answers(None, ActorDiedError()), lambda: 60, every_s=0.01)


async def test_a_slow_answer_within_its_deadline_is_no_silence() -> None:
    """Busy for six of its eight periods, then answered; ends by the error that follows."""
    asked = 0

    async def ping() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise DataError("seen")
        await asyncio.sleep(0.06)

    with pytest.raises(DataError, match="seen"):
        await heartbeat("rollout-0", ping, lambda: 0.4, every_s=0.01)


async def test_a_cancelled_heartbeat_leaves_no_ping_behind() -> None:
    cancelled = asyncio.Event()
    asked = asyncio.Event()

    async def ping() -> None:
        asked.set()
        try:
            await forever()
        finally:
            cancelled.set()

    beat = asyncio.create_task(heartbeat("x", ping, lambda: 60))
    await asked.wait()
    beat.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_what_starts_together_comes_back_in_order() -> None:
    async def number(value: int, rounds: int) -> int:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return value

    assert await together(number(1, 3), number(2, 1)) == (1, 2)
    assert await together(*(number(n, 5 - n) for n in range(4))) == (0, 1, 2, 3)


async def test_the_first_that_does_not_start_ends_the_others_before_it_is_raised() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            ended.append("slow")

    with pytest.raises(DataError, match="no such model"):
        await together(slow(), fails(DataError("no such model")))
    assert ended == ["slow"]
