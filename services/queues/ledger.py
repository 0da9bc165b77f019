"""The ledger, and the proof from it and the plan that no prompt was lost or used twice."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pairloop.data.v1.pair_pb2 import DropReason

_NEXT: dict[str, frozenset[str]] = {
    "": frozenset({"dispatched"}),
    "dispatched": frozenset({"sampled", "dropped"}),
    "sampled": frozenset({"scored", "dropped"}),
    "scored": frozenset({"paired", "dropped"}),
    "paired": frozenset({"trained", "dropped"}),
    "restored": frozenset({"trained", "dropped"}),
    "trained": frozenset(),
    "dropped": frozenset(),
}
"""What may happen to a prompt after what; all but a trained one may also be restored."""
_OVER = ("trained", "dropped")
_BACK_AT = {"prompts": "dispatched", "rollouts": "sampled"}
"""The step at which a dead letter is tried again, by the stream it went back to."""


@dataclass(frozen=True)
class LedgerEvent:
    """One line of the ledger."""

    entry_id: str
    """"<milliseconds>-<sequence>" of the server's clock: the order of events."""
    kind: str
    """dispatched, sampled, scored, paired, dropped, trained or published; replayed: a dead letter
    is tried again; restored: Redis lost what led to a checkpoint; what follows is what it says."""
    id: str
    """Of the prompt; empty when published."""
    episode: int
    detail: str
    """sampled: the worker; scored: the scorer; paired: policy versions, "first-last"; dropped: the
    reason; replayed: the stream it went back to; trained and published: the weight version;
    restored: the last step that Redis had."""


def reason_name(reason: DropReason) -> str:
    """As ledger and counters have it: "TIE"."""
    return DropReason.Name(reason).removeprefix("DROP_REASON_")


def ends(events: Iterable[LedgerEvent]) -> tuple[list[str], dict[str, int]]:
    """Who was trained, in order, and how many of the others were dropped, by reason.

    A dead letter that was tried again may be trained after all.
    """
    events = list(events)
    trained = [event.id for event in events if event.kind == "trained"]
    once = set(trained)
    dropped = {event.id: event.detail for event in events if event.kind == "dropped"}
    return trained, dict(Counter(why for id_, why in dropped.items() if id_ not in once))


def ledger_audit(
    events: Iterable[LedgerEvent],
    planned: Mapping[int, Sequence[str]],
    finished: bool = True,
) -> list[str]:
    """Problems of the ledgers of some episodes, one line each; none proves that nothing was lost.

    `planned`: by episode, the id of every prompt that it has. Each must be dispatched, go through
    its steps in order, each once, and end as trained or dropped; none else may be there. With
    `finished=False` prompts still on their way, or not yet dispatched, are no problem. An episode's
    weights are published once.
    """
    problems: list[str] = []
    last: dict[str, LedgerEvent] = {}
    published: dict[int, str] = {}
    episode_of = {id_: episode for episode, ids in planned.items() for id_ in ids}
    for event in events:
        if event.kind == "published":
            if event.episode in published:
                problems.append(f"episode {event.episode}: published again at {event.entry_id}")
            published[event.episode] = event.detail
            continue
        before = last.get(event.id)
        if not _may_follow(event, before):
            step = before.kind if before else "nothing"
            problems.append(f"{event.id}: {event.kind} at {event.entry_id} after {step}")
        new_here = before is None or before.episode != event.episode
        if new_here and episode_of.get(event.id) != event.episode:
            place = f"of episode {episode_of[event.id]}" if event.id in episode_of else "of none"
            problems.append(f"{event.id}: in the ledger of episode {event.episode}, {place}")
        if event.kind in (*_NEXT, "replayed"):
            last[event.id] = event
    if finished:
        problems += [
            f"{id_}: never trained or dropped, last {event.kind} at {event.entry_id}"
            for id_, event in last.items()
            if event.kind not in _OVER
        ]
        problems += [f"{id_}: never dispatched" for id_ in episode_of if id_ not in last]
    return problems


def _may_follow(event: LedgerEvent, before: LedgerEvent | None) -> bool:
    """Whether this may happen to a prompt whose last event was `before`."""
    step = before.kind if before else ""
    if event.kind == "restored":
        return step != "trained"
    if event.kind == "replayed":
        return before is not None and (step, before.detail) == ("dropped", "DEAD_LETTER")
    if before is not None and step == "replayed":
        step = _BACK_AT.get(before.detail, "")
    return event.kind in _NEXT[step]
