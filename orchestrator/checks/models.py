"""Model folders, by their small files alone: is it a model, and do two fit each other?"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from orchestrator.checks.folders import meant, models_in, taken_for_hub
from services.errors import ArtifactError, ConfigError, LineageError
from services.hub import find_model, is_hub_name

Shapes = dict[str, tuple[int, ...]]
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


def check_model_folder(path: str, key: str, kind: str = "policy") -> None:
    """ArtifactError unless the path is a folder of such a model or can be a hub name."""
    try:
        found = find_model(path)
    except ArtifactError as error:
        hint = models_in(path) if Path(path).exists() else meant(path)
        raise ArtifactError(f"'{key}': {error}{hint}") from None
    if is_hub_name(path):
        check_hub_name(path, key)
        return
    if not list(Path(found).glob("*.safetensors")):
        raise ArtifactError(f"'{key}': {path} holds no .safetensors weights")
    try:
        _check_weights(Path(found))
    except ArtifactError as error:
        raise ArtifactError(f"'{key}': {error}") from None
    is_kind = _kind_of(Path(found))
    if is_kind not in ("", kind):
        raise ArtifactError(f"'{key}': {path} is a {is_kind}, and a {kind} belongs here")


def check_positions(model: str, positions: int, length: int, key: str) -> None:
    """ConfigError when sequences are to be longer than the positions a model has."""
    if length > positions:
        raise ConfigError(
            f"'{key}': {length} tokens are more than the {positions} positions of {model}; set"
            f" {key}={positions} or less"
        )


def positions_of(folder: str) -> int | None:
    """max_position_embeddings of a model in a folder; None for a hub name, or when it has none."""
    found = _json(Path(folder) / "config.json").get("max_position_embeddings")
    return found if isinstance(found, int) else None


def check_hub_name(path: str, key: str) -> None:
    """ArtifactError for owner/name that is nothing here when a folder `owner` is."""
    if wrong := taken_for_hub(path):
        raise ArtifactError(f"'{key}': {wrong}")


def check_chat(policy: str, key: str) -> None:
    """ArtifactError when a policy's folder has nothing to render and read messages with."""
    if not _here(policy):
        return
    if not list(Path(policy).glob("tokenizer*")):
        raise ArtifactError(f"'{key}': there is no tokenizer in {policy}; copy it there")
    if _chat_template(Path(policy)) == "":
        raise ArtifactError(
            f"'{key}': the tokenizer in {policy} has no chat template; take an instruct model, or"
            " put its chat_template.jinja there"
        )


def reads_chatml(policy: str) -> bool:
    """Whether a policy's chat template is ChatML, as Qwen's is; False where it cannot be told."""
    if not _here(policy):
        return policy.startswith("Qwen/")
    template = _chat_template(Path(policy))
    return template is None or "<|im_start|>" in template


def _chat_template(folder: Path) -> str | None:
    """A text that holds it, "" when there is none; None where no file tells."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except OSError:
        config = _json(folder / "tokenizer_config.json")
    return str(config.get("chat_template") or "") if config else None


def _kind_of(folder: Path) -> str:
    """By the head that its config names; "" when it names none that we know."""
    names = " ".join(map(str, _json(folder / "config.json").get("architectures") or []))
    if "SequenceClassification" in names:
        return "reward model"
    return "policy" if "CausalLM" in names else ""


def _json(path: Path) -> dict[str, Any]:
    """An object in a file; empty when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_tokenizer_folder(path: str, key: str) -> None:
    """ArtifactError unless the path is a tokenizer folder or can be a hub name."""
    if is_hub_name(path):
        check_hub_name(path, key)
    elif not (Path(path) / "tokenizer.json").is_file():
        raise ArtifactError(f"'{key}': {path} is no tokenizer folder: it has no tokenizer.json")


def check_same_shapes(first: str, second: str, roles: tuple[str, str]) -> None:
    """LineageError unless both hold the same names and shapes: else there is no difference."""
    if not (_here(first) and _here(second)):
        return
    ours, theirs = tensor_shapes(first), tensor_shapes(second)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            said = [f"{shape[name]}" if name in shape else "nothing" for shape in (ours, theirs)]
            raise LineageError(
                f"{roles[0]} {first} and {roles[1]} {second} do not match: tensor '{name}' is"
                f" {said[0]} in the {roles[0]} and {said[1]} in the {roles[1]}; they must be models"
                " of one shape"
            )


def check_same_tokenizer(policy: str, other: str, key: str) -> None:
    """LineageError unless both folders hold the same tokenizer."""
    if not (_here(policy) and _here(other)):
        return
    if _tokenizer_digest(policy) != _tokenizer_digest(other):
        raise LineageError(
            f"'{key}': the tokenizer of {other} differs from the policy's ({policy}); both must"
            " read the same tokens"
        )


def model_config(folder: str | Path) -> dict[str, Any]:
    """A model folder's config.json; empty when there is none."""
    return _json(Path(folder) / "config.json")


def stored_width(folder: str | Path) -> int:
    """Bytes a value of the weights on disk, of the widest tensor."""
    widths = [1]
    for path in Path(folder).glob("*.safetensors"):
        header, _ = _header(path)
        widths += [_BYTES.get(found["dtype"], 4) for found in header.values()]
    return max(widths)


def tensor_shapes(folder: str) -> Shapes:
    """Names and shapes of a model folder's tensors, from the safetensors headers alone."""
    shapes: Shapes = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        header, _ = _header(path)
        shapes |= {k: tuple(v["shape"]) for k, v in header.items()}
    return shapes


def _check_weights(folder: Path) -> None:
    """ArtifactError when a file of weights is missing or not all there, by the headers."""
    index = _json(folder / "model.safetensors.index.json").get("weight_map", {})
    for name in sorted(set(index.values())):
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder / name} is missing; fetch or copy the model again")
    for path in sorted(folder.glob("*.safetensors")):
        header, start = _header(path)
        wanted = start + max((v["data_offsets"][1] for v in header.values()), default=0)
        if (size := path.stat().st_size) < wanted:
            raise ArtifactError(
                f"{path} is cut short: {size:,} of {wanted:,} bytes; fetch or copy it again"
            )


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Every tensor of a safetensors file (dtype, shape, data_offsets), and where the data begin."""
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            raise ArtifactError(
                f"{path} is a Git LFS pointer, not the weights; run git lfs pull where it came from"
            )
        try:
            (length,) = struct.unpack("<Q", start)
            header = json.loads(file.read(min(length, 100_000_000)))
        except (struct.error, ValueError):
            raise ArtifactError(f"{path}: not a safetensors file, or cut short") from None
    return {name: found for name, found in header.items() if name != "__metadata__"}, length + 8


def _here(path: str) -> bool:
    """Not on the hub, and not still to be made."""
    return not path.startswith("@") and not is_hub_name(path)


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
