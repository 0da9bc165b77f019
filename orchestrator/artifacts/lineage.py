"""Which models a job starts from, found by lineage, and whether they fit each other."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from orchestrator.artifacts.store import ancestor, read_artifact
from orchestrator.config.settings import OfflineDPOJob, OnlineDPOJob, Stage
from services.data.settings import DataSource
from services.errors import ArtifactError, ConfigError, LineageError
from services.reward.settings import ModelReward

Shapes = dict[str, tuple[int, ...]]


def is_hub_name(path: str) -> bool:
    """Whether a path that is no folder here can be a name on the hub: "owner/model"."""
    parts = path.split("/")
    return (
        not Path(path).exists() and len(parts) == 2 and all(parts) and parts[0] not in (".", "..")
    )


def reference_of(job: OfflineDPOJob | OnlineDPOJob) -> str:
    """The frozen reference: as configured, else the nearest SFT ancestor, else the policy."""
    return job.reference or ancestor(job.policy, "sft") or job.policy


def base_of(job: OfflineDPOJob | OnlineDPOJob) -> str | None:
    """For OMO: the model the reference was fine-tuned from. None when the optimizer needs none."""
    if job.train.optimizer.kind == "adamw":
        return None
    if job.base is not None:
        return job.base
    reference = reference_of(job)
    artifact = read_artifact(reference)
    if artifact is None or "policy" not in artifact.parents:
        raise ConfigError(
            f"'base' is missing: {job.train.optimizer.kind} needs tau = reference - base, and"
            f" '{reference}' has no lineage; set base to the model it was fine-tuned from, or"
            " train.optimizer.kind to adamw"
        )
    return artifact.parents["policy"]


def parents_of(stage: Stage) -> dict[str, str]:
    """Every folder, file or hub name a stage reads, by role."""
    found: dict[str, str] = {}
    if stage.job in ("offline_dpo", "online_dpo"):
        found["policy"] = stage.policy
        found["reference"] = reference_of(stage)
        base = base_of(stage)
        if base is not None:
            found["base"] = base
    elif stage.job in ("sft", "preferences", "reward_model"):
        found["policy"] = stage.policy
    for role in ("texts", "demonstrations", "prompts", "pairs", "heldout"):
        source = getattr(stage, role, None)
        if isinstance(source, DataSource):
            found[role] = source.path
    if stage.job == "pretrain" and isinstance(stage.tokenizer, str):
        found["tokenizer"] = stage.tokenizer
    for number, part in enumerate(reward_models(stage)):
        found[f"reward_model_{number}" if number else "reward_model"] = part.path
    return {role: _artifact_root(path) for role, path in found.items()}


def _artifact_root(path: str) -> str:
    """A file inside an artifact stands for the artifact."""
    parent = Path(path).parent
    return str(parent) if (parent / "artifact.json").is_file() else path


def reward_models(stage: Any) -> list[ModelReward]:
    """The reward models among a stage's reward parts."""
    reward = getattr(stage, "reward", None)
    return [part for part in reward.parts if isinstance(part, ModelReward)] if reward else []


def check_model_folder(path: str, key: str) -> None:
    """ArtifactError unless the path is a model folder or can be a hub name."""
    if is_hub_name(path):
        return
    folder = Path(path)
    if not folder.exists():
        raise ArtifactError(f"'{key}': no such folder: {path}")
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"'{key}': {path} is no model folder: it has no config.json")
    if not list(folder.glob("*.safetensors")):
        raise ArtifactError(f"'{key}': {path} holds no .safetensors weights")


def tensor_shapes(folder: str) -> Shapes:
    """Names and shapes of a model folder's tensors, from the safetensors headers alone."""
    shapes: Shapes = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with path.open("rb") as file:
            try:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(length, 100_000_000)))
            except (struct.error, ValueError):
                raise ArtifactError(f"{path}: not a safetensors file, or cut short") from None
        shapes |= {k: tuple(v["shape"]) for k, v in header.items() if k != "__metadata__"}
    return shapes


def check_same_shapes(reference: str, base: str) -> None:
    """LineageError unless both hold the same names and shapes: else there is no tau."""
    if is_hub_name(reference) or is_hub_name(base):
        return
    ours, theirs = tensor_shapes(reference), tensor_shapes(base)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            said = [f"{shape[name]}" if name in shape else "nothing" for shape in (ours, theirs)]
            raise LineageError(
                f"reference {reference} and base {base} do not match: tensor '{name}' is {said[0]}"
                f" in the reference and {said[1]} in the base; OMO needs models of one shape"
            )


def check_same_tokenizer(policy: str, other: str, key: str) -> None:
    """LineageError unless both folders hold the same tokenizer."""
    if is_hub_name(policy) or is_hub_name(other):
        return
    if _tokenizer_digest(policy) != _tokenizer_digest(other):
        raise LineageError(
            f"'{key}': the tokenizer of {other} differs from the policy's ({policy}); both must"
            " read the same tokens"
        )


def _tokenizer_digest(folder: str) -> str:
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no tokenizer.json")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        parts = [data["model"]["vocab"], data["model"].get("merges"), data.get("added_tokens")]
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path}: not a tokenizer file") from None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
