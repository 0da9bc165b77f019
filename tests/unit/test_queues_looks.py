"""How often a consumer looks for what others left."""

from services.queues.looks import Looks


class Clock:
    """Goes when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def times(made: Looks, clock: Clock, until_s: float) -> list[float]:
    """When it looks, and finds nothing, from now on."""
    began, seen = clock.now, list[float]()
    while clock.now - began <= until_s:
        if made.due("prompts", "a"):
            seen.append(clock.now - began)
            made.looked("prompts", "a", 0)
        clock.now += 0.25
    return seen


def test_the_longer_there_is_nothing_the_more_seldom() -> None:
    clock = Clock()
    assert times(Looks(60.0, clock), clock, 20.0) == [0.0, 1.0, 3.0, 7.0, 12.0, 17.0]


def test_where_there_was_something_it_looks_again_at_once() -> None:
    clock = Clock()
    made = Looks(60.0, clock)
    times(made, clock, 20.0)
    made.looked("prompts", "a", 2)
    assert times(made, clock, 4.0) == [0.0, 1.0, 3.0]


def test_after_a_failure_it_looks_soon_and_each_has_its_own_time() -> None:
    clock = Clock()
    made = Looks(60.0, clock)
    times(made, clock, 20.0)
    made.soon("prompts", "a")
    assert times(made, clock, 4.0) == [1.0, 3.0]
    assert made.due("rollouts", "a")
    assert made.due("prompts", "b")


def test_no_lease_runs_out_unseen() -> None:
    clock = Clock()
    assert times(Looks(0.5, clock), clock, 2.0) == [0.0, 0.5, 1.0, 1.5, 2.0]
