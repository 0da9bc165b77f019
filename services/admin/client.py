"""The admin API from a terminal.

python -m services.admin.client [--address 127.0.0.1:50051] list
python -m services.admin.client pause --reason "looking at the pairs" [--episode 3]
python -m services.admin.client resume
python -m services.admin.client watch
"""

import argparse
import getpass
import sys
import uuid

import grpc

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.states import HELD, state_of

_DEADLINE_S = 10.0


def main(arguments: list[str]) -> int:
    """Make one call and print the episodes it answers; returns the exit status."""
    options = _parser().parse_args(arguments)
    with grpc.insecure_channel(options.address, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            _call(stub, options)
        except grpc.RpcError as error:
            sys.stderr.write(f"pairloop: {error.details()} ({error.code().name})\n")
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def _call(stub: AdminServiceStub, options: argparse.Namespace) -> None:
    change = {
        "number": options.episode,
        "reason": options.reason,
        "request_id": uuid.uuid4().hex,
        "actor": getpass.getuser(),
    }
    if options.command == "list":
        answer = stub.ListEpisodes(messages.ListEpisodesRequest(), timeout=_DEADLINE_S)
        for episode in answer.episodes:
            _show(episode)
    elif options.command == "pause":
        request = messages.PauseEpisodeRequest(**change)
        _show(stub.PauseEpisode(request, timeout=_DEADLINE_S).episode)
    elif options.command == "resume":
        resume = messages.ResumeEpisodeRequest(**change)
        _show(stub.ResumeEpisode(resume, timeout=_DEADLINE_S).episode)
    else:
        for change_seen in stub.WatchEpisodes(messages.WatchEpisodesRequest()):
            _show(change_seen.episode)


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
        prog="python -m services.admin.client", description="Look at, pause and resume episodes."
    )
    parser.add_argument("--address", default="127.0.0.1:50051", help="of the admin API")
    parser.add_argument("command", choices=["list", "pause", "resume", "watch"])
    parser.add_argument("--episode", type=int, default=0, help="0: the current one")
    parser.add_argument("--reason", default="by hand")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
