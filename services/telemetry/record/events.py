"""What happens in a run, as typed events: every view, file and report is made from these.

Workers push them to the EventSink, the orchestrator's Recorder takes them from there. Each names
its stage, so that the order in which several processes' events arrive does not matter.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from services.settings import Settings
from services.states import State


class RunStarted(Settings):
    """An attempt at the run begins: what passed since the event before it was no work."""

    kind: Literal["run_started"] = "run_started"
    stage: str = ""


class StageStarted(Settings):
    """A job begins."""

    kind: Literal["stage_started"] = "stage_started"
    stage: str
    job: str
    index: int
    """Counted from 1."""
    total: int
    reused: bool = False
    """Its artifact is there already: it finishes at once."""
    policy: str = ""
    """What it trains further: the policy of a stage of this run, or a path or hub name."""


class StageFinished(Settings):
    """A job ended well."""

    kind: Literal["stage_finished"] = "stage_finished"
    stage: str
    job: str
    seconds: float
    reused: bool
    """Its artifact was there already, from the same config and parents."""
    folder: str
    metrics: dict[str, float] = {}


class StageWaiting(Settings):
    """A job cannot go on before people or an event let it: the run ends, the stage is kept."""

    kind: Literal["stage_waiting"] = "stage_waiting"
    stage: str
    reason: str
    """What it waits for, and how far that is."""


class StageHeld(Settings):
    """A training is held between two steps, with all it did in a checkpoint; or it goes on."""

    kind: Literal["stage_held"] = "stage_held"
    stage: str
    held: bool


class TrainProgress(Settings):
    """One optimizer step (or a few)."""

    kind: Literal["train_progress"] = "train_progress"
    stage: str
    step: int
    steps: int
    tokens: int
    """Since the stage began."""
    seconds: float
    """Since the stage's first step began."""
    metrics: dict[str, float]
    """loss, lr, grad_norm, what the loss declares (accuracy, margin, ...); changed_fraction, and
    following_tau: of the values changed, the share that moved the way tau_r points; tokens_per_s,
    of all workers, and limit_fraction: of what the device multiplies at most."""


class EpisodeChanged(Settings):
    """An episode's state or counters moved."""

    kind: Literal["episode_changed"] = "episode_changed"
    stage: str
    number: int
    total: int
    state: State
    prompts: int
    dispatched: int
    in_flight: int
    paired: int
    dropped: dict[str, int]
    reason: str = ""
    """Of a pause or of its end by failure or by an admin."""


class EpisodeFinished(Settings):
    """An episode's weights are published and attested."""

    kind: Literal["episode_finished"] = "episode_finished"
    stage: str
    number: int
    total: int
    version: int
    pairs: int
    dropped: dict[str, int]
    metrics: dict[str, float]
    """Of the groups: reward_mean, reward_<part>, margin, length_gap, answer_tokens,
    unique_answers, groups, pairs. Of the training: loss, accuracy, dpo_margin, trained_pairs, kl,
    changed_fraction, sampler_gap. And, without pauses, sample_seconds, train_seconds and
    sync_seconds."""


class AdminListening(Settings):
    """The admin API of an online stage is up."""

    kind: Literal["admin_listening"] = "admin_listening"
    stage: str
    command: str
    """Calls it from the folder the run was started in; a verb follows: pause, resume, ..."""


class WeightsPublished(Settings):
    """Every engine holds a version and said so."""

    kind: Literal["weights_published"] = "weights_published"
    stage: str
    version: int
    workers: int
    bytes: int
    seconds: float
    repaired: int
    """Workers that needed a second full sync."""
    max_canary_difference: float
    """Nats."""
    changed_values: int = 0
    """Values that differ from the version before."""
    total_values: int = 0


class PairExample(Settings):
    """A pair to look at."""

    kind: Literal["pair_example"] = "pair_example"
    stage: str
    episode: int
    id: str = ""
    """Of the prompt: the same pair told twice is one."""
    prompt: str
    """The last message."""
    messages: list[dict[str, str]] = []
    """The whole dialogue up to the answer: role and content."""
    chosen: str
    rejected: str
    chosen_about: str = ""
    """Its length, and whether it was cut: "12 tokens, cut"."""
    rejected_about: str = ""
    versions: str = ""
    """Of the policy that sampled it: "3" or "2 to 3"."""
    chosen_score: float
    rejected_score: float
    parts: dict[str, tuple[float, float]] = {}
    """By reward part: of chosen, of rejected."""
    metadata: dict[str, str] = {}


class SkillAccuracy(Settings):
    """Share of right answers in one skill."""

    sampled: float
    sampled_n: int
    greedy: float
    greedy_n: int
    in_preferences: bool = True
    """Whether the preference data holds this skill."""


class Evaluated(Settings):
    """A policy was measured on held-out data."""

    kind: Literal["evaluated"] = "evaluated"
    stage: str
    """That did the measuring."""
    policy: str = ""
    """Whose model was measured: the name of a stage of this run, or a path or hub name."""
    sampled: float | None = None
    """Accuracy at temperature 1."""
    sampled_n: int = 0
    """Answers."""
    greedy: float | None = None
    greedy_n: int = 0
    skills: dict[str, SkillAccuracy] = {}
    lm_loss: float | None = None
    """Nats a token."""
    lm_tokens: int = 0
    seconds: float = 0.0


class PartReplaced(Settings):
    """A part of the run died or hung, and another takes its place. A Note says why."""

    kind: Literal["part_replaced"] = "part_replaced"
    stage: str
    """"" for a part of the whole run."""
    part: str
    """As errors have it: "the learner", "rollout-0"."""


class Note(Settings):
    """A line for the reader."""

    kind: Literal["note"] = "note"
    stage: str = ""
    """"" when it concerns the whole run; the text need not repeat it."""
    text: str
    level: Literal["info", "warning"] = "info"
    doubt: str = ""
    """Which sign in the numbers it tells of (record/doubts.py); one of a kind a stage."""


Event = Annotated[
    RunStarted
    | StageStarted
    | StageFinished
    | StageWaiting
    | StageHeld
    | TrainProgress
    | AdminListening
    | EpisodeChanged
    | EpisodeFinished
    | WeightsPublished
    | PairExample
    | Evaluated
    | PartReplaced
    | Note,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
