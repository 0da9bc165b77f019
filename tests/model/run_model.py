"""What Redis has of a run, as docs/architecture.md and ADR 0013 have it; in plain Python.

Nothing is counted along the way: counters, credits and last steps are read off the ledger.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

TABLE = {
    "PENDING": {"SAMPLING", "PAUSED", "FAILED", "CANCELLED"},
    "SAMPLING": {"PAUSING", "TRAINING", "FAILED", "CANCELLED"},
    "PAUSING": {"PAUSED", "SAMPLING", "FAILED", "CANCELLED"},
    "PAUSED": {"SAMPLING", "PENDING", "FAILED", "CANCELLED"},
    "TRAINING": {"PUBLISHING", "FAILED"},
    "PUBLISHING": {"COMPLETED", "FAILED"},
    "FAILED": {"SAMPLING"},
}
"""The one of docs/architecture.md."""
PARKED = ("failed", "left")
Event = tuple[str, str, str]
"""Kind, prompt, detail."""


class RefusedError(Exception):
    """The caller is told that another has its place, or that the state does not allow it."""


@dataclass
class Entry:
    """An item on a work stream."""

    id: str
    episode: int
    holder: str = ""
    """Nobody took it yet; else a consumer, or where it was given back."""
    stale: bool = False
    """Its holder has not renewed it for long."""
    failures: int = 0
    deaths: int = 0
    entry: str = ""
    """What the server calls it."""


@dataclass
class Episode:
    planned: int
    state: str = "PENDING"
    paused_from: str = ""
    version: int = 0
    ledger: list[Event] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    committed: bool = False
    """A checkpoint is known to hold it."""
    archived: dict[str, int] | None = None
    """Its counters, once the ledger was put away."""

    def last(self) -> dict[str, tuple[str, str]]:
        """Of each prompt that was dispatched: its last step."""
        return {id_: (kind, detail) for kind, id_, detail in self.ledger if id_}

    def having(self, *kinds: str) -> list[str]:
        return [id_ for id_, (kind, _) in self.last().items() if kind in kinds]

    def counters(self) -> dict[str, int]:
        if self.archived is not None:
            return self.archived
        events = Counter(kind for kind, _, _ in self.ledger)
        counted = {
            "dispatched": len(self.last()),
            "in_flight": len(self.having("dispatched", "sampled")),
            "sampled": events["sampled"],
            "scored": events["scored"],
            "paired": len(self.having("paired", "trained")),
            "trained": len(self.having("trained")),
        }
        why = Counter(detail for kind, detail in self.last().values() if kind == "dropped")
        return counted | {f"dropped:{reason}": n for reason, n in why.items()}


@dataclass
class Run:
    """All of it falls back together."""

    episodes: dict[int, Episode]
    credits: int
    max_failures: int
    max_deaths: int
    epoch: int = 0
    lease: str = ""
    """Token of who holds the run."""
    streams: dict[str, list[Entry]] = field(default_factory=lambda: {"prompts": [], "rollouts": []})
    grouped: set[str] = field(default_factory=set)
    """Streams that somebody has read."""
    fenced: set[str] = field(default_factory=set)
    dead: list[tuple[str, str, int, int]] = field(default_factory=list)
    """Stream, prompt, failures, deaths."""

    def credits_in_use(self) -> int:
        return sum(
            len(episode.having("dispatched", "sampled", "paired"))
            for episode in self.episodes.values()
        )

    def dispatch(self, number: int, prompts: Iterable[tuple[int, str]]) -> tuple[int, int, str]:
        episode, sent, known = self.episodes[number], 0, 0
        if episode.state != "SAMPLING":
            return 0, 0, "state"
        for index, id_ in prompts:
            if id_ in episode.last():
                known += 1
            elif index > len(episode.last()):
                return sent, known, "order"
            elif self.credits_in_use() >= self.credits:
                return sent, known, "credits"
            else:
                episode.ledger.append(("dispatched", id_, ""))
                self.streams["prompts"].append(Entry(id_, number))
                sent += 1
        return sent, known, ""

    def found(self, stream: str, entry: str) -> Entry | None:
        return next((each for each in self.streams[stream] if each.entry == entry), None)

    def commit(
        self, stream: str, entry: str, consumer: str, events: Sequence[tuple[str, str]]
    ) -> bool:
        """The first who does, also one that lost the item meanwhile; but nobody taken for dead."""
        item = self.found(stream, entry)
        if consumer in self.fenced:
            if item:
                self.give_up(item, consumer)
            raise RefusedError
        if item is None or not item.holder:
            return False
        episode = self.episodes[item.episode]
        episode.ledger += [(kind, item.id, detail) for kind, detail in events]
        self.streams[stream].remove(item)
        if events[-1][0] == "sampled":
            self.streams["rollouts"].append(Entry(item.id, item.episode))
        elif events[-1][0] == "paired":
            episode.pairs.append(item.id)
        self._settle(episode)
        return True

    def fail(self, stream: str, entry: str, consumer: str) -> bool:
        item = self.found(stream, entry)
        if item is None or item.holder != consumer:
            return False
        item.failures += 1
        if item.failures < self.max_failures:
            item.holder, item.stale = "failed", False
            return False
        self.bury(stream, item)
        return True

    def bury(self, stream: str, item: Entry) -> None:
        self.dead.append((stream, item.id, item.failures, item.deaths))
        self.streams[stream].remove(item)
        episode = self.episodes[item.episode]
        episode.ledger.append(("dropped", item.id, "DEAD_LETTER"))
        self._settle(episode)

    def give_back(self, stream: str, consumer: str, died: bool) -> int:
        self.fenced.add(consumer)
        held = [item for item in self.streams[stream] if item.holder == consumer]
        for item in held:
            item.holder, item.stale = "left", False
            item.deaths += died
        return len(held)

    def give_up(self, item: Entry, consumer: str) -> None:
        """One that was taken for dead holds nothing, whatever it took since."""
        if item.holder == consumer:
            item.holder, item.stale = "left", False

    def move(self, number: int, to: str) -> None:
        episode = self.episodes[number]
        counted = episode.counters()
        if to not in TABLE.get(episode.state, ()):
            raise RefusedError
        if to == "TRAINING" and (counted["dispatched"], counted["in_flight"]) != (
            episode.planned, 0,
        ):  # fmt: skip
            raise RefusedError
        if to == "COMPLETED":
            before = self.episodes.get(number - 1)
            if before and before.state != "COMPLETED":
                raise RefusedError
            if not episode.committed or counted["trained"] < counted["paired"]:
                raise RefusedError
        if to in ("PAUSING", "PAUSED") and episode.state != "PAUSING":
            episode.paused_from = episode.state
        episode.state = to
        self._settle(episode)

    def commit_trained(
        self, number: int, version: int, trained: Sequence[str], dropped: Mapping[str, str]
    ) -> int:
        """RefusedError where the two contradict each other."""
        episode, now = self.episodes[number], 0
        if episode.state == "COMPLETED":
            return 0
        ends = {id_: ("trained", str(version)) for id_ in trained}
        ends |= {id_: ("dropped", reason) for id_, reason in dropped.items()}
        for id_, end in ends.items():
            kind, detail = episode.last().get(id_, ("", ""))
            if kind == "trained" and end[0] == "dropped":
                raise RefusedError
            if kind == "trained" or (kind, detail) == end:
                continue
            if kind != "paired":
                episode.ledger.append(("restored", id_, kind))
                for waiting in self.streams.values():
                    waiting[:] = [item for item in waiting if item.id != id_]
            episode.ledger.append((end[0], id_, end[1]))
            now += end[0] == "trained"
        counted = episode.counters()
        if counted["in_flight"] or counted["paired"] != counted["trained"]:
            raise RefusedError
        episode.pairs.clear()
        episode.committed = True
        if episode.state not in ("TRAINING", "PUBLISHING"):
            episode.state = "TRAINING"
        return now

    def published(self, number: int, version: int) -> bool:
        episode = self.episodes[number]
        if episode.version == version:
            return False
        episode.version = version
        episode.ledger.append(("published", "", str(version)))
        return True

    def forget(self, number: int) -> None:
        episode = self.episodes[number]
        episode.archived = episode.counters()
        self.dead = [letter for letter in self.dead if letter[1] not in episode.last()]
        episode.ledger, episode.pairs = [], []

    def _settle(self, episode: Episode) -> None:
        if episode.state == "PAUSING" and not episode.counters()["in_flight"]:
            episode.state = "PAUSED"
