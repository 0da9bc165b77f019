"""The admin API from a terminal: a run's episodes and workers, to look at, to pause, to resume and
to scale, and what they lost.

python -m services.admin.client [--address HOST:PORT] list [--episode 3]
python -m services.admin.client pause --reason "looking at the pairs" [--episode 3]
python -m services.admin.client resume
python -m services.admin.client watch
python -m services.admin.client dead-letters [--episode 3]    prompts that kept failing, and why
python -m services.admin.client replay [--episode 3]          they are tried again
python -m services.admin.client workers
python -m services.admin.client workers scale rollout=3 pairing=2

A run prints its address when its online stage starts. Exit status: 0 done, 1 refused or nobody
there, 130 interrupted.
"""

import argparse
import getpass
import os
import socket
import sys
import uuid

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc is imported

import grpc

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.admin.workers import counts, look_or_scale
from services.states import HELD, OVER, state_of

_CONNECT_S = 3.0
"""A refused connection is known at once; this is for a host that says nothing."""
_ANSWER_S = 10.0
_WATCH_S = 60.0
"""One call of a watch. Each begins with the episodes as they are: one without any had no answer."""
_REFUSED = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
)
"""The run's own words, and the user's to mend."""
_OPTIONS = [("grpc.enable_http_proxy", 0)]


def main(arguments: list[str], watch_s: float = _WATCH_S) -> int:
    """Make one call and print what it answers; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.more and options.command != "workers":
        parser.error(f"{options.command} takes no more words")
    try:
        options.counts = counts(options.more)
    except ValueError as error:
        parser.error(str(error))
    try:
        with grpc.insecure_channel(options.address, _OPTIONS) as channel:
            problem = _carried_out(channel, options, watch_s)
    except KeyboardInterrupt:
        return 130
    if problem:
        sys.stderr.write(f"pairloop: {problem}\n")
    return 1 if problem else 0


def _carried_out(channel: grpc.Channel, options: argparse.Namespace, watch_s: float) -> str:
    """Make the call; returns what went wrong, "" when nothing did."""
    at = options.address
    if not _listens(at):
        return (
            f"no online run listens at {at}; a run prints the address of its admin API when its"
            " online stage starts: give it as --address HOST:PORT"
        )
    stub = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
    try:
        if options.command == "watch":
            _watch(stub, options.episode, watch_s)
        elif options.command in ("dead-letters", "replay"):
            _lost(stub, options)
        else:
            _call(stub, options)
    except grpc.RpcError as error:
        if error.code() in _REFUSED:
            return str(error.details())
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"the run at {at} does not answer; look whether it still works, then try again"
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return f"what listens at {at} is no admin API of a run; see the address the run printed"
        if not _listens(at):
            return f"the run at {at} is gone; started again, its command goes on where it stood"
        return f"the run at {at} cannot answer: {error.details()}"
    return ""


def _listens(address: str) -> bool:
    """Whether anybody listens there; gRPC says it in no plain words."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _call(stub: AdminServiceStub, options: argparse.Namespace) -> None:
    number, change = options.episode, _change(options)
    if options.command == "workers":
        look_or_scale(stub, options.counts, change, _ANSWER_S)
    elif options.command == "pause":
        request = messages.PauseEpisodeRequest(number=number, **change)
        _show(stub.PauseEpisode(request, timeout=_ANSWER_S).episode)
    elif options.command == "resume":
        resume = messages.ResumeEpisodeRequest(number=number, **change)
        _show(stub.ResumeEpisode(resume, timeout=_ANSWER_S).episode)
    elif number:
        asked = messages.GetEpisodeRequest(number=number)
        _show(stub.GetEpisode(asked, timeout=_ANSWER_S).episode)
    else:
        for episode in stub.ListEpisodes(
            messages.ListEpisodesRequest(), timeout=_ANSWER_S
        ).episodes:
            _show(episode)


def _change(options: argparse.Namespace) -> dict[str, str]:
    return {
        "reason": options.reason,
        "request_id": uuid.uuid4().hex,
        "actor": getpass.getuser(),
    }


def _lost(stub: AdminServiceStub, options: argparse.Namespace) -> None:
    """Show the dead letters, or have them tried again."""
    if options.command == "replay":
        again = messages.ReplayDeadLettersRequest(number=options.episode, **_change(options))
        count = stub.ReplayDeadLetters(again, timeout=_ANSWER_S).replayed
        sys.stdout.write(f"{count} dead letters are tried again\n")
        return
    asked = messages.ListDeadLettersRequest(number=options.episode)
    letters = stub.ListDeadLetters(asked, timeout=_ANSWER_S).letters
    for letter in letters:
        error = " ".join(letter.error.split())
        sys.stdout.write(
            f"episode {letter.episode:>3}  {letter.prompt_id}  of {letter.stream}"
            f"  {letter.failures} failures  {letter.deaths} deaths  {error}\n"
        )
    if not letters:
        sys.stdout.write("no dead letters\n")


def _watch(stub: AdminServiceStub, number: int, watch_s: float) -> None:
    """Show each change once, over as many calls as it takes, until the server ends one."""
    shown: dict[int, messages.Episode] = {}
    asked = messages.WatchEpisodesRequest(number=number)
    while True:
        answered = False
        try:
            for response in stub.WatchEpisodes(asked, timeout=watch_s):
                answered, episode = True, response.episode
                if shown.get(episode.number) != episode:
                    shown[episode.number] = episode
                    _show(episode)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED or not answered:
                raise
        else:
            break
    what = f"episode {number} is" if number else "all episodes are"
    over = all(state_of(episode) in OVER for episode in shown.values())
    sys.stdout.write(f"{what} over\n" if over else "the run has stopped\n")


def _show(episode: messages.Episode) -> None:
    state = state_of(episode)
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(episode.dropped.items()))
    why = f"  ({episode.last_change.reason})" if state in HELD else ""
    sys.stdout.write(
        f"episode {episode.number:>3}  {state:<10}  {episode.dispatched}/{episode.prompts} prompts"
        f"  {episode.in_flight} in flight  {episode.paired} pairs  dropped: {dropped or 'none'}"
        f"{why}\n"
    )
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.admin.client",
        description="Look at the episodes and workers of an online run; pause and resume it, have"
        " more or fewer workers.",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        default="127.0.0.1:50051",
        help="of the admin API, as the run prints it (127.0.0.1:50051 unless admin.port says"
        " otherwise)",
    )
    parser.add_argument(
        "command",
        choices=["list", "pause", "resume", "watch", "dead-letters", "replay", "workers"],
        help="list, pause, resume, watch: episodes; dead-letters, replay: what kept failing;"
        " workers: what samples and pairs",
    )
    parser.add_argument(
        "more",
        nargs="*",
        metavar="scale KIND=COUNT",
        help="workers: have so many from now on, such as scale rollout=3 pairing=2",
    )
    parser.add_argument(
        "--episode",
        type=_number,
        default=0,
        metavar="N",
        help="list and watch: this one alone; pause: the current or next one unless given; resume:"
        " the paused one unless given; dead-letters and replay: of all unless given",
    )
    parser.add_argument("--reason", default="by hand", help="kept with the change, and shown")
    return parser


def _number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"'{text}' is no episode; they are counted from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
