"""pairloop audit: who changed what, and why."""

import json
from collections.abc import Iterable, Iterator

import click

from orchestrator.cli.connection import ANSWER_S, Connection, connected
from orchestrator.cli.output import as_dict, harmless, table
from pairloop.admin.v1 import admin_pb2 as messages


@click.command()
@click.option("--page-size", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--page-token", default="", help="Where to go on, as the page before says.")
@connected
def audit(to: Connection, page_size: int, page_token: str) -> None:
    """Who changed what, and why, the latest first; without --run of every run."""
    with to.stub() as stub:
        request = messages.ListAuditRequest(
            run=to.run_name, page_size=page_size, page_token=page_token
        )
        page = stub.ListAudit(request, timeout=ANSWER_S)
    if to.as_json:
        click.echo(json.dumps(as_dict(page), indent=2))
        return
    if page.entries:
        table(list(_rows(page.entries)))
    if page.next_page_token:
        click.echo(f"more: --page-token {harmless(page.next_page_token)}")
    elif not page.entries:
        click.echo("no changes")


def _rows(entries: Iterable[messages.AuditEntry]) -> Iterator[dict[str, object]]:
    for entry in entries:
        yield {
            "time": entry.time.ToDatetime().isoformat(" ", timespec="seconds"),
            "run": entry.run,
            "change": entry.method,
            "of": entry.what,
            "by": entry.actor,
            "from": entry.peer,
            "reason": " ".join(entry.reason.split()),
            "outcome": " ".join(entry.outcome.split()),
        }
