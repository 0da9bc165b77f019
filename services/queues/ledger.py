"""The ledger, and the proof from it alone that no prompt was lost or used twice."""

from collections.abc import Iterable
from dataclasses import dataclass

_NEXT: dict[str, frozenset[str]] = {
    "": frozenset({"dispatched"}),
    "dispatched": frozenset({"sampled", "dropped"}),
    "sampled": frozenset({"scored", "dropped"}),
    "scored": frozenset({"paired", "dropped"}),
    "paired": frozenset({"trained"}),
    "trained": frozenset(),
    "dropped": frozenset(),
}
"""What may happen to a prompt after what."""


@dataclass(frozen=True)
class LedgerEvent:
    """One line of the ledger."""

    entry_id: str
    """"<milliseconds>-<sequence>" of the server's clock: the order of events."""
    kind: str
    """dispatched, sampled, scored, paired, dropped, trained or published."""
    id: str
    """Of the prompt; empty when published."""
    episode: int
    detail: str
    """sampled: the worker; scored: the scorer; paired: policy versions, "first-last"; dropped: the
    reason; trained and published: the weight version."""


def ledger_audit(events: Iterable[LedgerEvent], finished: bool = True) -> list[str]:
    """Problems of a whole ledger, one line each; none proves that no prompt was lost or repeated.

    Every dispatched prompt must go through its steps in order, each once, and end as trained or
    dropped. With `finished=False` prompts still on their way are no problem. An episode's weights
    are published once.
    """
    problems: list[str] = []
    last: dict[str, LedgerEvent] = {}
    published: dict[int, str] = {}
    for event in events:
        if event.kind == "published":
            if event.episode in published:
                problems.append(f"episode {event.episode}: published again at {event.entry_id}")
            published[event.episode] = event.detail
            continue
        before = last.get(event.id)
        step = before.kind if before else ""
        if event.kind not in _NEXT[step]:
            problems.append(
                f"{event.id}: {event.kind} at {event.entry_id} after {step or 'nothing'}"
            )
        if before and before.episode != event.episode:
            problems.append(f"{event.id}: in episode {before.episode} and {event.episode}")
        if event.kind in _NEXT:
            last[event.id] = event
    if finished:
        problems += [
            f"{id_}: never trained or dropped, last {event.kind} at {event.entry_id}"
            for id_, event in last.items()
            if _NEXT[event.kind]
        ]
    return problems
