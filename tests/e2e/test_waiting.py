"""A job that waits, by the command: its exit status, its line, and how it goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The command with one more job in its registry.
COMMAND = (
    "import sys\n"
    "from orchestrator.jobs.registry import JOBS\n"
    "from orchestrator.run import main\n"
    "from tests.toy_job import LINE\n"
    "JOBS.update(LINE)\n"
    "sys.exit(main(sys.argv[1:]))\n"
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_a_waiting_run_ends_with_a_status_of_its_own_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    answers = tmp_path / "answers.txt"
    (config := tmp_path / "config.yaml").write_text(
        f"job: count_answers\nname: asked\noutput: {tmp_path / 'runs'}\n"
        f"prompts: {{path: {tmp_path / 'prompts.jsonl'}}}\nwaits_for: {answers}\n"
    )
    command = [sys.executable, "-c", COMMAND, str(config)]

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)

    waiting = run()
    assert waiting.returncode == 4, waiting.stderr
    assert waiting.stderr.splitlines()[-1] == (
        f"pairloop: count_answers waits for {answers}; the same command goes on"
    )
    answers.touch()
    done = run()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "asked" / "count_answers" / "count.txt").read_text() == "1\n"
