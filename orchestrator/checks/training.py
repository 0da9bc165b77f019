"""What is likely a mistake in a training job, told from its settings and its rows."""

from pathlib import Path

from services.data.settings import DataSource
from services.data.sources import row_count
from services.learner.jobs.settings import ContextExtension
from services.learner.optim.warnings import optimizer_warnings, warmup_warnings
from services.learner.settings import TrainSettings
from services.queues.settings import EpisodeSettings


def training_warnings(train: TrainSettings, rows: DataSource | None = None) -> list[str]:
    """Of the optimizer and the warm-up; `rows` are the examples, one a row at most."""
    return [*optimizer_warnings(train.optimizer), *warmup_warnings(train, _count(rows))]


def episode_warnings(
    train: TrainSettings, episodes: EpisodeSettings, prompts: DataSource
) -> list[str]:
    """As `training_warnings`, of an online run, and of prompts that repeat inside an episode."""
    found = [
        *optimizer_warnings(train.optimizer),
        *warmup_warnings(train, episodes.prompts, episodes.count),
    ]
    rows = _count(prompts)
    if rows is not None and rows < episodes.prompts:
        found.append(
            f"episodes.prompts {episodes.prompts} is more than the {rows} prompts of"
            f" {prompts.path}: every episode repeats prompts; lower it, or take more prompts"
        )
    return found


def context_warnings(longer: ContextExtension | None) -> list[str]:
    """Of a RoPE base too small for the context that it is raised for."""
    if longer is None:
        return []
    bound = 0.0424 * longer.sequence_length**1.628
    if longer.rope_theta >= bound:
        return []
    return [
        f"context_extension.rope_theta {longer.rope_theta:g} is below {bound:.2g}, the least at"
        f" which a model finds what stands {longer.sequence_length:,} tokens back"
        " (0.0424 length^1.628, arXiv 2405.14591); raise it"
    ]


def _count(source: DataSource | None) -> int | None:
    """None for what is still to be made, or on the hub."""
    return row_count(source) if source is not None and Path(source.path).exists() else None
