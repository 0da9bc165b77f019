"""What a run has come to: views, summary and report read this alone. `reduce.apply` fills it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.states import WORKING, State
from services.telemetry.record.events import Evaluated, PairExample, WeightsPublished


@dataclass(slots=True)
class Point:
    """One point of a training curve."""

    episode: int
    """Which was in training; 0 outside the online loop."""
    step: int
    steps: int
    tokens: int
    seconds: float
    metrics: dict[str, float]


@dataclass(slots=True)
class Episode:
    """One round of the online loop."""

    number: int
    total: int
    state: State = State.PENDING
    prompts: int = 0
    dispatched: int = 0
    in_flight: int = 0
    paired: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    version: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    changed_at: float = 0.0
    """When `state` last changed."""
    sampling: bool = False
    """Whether its prompts are being answered now, as far as this attempt has said."""
    sampling_seconds: float = 0.0
    """In all attempts, without pauses."""


@dataclass(slots=True)
class Stage:
    """One job of the run."""

    name: str
    job: str = ""
    policy: str = ""
    """What it trains further: the policy of a stage of this run, or a path or hub name."""
    index: int = 0
    total: int = 0
    worked: float = 0.0
    """Seconds that it was under way, in all attempts, without pauses."""
    paused: float = 0.0
    """Seconds that all of it was paused."""
    finished: bool = False
    reused: bool = False
    waiting: str = ""
    """What the job waits for; the run has ended meanwhile."""
    held: bool = False
    """Its training waits between two steps, as the run is paused."""
    seconds: float | None = None
    """What making it took, all attempts together, without pauses; None while unknown."""
    folder: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[Point] = field(default_factory=list)
    admin: str = ""
    """The command that calls the admin API of an online stage, without its verb."""
    evaluation: Evaluated | None = None
    """Of this stage's model; of any other model when this stage itself evaluated it."""
    evaluates: str = ""
    """The stage of this run whose model this one measured, and which holds the evaluation."""
    episodes: dict[int, Episode] = field(default_factory=dict)
    weights: dict[int, WeightsPublished] = field(default_factory=dict)
    examples: dict[int, dict[str, PairExample]] = field(default_factory=dict)
    """By episode, then by the prompt's id: the same pair reported twice is one."""

    @property
    def status(self) -> str:
        """ "finished", "waiting" or "unfinished"."""
        if self.finished:
            return "finished"
        return "waiting" if self.waiting else "unfinished"

    def finished_episodes(self) -> list[Episode]:
        """In order."""
        return [e for _, e in sorted(self.episodes.items()) if e.finished]

    def working_episodes(self) -> list[Episode]:
        """Those under way, in order: more than one where sampling overlaps training."""
        return [e for _, e in sorted(self.episodes.items()) if e.state in WORKING]


@dataclass(slots=True)
class TimedNote:
    """A note and when it came."""

    at: float
    stage: str
    text: str
    level: str
    doubt: str = ""
    """As in Note."""

    @property
    def line(self) -> str:
        """The text after the name of its stage."""
        return f"{self.stage}: {self.text}" if self.stage else self.text


@dataclass(slots=True)
class RunState:
    """Everything reported so far."""

    stages: dict[str, Stage] = field(default_factory=dict)
    current: str = ""
    """The stage that started last."""
    notes: list[TimedNote] = field(default_factory=list)
    started_at: float = 0.0
    """Wall time of the first event; of the last one below."""
    last_at: float = 0.0
    worked: float = 0.0
    """Seconds of all attempts up to the last event, without pauses."""
    paused: float = 0.0
    attempts: int = 0

    def ordered(self) -> list[Stage]:
        """The stages in the order of the run."""
        return sorted(self.stages.values(), key=lambda stage: stage.index)

    def shown(self) -> list[Stage]:
        """The stages a reader looks for, in order.

        An evaluation that is done is shown in the row of the stage it measured.
        """
        return [stage for stage in self.ordered() if not (stage.evaluates and stage.finished)]

    def evaluations(self) -> list[Stage]:
        """The stages that `shown` leaves out."""
        return [stage for stage in self.ordered() if stage.evaluates and stage.finished]

    def evaluated(self) -> list[Stage]:
        """The stages whose model was measured, in order."""
        return [stage for stage in self.ordered() if stage.evaluation is not None]

    def held(self) -> bool:
        """Whether nothing works now because an admin paused it."""
        stage = self.running()
        if stage is not None and stage.held:
            return True
        working = stage.working_episodes() if stage is not None else []
        return bool(working) and all(episode.state == State.PAUSED for episode in working)

    def running(self) -> Stage | None:
        """The stage under way."""
        stage = self.stages.get(self.current)
        return stage if stage is not None and not (stage.finished or stage.waiting) else None


def total_drops(episodes: Iterable[Episode]) -> dict[str, int]:
    """Groups that gave no pair, by reason."""
    totals: Counter[str] = Counter()
    for episode in episodes:
        totals.update(episode.dropped)
    return dict(totals)


def skill_names(stages: Iterable[Stage]) -> list[tuple[str, bool]]:
    """Every skill evaluated and whether the preference data holds it; those it lacks come last."""
    names: dict[str, bool] = {}
    for stage in stages:
        if stage.evaluation is not None:
            for name, skill in stage.evaluation.skills.items():
                names[name] = skill.in_preferences
    return sorted(names.items(), key=lambda item: (not item[1], item[0]))
