"""pairloop episodes: look at them, pause, resume, cancel, watch."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click
import grpc

from orchestrator.cli.connection import ANSWER_S, Connection, connected
from orchestrator.cli.output import as_dict, show
from pairloop.admin.v1 import admin_pb2 as messages
from services.states import HELD, OVER, state_of

_WATCH_S = 60.0
"""One call of a watch; the next one goes on from its position."""

number = click.IntRange(min=1, max=2**32 - 1)
number.name = "episode"
reason = click.option("--reason", default="by hand", help="Kept with the change, and shown.")


@click.group()
def episodes() -> None:
    """A run's episodes."""


@episodes.command("list")
@connected
def list_(to: Connection) -> None:
    """Every episode."""
    with to.stub() as stub:
        found = _every(stub, to)
    show(found, _rows(found), to.as_json, "no episodes")


@episodes.command("show")
@click.argument("episode", type=number, required=False)
@connected
def show_(to: Connection, episode: int | None) -> None:
    """One episode, the current one unless given, with why it was last changed."""
    with to.stub() as stub:
        found = _one(stub, to, episode)
    _show(found, to)


def _change(verb: str, request: Any, help_: str, *, required: bool = False) -> None:
    """A command that changes an episode."""

    @episodes.command(verb, help=help_)
    @click.argument("episode", type=number, required=required)
    @reason
    @connected
    def command(to: Connection, episode: int | None, reason: str) -> None:
        with to.stub() as stub:
            call: Callable[..., Any] = getattr(stub, f"{verb.capitalize()}Episode")
            answer = call(request(number=episode, **to.change(reason)), timeout=ANSWER_S)
        _show(answer.episode, to)


_change(
    "pause",
    messages.PauseEpisodeRequest,
    "Dispatch no more of its prompts; without a number the current one, or the next one when that"
    " trains already.",
)
_change("resume", messages.ResumeEpisodeRequest, "Go on; without a number the paused one.")
_change(
    "cancel",
    messages.CancelEpisodeRequest,
    "End an episode that is not sampled yet, and its run with it.",
    required=True,
)


@episodes.command()
@click.argument("episode", type=number, required=False)
@click.option("--call-seconds", type=float, default=_WATCH_S, hidden=True)
@connected
def watch(to: Connection, episode: int | None, call_seconds: float) -> None:
    """Every change as it comes, of one episode if given, until all is over."""
    with to.stub() as stub:
        found = _every(stub, to) if episode is None else [_one(stub, to, episode)]
        shown = {each.number: each for each in found}
        for each in found:
            _show_line(each, to)
        position = ""
        while not _over(shown):
            asked = messages.WatchRequest(run=to.run_name or _own(stub), position=position)
            try:
                for change in stub.Watch(asked, timeout=call_seconds):
                    position, now = change.position, change.episode
                    if now.number in shown and shown[now.number] != now:
                        shown[now.number] = now
                        _show_line(now, to)
                    if _over(shown):
                        break
                else:
                    break  # the server ends
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED or not position:
                    raise
    if not to.as_json:
        what = f"episode {episode} is" if episode else "all episodes are"
        click.echo(f"{what} over" if _over(shown) else "the run has stopped")


def _over(shown: Mapping[int, messages.Episode]) -> bool:
    return all(state_of(each) in OVER for each in shown.values())


def _one(stub: Any, to: Connection, episode: int | None) -> messages.Episode:
    asked = messages.GetEpisodeRequest(run=to.run_name, number=episode)
    found: messages.Episode = stub.GetEpisode(asked, timeout=ANSWER_S).episode
    return found


def _every(stub: Any, to: Connection) -> list[messages.Episode]:
    """Page by page."""
    found: list[messages.Episode] = []
    token = ""
    while True:
        asked = messages.ListEpisodesRequest(run=to.run_name, page_token=token)
        answer = stub.ListEpisodes(asked, timeout=ANSWER_S)
        found += answer.episodes
        token = answer.next_page_token
        if not token:
            return found


def _own(stub: Any) -> str:
    """The run that is meant where none is named: a watch of none is one of all."""
    run: messages.Run = stub.GetRun(messages.GetRunRequest(), timeout=ANSWER_S).run
    return run.id


def _show(episode: messages.Episode, to: Connection) -> None:
    if to.as_json:
        click.echo(json.dumps(as_dict(episode), indent=2))
        return
    _show_line(episode, to)
    if (change := episode.last_change).actor:
        when = change.time.ToDatetime().isoformat(" ", "seconds")
        click.echo(f"last change: by {change.actor} at {when} UTC: {change.reason}")
    if episode.error:
        click.echo(f"error: {episode.error}")


def _show_line(episode: messages.Episode, to: Connection) -> None:
    """One line, for a list that grows."""
    if to.as_json:
        click.echo(json.dumps(as_dict(episode)))
        return
    state = state_of(episode)
    why = f"  ({episode.last_change.reason})" if state in HELD else ""
    click.echo(
        f"episode {episode.number:>3}  {state:<10}  {episode.dispatched}/{episode.prompts} prompts"
        f"  {episode.in_flight} in flight  {episode.paired} pairs"
        f"  dropped: {_dropped(episode) or 'none'}{why}"
    )


def _rows(found: Iterable[messages.Episode]) -> Iterator[dict[str, object]]:
    for episode in found:
        state = state_of(episode)
        yield {
            "episode": episode.number,
            "state": str(state),
            "prompts": f"{episode.dispatched}/{episode.prompts}",
            "in flight": episode.in_flight,
            "pairs": episode.paired,
            "trained": episode.trained,
            "dropped": _dropped(episode),
            "reason": episode.error or (episode.last_change.reason if state in HELD else ""),
        }


def _dropped(episode: messages.Episode) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(episode.dropped.items()))
