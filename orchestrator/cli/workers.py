"""pairloop workers: what samples and pairs, and how many of them there are to be."""

from collections.abc import Iterable, Iterator, Mapping

import click

from orchestrator.cli.connection import ANSWER_S, Connection, connected
from orchestrator.cli.episodes import reason
from orchestrator.cli.output import show
from pairloop.admin.v1 import admin_pb2 as messages

_KINDS: Mapping[str, messages.WorkerKind] = {
    "rollout": messages.WORKER_KIND_ROLLOUT,
    "pairing": messages.WORKER_KIND_PAIRING,
}


class _Count(click.ParamType):  # type: ignore[type-arg]
    """Such as rollout=3."""

    name = "KIND=COUNT"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[messages.WorkerKind, int]:
        kind, _, count = value.partition("=")
        if kind not in _KINDS or not count.isdecimal() or not 0 < int(count) < 2**32:
            self.fail(
                f"'{value}' is not understood; such as: workers scale rollout=3 pairing=2, each 1"
                " or more"
            )
        return _KINDS[kind], int(count)


@click.group(invoke_without_command=True)
@click.pass_context
@connected
def workers(to: Connection, context: click.Context) -> None:
    """What samples and pairs; with `scale` more or fewer of them."""
    if context.invoked_subcommand is None:
        with to.stub() as stub:
            asked = messages.ListWorkersRequest(run=to.run_name)
            found = stub.ListWorkers(asked, timeout=ANSWER_S).workers
        show(found, _rows(found), to.as_json, "no workers")


@workers.command()
@click.argument("counts", nargs=-1, required=True, type=_Count())
@reason
@connected
def scale(to: Connection, counts: tuple[tuple[messages.WorkerKind, int], ...], reason: str) -> None:
    """Have so many of a kind from now on, such as rollout=3 pairing=2."""
    notes = []
    with to.stub() as stub:
        for kind, count in dict(counts).items():
            request = messages.ScaleWorkersRequest(kind=kind, count=count, **to.change(reason))
            answer = stub.ScaleWorkers(request, timeout=ANSWER_S)
            notes.append(answer.note)
    show(answer.workers, _rows(answer.workers), to.as_json, "no workers")
    for note in filter(None, notes):
        click.echo(note, err=to.as_json)


@workers.command()
@click.argument("name")
@reason
@connected
def drain(to: Connection, name: str, reason: str) -> None:
    """Let one finish and leave, as before its machine goes; another takes its place."""
    with to.stub() as stub:
        request = messages.DrainWorkerRequest(name=name, **to.change(reason))
        left = stub.DrainWorker(request, timeout=ANSWER_S).workers
    show(left, _rows(left), to.as_json, "no workers")


def _rows(found: Iterable[messages.Worker]) -> Iterator[dict[str, object]]:
    for worker in found:
        yield {
            "worker": worker.name,
            "state": messages.WorkerState.Name(worker.state).removeprefix("WORKER_STATE_"),
            "version": worker.weight_version if worker.HasField("weight_version") else None,
            "replaced": worker.restarts,
        }
