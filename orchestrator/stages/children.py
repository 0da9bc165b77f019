"""The end of what this process started, at once."""

import contextlib
import os

import psutil

_END_S = 3.0
"""A process that was killed is gone in milliseconds; one with much memory takes longer."""


def kill_children() -> None:
    """Kill every process below this one, in its session.

    Ray's servers would go with this process by themselves, but the agents that they start stay
    behind when they are killed. What has a session of its own (the embedded Redis, a kept Ray) has
    its own way to end.
    """
    session, killed = os.getsid(0), []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, ProcessLookupError):  # gone already
            if os.getsid(process.pid) == session:
                process.kill()
                killed.append(process)
    psutil.wait_procs(killed, timeout=_END_S)
