"""How the loop moves and watches an episode while an admin may pause it at any moment."""

from orchestrator.online.ports import Episodes, LoopPorts
from pairloop.admin.v1.admin_pb2 import Change, Episode
from services.causes import lost_to_errors, too_many_lost
from services.errors import StallError, StateError, WorkerError
from services.queues.settings import EpisodeSettings
from services.states import ABORTED, SAMPLED, State, state_of
from services.telemetry.record.events import EpisodeChanged, Note

POLL_S = 1.0
"""Longest time between two looks at an episode; what changes in it is announced meanwhile."""


async def to_publishing(ports: LoopPorts, number: int, timeout_s: float) -> Episode:
    """Move an episode on that was trained; one that is there or further stays.

    Where Redis fell back to before its training the learner's next commit makes good what was
    lost: StallError when there is none in time.
    """
    while True:
        episode = await ports.episodes.get(number)
        raise_if_aborted(episode, ports.stage)
        state = state_of(episode)
        if state not in SAMPLED:
            await until_committed(ports, number, timeout_s)
        elif state != State.TRAINING:
            return episode
        elif (moved := await try_move(ports.episodes, number, State.PUBLISHING)) is not None:
            return moved


async def try_move(episodes: Episodes, number: int, to: State) -> Episode | None:
    """The moved episode, or None when a pause or a resume came first, or Redis fell back."""
    try:
        return await episodes.move(number, to)
    except StateError:
        if state_of(await episodes.get(number)) in ABORTED:
            raise
        return None


async def fail_if_too_many_failed(
    ports: LoopPorts, episode: Episode, settings: EpisodeSettings
) -> None:
    """End an episode that lost more of its prompts than `settings.max_failed` allows.

    Lost is what kept failing, and what was sampled by weights that are too old. The same command
    tries the first again (docs/adr/0005-failed-episodes.md). Ties, single answers and the like are
    the policy's doing: the next episode goes on. Raises WorkerError with the causes.
    """
    lost = _lost(episode)
    if not too_many_lost(lost, episode.prompts, settings.max_failed):
        return
    budget = f"episodes.max_failed allows {settings.max_failed:.0%}"
    reason = lost_to_errors(lost, episode.prompts, await _causes(ports, episode), budget)
    change = Change(actor="the loop", reason=reason)
    failed = await ports.episodes.move(episode.number, State.FAILED, change)
    ports.report(episode_event(failed, settings.count, ports.stage))
    raise WorkerError(f"episode {episode.number} failed: {reason}; {_anew(failed, ports.stage)}")


async def until_committed(ports: LoopPorts, number: int, timeout_s: float) -> Episode:
    """The episode, once a checkpoint of the learner holds its pairs. StallError past the time."""
    until = ports.clock() + timeout_s
    while True:
        episode = await ports.episodes.get(number)
        raise_if_aborted(episode, ports.stage)
        # Where Redis fell back to before the episode was sampled, the learner's next commit makes
        # good what is missing.
        if state_of(episode) in SAMPLED and episode.trained >= episode.paired:
            return episode
        if ports.clock() > until:
            raise StallError(
                f"episode {number}: the learner wrote no checkpoint within {timeout_s:.0f} s; see"
                " its log and the disk, or raise episodes.timeout_s"
            )
        await ports.changed(POLL_S)


async def tell_failures(ports: LoopPorts, episode: Episode) -> None:
    """A warning with the causes when an episode lost some of its prompts."""
    if lost := _lost(episode):
        said = lost_to_errors(lost, episode.prompts, await _causes(ports, episode))
        text = f"episode {episode.number}: {said}"
        ports.report(Note(stage=ports.stage, text=text, level="warning"))


def _lost(episode: Episode) -> int:
    return episode.dropped.get("DEAD_LETTER", 0) + episode.dropped.get("STALE", 0)


async def _causes(ports: LoopPorts, episode: Episode) -> str:
    stale = episode.dropped.get("STALE", 0)
    too_old = f"{stale} x sampled by weights older than episodes.max_staleness allows"
    failures = await ports.failures(episode.number) if episode.dropped.get("DEAD_LETTER") else ""
    return ", ".join(text for text in (failures, too_old if stale else "") if text)


class ChangeWatch:
    """Reports an episode whenever something in it changed; raises when nothing does for long."""

    def __init__(self, ports: LoopPorts, settings: EpisodeSettings) -> None:
        self._ports, self._settings = ports, settings
        self._last: EpisodeChanged | None = None
        self._since = ports.clock()

    def see(self, episode: Episode) -> bool:
        """Look at the episode as it is now: whether it changed. No time passes while it is paused.

        Raises StallError after `settings.timeout_s` without a change.
        """
        now = episode_event(episode, self._settings.count, self._ports.stage)
        changed = now != self._last
        if changed:
            self._ports.report(now)
        if changed or state_of(episode) == State.PAUSED:
            self._last, self._since = now, self._ports.clock()
        elif self._ports.clock() - self._since > self._settings.timeout_s:
            raise StallError(
                f"episode {episode.number}: nothing moved for {self._settings.timeout_s:.0f} s"
                f" with {episode.in_flight} prompts in flight ({state_of(episode)}); see the"
                " rollout and pair workers' logs, or raise episodes.timeout_s"
            )
        return changed


def raise_if_aborted(episode: Episode, stage: str) -> None:
    """StateError for an episode that will not go on."""
    if state_of(episode) == State.CANCELLED:
        change = episode.last_change
        who = f" by {change.actor}: {change.reason}" if change.actor else ""
        raise StateError(
            f"episode {episode.number} was cancelled{who}; begin the stage anew: --fresh {stage}"
        )
    if state_of(episode) in ABORTED:
        cause = f": {episode.error}" if episode.error else ""
        raise StateError(
            f"episode {episode.number} is {state_of(episode)}{cause}; {_anew(episode, stage)}"
        )


def _anew(episode: Episode, stage: str) -> str:
    if episode.dropped.get("DEAD_LETTER"):
        return f"mend the cause; the same command tries them again, --fresh {stage} begins anew"
    return f"mend the cause, then begin the stage anew: --fresh {stage}"


def episode_event(episode: Episode, total: int, stage: str) -> EpisodeChanged:
    """What is reported of an episode as it is now; `total`: episodes of the run."""
    return EpisodeChanged(
        stage=stage,
        number=episode.number,
        total=total,
        state=state_of(episode),
        prompts=episode.prompts,
        dispatched=episode.dispatched,
        in_flight=episode.in_flight,
        paired=episode.paired,
        dropped=dict(episode.dropped),
        reason=episode.last_change.reason,
    )
