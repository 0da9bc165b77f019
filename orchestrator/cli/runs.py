"""pairloop runs: what runs, or ran, on a Redis; pause, resume and stop one."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from orchestrator.cli.connection import ANSWER_S, Connection, connected
from orchestrator.cli.episodes import reason
from orchestrator.cli.output import ago, show
from pairloop.admin.v1 import admin_pb2 as messages


@click.group(invoke_without_command=True)
@click.pass_context
@connected
def runs(to: Connection, context: click.Context) -> None:
    """What runs, or ran, on a Redis; pause, resume and stop one."""
    if context.invoked_subcommand is not None:
        return
    with to.stub() as stub:
        found = stub.ListRuns(messages.ListRunsRequest(), timeout=ANSWER_S).runs
    show(found, _rows(found), to.as_json, "no runs")
    if not to.as_json:
        for run in found:
            if run.error:
                click.echo(f"{run.id}: {run.error}")


def _change(verb: str, request: Any, help_: str) -> None:
    """A command that changes a run."""

    @runs.command(verb, help=help_)
    @reason
    @connected
    def command(to: Connection, reason: str) -> None:
        with to.stub() as stub:
            call: Callable[..., Any] = getattr(stub, f"{verb.capitalize()}Run")
            answer = call(request(**to.change(reason)), timeout=ANSWER_S)
        show([answer.run], _rows([answer.run]), to.as_json, "no runs")
        if note := getattr(answer, "note", ""):
            click.echo(note, err=to.as_json)


_change(
    "pause",
    messages.PauseRunRequest,
    "Hold it between two steps, whatever its stage. It outlives restarts.",
)
_change("resume", messages.ResumeRunRequest, "Let a paused one go on.")
_change(
    "stop",
    messages.StopRunRequest,
    "End it in order, as SIGTERM does; the same command goes on.",
)


def _rows(found: Iterable[messages.Run]) -> Iterator[dict[str, object]]:
    now = time.time()
    for run in found:
        heard = run.heard.seconds
        yield {
            "run": run.id,
            "state": messages.RunState.Name(run.state).removeprefix("RUN_STATE_"),
            "job": run.job,
            "stage": run.stage,
            "started": ago(now - run.started.seconds),
            "heard": ago(now - heard) if heard else "",
            "host": run.host,
            "address": run.address,
            "folder": run.folder,
        }
