"""Online DPO's training once more, on the rollouts that a run recorded: nothing is sampled."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from orchestrator.artifacts.lineage import Lineage, Parent, check_alignment
from orchestrator.artifacts.store import LEARNER, artifact_root, read_artifact
from orchestrator.checks.folders import meant
from orchestrator.checks.models import check_same_tokenizer
from orchestrator.checks.rollouts import check_recorded
from orchestrator.jobs.policy_job import PolicyJob
from orchestrator.jobs.training import train
from services.learner.jobs.settings import ReplayDPOSettings
from services.learner.optim.warnings import optimizer_warnings, warmup_warnings
from services.learner.settings import AdamWSettings, OnDARESettings, OnTIESSettings

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext

_MODELS = ("policy", "reference", "base")
_SETTINGS = ("seed", "episodes", "dpo", "train")
_OPTIMIZERS = {
    each.model_fields["kind"].default: each.model_fields
    for each in (AdamWSettings, OnDARESettings, OnTIESSettings)
}


class ReplayDPO(ReplayDPOSettings, PolicyJob):
    """DPO on the rollouts that an online run recorded, episode by episode; nothing is sampled."""

    aligns: ClassVar[bool] = True
    resume: ClassVar[str] = LEARNER

    job: Literal["replay_dpo"] = "replay_dpo"

    @model_validator(mode="before")
    @classmethod
    def _as_recorded(cls, data: Any) -> Any:
        """Without a policy, what is not set is what the recorded run had."""
        if not isinstance(data, dict) or "policy" in data:
            return data
        rollouts = data.get("rollouts")
        return _laid_over(_recorded(rollouts), data) if isinstance(rollouts, str) else data

    def parents(self, lineage: Lineage) -> Mapping[str, Parent]:
        """Reference and base."""
        return lineage.alignment(self)

    def check(self, lineage: Lineage) -> None:
        """Models of one shape, of the tokenizer of the rollouts; every episode recorded."""
        check_alignment(self.policy, self.parents(lineage))
        if self.rollouts.startswith("@"):
            return
        folder = artifact_root(self.rollouts)
        if read_artifact(folder) is not None:
            check_same_tokenizer(self.policy, folder, "rollouts")
        check_recorded(self.rollouts, self.episodes.count)

    def warnings(self) -> Sequence[str]:
        """Of the optimizer and the warm-up."""
        episodes = self.episodes
        return [
            *optimizer_warnings(self.train.optimizer),
            *warmup_warnings(self.train, episodes.prompts, episodes.count),
        ]

    def made_nothing(self, folder: Path, metrics: Mapping[str, float]) -> bool:
        """Never: without a pair it fails, and the metrics are those of the last episode alone."""
        return False

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Train every recorded episode; returns the last one's metrics."""
        resolved = self.model_copy(update=context.parents)
        task = "services.learner.online.replay:replay_dpo"
        return await train(task, resolved, ReplayDPOSettings, context)


def _recorded(rollouts: str) -> dict[str, Any]:
    """Models, seed and settings of the run; ValueError where there is nothing to read them from."""
    if rollouts.startswith("@"):
        raise ValueError(
            f"'policy' is missing: {rollouts} is still to be made; set policy, episodes, dpo and"
            " train as they are there"
        )
    folder = artifact_root(rollouts)
    artifact = read_artifact(folder)
    if not Path(folder).is_dir():
        raise ValueError(f"'rollouts': there is no folder {rollouts}{meant(rollouts)}")
    if artifact is None or artifact.kind != "online_dpo":
        raise ValueError(
            f"'rollouts': {rollouts} is no artifact of an online run; name one, or set policy,"
            " episodes, dpo and train too"
        )
    models = Lineage().parents_of(folder)
    found: dict[str, Any] = {role: models[role] for role in _MODELS if role in models}
    return found | {key: artifact.config[key] for key in _SETTINGS if key in artifact.config}


def _laid_over(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`recorded` with every key that is given; of another optimizer, the keys that both have."""
    merged = dict(recorded)
    for key, value in given.items():
        before = merged.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            value = _laid_over(before, value)
        merged[key] = value
    known = _OPTIMIZERS.get(merged.get("kind", ""))
    return {key: v for key, v in merged.items() if known is None or key in known or key in given}
