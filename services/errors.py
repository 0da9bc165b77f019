"""The one exception tree. Every error a user can cause or meet is one of these.

PairloopError
├── ConfigError          a config file or an override is wrong
├── DataError            a data file is wrong (names the file and line)
├── ArtifactError        a model or artifact folder is missing, incomplete or of the wrong kind
│   └── LineageError     parents do not match: names, shapes, tokenizer
├── UnreachableError     Redis, Ray or a gRPC service does not answer, or a port is taken
├── ResourceError        not enough memory for what was asked
├── StateError           an episode cannot make this move from its state
│   └── UnknownEpisodeError  the run has no episode of that number
├── StallError           a wait passed its deadline
├── WeightsError         weights were refused: unknown base, broken checksum
│   └── AttestationError a worker does not hold the weights it should, even after a repair
└── WorkerError          a worker died or failed; carries its cause

`orchestrator/run.py` prints one line of it and exits with `exit_code`. The message says what
was wrong, where, and what to do.
"""


class PairloopError(Exception):
    """Base of all of ours; `str(error)` is the one line shown to the user."""

    exit_code = 1


class ConfigError(PairloopError):
    """A config file or an override is wrong."""

    exit_code = 2


class DataError(PairloopError):
    """A data file is wrong; the message names the file and the line."""

    exit_code = 2


class ArtifactError(PairloopError):
    """A model or artifact folder is missing, incomplete or of the wrong kind."""

    exit_code = 2


class LineageError(ArtifactError):
    """Two models that must match do not: names, shapes or tokenizer."""


class UnreachableError(PairloopError):
    """Redis, Ray or a gRPC service does not answer, or a port is taken."""

    exit_code = 3


class ResourceError(PairloopError):
    """Not enough memory for what was asked."""

    exit_code = 3


class StateError(PairloopError):
    """An episode cannot make this move from the state it is in."""


class UnknownEpisodeError(StateError):
    """The run has no episode of that number."""


class StallError(PairloopError):
    """A wait passed its deadline."""


class WeightsError(PairloopError):
    """Weights were refused: unknown base version, wrong names, broken checksum."""


class AttestationError(WeightsError):
    """A worker does not hold the weights it should, even after a repair."""


class WorkerError(PairloopError):
    """A worker died or failed; the message carries its cause."""
