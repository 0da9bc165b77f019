"""The command: read a config, check it, run its job.

    python orchestrator/run.py [CONFIG] [key=value ...] [--dry-run] [--fresh STAGE]

Without CONFIG the demo. `--dry-run` validates, prints the resolved config, and says what each
stage would do. `--fresh STAGE` begins that stage anew, whatever is there of it; it may be given
more than once. Exit status: 0 done, 1 the run failed, 2 a config, data file or model is wrong, 3
something does not answer or does not fit in memory, 4 a job waits, 130 interrupted.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
# As a script, Python puts orchestrator/ on the path and not the root.
sys.path[:0] = [str(ROOT), str(ROOT / "protos")]


LINE = 300
"""Characters of the last line, at most. What it leaves out is in error.log, in the run's folder."""


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status. Ctrl-C and SIGTERM: orchestrator/interrupts.py."""
    from orchestrator.interrupts import EXIT_CODE, interrupts

    # Read when grpc is imported; of what it still says, stderr.log in the run's folder has all.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        with interrupts.listening():
            return _checked_and_run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write(interrupts.last_line())
        return EXIT_CODE


def _checked_and_run(arguments: list[str]) -> int:
    """Heavy imports wait until all checks are through."""
    from orchestrator.checks.preflight import check
    from orchestrator.config.log_format import asked_format
    from orchestrator.config.reading import read_config, to_yaml
    from orchestrator.interrupts import interrupts
    from orchestrator.stages.outlook import outlook
    from orchestrator.stages.plan import check_stage_names
    from services.errors import PairloopError, Waiting, fitted
    from services.telemetry.log.lines import Level, last_line

    options = _parser().parse_intermixed_args(arguments)
    config, overrides = _split(options.words)
    # Known before the config is: it may be what is wrong.
    shown, name = asked_format(config, overrides), ""
    interrupts.speaks(shown)
    try:
        job = read_config(config, overrides)
        name = job.name or job.job
        check_stage_names(job, options.fresh)
        check(job, addresses=not options.dry_run)
        if options.dry_run:
            sys.stdout.write(to_yaml(job) + outlook(job, options.fresh))
            return 0
        from orchestrator.stages.run import run

        run(job, options.fresh)
    except PairloopError as error:
        level: Level = "info" if isinstance(error, Waiting) else "error"
        kind, code = type(error).__name__, {"exit_code": error.exit_code}
        text = str(error) if shown == "json" else fitted(str(error), LINE - len("pairloop: "))
        sys.stderr.write(last_line(text, shown, event=kind, level=level, run=name, numbers=code))
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orchestrator/run.py", description="Run a Pairloop job; without a config, the demo."
    )
    parser.add_argument(
        "words", nargs="*", metavar="CONFIG | key=value", help="a YAML file, then overrides"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="validate, print the resolved config, and stop"
    )
    parser.add_argument(
        "--fresh",
        action="append",
        default=[],
        metavar="STAGE",
        help="begin this stage anew; what is there moves to .replaced/ in the run's folder",
    )
    return parser


def _split(words: list[str]) -> tuple[Path, list[str]]:
    """The config is the first word without "="."""
    if words and "=" not in words[0]:
        return Path(words[0]), words[1:]
    return ROOT / "configs" / "demo.yaml", words


def _end(status: int) -> NoReturn:
    """End the process; without Ray's handlers of the end where it is still connected."""
    sys.stdout.flush()
    sys.stderr.flush()
    ray = sys.modules.get("ray")
    # After Ctrl-C threads may wait for a Ray that is gone, which ends with a status of its own.
    if ray is not None and (status == 130 or ray.is_initialized()):
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    _end(main(sys.argv[1:]))
