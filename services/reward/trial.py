"""One call of a reward function before a run, in a process of its own: the module is the user's."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.errors import CAUSE_CHARACTERS, PairloopError, WorkerError, shortened
from services.reward.function import Message, load_function

ANSWER = "A short answer."
WITHIN_S = 20.0
"""A module may import much. What takes longer is left to the service."""
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Trial:
    """How it went: `said` is empty when the function gave a number."""

    said: str = ""
    """One line naming the function, the prompt and the cause."""
    of: Literal["", "load", "call", "time"] = ""
    """What went wrong: finding it or calling it at all, this one call, or it took too long."""


def try_function(
    path: str,
    messages: Sequence[Message],
    metadata: Mapping[str, str],
    row: str,
    within_s: float = WITHIN_S,
) -> Trial:
    """Load the function, and call it once with a made-up answer; with no messages, only load it.

    Modules in the current folder are found. `row` names the prompt; it is rendered as ChatML,
    without a tokenizer, which would take longer than all else.
    """
    request = json.dumps([path, os.getcwd(), messages, dict(metadata), row])
    folders = [str(_ROOT), str(_ROOT / "protos"), os.environ.get("PYTHONPATH", "")]
    with subprocess.Popen(
        # -P: a folder `services` where the user stands is not ours.
        [sys.executable, "-P", "-m", "services.reward.trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))},
        start_new_session=True,
    ) as process:
        try:
            out, printed = process.communicate(request.encode(), within_s)
        except subprocess.TimeoutExpired:
            text = f"gave nothing within {within_s:g} s when tried; it may be too slow for a run"
            return Trial(f"reward function {path} {text}", "time")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what the module has started
    return Trial(*json.loads(out)) if out else _ended(path, process.returncode, printed)


def _ended(path: str, status: int, printed: bytes) -> Trial:
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    lines = printed.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    cause = f": {shortened(last, CAUSE_CHARACTERS)}" if last else ""
    return Trial(f"reward function {path} ended its process ({how}) when tried{cause}", "load")


def _main() -> None:
    # What the module prints is not the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    path, folder, messages, metadata, row = json.loads(sys.stdin.read())
    said, of = "", ""
    try:
        function = load_function(path, folder)
        if messages:
            text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
            function(row, f"{text}<|im_start|>assistant\n", ANSWER, metadata, messages)
    except PairloopError as problem:
        said, of = str(problem), "call" if isinstance(problem, WorkerError) else "load"
    os.write(answer, json.dumps([said, of]).encode())
    os._exit(0)  # threads and exit handlers of the module's are not waited for


if __name__ == "__main__":
    _main()
