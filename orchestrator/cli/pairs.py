"""pairloop pairs: what was trained: every answer of a group, its score, and why these two."""

import json
from collections.abc import Iterator

import click

from orchestrator.cli.connection import Connection, connected
from orchestrator.cli.episodes import number
from orchestrator.cli.output import as_dict, harmless
from pairloop.admin.v1 import admin_pb2 as messages
from services.telemetry.format import number as figure

_INDENT = 19
_ANSWER_S = 60.0
"""A page is read from files, which may lie on another machine."""


@click.command()
@click.option("--episode", type=number, help="Of this one alone.")
@click.option("--page-size", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--page-token", default="", help="Where to go on, as the page before says.")
@connected
def pairs(to: Connection, episode: int | None, page_size: int, page_token: str) -> None:
    """The pairs that were made: the prompt, every answer with its score, chosen and rejected."""
    with to.stub() as stub:
        request = messages.ListPairsRequest(
            run=to.run_name, number=episode, page_size=page_size, page_token=page_token
        )
        page = stub.ListPairs(request, timeout=_ANSWER_S)
    if to.as_json:
        click.echo(json.dumps(as_dict(page), indent=2))
        return
    for pair in page.pairs:
        click.echo("\n".join(_lines(pair)) + "\n")
    if page.next_page_token:
        click.echo(f"more: --page-token {harmless(page.next_page_token)}")
    elif not page.pairs:
        click.echo("no pairs")


def _lines(pair: messages.Pair) -> Iterator[str]:
    where = f"episode {pair.episode}  {pair.prompt_id}" if pair.episode else pair.prompt_id
    yield harmless(f"{where}  {pair.why}".strip())
    for message in pair.prompt:
        yield _block(f"{message.role}: ", message.content)
    for sample in pair.samples:
        mark = "chosen" if sample.chosen else "rejected" if sample.rejected else ""
        yield _block(f"{mark:8} {figure(sample.score):>8}  ", sample.text)


def _block(head: str, text: str) -> str:
    """Every line of a text under its first, so that none can pass for another head."""
    head = harmless(head).ljust(_INDENT)
    return head + harmless(text).replace("\n", "\n" + " " * _INDENT)
