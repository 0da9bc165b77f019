"""What a process is going to hold in memory: parts with a name, on the host or on its GPU."""

from collections.abc import Iterable
from dataclasses import dataclass

GIB = 2**30
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes a value."""
TOKENIZER_ENTRY = 700
"""Bytes an entry of the vocabulary costs in transformers' tokenizer, with its merge."""


@dataclass(frozen=True)
class Part:
    """Something that a process holds at its fullest moment."""

    name: str
    bytes: int
    lower: str = ""
    """The setting that makes it smaller, and how; "" when there is none."""
    on_gpu: bool = False
    mapped: bool = False
    """Pages of a file: they show in what is measured, and go when memory is short."""
    passing: bool = False
    """Held while the process does one thing: engines load while the learner reads no reference."""


@dataclass(frozen=True)
class ProcessMemory:
    """A kind of process: what each of `count` holds."""

    name: str
    parts: tuple[Part, ...]
    count: int = 1
    gpus: float = 0.0
    """That each reserves; below 1 several share one."""

    @property
    def host(self) -> int:
        """Bytes of host memory that one holds."""
        return sum(part.bytes for part in self.parts if not part.on_gpu)

    @property
    def on_gpu(self) -> int:
        """Bytes of device memory that one holds, on all its GPUs together."""
        return sum(part.bytes for part in self.parts if part.on_gpu)


def at_once(processes: Iterable[ProcessMemory], *, without_files: bool = False) -> int:
    """Bytes of host memory of all of them at the fullest moment: what passes counts in turn."""
    held, passing = 0, [0]
    for process in processes:
        parts = [p for p in process.parts if not (p.on_gpu or (without_files and p.mapped))]
        passing.append(process.count * sum(part.bytes for part in parts if part.passing))
        held += process.count * sum(part.bytes for part in parts if not part.passing)
    return held + max(passing)
