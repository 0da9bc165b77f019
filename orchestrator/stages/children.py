"""The end of what this process started, at once."""

import contextlib
import os

import psutil


def kill_children(*, other_sessions: bool) -> None:
    """Kill every process below this one. Nothing waits: exit right after it.

    Ray's servers would go with this process by themselves, but the agents that they start stay
    behind when they are killed. In a run, what has a session of its own (the embedded Redis, a
    kept Ray) has its own way to end: `other_sessions` is False. The youngest first: a process
    connected to a raylet that is gone is soon ended by Ray, with a status of Ray's own.
    """
    session = os.getsid(0)
    for process in reversed(psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.Error, ProcessLookupError):  # gone already
            if other_sessions or os.getsid(process.pid) == session:
                process.kill()
