"""What is asked of a run by servers that are not its process, and what it answered.

Asked in the order it came, each once; both are kept as long as the run's place in the registry, so
that who asks again with the same id is told the same. They lie in the registry's slot of a cluster.
"""

from dataclasses import dataclass

from services.queues.client import Client
from services.queues.keys import RUNS, RUNS_KEPT_S


@dataclass(frozen=True)
class Letter:
    """One change that is asked for."""

    request_id: str
    text: str
    """What, by whom and why: the caller's."""


@dataclass(frozen=True)
class Reply:
    """What became of it so far."""

    text: str
    """Of the letter as it was first sent with its id."""
    answer: str
    """"" as long as there is none."""


class Mailbox:
    """Of the runs of one Redis. Every method may raise UnreachableError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ask(self, run: str, letter: Letter) -> Reply:
        """Leave it for the run, unless its id was used before."""
        args: list[str | int] = [letter.request_id, letter.text, RUNS_KEPT_S]
        text, answer = await self._client.script("ask", _keys(run), args)
        return Reply(text.decode(), answer.decode())

    async def first(self, run: str) -> Letter | None:
        """The oldest that the run has not answered."""
        found = await self._client.script("asked", _keys(run))
        return Letter(found[0].decode(), found[1].decode()) if found else None

    async def answer(self, run: str, request_id: str, answer: str) -> None:
        """It is done with, and whoever asks again hears this."""
        await self._client.script("answer", _keys(run), [request_id, answer, RUNS_KEPT_S])


def _keys(run: str) -> list[str]:
    return [f"{RUNS}{run}:{name}" for name in ("letters", "answers", "unread")]
