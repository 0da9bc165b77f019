"""How many workers somebody asked for, in a file: the same command, given again, goes on with them.

Only while the config says what it said then: a count that is changed there is the newer word.
"""

from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from services.learner.train.durable import replaced_file

WANTED = "workers.json"
"""In the scratch folder of a run."""


class _Asked(BaseModel):
    configured: int
    wanted: int


_FILE = TypeAdapter(dict[str, _Asked])


class WantedFile:
    """The counts of one run, by kind."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def wanted(self, kind: str, configured: int) -> int:
        """What was asked for last, else what the config says."""
        asked = self._read().get(kind)
        return asked.wanted if asked and asked.configured == configured else configured

    def keep(self, kind: str, configured: int, wanted: int) -> None:
        """Write it, all or nothing. Raises OSError."""
        every = self._read() | {kind: _Asked(configured=configured, wanted=wanted)}
        with replaced_file(self._path) as file:
            file.write(_FILE.dump_json(every))

    def _read(self) -> dict[str, _Asked]:
        try:
            return _FILE.validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return {}
