"""One call of a reward function before a run, in a process of its own: the module is the user's."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.errors import ConfigError, PairloopError
from services.reward.function import Message, load_function

ANSWER = "A short answer."
WITHIN_S = 20.0
"""A module may import much. What takes longer is left to the service."""
_ROOT = Path(__file__).resolve().parents[2]


def try_function(
    path: str, messages: Sequence[Message], metadata: Mapping[str, str], row: str
) -> None:
    """Load the function, and call it once with a made-up answer; with no messages, only load it.

    Modules in the current folder are found. Raises ConfigError naming the function, `row` and the
    cause when it cannot be called or gives no number; a trial that takes too long says nothing.
    """
    request = json.dumps([path, os.getcwd(), messages, dict(metadata), row])
    folders = [str(_ROOT), str(_ROOT / "protos"), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "services.reward.trial"],
            input=request,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))},
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        return
    try:
        error = json.loads(done.stdout.splitlines()[-1])["error"]
    except (IndexError, ValueError, TypeError, KeyError):
        error = f"reward function {path} ended its process (status {done.returncode}) when tried"
    if error:
        raise ConfigError(error)


def _main() -> None:
    path, folder, messages, metadata, row = json.loads(sys.stdin.read())
    error = ""
    try:
        function = load_function(path, folder)
        if messages:
            text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
            function(row, f"{text}<|im_start|>assistant\n", ANSWER, metadata, messages)
    except PairloopError as problem:
        error = str(problem)
    sys.stdout.write("\n" + json.dumps({"error": error}) + "\n")


if __name__ == "__main__":
    _main()
