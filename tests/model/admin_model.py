"""What the episode store answers, as the docstrings of orchestrator/episodes.py have it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pairloop.admin.v1.admin_pb2 import Episode
from services.states import state_of
from tests.model.run_model import RefusedError, Run

PAUSES = {"PENDING": "PAUSED", "SAMPLING": "PAUSING"}
HELD = ("PAUSING", "PAUSED")
OVER = ("COMPLETED", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Shown:
    """An episode as it is answered; `reason` and `request`: of its last change."""

    number: int
    state: str
    prompts: int
    counters: dict[str, int]
    error: str
    reason: str
    request: str


def shown(episode: Episode) -> Shown:
    counters = {
        "dispatched": episode.dispatched,
        "in_flight": episode.in_flight,
        "paired": episode.paired,
        "trained": episode.trained,
        **{f"dropped:{reason}": n for reason, n in episode.dropped.items()},
    }
    change = episode.last_change
    request = "" if len(change.request_id) == 32 else change.request_id  # one of its own making
    return Shown(
        episode.number, state_of(episode), episode.prompts, counters, episode.error,
        change.reason, request,
    )  # fmt: skip


@dataclass
class Admin:
    """Beside the run: who asked for what, and what was answered."""

    run: Run
    answers: dict[str, tuple[str, Shown]] = field(default_factory=dict)
    last: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Reason and request id of an episode's last change."""
    errors: dict[int, str] = field(default_factory=dict)

    def show(self, number: int) -> Shown:
        episode = self.run.episodes[number]
        left_out = ("sampled", "scored")
        counters = {name: n for name, n in episode.counters().items() if name not in left_out}
        return Shown(
            number, episode.state, episode.planned, counters, self.errors.get(number, ""),
            *self.last.get(number, ("", "")),
        )  # fmt: skip

    def current(self) -> int:
        going = [n for n, episode in self.run.episodes.items() if episode.state not in OVER]
        return going[0] if going else len(self.run.episodes)

    def pause(self, number: int, reason: str, request: str) -> Shown:
        """Of 0: the first that is held already, or is still to be sampled."""

        def target(state: str) -> str | None:
            return PAUSES.get(state)

        return self._asked(f"pause:{number}", number, (*PAUSES, *HELD), target, reason, request)

    def resume(self, number: int, reason: str, request: str) -> Shown:
        def target(state: str) -> str | None:
            return "back" if state in HELD else None

        return self._asked(f"resume:{number}", number, HELD, target, reason, request)

    def abort(self, number: int, to: str, reason: str, request: str) -> Shown:
        return self._asked(f"move:{number}:{to}", number, (), lambda state: to, reason, request)

    def _asked(
        self,
        operation: str,
        number: int,
        fits: tuple[str, ...],
        target: Callable[[str], str | None],
        reason: str,
        request: str,
    ) -> Shown:
        if request in self.answers:
            before, answer = self.answers[request]
            if before != operation:
                raise RefusedError
            return answer
        if not number:
            found = [n for n, each in self.run.episodes.items() if each.state in fits]
            if not found:
                raise RefusedError
            number = found[0]
        if number not in self.run.episodes:
            raise KeyError(number)
        episode = self.run.episodes[number]
        to = target(episode.state)
        if to is None:
            raise RefusedError
        self.run.move(number, episode.paused_from if to == "back" else to)
        self.last[number] = (reason, request)
        if to == "FAILED":
            self.errors[number] = reason
        answer = self.show(number)
        if request:
            self.answers[request] = (operation, answer)
        return answer
