"""The names of a run's keys. All carry the run as hash tag: one script may touch several."""

from dataclasses import dataclass
from typing import get_args

from services.queues.items import StreamName

GROUP = "workers"
PARKED = ("failed", "left")
"""Consumers that are none: what is given back waits under these names."""
LAYOUT = 3
"""Of what is written under these keys. 1 (no key says so): that of 0.1.0; 2: every payload is in
its entry."""

RUNS = "pairloop:{runs}:"
"""What the keys begin with that are of all runs: one slot of a cluster."""
RUNS_KEPT_S = 30 * 86_400
"""A run is forgotten so long after its last word."""


@dataclass(frozen=True)
class Keys:
    """Of one run."""

    run: str

    @property
    def prefix(self) -> str:
        """What every key of the run begins with."""
        return f"pairloop:{{{self.run}}}:"

    def _key(self, *parts: str | int) -> str:
        return self.prefix + ":".join(map(str, parts))

    def every(self, episodes: int) -> list[str]:
        """Of a run of so many episodes, but for its lease, which has a term of its own."""
        streams = [
            key for name in get_args(StreamName) for key in (self.stream(name), self.tries(name))
        ]
        own = [self.epoch, self.fenced, self.episodes, self.requests, self.layout, self.dead]
        counted = [
            key for number in range(episodes + 1)
            for key in (self.pairs(number), *self.account(number)[:3])
        ]  # fmt: skip
        return [*own, self.credits, self.changes, *streams, *counted]

    def stream(self, name: str) -> str:
        """Work stream "prompts" or "rollouts"."""
        return self._key(name)

    def pairs(self, episode: int) -> str:
        """Stream of an episode's pairs, kept until they are trained."""
        return self._key("pairs", episode)

    def tries(self, stream: str) -> str:
        """Hash of a work stream: "failures:<entry>" and "deaths:<entry>" of its items."""
        return self._key("tries", stream)

    @property
    def fenced(self) -> str:
        """Set of the consumers that were taken for dead: nothing they send is taken."""
        return self._key("fenced")

    def account(self, episode: int) -> list[str]:
        """What every script that counts takes: `account_at` of lua/common.lua."""
        return [
            self.episode(episode), self.ledger(episode), self.steps(episode), self.credits,
            self.changes,
        ]  # fmt: skip

    def ledger(self, episode: int) -> str:
        """Append-only stream of what happened to each prompt of an episode."""
        return self._key("ledger", episode)

    def steps(self, episode: int) -> str:
        """Hash: the last step of each prompt of an episode that was dispatched, by its id."""
        return self._key("steps", episode)

    def episode(self, number: int) -> str:
        """Hash of an episode: its state, counters and last change."""
        return self._key("episode", number)

    @property
    def episodes(self) -> str:
        """How many episodes there are."""
        return self._key("episodes")

    @property
    def requests(self) -> str:
        """Hash: what each change of an episode answered, by request id."""
        return self._key("requests")

    @property
    def lease(self) -> str:
        """Hash, as long as an orchestrator renews it: who works on the run."""
        return self._key("lease")

    @property
    def epoch(self) -> str:
        """How often an orchestrator took the run: what an older one started is refused."""
        return self._key("epoch")

    @property
    def credits(self) -> str:
        """Credits in use: prompts dispatched and neither trained nor dropped."""
        return self._key("credits")

    @property
    def changes(self) -> str:
        """Stream of one line: the last announcement of a change (changes.py)."""
        return self._key("changes")

    @property
    def layout(self) -> str:
        """Which keys the run has, and what is in them: a number, `LAYOUT`."""
        return self._key("layout")

    @property
    def dead(self) -> str:
        """Stream of the items that kept failing."""
        return self._key("dead")
