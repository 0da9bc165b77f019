"""How far sampling may run ahead of training: the config's word, until somebody says otherwise.

Each prompt carries what was allowed as it was dispatched, so that a change judges none that is on
its way.
"""

from collections.abc import Callable

from orchestrator.online.wanted import WantedFile
from pairloop.admin.v1.admin_pb2 import Change
from services.errors import StateError

_KIND = "max_staleness"


class Staleness:
    """Of one online stage, in versions; goes on from what was asked for before."""

    def __init__(
        self,
        configured: int,
        prompts: int,
        credits: int,
        file: WantedFile,
        say: Callable[[str], None],
    ) -> None:
        """`prompts` of an episode; `credits`: prompts between dispatch and training at most."""
        self._configured, self._file, self._say = configured, file, say
        self._prompts, self._credits = prompts, credits
        self.versions = file.wanted(_KIND, configured)
        if self.versions != configured:
            say(f"max_staleness is {self.versions}, as was asked for before")

    def set(self, versions: int, change: Change) -> str:
        """From now on. Returns what there is to say of it.

        Raises StateError where so many episodes would need more credits than there are.
        """
        needed = self._prompts * (1 + versions)
        if needed > self._credits:
            raise StateError(
                f"queues.credits {self._credits} is less than episodes.prompts x"
                f" (1 + max_staleness) = {needed}: no episode would ever be complete"
            )
        self.versions, note = versions, ""
        try:
            self._file.keep(_KIND, self._configured, versions)
        except OSError as error:
            note = f"the same command given again begins with the config's ({error})"
        self._say(f"max_staleness is {versions} from now on, by {change.actor}: {change.reason}")
        return note
