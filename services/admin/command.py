"""The command line that calls a run's admin API, as its user would type it."""

import shlex
import sys
from pathlib import Path


def command_for(address: str, executable: str = sys.executable) -> str:
    """Of its episodes, without its verb; for the folder the run was started in."""
    here, command = Path.cwd(), Path(executable).with_name("pairloop")
    shown = command.relative_to(here) if command.is_relative_to(here) else command
    return shlex.join([str(shown), "--address", address, "episodes"])
