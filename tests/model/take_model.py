"""What a `take` may answer, as the docstrings of services/queues/queues.py have it."""

from collections.abc import Collection, Sequence

from services.queues.items import Item
from tests.model.run_model import PARKED, Entry, Run


def taken(
    run: Run, stream: str, consumer: str, renewed: Collection[str], count: int,
    items: Sequence[Item], buried: Sequence[str],
) -> None:  # fmt: skip
    """Check an answer, and let it have happened.

    `renewed`: entries that the consumer's process holds; `buried`: prompts that went to the dead
    letters meanwhile.
    """
    waiting = run.streams[stream]

    def lost(item: Entry) -> bool:
        """Whether who holds it was not heard of, or is a predecessor of the caller."""
        mine = item.holder == consumer
        return (item.stale and not mine) or (mine and item.entry not in renewed)

    def due(item: Entry) -> int:
        """Deaths, once the caller has it."""
        return item.deaths + (item.holder not in PARKED)

    abandoned = [item for item in waiting if item.holder in PARKED or lost(item)]
    fresh = [item for item in waiting if not item.holder]
    alone = any(item.entry in renewed and item.deaths > 1 for item in waiting)
    got = {item.entry_id: item for item in items}
    assert len(got) == len(items) <= count
    for item in [each for each in abandoned if each.id in buried]:
        item.deaths, item.holder = due(item), consumer
        assert item.deaths >= run.max_deaths
        abandoned.remove(item)
        run.bury(stream, item)
    again = [item for item in abandoned if item.entry in got]
    suspects = [item for item in again if due(item) > 1]
    assert len(suspects) <= (0 if alone else 1), "two that may end their workers"
    new = fresh[: len(items) - len(again)]
    assert {item.entry for item in (*again, *new)} == got.keys(), "not theirs, or out of order"

    left = [item for item in abandoned if item.entry not in got]
    alone = alone or bool(suspects)
    if not buried or not items:
        passed_over = [item for item in left if not (alone and due(item) > 1)]
        assert not passed_over or (len(again) == count and not new), "abandoned ones are first"
        assert len(items) == count or len(new) == len(fresh), "more was there"
    for item in again:
        item.deaths = due(item)
    for item in (*again, *new):
        item.holder, item.stale = consumer, False
        sent = got[item.entry]
        assert (sent.prompt_id, sent.episode, sent.deaths) == (item.id, item.episode, item.deaths)
        assert item.deaths < run.max_deaths
