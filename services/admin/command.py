"""The command line that calls a run's admin API, as its user would type it."""

import shlex
import sys
from pathlib import Path


def command_for(address: str, executable: str = sys.executable) -> str:
    """Without its verb; for the folder the run was started in, by the same interpreter."""
    here, python = Path.cwd(), Path(executable)
    shown = python.relative_to(here) if python.is_relative_to(here) else python
    return shlex.join([str(shown), "-m", "services.admin.client", "--address", address])
