"""The names of a run's keys. All carry the run as hash tag: one script may touch several."""

from dataclasses import dataclass

GROUP = "workers"


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

    def stream(self, name: str) -> str:
        """Work stream "prompts" or "rollouts"."""
        return self._key(name)

    def pairs(self, episode: int) -> str:
        """Stream of an episode's pairs, kept until they are trained."""
        return self._key("pairs", episode)

    def dispatched(self, episode: int) -> str:
        """Set of the prompt ids of an episode that were dispatched."""
        return self._key("dispatched", episode)

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
    def credits(self) -> str:
        """Credits in use: prompts dispatched and neither trained nor dropped."""
        return self._key("credits")

    @property
    def ledger(self) -> str:
        """Append-only stream of what happened to every prompt."""
        return self._key("ledger")

    @property
    def dead(self) -> str:
        """Stream of the items that kept failing."""
        return self._key("dead")
