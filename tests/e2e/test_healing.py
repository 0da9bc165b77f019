"""Parts of a running recipe are killed: it ends by itself, with the bytes of a whole one."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from services.queues.ledger import ledger_audit
from services.queues.ledger_file import LEDGER, read_ledger_file

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"rollout": "RolloutActor", "pairs": "PairActor", "learner": "RayTrainWorker"}
"""As Ray names their processes."""
EPISODES = 5

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


class Run:
    """The tiny recipe with more episodes, and its lines as they come."""

    def __init__(self, output: Path, name: str) -> None:
        command = [sys.executable, "orchestrator/run.py", "tests/e2e/tiny.yaml"]
        command += [f"output={output}", f"name={name}", "stages.online_dpo.restarts.backoff_s=0"]
        command += [f"stages.online_dpo.episodes.count={EPISODES}"]
        command += ["stages.online_dpo.dpo.beta=0.2"]  # a stage that no other test has
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing of it is left, whatever failed."""
        if self.process.poll() is None:
            everything = psutil.Process(self.process.pid).children(recursive=True)
            for each in (*everything, self.process):
                each.kill()
        self.process.communicate()

    def until(self, *texts: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if all(text in line for text in texts):
                return
        pytest.fail(f"it ended before {texts}: {self.lines}")

    def kill(self, part: str) -> None:
        """The process of this part, which no handler hears of."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for each in psutil.Process(self.process.pid).children(recursive=True):
                if PARTS[part] in " ".join(each.cmdline()):
                    each.send_signal(signal.SIGKILL)
                    return
            time.sleep(0.05)
        pytest.fail(f"no process of {part}")

    def end(self) -> int:
        assert self.process.stdout is not None
        self.lines += [line.rstrip("\n") for line in self.process.stdout]
        return self.process.wait(60)


def test_killed_parts_are_replaced_and_the_weights_are_those_of_a_whole_run(
    recipe: Path, output: Path
) -> None:
    with Run(output, "hurt") as hurt:
        hurt.until("episode 1/", "done")
        hurt.kill("rollout")
        hurt.until("rollout-0 died", "it is replaced")
        hurt.until("episode 2/", "done")
        hurt.kill("learner")
        hurt.until("learner worker 0 died", "it is replaced")
        hurt.until("episode 3/", "done")
        hurt.kill("pairs")
        assert hurt.end() == 0, hurt.lines
    said, numbers = "\n".join(hurt.lines), range(1, EPISODES + 1)
    assert "pairs-0 died" in said
    assert all(f"episode {n}/{EPISODES}: done" in said for n in numbers), said

    made = output / "hurt" / "online_dpo"
    events = list(read_ledger_file(made / LEDGER))
    planned = {n: sorted({e.id for e in events if e.id and e.episode == n}) for n in numbers}
    assert {n: len(ids) for n, ids in planned.items()} == dict.fromkeys(numbers, 12)
    assert ledger_audit(events, planned) == []

    weights = (made / "model.safetensors").read_bytes()
    shutil.rmtree(made)  # else it would be taken for the next run's
    with Run(output, "whole") as whole:
        assert whole.end() == 0, whole.lines
    assert "is replaced" not in "\n".join(whole.lines)
    assert (output / "whole" / "online_dpo" / "model.safetensors").read_bytes() == weights
