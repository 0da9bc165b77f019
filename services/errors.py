"""The one exception tree. Every error a user can cause or meet is one of these.

PairloopError
├── ConfigError          a config file or an override is wrong
├── DataError            a data file is wrong (names the file and line)
├── ArtifactError        a model or artifact folder is missing, incomplete or of the wrong kind
│   └── LineageError     parents do not match: names, shapes, tokenizer
├── UnreachableError     Redis, Ray or a gRPC service does not answer, or a port is taken
├── SlowError            a service that lives did not answer within its deadline
├── ResourceError        not enough memory for what was asked
│   └── OutOfMemoryError     a process was killed for lack of memory
├── StateError           an episode cannot make this move from its state
│   ├── UnknownEpisodeError  the run has no episode of that number
│   ├── UnknownRunError      there is no run of that name
│   └── UnknownPageError     a list has no page that begins there
├── LedgerError          plan, ledger and checkpoint contradict each other
├── StallError           a wait passed its deadline
├── WeightsError         weights were refused: unknown base, broken checksum
│   └── AttestationError a worker does not hold the weights it should, even after a repair
├── WorkerError          a worker failed; carries its cause
│   ├── WorkerDiedError      its process ended without a word
│   └── ReplacedError        it was taken for dead, and another has its work
└── Waiting              no failure: a job waits for people or an event; the same command goes on

`orchestrator/run.py` prints one line of it and exits with `exit_code`. The message says what
was wrong, where, and, after its last "; ", what to do. What Ray wraps around an error is taken
off in services/ray_errors.py.
"""

CAUSE_CHARACTERS = 160
"""Room for somebody else's error within a message of ours."""


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


class SlowError(PairloopError):
    """A service that lives did not answer within its deadline."""


class ResourceError(PairloopError):
    """Not enough memory for what was asked."""

    exit_code = 3


class OutOfMemoryError(ResourceError):
    """A process of the run was killed because its machine ran out of memory."""


class StateError(PairloopError):
    """An episode cannot make this move from the state it is in."""


def used_before(request_id: str) -> StateError:
    """One request id for two changes."""
    return StateError(f"request id {request_id} was used for another change: use a new one")


class UnknownEpisodeError(StateError):
    """The run has no episode of that number."""


class UnknownRunError(StateError):
    """There is no run of that name, or more than one."""


class UnknownPageError(StateError):
    """A list has no page that begins there; the message says what a page_token is."""


class LedgerError(PairloopError):
    """Plan, ledger and checkpoint of a run contradict each other; the message shows both sides."""


class StallError(PairloopError):
    """A wait passed its deadline."""


class WeightsError(PairloopError):
    """Weights were refused: unknown base version, wrong names, broken checksum."""


class AttestationError(WeightsError):
    """A worker does not hold the weights it should, even after a repair."""


class WorkerError(PairloopError):
    """A worker failed; the message carries its cause."""


class WorkerDiedError(WorkerError):
    """A worker's process ended without saying why: killed, crashed, or lost with its machine."""


class ReplacedError(WorkerError):
    """A worker was taken for dead and replaced: nothing that it still does is taken."""


class Waiting(PairloopError):
    """A job waits, durably, for people or for an event; the message says for what."""

    exit_code = 4


def one_line(error: BaseException, limit: int = CAUSE_CHARACTERS) -> str:
    """`Type: text` on one line; where it is longer than `limit`, the middle is left out."""
    text, kind = " ".join(str(error).split()), type(error).__name__
    return shortened(f"{kind}: {text}" if text else kind, limit)


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group, however deep: what a task group's others were cancelled for."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


def shortened(text: str, limit: int) -> str:
    """`text`, or its beginning and its end in `limit` characters."""
    if len(text) <= limit:
        return text
    room = limit - len(GAP)
    if room <= 0:
        return text[:limit]
    end = room // 3
    return text[: room - end] + GAP + text[len(text) - end :]


def fitted(message: str, limit: int) -> str:
    """A message on one line of at most `limit` characters.

    What to do, which stands after the last "; ", stays whole; the cause before it is shortened.
    """
    text = " ".join(message.split())
    cause, mark, advice = text.rpartition("; ")
    room = limit - len(mark) - len(advice)
    if not cause or room < _LEAST_CAUSE:
        return shortened(text, limit)
    return shortened(cause, room) + mark + advice


GAP = " ... "
"""What `shortened` leaves in place of the middle."""
_LEAST_CAUSE = 40
"""With less of the cause than this the advice is shortened too."""
