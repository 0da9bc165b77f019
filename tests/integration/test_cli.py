"""The command against a real admin server on the real episode store, and against none."""

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.episodes import EpisodeStore, State
from services.admin.command import command_for
from services.admin.server import AdminServer
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.conftest import FakeWorkers, SilentRuns, serving
from tests.integration.redis_rows import all_sampled
from tests.integration.test_queues import prompts

CALLS = (
    *("episodes list", "episodes show", "episodes pause", "episodes resume", "episodes cancel 1"),
    *("episodes watch", "deadletters list", "deadletters retry", "workers", "runs"),
    *("pairs", "audit"),
)


async def call(address: str, *words: str) -> int:
    return await asyncio.to_thread(main, ["--address", address, *words])


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("words", CALLS)
def test_without_a_run_one_plain_line_says_where_the_address_stands(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = free_address()
    assert main([*words.split(), "--address", address]) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == (
        "",
        [
            f"pairloop: no admin API listens at {address}; a run prints the address of its own when"
            " its online stage starts: give it, or that of pairloop serve, as --address HOST:PORT"
        ],
    )


async def test_episodes_are_listed_paused_resumed_and_cancelled(
    server: tuple[AdminServer, str], capsys: pytest.CaptureFixture[str]
) -> None:
    address = server[1]
    assert await call(address, "episodes", "list") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["episode", "state", "prompts"]
    assert [row.split()[:3] for row in rows] == [["1", "PENDING", "0/4"], ["2", "PENDING", "0/4"]]
    assert await call(address, "episodes", "pause", "2", "--reason", "a look") == 0
    line, why = capsys.readouterr().out.splitlines()
    assert line.split()[:3] == ["episode", "2", "PAUSED"]
    assert line.endswith("(a look)")
    assert why.endswith("UTC: a look")
    assert await call(address, "episodes", "show", "2") == 0
    assert capsys.readouterr().out.splitlines() == [line, why]
    assert await call(address, "episodes", "resume") == 0
    assert capsys.readouterr().out.split()[:3] == ["episode", "2", "PENDING"]
    assert await call(address, "episodes", "cancel", "2", "--reason", "bad prompts") == 0
    assert capsys.readouterr().out.split()[:3] == ["episode", "2", "CANCELLED"]
    assert await call(address, "episodes", "cancel", "2") == 1
    assert capsys.readouterr().err == (
        "pairloop: episode 2 is CANCELLED and cannot become CANCELLED: it is over\n"
    )


async def test_json_has_every_field_by_its_name(
    server: tuple[AdminServer, str], store: EpisodeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await call(server[1], "episodes", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["number"], each["state"]) for each in listed] == [
        (1, "EPISODE_STATE_PENDING"),
        (2, "EPISODE_STATE_PENDING"),
    ]
    assert (listed[0]["in_flight"], listed[0]["dropped"]) == (0, {})
    assert await call(server[1], "--json", "runs") == 0
    (own,) = [run for run in json.loads(capsys.readouterr().out) if run["id"] == store.run]
    assert own["state"] == "RUN_STATE_RUNNING"
    assert await call(server[1], "workers", "--json") == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["rollout-0"]


async def test_workers_are_listed_and_scaled(
    server: tuple[AdminServer, str], workers: FakeWorkers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await call(server[1], "workers") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["worker", "state", "version", "replaced"],
        ["rollout-0", "WORKING", "5", "0"],
    ]
    assert await call(server[1], "workers", "scale", "rollout=5", "--reason", "more GPUs") == 0
    _, *lines, note = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"rollout-{n}" for n in range(5)]
    assert note == "they wait for nodes"
    assert [change.reason for change in workers.changes] == ["more GPUs"]
    assert await call(server[1], "workers", "scale", "pairing=2") == 1
    assert capsys.readouterr().err == "pairloop: no pairing worker is up yet; ask again\n"
    assert await call(server[1], "workers", "drain", "rollout-0", "--reason", "spot") == 0
    assert capsys.readouterr().out.split()[:2] == ["worker", "state"]
    assert [change.reason for change in workers.changes] == ["more GPUs", "spot"]
    assert await call(server[1], "workers", "drain", "rollout-9") == 1
    assert capsys.readouterr().err.startswith("pairloop: there is no worker rollout-9 that could")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("workers scale rollout=0", "'rollout=0' is not understood"),
        ("workers scale learner=2", "'learner=2' is not understood"),
        ("workers scale rollout 3", "'rollout' is not understood"),
        ("workers scale", "Missing argument"),
        ("workers shrink", "No such command 'shrink'"),
        ("episodes list scale", "unexpected extra argument (scale)"),
        *((f"episodes watch {number}", number) for number in ("0", "x", "1.5", str(2**32))),
        ("episodes cancel", "Missing argument 'EPISODE'"),
    ],
)
def test_what_is_not_understood_is_refused(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        *(f"episodes {verb} 9" for verb in ("show", "pause", "resume", "cancel", "watch")),
        *(f"deadletters {verb} --episode 9" for verb in ("list", "retry")),
    ],
)
async def test_an_episode_that_is_not_there_is_one_line(
    words: str,
    server: tuple[AdminServer, str],
    store: EpisodeStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await call(server[1], *words.split()) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"pairloop: run {store.run} has no episode 9: it has 1 to 2\n")


async def test_dead_letters_are_listed_and_replayed(
    server: tuple[AdminServer, str],
    store: EpisodeStore,
    redis_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = server[1]
    assert await call(address, "deadletters", "list") == 0
    assert capsys.readouterr().out == "no dead letters\n"
    await store.move(1, State.SAMPLING)
    queues = await RunQueues.open(redis_url, store.run, QueueSettings(max_failures=1))
    first, second, *_ = prompts(store.run, 4)
    await queues.dispatch(1, [first, second])
    for item in await queues.take("prompts", "a", 2, 0.0):
        await queues.fail("prompts", item, f"a judge\nthat is down for {item.prompt_id}")
    for arguments in ([], ["--episode", "1"]):
        assert await call(address, "deadletters", "list", *arguments) == 0
        _, *lines = capsys.readouterr().out.splitlines()
        assert [line.split(maxsplit=5) for line in lines] == [
            ["1", prompt.id, "prompts", "1", "0", f"a judge that is down for {prompt.id}"]
            for prompt in (first, second)
        ]
    for count in (2, 0):
        assert await call(address, "deadletters", "retry", "--episode", "1") == 0
        assert capsys.readouterr().out == f"{count} dead letters are tried again\n"
    assert [item.prompt_id for item in await queues.take("prompts", "b", 9, 0.0)] == [
        first.id,
        second.id,
    ]
    assert await call(address, "deadletters", "retry") == 0
    assert capsys.readouterr().out == "0 dead letters are tried again\n"
    await queues.close()
    await store.move(2, State.CANCELLED)
    assert await call(address, "deadletters", "retry", "--episode", "2") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pairloop: episode 2 is CANCELLED: dead letters are tried again only")


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
    watching = asyncio.create_task(call(server[1], "episodes", "watch", "2"))
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
    watching = asyncio.create_task(call(server[1], "episodes", "watch", "--call-seconds", "0.5"))
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
    watching = asyncio.create_task(call(server[1], "episodes", "watch"))
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
        assert await call(address, "episodes", "watch", "--call-seconds", "0.2") == 1
    assert capsys.readouterr().err == (
        f"pairloop: what listens at {address} does not answer; look whether it still works, then"
        " again\n"
    )
    await runs.close()


SERVER = """
import asyncio
from orchestrator.cli.main import main
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
        watching = asyncio.create_task(call(address, "episodes", "watch"))
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
    rest = "--address 127.0.0.1:5 episodes"
    assert (
        command_for("127.0.0.1:5", f"{tmp_path}/.venv/bin/python") == f".venv/bin/pairloop {rest}"
    )
    assert command_for("127.0.0.1:5", "/usr/bin/python3") == f"/usr/bin/pairloop {rest}"
    assert command_for("127.0.0.1:5") == f"{Path(sys.executable).with_name('pairloop')} {rest}"
    assert command_for("h:5", "/my python/bin/python").startswith("'/my python/bin/pairloop' --")
