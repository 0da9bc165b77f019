"""What a stage of a recipe takes from the recipe: earlier stages' folders, and the seed."""

from pathlib import Path
from typing import Any, TypeVar

from orchestrator.config.settings import Stage
from services.settings import Settings

S = TypeVar("S", bound=Settings)


def resolve(settings: S, made: dict[str, Path]) -> S:
    """The settings with each "@name/file" replaced by a path; a stage not made yet stays."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        if isinstance(value, str) and value.startswith("@"):
            name, _, rest = value[1:].partition("/")
            return str(made[name] / rest) if name in made else value
        return value

    # Only what was set, so that what was left to its default still says so.
    return type(settings).model_validate(walk(settings.model_dump(exclude_unset=True)))


def with_seed(stage: Stage, seed: int) -> Stage:
    """The stage under the run's seed, unless it has one of its own."""
    return stage if "seed" in stage.model_fields_set else stage.model_copy(update={"seed": seed})
