"""A reward that falls behind is asked for less at once, and for more when it keeps up again."""

import asyncio

import pytest

from services.errors import SlowError
from services.pairs.concurrency import Concurrency


class Reward:
    """Answers as long as no more than `holds` ask at once; the others pass their deadline."""

    def __init__(self, holds: int) -> None:
        self.holds, self.asking, self.most, self.late = holds, 0, 0, 0

    async def __call__(self) -> str:
        self.asking += 1
        self.most = max(self.most, self.asking)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if self.asking > self.holds:
                self.late += 1
                raise SlowError("the reward did not answer within 60 s")
            return "scores"
        finally:
            self.asking -= 1


async def test_a_slow_reward_makes_a_slow_run_and_no_failure() -> None:
    reward, asked = Reward(holds=3), Concurrency(16)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(asked.ask(reward) for _ in range(64)))
    assert answers == ["scores"] * 64
    assert 1 <= asked.allowed < 8
    assert reward.late >= 13


async def test_it_is_asked_for_more_again_when_it_keeps_up() -> None:
    reward, asked = Reward(holds=1), Concurrency(8)
    await asyncio.gather(*(asked.ask(reward) for _ in range(8)))
    slow = asked.allowed
    reward.holds, reward.most = 8, 0
    await asyncio.gather(*(asked.ask(reward) for _ in range(200)))
    assert slow < asked.allowed == 8.0
    assert reward.most == 8


async def test_one_that_is_late_with_a_single_request_says_so() -> None:
    asked, dead = Concurrency(4), Reward(holds=0)
    results = await asyncio.gather(*(asked.ask(dead) for _ in range(6)), return_exceptions=True)
    assert [type(each) for each in results] == [SlowError] * 6
    with pytest.raises(SlowError):
        await asked.ask(dead)
    assert await asked.ask(Reward(holds=1)) == "scores"  # nothing stays taken
