"""pairloop deadletters: prompts that kept failing, and why; once more."""

from collections.abc import Iterable, Iterator

import click

from orchestrator.cli.connection import ANSWER_S, Connection, connected
from orchestrator.cli.episodes import number, reason
from orchestrator.cli.output import show
from pairloop.admin.v1 import admin_pb2 as messages

_episode = click.option("--episode", type=number, help="Of this one alone.")


@click.group("deadletters")
def dead_letters() -> None:
    """Prompts that kept failing."""


@dead_letters.command("list")
@_episode
@connected
def list_(to: Connection, episode: int | None) -> None:
    """Which they are, and the last error of each."""
    with to.stub() as stub:
        asked = messages.ListDeadLettersRequest(run=to.run_name, number=episode)
        letters = stub.ListDeadLetters(asked, timeout=ANSWER_S).letters
    show(letters, _rows(letters), to.as_json, "no dead letters")


@dead_letters.command()
@_episode
@reason
@connected
def retry(to: Connection, episode: int | None, reason: str) -> None:
    """Try them again, while their episode is sampled."""
    with to.stub() as stub:
        request = messages.RetryDeadLettersRequest(number=episode, **to.change(reason))
        count = stub.RetryDeadLetters(request, timeout=ANSWER_S).retried
    click.echo(f"{count} dead letters are tried again")


def _rows(letters: Iterable[messages.DeadLetter]) -> Iterator[dict[str, object]]:
    for letter in letters:
        yield {
            "episode": letter.episode,
            "prompt": letter.prompt_id,
            "of": letter.stream,
            "failures": letter.failures,
            "deaths": letter.deaths,
            "error": " ".join(letter.error.split()),
        }
