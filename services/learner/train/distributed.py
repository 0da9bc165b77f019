"""One data-parallel worker's place among the others, over torch.distributed when it is set up."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET_VALUES = 1 << 25


@dataclass(frozen=True)
class Worker:
    """Rank, world size and device; alone it does nothing on any of the calls."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls, num_gpus: float) -> "Worker":
        """This process's place; on a GPU when the settings give workers some."""
        device = torch.device("cuda", 0) if num_gpus > 0 else torch.device("cpu")
        if device.type == "cuda":
            if torch.cuda.device_count() > 1:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        if not (dist.is_available() and dist.is_initialized()):
            return cls(device=device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """Whether this worker reports, writes and commits."""
        return self.rank == 0

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor (one dtype for all) by its sum over the workers, in flat buckets."""
        if self.world == 1:
            return
        bucket: list[Tensor] = []
        values = 0
        for tensor in tensors:
            bucket.append(tensor)
            values += tensor.numel()
            if values >= _BUCKET_VALUES:
                _sum_bucket(bucket)
                bucket, values = [], 0
        if bucket:
            _sum_bucket(bucket)

    def all_reduce_values(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the workers, in float64."""
        if self.world == 1:
            return [float(value) for value in values]
        held = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        dist.all_reduce(held)
        return [float(value) for value in held]

    def all_reduce_max(self, value: float) -> float:
        """The largest of the workers' values."""
        if self.world == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(held, op=dist.ReduceOp.MAX)
        return float(held.item())

    def broadcast(self, value: int) -> int:
        """The value that the leading worker passes."""
        if self.world == 1:
            return value
        held = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(held, src=0)
        return int(held.item())

    def barrier(self) -> None:
        """Return when every worker has come here."""
        self.broadcast(0)


def _sum_bucket(bucket: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in bucket])
    for tensor, part in zip(bucket, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
