"""Every single-line fault in the pure files, the training loop, the queues and the ledger.

    make mutants                          all of them (files and tests: [tool.mutmut])
    make mutants ONLY='services.pairs.*'  those whose name matches
    .venv/bin/mutmut show NAME            one of them as a diff

mutmut makes the faults and runs the tests that reach each of them, in forks of one warm process.
Ends with the share found and the survivors by name; exit status 1 when it is below 90%.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import libcst as cst

ROOT = Path(__file__).resolve().parent.parent
WANTED = 0.9
WORKERS = 2
_FOUND = ("killed", "timeout", "segfault")
"""A fault that hangs or ends the process is found as well."""


def main(names: list[str]) -> int:
    """Start a Redis for all test processes, have the faults tried, report."""
    from services.queues.embedded import EmbeddedRedis

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    for pattern in settings["only_mutate"] + settings["pytest_add_cli_args_test_selection"]:
        if not list(ROOT.glob(pattern)):
            sys.exit(f"mutants: {pattern} in [tool.mutmut] of pyproject.toml is no file")
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedRedis.start(Path(folder), "everysec")
        # Forked workers must not inherit threads of the arithmetic libraries.
        env = os.environ | {"PAIRLOOP_TEST_REDIS": server.url, "OMP_NUM_THREADS": "1"}
        try:
            # A process of its own: this one has imported our packages, and not the faulty copy.
            done = subprocess.run([sys.executable, __file__, "--try", *names], env=env, cwd=ROOT)
        finally:
            server.stop()
    return done.returncode or report()


def try_all(names: list[str]) -> None:
    """What mutmut does, and statements left out besides."""
    from mutmut.__main__ import _run
    from mutmut.mutation import mutators

    mutators.mutation_operators.append((cst.Expr, without_statement))  # type: ignore[attr-defined]
    _run(tuple(names), WORKERS)


def without_statement(node: cst.Expr) -> Iterator[cst.CSTNode]:
    """A call that is made for its effect is left out; mutmut alone never does that."""
    if isinstance(node.value, cst.Call | cst.Await):
        yield cst.Pass()


def report() -> int:
    """Per file and in all; the survivors by name."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.file_utils import walk_mutatable_files

    total: Counter[str] = Counter()
    survivors = []
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        count = Counter(status_by_exit_code[code] for code in data.exit_code_by_key.values())
        survivors += [
            f"{name}  {status_by_exit_code[code]}"
            for name, code in data.exit_code_by_key.items()
            if status_by_exit_code[code] not in (*_FOUND, "not checked")
        ]
        print(_row(str(path), count))
        total += count
    print("\n".join(["", *survivors, "", _row("all", total)]))
    return int(_share(total) < WANTED)


def _row(name: str, count: Counter[str]) -> str:
    tried = count.total() - count["not checked"]
    found = sum(count[status] for status in _FOUND)
    return f"{name:48} {found:5} of {tried:5} found  {100 * _share(count):5.1f}%"


def _share(count: Counter[str]) -> float:
    tried = count.total() - count["not checked"]
    return sum(count[status] for status in _FOUND) / tried if tried else 1.0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--try"]:
        try_all(sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
