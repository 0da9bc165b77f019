"""Weights into a running vLLM by its own weight-transfer API, as the backend "pairloop".

`services/rollout/vllm/plugin.py` makes it known to vLLM, in every process that vLLM starts.
With one process the arrays are handed over as they are; with several (tensor parallelism) they
are written to a file in shared memory, which every worker reads. That second way needs several
GPUs; the tests do not reach it.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from services.weights.snapshot import to_tensor

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 a file vLLM's own workers read, mode 0600


@dataclass
class InitInfo(WeightTransferInitInfo):  # type: ignore[misc]
    """Nothing to agree on beforehand."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
    """Whole tensors under Hugging Face names: in this process, or in a safetensors file."""

    tensors: Mapping[str, Any] | None = None
    """numpy arrays; bfloat16 as uint16 bits."""
    path: str | None = None


class PairloopWeightTransfer(WeightTransferEngine[InitInfo, UpdateInfo]):  # type: ignore[misc]
    """Takes full versions in checkpoint format, layer by layer."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Nothing to connect to. Called once the model is loaded."""
        _drop_unused_copies(self.model)

    def start_weight_update(self) -> None:
        """Give every layer back its checkpoint form, which a CPU packs away after loading."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load; the base class waits for an accelerator afterwards, which a CPU has not."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Hand every tensor to the model's own loader, which shards and fuses it."""
        if update_info.path is not None:
            self.model.load_weights(_from_file(update_info.path))
        else:
            self.model.load_weights(_from_arrays(update_info.tensors or {}))

    def finish_weight_update(self) -> None:
        """Process the layers again, and the output head with them when it is tied.

        A tied head shares the embedding's values but packs a copy of them for the CPU, and no
        loader touches it: without this it goes on with the old weights, silently.
        """
        finalize_layerwise_reload(self.model, self.model_config)
        if self.model_config.hf_config.tie_word_embeddings:
            head = self.model.lm_head
            head.quant_method.process_weights_after_loading(head)
        _drop_unused_copies(self.model)

    def shutdown(self) -> None:
        """Nothing is held between updates."""


def _drop_unused_copies(model: torch.nn.Module) -> None:
    """Let go of what the CPU packs of an embedding, as for a product that it never computes."""
    for layer in model.modules():
        if type(layer) is VocabParallelEmbedding and hasattr(layer, "cpu_linear"):
            layer.cpu_linear = None


def write_shared(tensors: Mapping[str, Any]) -> Path:
    """A safetensors file in shared memory; the caller removes it."""
    folder = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    with tempfile.NamedTemporaryFile(
        prefix="pairloop-weights-", suffix=".safetensors", dir=folder, delete=False
    ) as file:
        save_file({name: to_tensor(array) for name, array in tensors.items()}, file.name)
    return Path(file.name)


def _from_arrays(tensors: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Layer by layer, as vLLM packs a layer once it is whole and buffers what is not."""
    for name in sorted(tensors):
        yield name, to_tensor(tensors[name])


def _from_file(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 not a dict
            yield name, file.get_tensor(name)
