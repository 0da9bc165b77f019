"""The `pairloop` command.

    pairloop run [CONFIG] [key=value ...]     as python orchestrator/run.py
    pairloop runs [pause | resume | stop]     what runs, or ran, on a Redis
    pairloop episodes list | show | pause | resume | cancel | watch
    pairloop workers [scale rollout=3 pairing=2 | drain NAME]
    pairloop deadletters [list | retry]
    pairloop pairs [--episode N]              what was trained: every answer, its score, and why
    pairloop audit                            who changed what, and why
    pairloop ledger verify FOLDER             prove that no prompt was lost or used twice
    pairloop serve                            the admin API alone, for all runs of a Redis
    pairloop doctor [CONFIG]                  what this machine lacks, and what to do about it

All but run, ledger, serve and doctor ask an admin API: a run's own, whose address it prints, or
that of `pairloop serve`. Exit status: 0 done, 1 refused or nobody there, 2 wrong usage, 3 something
does not answer, 130 interrupted. Completion: eval "$(_PAIRLOOP_COMPLETE=bash_source pairloop)".
"""

import os
import sys

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc is imported

import click

from orchestrator.cli.audit import audit
from orchestrator.cli.connection import connection_options
from orchestrator.cli.dead_letters import dead_letters
from orchestrator.cli.episodes import episodes
from orchestrator.cli.ledger import ledger
from orchestrator.cli.pairs import pairs
from orchestrator.cli.runs import runs
from orchestrator.cli.serve import serve
from orchestrator.cli.workers import workers
from services.errors import PairloopError, fitted

_LINE = 300
_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@connection_options(first=True)
def pairloop() -> None:
    """Run and steer online DPO."""


@pairloop.command(context_settings=_PASSED_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def run(words: tuple[str, ...]) -> None:
    """Run a job, as orchestrator/run.py does."""
    from orchestrator import run as command

    raise SystemExit(command.main(list(words)))


@pairloop.command(context_settings=_PASSED_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def doctor(words: tuple[str, ...]) -> None:
    """What this machine lacks to run a config, and what to do."""
    from orchestrator.doctor import command

    raise SystemExit(command.main(list(words)))


for each in (runs, episodes, workers, dead_letters, pairs, audit, ledger, serve):
    pairloop.add_command(each)


def main(arguments: list[str] | None = None) -> int:
    """Carry a command out; returns the exit status."""
    try:
        pairloop.main(args=arguments, prog_name="pairloop", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"pairloop: {error.format_message()}", err=True)
        return error.exit_code
    except click.Abort:
        return 130
    except PairloopError as error:
        click.echo(fitted(f"pairloop: {error}", _LINE), err=True)
        return error.exit_code
    except SystemExit as end:
        return int(end.code or 0)
    except BrokenPipeError:  # as by: pairloop episodes watch | head
        sys.stderr.close()
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
