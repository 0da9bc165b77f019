"""The reference's log-probabilities of a fixed set of pairs: computed once, kept as a file.

A file a set of pairs, <folder>/<key>.safetensors, whose key is what the numbers follow from: the
reference's weights and config, the pairs' tokens, the dtype. So a restart finds them, later passes
over the pairs and other optimizers, losses or betas too, and nothing else ever does.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from services.learner.model.precision import Dtype
from services.learner.model.stored import StoredTensors
from services.learner.train.distributed import Worker
from services.learner.train.durable import replaced_file
from services.learner.train.encoding import EncodedPair

Sums = Mapping[str, tuple[float, float]]
"""By pair id: summed log-probabilities of chosen and rejected, nats."""
_TENSOR = "chosen_rejected"


class ReferenceCache:
    """What one frozen reference says of pairs. `folder` None: nothing is kept.

    `reference` is the model's folder or hub name. Every method is called on every worker.
    """

    def __init__(self, folder: Path | None, reference: str, dtype: Dtype, worker: Worker) -> None:
        self._folder, self._worker = folder, worker
        self._used: list[Path] = []
        reads = folder is not None and worker.is_main
        self._model_key = f"{_weights_key(reference)} {dtype}" if reads else ""

    def sums(self, pairs: Sequence[EncodedPair], compute: Callable[[], Sums]) -> Sums:
        """From the file where there is one, else from `compute`, which all workers then enter."""
        if not pairs:
            return {}
        if self._folder is None:
            return compute()
        path = self._folder / f"{self._key(pairs)}.safetensors"
        values = _read(path, len(pairs)) if self._worker.is_main else None
        if self._worker.broadcast(int(values is not None)):
            # The others have zeros, and the sum is what the leading worker has read.
            values = torch.zeros(len(pairs), 2) if values is None else values
            values = values.to(self._worker.device)
            self._worker.all_reduce_([values])
        else:
            computed = compute()
            values = torch.tensor([computed[pair.id] for pair in pairs])
            if self._worker.is_main:
                with replaced_file(path) as file:
                    file.write(save({_TENSOR: values}))
        self._used.append(path)
        return {
            pair.id: (chosen, rejected)
            for pair, (chosen, rejected) in zip(pairs, values.tolist(), strict=True)
        }

    def copy_used(self, to: Path) -> None:
        """Copy what this job has used into a folder, such as one of its artifact."""
        if self._worker.is_main:
            for path in self._used:
                to.mkdir(exist_ok=True)
                shutil.copyfile(path, to / path.name)

    def _key(self, pairs: Sequence[EncodedPair]) -> str:
        digest = xxhash.xxh3_128(self._model_key.encode())
        for pair in pairs:
            for ids in (pair.prompt, pair.chosen, pair.rejected):
                digest.update(torch.tensor([len(ids), *ids], dtype=torch.int64).numpy().tobytes())
        return digest.hexdigest()


def _weights_key(source: str) -> str:
    """Of the bytes of every tensor and of the config: what a forward pass follows from."""
    tensors = StoredTensors(source)
    digest = xxhash.xxh3_128((tensors.folder / "config.json").read_bytes())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(path: Path, pairs: int) -> Tensor | None:
    """float32 [pairs, 2], or None where there is no whole file of so many."""
    try:
        found = load_file(path)[_TENSOR]
    except (OSError, SafetensorError, KeyError):
        return None
    return found if found.shape == (pairs, 2) else None
