"""runs/<name>/summary.json: the run in numbers, for scripts."""

from dataclasses import asdict
from typing import Any, TypedDict

from services.telemetry.record.doubts import doubts
from services.telemetry.record.state import Episode, RunState, Stage, total_drops
from services.telemetry.record.verdict import verdict


class Extra(TypedDict, total=False):
    """What no event says; every key may be missing."""

    name: str
    seed: int
    under_way: bool
    """Whether the run goes on."""
    peak_memory_bytes: int
    planned_memory_bytes: int
    """Of the fullest stage, by the plan made before anything started."""
    versions: dict[str, str]
    config: str
    """The resolved configuration, as YAML."""
    error: str
    """Why the run ended early."""


def summary(state: RunState, extra: Extra) -> dict[str, Any]:
    """JSON-able; accuracies are shares, losses nats a token, times seconds of work in all attempts
    (without pauses)."""
    return {
        "run": {
            "name": extra.get("name", ""),
            "verdict": " ".join(verdict(state)),
            "doubts": [asdict(doubt) for doubt in doubts(state)],
            "under_way": extra.get("under_way", False),
            "seconds": round(state.worked, 3),
            "paused_seconds": round(state.paused, 3),
            "attempts": state.attempts,
            "peak_memory_bytes": extra.get("peak_memory_bytes"),
            "planned_memory_bytes": extra.get("planned_memory_bytes"),
            "seed": extra.get("seed"),
            "versions": dict(extra.get("versions", {})),
            "error": extra.get("error"),
            "warnings": [note.line for note in state.notes if note.level == "warning"],
        },
        "stages": {stage.name: _stage(stage) for stage in state.ordered()},
    }


def _stage(stage: Stage) -> dict[str, Any]:
    evaluation = stage.evaluation
    return {
        "job": stage.job,
        "index": stage.index,
        "finished": stage.finished,
        "waiting": stage.waiting or None,
        "seconds": stage.seconds,
        "reused": stage.reused,
        "folder": stage.folder,
        "metrics": stage.metrics,
        "training": _training(stage),
        "evaluation": evaluation.model_dump(mode="json", exclude={"kind", "stage"})
        if evaluation is not None
        else None,
        "evaluates": stage.evaluates or None,
        "online": _online(stage) if stage.episodes else None,
    }


def _training(stage: Stage) -> dict[str, Any] | None:
    """The last point of the curve."""
    if not stage.curve:
        return None
    last = stage.curve[-1]
    return {"step": last.step, "steps": last.steps, "tokens": last.tokens, **last.metrics}


def _online(stage: Stage) -> dict[str, Any]:
    episodes = [episode for _, episode in sorted(stage.episodes.items())]
    weights = list(stage.weights.values())
    return {
        "pairs": sum(e.paired for e in episodes),
        "prompts": sum(e.prompts for e in episodes),
        "dropped": total_drops(episodes),
        "weights": {
            "published": len(weights),
            "attestations": sum(w.workers for w in weights),
            "repaired": sum(w.repaired for w in weights),
            "max_canary_difference": max((w.max_canary_difference for w in weights), default=None),
            "bytes": sum(w.bytes for w in weights),
        },
        "episodes": [_episode(episode) for episode in episodes],
    }


def _episode(episode: Episode) -> dict[str, Any]:
    return {
        "number": episode.number,
        "state": episode.state,
        "version": episode.version if episode.finished else None,
        "prompts": episode.prompts,
        "pairs": episode.paired,
        "dropped": episode.dropped,
        "metrics": episode.metrics,
    }
