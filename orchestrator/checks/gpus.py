"""The GPUs of this machine, as its driver tells."""

import shutil
import subprocess
from dataclasses import dataclass

from services.errors import UnreachableError

_ASK_S = 5.0


@dataclass(frozen=True)
class Gpu:
    """One device."""

    name: str
    memory: int
    """Bytes."""
    driver: str
    """Its version."""


def gpus() -> list[Gpu]:
    """All of them; none where there is no driver. UnreachableError where it does not answer."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    ask = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(  # noqa: S603 - of the path
            ask, capture_output=True, text=True, timeout=_ASK_S, check=True
        )
        return told(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UnreachableError(
            f"nvidia-smi is here and names no GPU ({type(error).__name__}); mend the driver, or run"
            " the container with GPUs"
        ) from None


def told(answer: str) -> list[Gpu]:
    """A line of CSV each. ValueError for what is none."""
    found = []
    for line in filter(None, map(str.strip, answer.splitlines())):
        name, memory, driver = (part.strip() for part in line.rsplit(",", 2))
        found.append(Gpu(name, int(memory) * 2**20, driver))
    return found
