"""A Hugging Face folder as a weight version: its tensors, their manifest and its canary."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pairloop.data.v1.weights_pb2 import WeightManifest
from services.errors import ArtifactError, one_line
from services.weights.canary import build_canary, canary_tokens, default_tolerance
from services.weights.manifest import Array, build_manifest

if TYPE_CHECKING:
    import torch

_HEAD_ROWS = 1 << 14
"""Of the output head in float32 at once."""


def tensor_names(folder: str | Path) -> set[str]:
    """Names of the folder's parameters; a tied output head is the embedding and is left out."""
    from safetensors import safe_open

    config = read_config(folder)
    names: set[str] = set()
    for file in _weight_files(folder):
        with safe_open(file, framework="numpy") as tensors:
            names.update(tensors.keys())
    if config.get("tie_word_embeddings"):
        names.discard("lm_head.weight")
    return names


def read_tensors(folder: str | Path, dtype: str) -> dict[str, Array]:
    """The folder's parameters in `dtype`, bfloat16 as uint16 bits; names as `tensor_names`."""
    import torch
    from safetensors import safe_open

    names, wanted = tensor_names(folder), getattr(torch, dtype)
    tensors: dict[str, Array] = {}
    for file in _weight_files(folder):
        with safe_open(file, framework="pt") as found:
            for name in names.intersection(found.keys()):
                tensors[name] = to_array(found.get_tensor(name).to(wanted))
    return tensors


def to_array(tensor: "torch.Tensor") -> Array:
    """A CPU array of the tensor's values; bfloat16 becomes uint16 bits."""
    import torch

    flat = tensor.detach().contiguous().cpu()
    if flat.dtype == torch.bfloat16:
        bits: Array = flat.view(torch.int16).numpy().view(np.uint16)
        return bits
    values: Array = flat.numpy()
    return values


def to_tensor(array: Array) -> "torch.Tensor":
    """The opposite of `to_array`, in the array's own memory: to be read alone.

    That of an object store is others' too.
    """
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        if array.dtype == np.uint16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


def snapshot_folder(
    folder: str | Path, dtype: str, version: int
) -> tuple[WeightManifest, dict[str, Array]]:
    """The folder as a full version in `dtype`, of no run.

    The canary is scored by a float32 forward of the weights rounded to `dtype`. Raises
    ArtifactError when the folder holds no model.
    """
    tensors = read_tensors(folder, dtype)
    ids = canary_tokens(int(read_config(folder)["vocab_size"]))
    logprobs = _float32_scores(folder, tensors, ids)
    manifest = build_manifest(
        "",
        version,
        version,
        tensors,
        dict.fromkeys(tensors, dtype),
        build_canary(ids, logprobs, default_tolerance(dtype)),
    )
    return manifest, tensors


def vocabulary_size(source: str) -> int:
    """Rows of the embedding of the model in a folder or under a hub name. ArtifactError."""
    if not Path(source).is_dir():
        from huggingface_hub import hf_hub_download

        try:
            source = str(Path(hf_hub_download(source, "config.json")).parent)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{source}: no config.json ({one_line(error)})") from error
    return int(read_config(source)["vocab_size"])


def read_config(folder: str | Path) -> dict[str, Any]:
    """The folder's config.json. Raises ArtifactError when there is none."""
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise ArtifactError(f"{folder}: no config.json; this is not a Hugging Face model folder")
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


def _weight_files(folder: str | Path) -> list[Path]:
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ArtifactError(f"{folder}: no *.safetensors file; save the model as safetensors")
    return files


def _float32_scores(
    folder: str | Path, tensors: Mapping[str, Array], token_ids: list[int]
) -> list[float]:
    """Log-probabilities of token_ids[1:], nats, by a float32 forward of the tensors.

    They are read where they are: layers take turns in float32, and so do rows of the output head.
    """
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    held = {name: to_tensor(array) for name, array in tensors.items()}
    model.load_state_dict(held, strict=False, assign=True)
    model.tie_weights()
    for module in model.eval().base_model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.register_forward_hook(lambda _module, _inputs, rows: rows.float())
        elif list(module.parameters(recurse=False)):
            _float32_while_it_runs(module)
    ids = torch.tensor(token_ids)
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids[None, :-1], use_cache=False).last_hidden_state[0]
        head = model.get_output_embeddings().weight
        logits = torch.cat([hidden @ rows.float().T for rows in head.split(_HEAD_ROWS)], dim=1)
        picked: list[float] = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0].tolist()
    return picked


def _float32_while_it_runs(module: Any) -> None:
    held = {name: value.data for name, value in module.named_parameters(recurse=False)}

    # The hooks hold no module: it would outlive its last use until the garbage is collected.
    def cast(module: Any, *_: Any) -> None:
        for name, value in held.items():
            getattr(module, name).data = value.float()

    def restore(module: Any, *_: Any) -> None:
        for name, value in held.items():
            getattr(module, name).data = value

    module.register_forward_pre_hook(cast)
    module.register_forward_hook(restore)
