"""The admin client against a real server on the real episode store, and against none."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.episodes import EpisodeStore, State
from services.admin.client import main
from services.admin.command import command_for
from services.admin.server import AdminServer
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.conftest import FakeWorkers, SilentRuns, serving
from tests.integration.redis_rows import all_sampled
from tests.integration.test_queues import prompts

VERBS = ["list", "pause", "resume", "watch", "dead-letters", "replay"]


async def call(address: str, *arguments: str, watch_s: float = 60.0) -> int:
    return await asyncio.to_thread(main, ["--address", address, *arguments], watch_s)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("verb", [*VERBS, "workers"])
def test_without_a_run_one_plain_line_says_where_the_address_stands(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = free_address()
    assert main(["--address", address, verb]) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == (
        "",
        [
            f"pairloop: no online run listens at {address}; a run prints the address of its admin"
            " API when its online stage starts: give it as --address HOST:PORT"
        ],
    )


async def test_episodes_are_listed_paused_and_resumed(
    server: tuple[AdminServer, str], capsys: pytest.CaptureFixture[str]
) -> None:
    address = server[1]
    assert await call(address, "list") == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()] == [
        ["episode", "1", "PENDING"],
        ["episode", "2", "PENDING"],
    ]
    assert await call(address, "pause", "--reason", "a look", "--episode", "2") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:3] == ["episode", "2", "PAUSED"]
    assert line.endswith("(a look)")
    assert await call(address, "list", "--episode", "2") == 0
    assert capsys.readouterr().out.splitlines() == [line]
    assert await call(address, "resume") == 0
    assert capsys.readouterr().out.split()[:3] == ["episode", "2", "PENDING"]


async def test_workers_are_listed_and_scaled(
    server: tuple[AdminServer, str], workers: FakeWorkers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await call(server[1], "workers") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["rollout-0", "WORKING", "version", "5", "replaced", "0", "times"]
    ]
    assert await call(server[1], "workers", "scale", "rollout=5", "--reason", "more GPUs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [f"rollout-{n}" for n in range(5)]
    assert lines[-1] == "they wait for nodes"
    assert [change.reason for change in workers.changes] == ["more GPUs"]
    assert await call(server[1], "workers", "scale", "pairing=2") == 1
    assert capsys.readouterr().err == "pairloop: no pairing worker is up yet; ask again\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["workers", "scale", "rollout=0"], "'rollout=0' is not understood"),
        (["workers", "scale", "learner=2"], "'learner=2' is not understood"),
        (["workers", "scale", "rollout", "3"], "'rollout' is not understood"),
        (["workers", "scale"], "'workers scale' is not understood"),
        (["workers", "shrink", "rollout=2"], "'workers shrink rollout=2' is not understood"),
        (["list", "scale", "rollout=2"], "list takes no more words"),
    ],
)
def test_what_scales_nothing_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("verb", VERBS)
async def test_an_episode_that_is_not_there_is_one_line(
    verb: str,
    server: tuple[AdminServer, str],
    store: EpisodeStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await call(server[1], verb, "--episode", "9") == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"pairloop: run {store.run} has no episode 9: it has 1 to 2\n")


async def test_dead_letters_are_listed_and_replayed(
    server: tuple[AdminServer, str],
    store: EpisodeStore,
    redis_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = server[1]
    assert await call(address, "dead-letters") == 0
    assert capsys.readouterr().out == "no dead letters\n"
    await store.move(1, State.SAMPLING)
    queues = await RunQueues.open(redis_url, store.run, QueueSettings(max_failures=1))
    first, second, *_ = prompts(store.run, 4)
    await queues.dispatch(1, [first, second])
    for item in await queues.take("prompts", "a", 2, 0.0):
        await queues.fail("prompts", item, f"a judge\nthat is down for {item.prompt_id}")
    for arguments in ([], ["--episode", "1"]):
        assert await call(address, "dead-letters", *arguments) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"episode   1  {prompt.id}  of prompts  1 failures  0 deaths"
            f"  a judge that is down for {prompt.id}"
            for prompt in (first, second)
        ]
    assert await call(address, "dead-letters", "--episode", "2") == 0
    assert capsys.readouterr().out == "no dead letters\n"
    for count in (2, 0):
        assert await call(address, "replay", "--episode", "1") == 0
        assert capsys.readouterr().out == f"{count} dead letters are tried again\n"
    assert [item.prompt_id for item in await queues.take("prompts", "b", 9, 0.0)] == [
        first.id,
        second.id,
    ]
    assert await call(address, "replay") == 0
    assert capsys.readouterr().out == "0 dead letters are tried again\n"
    await queues.close()
    await store.move(2, State.CANCELLED)
    assert await call(address, "replay", "--episode", "2") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pairloop: episode 2 is CANCELLED: dead letters are tried again only")


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", str(2**32)])
def test_what_is_no_number_of_an_episode_is_refused(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["watch", "--episode", number])
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"'{number}' is no episode; they are counted from 1")


async def shown(capsys: pytest.CaptureFixture[str], lines: list[str], text: str) -> None:
    """Wait for a line; what was read is kept."""
    async with asyncio.timeout(20):
        while not any(text in line for line in lines):
            lines += capsys.readouterr().out.splitlines()
            await asyncio.sleep(0.01)


async def complete(store: EpisodeStore, number: int) -> None:
    await all_sampled(store, number)
    for to in (State.SAMPLING, State.TRAINING, State.PUBLISHING, State.COMPLETED):
        await store.move(number, to)


async def test_a_watch_of_one_episode_shows_it_alone_and_ends_with_it(
    server: tuple[AdminServer, str], store: EpisodeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = asyncio.create_task(call(server[1], "watch", "--episode", "2"))
    lines: list[str] = []
    await shown(capsys, lines, "PENDING")
    await complete(store, 1)
    await store.move(2, State.CANCELLED)
    assert await watching == 0
    lines += capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[:-1]] == [
        ["episode", "2", "PENDING"],
        ["episode", "2", "CANCELLED"],
    ]
    assert lines[-1] == "episode 2 is over"


async def test_a_watch_of_many_calls_shows_each_change_once(
    server: tuple[AdminServer, str], store: EpisodeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = asyncio.create_task(call(server[1], "watch", watch_s=0.5))
    lines: list[str] = []
    await shown(capsys, lines, "episode   2")
    await asyncio.sleep(1.2)  # more than two calls
    await complete(store, 1)
    await complete(store, 2)
    assert await watching == 0
    lines += capsys.readouterr().out.splitlines()
    assert lines[-1] == "all episodes are over"
    assert len(lines) == len(set(lines))


async def test_a_watch_ends_well_when_the_run_stops(
    server: tuple[AdminServer, str], store: EpisodeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = asyncio.create_task(call(server[1], "watch"))
    lines: list[str] = []
    await shown(capsys, lines, "episode   2")
    await store.move(1, State.SAMPLING)
    await server[0].stop(grace_s=10.0)
    assert await watching == 0
    lines += capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[:-1]] == ["PENDING", "PENDING", "SAMPLING"]
    assert lines[-1] == "the run has stopped"


async def test_a_run_that_says_nothing_is_one_line(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = await SilentRuns.open(redis_url, 5.0)
    runs.seconds = 3600.0
    async with serving(runs) as (_, address):
        assert await call(address, "watch", watch_s=0.2) == 1
    assert capsys.readouterr().err == (
        f"pairloop: the run at {address} does not answer; look whether it still works, then try"
        " again\n"
    )
    await runs.close()


SERVER = """
import asyncio
from orchestrator.episodes import EpisodeStore
from tests.integration.conftest import admin_of

async def main():
    store = await EpisodeStore.open(URL, RUN, 5.0)
    await store.create(2, 4)
    async with admin_of(URL, RUN) as (_, address):
        print(address, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_run_that_was_killed_is_gone(
    redis_url: str, run_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f"URL, RUN = {redis_url!r}, {run_name!r}\n{SERVER}"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        address = killed.stdout.readline().strip()
        watching = asyncio.create_task(call(address, "watch"))
        try:
            await shown(capsys, [], "episode   2")
        finally:
            killed.kill()
        assert await watching == 1
    assert capsys.readouterr().err == (
        f"pairloop: the run at {address} is gone; started again, its command goes on where it"
        " stood\n"
    )


def test_the_command_is_as_its_user_would_type_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rest = "-m services.admin.client --address 127.0.0.1:5"
    assert command_for("127.0.0.1:5", f"{tmp_path}/.venv/bin/python") == f".venv/bin/python {rest}"
    assert command_for("127.0.0.1:5", "/usr/bin/python3") == f"/usr/bin/python3 {rest}"
    assert command_for("127.0.0.1:5") == f"{sys.executable} {rest}"
    assert command_for("h:5", "/my python/bin/python").startswith("'/my python/bin/python' -m")
