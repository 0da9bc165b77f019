"""pairloop runs: what runs, or ran, on a Redis."""

import time
from collections.abc import Iterator

import click

from orchestrator.cli.connection import ANSWER_S, Connection, connected
from orchestrator.cli.output import ago, show
from pairloop.admin.v1 import admin_pb2 as messages


@click.command()
@connected
def runs(to: Connection) -> None:
    """What runs, or ran, on a Redis."""
    with to.stub() as stub:
        found = stub.ListRuns(messages.ListRunsRequest(), timeout=ANSWER_S).runs
    show(found, _rows(found), to.as_json, "no runs")
    if not to.as_json:
        for run in found:
            if run.error:
                click.echo(f"{run.id}: {run.error}")


def _rows(found: list[messages.Run]) -> Iterator[dict[str, object]]:
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
