"""The command: what this machine lacks to run Pairloop, and what to do about it.

    pairloop doctor [CONFIG [key=value ...]] [--json]

Without CONFIG it looks at the machine; with one also at what that config needs. Nothing is
changed: an embedded Redis is tried in a folder that is removed. Exit status: 0 nothing is wrong,
2 the config is, 3 there is a problem.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from orchestrator.config.reading import read_config
from orchestrator.doctor.finding import Check, Finding
from orchestrator.doctor.machine import (
    check_cpu,
    check_disk,
    check_files,
    check_gpus,
    check_shared_memory,
)
from orchestrator.doctor.needs import check_inputs, check_plan
from orchestrator.doctor.ports import check_ports
from orchestrator.doctor.servers import check_cluster, check_redis
from orchestrator.doctor.subject import Subject
from orchestrator.doctor.table import write_table
from orchestrator.doctor.versions import check_versions
from services.errors import ConfigError, UnreachableError

CHECKS: tuple[Check, ...] = (
    check_versions,
    check_cpu,
    check_gpus,
    check_shared_memory,
    check_disk,
    check_files,
    check_ports,
    check_redis,
    check_cluster,
    check_inputs,
    check_plan,
)


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        job = read_config(Path(options.config), options.overrides) if options.config else None
    except ConfigError as error:
        sys.stderr.write(f"pairloop: {error}\n")
        return error.exit_code
    findings = examine(Subject(job))
    if options.json:
        sys.stdout.write(json.dumps([asdict(each) for each in findings], indent=1) + "\n")
    else:
        write_table(findings, sys.stdout)
    return status_of(findings)


def examine(subject: Subject) -> list[Finding]:
    """Every check, in order."""
    return [finding for check in CHECKS for finding in check(subject)]


def status_of(findings: Sequence[Finding]) -> int:
    """That of a process."""
    wrong = any(each.level == "problem" for each in findings)
    return UnreachableError.exit_code if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pairloop doctor",
        description="What this machine lacks to run Pairloop, and what to do about it.",
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="what it needs too")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="laid over the config")
    parser.add_argument("--json", action="store_true", help="a JSON list of findings")
    return parser
