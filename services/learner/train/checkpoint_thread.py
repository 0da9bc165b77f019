"""Writing a checkpoint beside what does not touch the weights."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from services.full_disk import when_there_is_room
from services.learner.train.checkpoint import save_checkpoint


class CheckpointThread:
    """One checkpoint at a time, in a thread; the tensors must not change until it is written."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        """`tell` hears of a disk that is full; the thread waits for room."""
        self._folder, self._tell = folder, tell
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def start(
        self, number: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Begin to write, as `save_checkpoint` does, once the one before is written."""
        self.wait()
        save = partial(save_checkpoint, self._folder, number, tensors, state)
        self._writing = self._thread.submit(when_there_is_room, save, "the learner's", self._tell)

    @property
    def written(self) -> bool:
        """Whether nothing is being written; what went wrong is raised by `wait`."""
        return self._writing is None or self._writing.done()

    def wait(self) -> None:
        """Return when nothing is being written. Raises what the writing raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
