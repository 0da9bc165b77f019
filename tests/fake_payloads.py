"""Payloads in memory, behind the Protocol of those on disk."""

import errno


class FakePayloads:
    """A PayloadStore."""

    def __init__(self, full: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.reads: list[str] = []
        self.forgotten: list[int] = []
        self._full = full
        """So many writes find no room."""

    def keep(self, path: str, payload: bytes) -> None:
        """As PayloadStore."""
        if self._full:
            self._full -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.files[path] = payload

    def read(self, path: str) -> bytes:
        """As PayloadStore."""
        self.reads.append(path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return self.files[path]

    def forget(self, episode: int) -> None:
        """As PayloadStore."""
        self.forgotten.append(episode)

    def place(self, path: str) -> str:
        """As PayloadStore."""
        return f"memory/{path}"
