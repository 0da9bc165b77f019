"""The reward: its parts, each scored and reported on its own, summed by weight."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import fsum, isfinite
from typing import TYPE_CHECKING

from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import FINISH_REASON_LENGTH, Prompt, Sample
from services.data.messages import plain_messages
from services.errors import LineageError, WorkerError
from services.hub import find_model
from services.reward import rules
from services.reward.function import load_function
from services.reward.settings import (
    TAKEN_NAMES,
    CheckerReward,
    FunctionReward,
    LengthReward,
    MissingEosReward,
    ModelReward,
    RewardPart,
    RewardSettings,
)

if TYPE_CHECKING:
    from services.reward.model import RewardModel

Rule = CheckerReward | LengthReward | MissingEosReward | FunctionReward
ScoreGroup = Callable[[Prompt, Sequence[Sample]], list[float]]


@dataclass(frozen=True)
class Part:
    """One term of the sum."""

    name: str
    weight: float
    score: ScoreGroup


class Composite:
    """All parts of one reward."""

    def __init__(self, parts: Sequence[Part], models: Sequence["RewardModel"] = ()) -> None:
        self.parts = list(parts)
        self._models = list(models)
        fingerprints = sorted({model.fingerprint for model in models})
        if len(fingerprints) > 1:
            raise LineageError(
                f"reward.parts: the reward models read different tokenizers "
                f"({', '.join(fingerprints)}); use models of one family"
            )
        self.fingerprint = fingerprints[0] if fingerprints else ""
        """Of the tokenizer the models read; empty when no part reads tokens."""

    def score(self, prompt: Prompt, samples: Sequence[Sample]) -> list[Score]:
        """One score a sample: total = sum of weight * part, and each part unweighted.

        Raises DataError for a prompt without the metadata a rule needs, WorkerError for a
        part that fails or gives a value that is not finite.
        """
        values = {part.name: part.score(prompt, samples) for part in self.parts}
        for name, column in values.items():
            for sample, value in zip(samples, column, strict=True):
                if not isfinite(value):
                    raise WorkerError(
                        f"reward part {name} gave {value} for {prompt.id}, sample {sample.index}"
                    )
        return [
            Score(
                total=fsum(part.weight * values[part.name][i] for part in self.parts),
                parts={part.name: values[part.name][i] for part in self.parts},
            )
            for i in range(len(samples))
        ]

    def check(self) -> None:
        """Raise when a part can no longer score."""
        for model in self._models:
            model.check()


def build(settings: RewardSettings, folder: str) -> Composite:
    """Load every part. Relative model folders and the user's own modules are under `folder`.

    Raises ConfigError for a function that is not there, ArtifactError for a folder that is no
    reward model, LineageError for models of different tokenizers.
    """
    models: list[RewardModel] = []
    parts = []
    for name, part in zip(part_names(settings), settings.parts, strict=True):
        if isinstance(part, ModelReward):
            models.append(_load_model(part, settings, folder))
            score: ScoreGroup = models[-1].score
        else:
            score = _rule(part, folder)
        parts.append(Part(name, part.weight, score))
    return Composite(parts, models)


def part_names(settings: RewardSettings) -> list[str]:
    """A name a part: its own, else a function's name or the kind of any other part.

    Equal names are told apart: functions by their module ("my_rewards.score"), what is left by a
    number from the second on ("model_2"). A name that was given stays as it is.
    """
    names = [part.name or _default_name(part) for part in settings.parts]
    names = [
        part.path.replace(":", ".")
        if isinstance(part, FunctionReward) and not part.name and names.count(name) > 1
        else name
        for part, name in zip(settings.parts, names, strict=True)
    ]
    taken = {part.name for part in settings.parts if part.name}
    for at, part in enumerate(settings.parts):
        if not part.name:
            names[at] = next(name for name in _numbered(names[at]) if name not in taken)
            taken.add(names[at])
    return names


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def _default_name(part: RewardPart) -> str:
    if not isinstance(part, FunctionReward):
        return part.kind
    name = part.path.split(":")[1]
    return part.path.replace(":", ".") if name in TAKEN_NAMES else name


def describe(settings: RewardSettings) -> str:
    """One line: "1.0*model(runs/demo/reward_model) + 2.0*checker"."""
    return " + ".join(
        f"{part.weight}*{part.kind}"
        + (f"({part.path})" if isinstance(part, ModelReward | FunctionReward) else "")
        for part in settings.parts
    )


def _load_model(part: ModelReward, settings: RewardSettings, folder: str) -> "RewardModel":
    from services.reward.model import RewardModel, set_threads

    set_threads(settings.threads or os.cpu_count() or 1)
    path = find_model(part.path, folder)
    device = "cuda" if settings.num_gpus > 0 else "cpu"
    return RewardModel(path, part.dtype, part.max_length, device)


def _rule(part: Rule, folder: str) -> ScoreGroup:
    if isinstance(part, CheckerReward):
        return lambda prompt, samples: [
            rules.checker(prompt.id, prompt.metadata, sample.text) for sample in samples
        ]
    if isinstance(part, LengthReward):
        target, scale = part.target, part.scale
        return lambda prompt, samples: [
            rules.length(len(sample.token_ids), target, scale) for sample in samples
        ]
    if isinstance(part, MissingEosReward):
        return lambda prompt, samples: [
            rules.missing_eos(sample.finish_reason == FINISH_REASON_LENGTH) for sample in samples
        ]
    function = load_function(part.path, folder)
    return lambda prompt, samples: [
        function(prompt.id, prompt.text, sample.text, prompt.metadata, plain_messages(prompt))
        for sample in samples
    ]
