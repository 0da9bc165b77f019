"""A run's folder as an admin server may read it: the regular files that lie in it, no others.

The registry says where it is, and the server may stand on another machine, where another run may
have that path. So it is read only where the run's id lies in it, and no link leads out of it.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from orchestrator.artifacts.store import FILE, RECORD, WORK, Begun
from orchestrator.control.registration import ID
from pairloop.admin.v1.admin_pb2 import Run
from services.errors import StateError

_ID_BYTES = 100
_RECORD_BYTES = 4 * 2**20


@dataclass(frozen=True)
class StageFolder:
    """Of a finished stage its artifact, of another its scratch folder."""

    stage: str
    path: Path
    time: float
    """When it was finished, or last gone on with; seconds since the epoch."""


class RunFolder:
    """Raises StateError when it is made where the run's folder is not visible."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.path = Path(os.path.realpath(run.folder))
        if not self._is_here():
            ask = f"ask {run.address} or mount it" if run.address else "mount it"
            raise StateError(
                f"run {run.id}'s folder {run.folder or '(unknown)'} on host"
                f" {run.host or '(unknown)'} is not visible here; {ask}"
            )

    def opened(self, path: Path) -> BinaryIO | None:
        """A file in it, to read; None where there is none.

        Raises StateError for one that cannot be read, is no regular file, or lies elsewhere.
        """
        real = Path(os.path.realpath(path))
        self._require_inside(path, real)
        try:
            # Whoever swaps the file for a link or a pipe meanwhile is not followed, nor waited for.
            number = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StateError(
                f"{path} cannot be read here ({error.strerror}); let the server's user read it"
            ) from None
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise StateError(f"{path} is no regular file; it is not read")
        return os.fdopen(number, "rb")

    def text(self, path: Path, limit: int) -> str | None:
        """A small file, whole. Raises StateError as `opened`, and past so many bytes."""
        file = self.opened(path)
        if file is None:
            return None
        with file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise StateError(f"{path} is larger than {limit:,} bytes; it is not read")
        return content.decode("utf-8", errors="replace")

    def has(self, path: Path) -> bool:
        """Whether there is such a file. Raises StateError as `opened`."""
        file = self.opened(path)
        if file is not None:
            file.close()
        return file is not None

    def finished(self) -> Iterator[StageFolder]:
        """The stages whose artifact lies in it."""
        for path in self._folders(self.path):
            if not path.name.startswith(".") and self.has(path / FILE):
                yield StageFolder(path.name, path, (path / FILE).stat().st_mtime)

    def begun(self) -> Iterator[StageFolder]:
        """The stages with a scratch folder; one that has several is gone on with in the latest."""
        latest: dict[str, StageFolder] = {}
        for path in self._folders(self.path / WORK):
            try:
                record = Begun.model_validate_json(self.text(path / RECORD, _RECORD_BYTES) or "")
            except ValidationError:
                continue
            stage = path.name.removesuffix(f"-{record.trunk}")
            found = StageFolder(stage, path, (path / RECORD).stat().st_mtime)
            if stage not in latest or latest[stage].time < found.time:
                latest[stage] = found
        yield from latest.values()

    def _folders(self, path: Path) -> list[Path]:
        self._require_inside(path, Path(os.path.realpath(path)))
        return [each for each in sorted(path.iterdir()) if each.is_dir()] if path.is_dir() else []

    def _require_inside(self, path: Path, real: Path) -> None:
        if not real.is_relative_to(self.path):
            raise StateError(f"{path} leads out of the run's folder, to {real}; it is not read")

    def _is_here(self) -> bool:
        if not Path(self.run.folder).is_absolute():
            return False
        try:
            id_ = self.text(self.path / ID, _ID_BYTES)
        except StateError:
            return False
        return bool(id_) and self.run.id.endswith(f"-{id_}")
