"""What a run has written into its folder, and the audit stream, through a real admin server."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import grpc
import pytest
import yaml

from orchestrator.artifacts.store import Artifact, Begun, write_begun
from orchestrator.cli.main import main
from orchestrator.control.curves import CurveReader
from orchestrator.control.hold import RunHold
from orchestrator.control.live import LiveRun
from orchestrator.control.registration import own_run
from orchestrator.control.run_folder import RunFolder
from orchestrator.control.runs import RedisRuns
from orchestrator.online.prompts import prompt_id
from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from pairloop.data.v1.pair_pb2 import PreferencePair
from services.admin.ports import AuditEntry, Page
from services.learner.online.pair_record import join_pairs, write_pairs
from services.pairs.build import make_pair
from services.queues.ledger import LedgerEvent
from services.queues.ledger_file import LEDGER, packed
from tests.integration.conftest import serving
from tests.unit.test_pairs_build import SCORES, SELECTION, rollout

RECORDED = Path(__file__).parents[1] / "recorded" / "online_run.jsonl"
STAGE, IDS = "online_dpo", "demo.online_dpo.t"
Server = tuple[AdminServiceStub, messages.Run, str]


@pytest.fixture
async def server(tmp_path: Path, redis_url: str) -> AsyncIterator[Server]:
    """The admin API in the process of a run whose folder has nothing but its id."""
    (tmp_path / "run").mkdir()
    run = own_run("demo", "online_dpo", tmp_path / "run")
    runs = await RedisRuns.open(redis_url, 5.0, LiveRun(run, RunHold(tmp_path / "run", run)))
    async with serving(runs) as (_, address), grpc.aio.insecure_channel(address) as channel:
        yield AdminServiceStub(channel), run, address  # type: ignore[no-untyped-call]
    await runs.close()


def pair_of(episode: int, index: int) -> PreferencePair:
    pair = make_pair(rollout(index), SCORES, SELECTION, "1.0*checker")
    pair.id = pair.prompt.id = prompt_id(IDS, episode, index)
    pair.prompt.episode = episode
    return pair


def trained(folder: Path, *counts: int) -> None:
    """Episodes with so many pairs each."""
    for episode, count in enumerate(counts, start=1):
        write_pairs(folder, episode, [pair_of(episode, index) for index in range(count)])


def finished(run: Path, *counts: int, stage: str = STAGE) -> Path:
    """An online stage that is done."""
    folder = run / stage
    trained(run.parent / f"learner-{stage}", *counts)
    folder.mkdir()
    join_pairs(run.parent / f"learner-{stage}", len(counts), folder / "pairs.jsonl")
    episodes = {"count": len(counts), "prompts": counts[0]}
    artifact = Artifact(kind="online_dpo", fingerprint="f", config={"episodes": episodes})
    (folder / "artifact.json").write_text(artifact.model_dump_json())
    return folder


def begun(run: Path, stage: str = STAGE) -> Path:
    """The scratch folder of one that goes on."""
    scratch = run / ".work" / f"{stage}-t"
    write_begun(scratch, Begun(kind="online_dpo", trunk="t"), {})
    return scratch


def events(episode: int, prompts: int) -> list[LedgerEvent]:
    """All trained but the last, which is dropped."""
    ids = [prompt_id(IDS, episode, index) for index in range(prompts)]
    ways = {id_: ("dispatched", "sampled", "scored", "paired", "trained") for id_ in ids[:-1]}
    ways[ids[-1]] = ("dispatched", "sampled", "scored", "dropped", "")
    steps = [(kind, id_) for id_, kinds in ways.items() for kind in kinds if kind]
    return [
        LedgerEvent(f"{episode}-{n}", kind, id_, episode, "TIE" if kind == "dropped" else "1")
        for n, (kind, id_) in enumerate(steps)
    ] + [LedgerEvent(f"{episode}-9999", "published", "", episode, str(episode))]


async def pages(admin: AdminServiceStub, number: int = 0, size: int = 3) -> list[list[str]]:
    """Ids of the pairs, page by page."""
    found: list[list[str]] = []
    token = ""
    while True:
        request = messages.ListPairsRequest(number=number, page_size=size, page_token=token)
        page = await admin.ListPairs(request)
        found.append([pair.prompt_id for pair in page.pairs])
        token = page.next_page_token
        if not token:
            return found


async def refused(call: object, code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code() == code
    return str(caught.value.details())


def ids(episode: int, *indices: int) -> list[str]:
    return [prompt_id(IDS, episode, index) for index in indices]


@pytest.mark.parametrize("over", [True, False])
async def test_pairs_come_in_pages_in_the_order_they_are_trained(
    server: Server, tmp_path: Path, over: bool
) -> None:
    admin = server[0]
    assert await pages(admin) == [[]]
    if over:
        finished(tmp_path / "run", 4, 2, 3)
    else:
        trained(begun(tmp_path / "run") / "learner", 4, 2, 3)
    assert await pages(admin) == [
        ids(1, 0, 1, 2),
        ids(1, 3) + ids(2, 0, 1),
        ids(3, 0, 1, 2),
    ]
    assert await pages(admin, number=1) == [ids(1, 0, 1, 2), ids(1, 3)]
    assert await pages(admin, number=2) == [ids(2, 0, 1)]
    assert await pages(admin, number=3, size=2) == [ids(3, 0, 1), ids(3, 2)]
    assert await pages(admin, number=4) == [[]]


async def test_a_pair_has_its_whole_group_and_says_why(server: Server, tmp_path: Path) -> None:
    scores = [SCORES[0], SCORES[2], SCORES[1]]
    made = make_pair(rollout(0), scores, replace(SELECTION, rejected=2), "1.0*checker")
    made.prompt.episode = 1
    write_pairs(begun(tmp_path / "run") / "learner", 1, [made])
    (pair,) = (await server[0].ListPairs(messages.ListPairsRequest())).pairs
    assert (pair.episode, pair.prompt[0].role, pair.prompt[0].content) == (1, "user", "question 0")
    assert [(s.text, s.score, s.chosen, s.rejected) for s in pair.samples] == [
        ("abcd", 2.0, True, False),
        ("ab", 0.5, False, False),
        ("ab", -1.0, False, True),
    ]
    assert pair.why == (
        "best against worst of 3 answers: 2.00 against -1.00, margin 3.00; chosen is 2 tokens"
        " longer; scored by 1.0*checker"
    )


async def test_pairs_of_a_preference_set_have_the_two_and_come_before_what_they_trained(
    server: Server, tmp_path: Path
) -> None:
    made = finished(tmp_path / "run", 1, stage="a-later-name")
    os.utime(made / "artifact.json", (1, 1))
    prompt = [{"role": "user", "content": "x" * 20_001}]
    row = {"prompt": prompt, "chosen": "a", "rejected": "b"}
    scores = {"chosen_score": 1.0, "rejected_score": 0.25, "metadata": {}}
    (made / "pairs.jsonl").write_text(json.dumps(row | scores) + "\n")
    finished(tmp_path / "run", 1)
    preference, online = (await server[0].ListPairs(messages.ListPairsRequest())).pairs
    assert [(s.text, s.chosen, s.rejected) for s in preference.samples] == [
        ("a", True, False),
        ("b", False, True),
    ]
    assert preference.why == "1.00 against 0.250, margin 0.750"
    assert preference.prompt[0].content == "x" * 20_000 + "\n[cut: 20,001 characters]"
    assert online.prompt_id == ids(1, 0)[0]
    assert await pages(server[0], number=1) == [ids(1, 0)]


async def test_a_line_that_is_being_written_is_none_yet_and_a_damaged_one_says_so(
    server: Server, tmp_path: Path
) -> None:
    path = finished(tmp_path / "run", 2) / "pairs.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b'{"id": 3}\n' + second[:-20])
    assert await pages(server[0]) == [[*ids(1, 0), ""]]
    _, damaged = (await server[0].ListPairs(messages.ListPairsRequest())).pairs
    assert damaged.why == "this line is no pair (KeyError); it was changed"
    path.write_bytes(first + b"\xff" * 17_000_000 + b"\n" + second)
    assert await pages(server[0]) == [[*ids(1, 0), "", *ids(1, 1)]]


async def test_a_page_fits_the_message_that_a_client_takes(server: Server, tmp_path: Path) -> None:
    many = [pair_of(1, index) for index in range(60)]
    for pair in many:
        pair.provenance.group_answers[2] = "ü" * 19_000 * 5
        pair.prompt.messages[0].content = "ü" * 19_000
    write_pairs(begun(tmp_path / "run") / "learner", 1, many)
    found = await pages(server[0], size=100)
    assert len(found) == 2
    assert [id_ for page in found for id_ in page] == ids(1, *range(60))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (messages.ListPairsRequest(page_size=101), "page_size is 101; ask for 100 at most"),
        (messages.ListPairsRequest(page_token="x" * 501), "page_token is longer than 500 charac"),
        *(
            (messages.ListPairsRequest(page_token=token), "page_token begins no page of these")
            for token in ("online_dpo:0:-1", "online_dpo:1:0", "../../etc:0:1", "::", "0")
        ),
        (messages.ListAuditRequest(page_size=501), "page_size is 501; ask for 500 at most"),
        *(
            (
                messages.ListAuditRequest(page_token=token),
                "page_token is none that a page before gave",
            )
            for token in ("+", "1", "1-1 ", "9" * 20 + "-1")
        ),
        (messages.GetConfigRequest(run="x" * 501), "run is longer than 500 characters"),
    ],
)
async def test_what_no_request_may_hold_is_said_by_field(
    server: Server, tmp_path: Path, request_: object, said: str
) -> None:
    finished(tmp_path / "run", 1)
    admin = server[0]
    method = getattr(admin, type(request_).__name__.removesuffix("Request"))
    assert (await refused(method(request_), grpc.StatusCode.INVALID_ARGUMENT)).startswith(said)


async def test_a_folder_that_is_not_here_is_refused_and_so_is_another_runs(
    server: Server, tmp_path: Path
) -> None:
    admin, run, _ = server
    run.address = "10.0.0.1:5"
    finished(tmp_path / "run", 1)
    for content in ("another", None):
        (tmp_path / "run" / ".id").unlink(missing_ok=True)
        if content:
            (tmp_path / "run" / ".id").write_text(content)
        for call in (
            admin.ListPairs(messages.ListPairsRequest()),
            admin.GetConfig(messages.GetConfigRequest()),
            admin.GetCurves(messages.GetCurvesRequest()),
            admin.GetLedgerProof(messages.GetLedgerProofRequest()),
        ):
            assert await refused(call, grpc.StatusCode.FAILED_PRECONDITION) == (
                f"run {run.id}'s folder {run.folder} on host {run.host} is not visible here; ask"
                " 10.0.0.1:5 or mount it"
            )


async def test_no_link_leads_out_of_the_folder_and_no_pipe_is_waited_for(
    server: Server, tmp_path: Path
) -> None:
    admin, folder = server[0], tmp_path / "run"
    secret = tmp_path / "secret"
    secret.mkdir()
    made = finished(folder, 1)
    pairs, outside = made / "pairs.jsonl", (made / "pairs.jsonl").rename(secret / "pairs.jsonl")
    pairs.symlink_to(outside)

    async def asked() -> str:
        call = admin.ListPairs(messages.ListPairsRequest())
        return await refused(call, grpc.StatusCode.FAILED_PRECONDITION)

    leads = f"leads out of the run's folder, to {outside}; it is not read"
    assert await asked() == f"{pairs} {leads}"
    (made / LEDGER).write_bytes(packed(events(1, 1)))
    proof = admin.GetLedgerProof(messages.GetLedgerProofRequest())
    assert await refused(proof, grpc.StatusCode.FAILED_PRECONDITION) == f"{pairs} {leads}"
    pairs.unlink()
    os.mkfifo(pairs)
    assert await asked() == f"{pairs} is no regular file; it is not read"
    pairs.unlink()
    (secret / "learner").symlink_to(secret)
    trained(secret, 1)
    (begun(folder) / "learner").symlink_to(secret)
    assert "leads out of the run's folder" in await asked()
    (folder / "config.yaml").symlink_to(secret / "config.yaml")
    (secret / "config.yaml").write_text("a: b")
    config = admin.GetConfig(messages.GetConfigRequest())
    assert "leads out" in await refused(config, grpc.StatusCode.FAILED_PRECONDITION)


async def test_a_config_is_shown_without_secrets(server: Server, tmp_path: Path) -> None:
    config = {
        "name": "Größe",
        "queues": {"url": "redis://bob:p4ss@h:1/0?sentinel_password=w0rd", "credits": 3},
        "stages": [{"reward": {"url": "http://me:s3cret@h", "api_key": "k3y"}}],
        "password": None,
    }
    call = server[0].GetConfig(messages.GetConfigRequest())
    assert "has no config.yaml" in await refused(call, grpc.StatusCode.FAILED_PRECONDITION)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    shown = (await server[0].GetConfig(messages.GetConfigRequest())).yaml
    assert yaml.safe_load(shown) == {
        "name": "Größe",
        "queues": {"url": "redis://bob:***@h:1/0?sentinel_password=***", "credits": 3},
        "stages": [{"reward": {"url": "http://me:***@h", "api_key": "***"}}],
        "password": None,
    }
    (tmp_path / "run" / "config.yaml").write_text("a: [")
    call = server[0].GetConfig(messages.GetConfigRequest())
    assert "is no YAML" in await refused(call, grpc.StatusCode.FAILED_PRECONDITION)


async def test_curves_go_by_step_and_by_episode(server: Server, tmp_path: Path) -> None:
    admin = server[0]
    assert list((await admin.GetCurves(messages.GetCurvesRequest())).curves) == []
    copyfile(RECORDED, tmp_path / "run" / "metrics.jsonl")
    found = {
        (c.name, c.axis): c for c in (await admin.GetCurves(messages.GetCurvesRequest())).curves
    }
    loss, reward = found["loss", "step"], found["reward_mean", "episode"]
    assert {curve.stage for curve in found.values()} == {STAGE}
    assert list(loss.x) == [1, 2, 3, 5, 6, 8, 9, 11, 12, 13, 14, 15]
    assert loss.y[0] == pytest.approx(0.693147, abs=1e-6)
    assert (list(reward.x), len(reward.y)) == ([1, 2, 3, 4, 5, 6], 6)
    assert {"accuracy", "lr", "grad_norm"} <= {name for name, axis in found if axis == "step"}


def progress(step: int, loss: float) -> bytes:
    row = {"kind": "train_progress", "stage": "sft", "step": step, "steps": 9, "tokens": 1}
    return json.dumps({"time": 1.0, **row, "seconds": 1.0, "metrics": {"loss": loss}}).encode()


def test_a_record_is_read_on_and_read_anew_when_it_is_another(tmp_path: Path) -> None:
    folder, reader = RunFolder(own_run("demo", "sft", tmp_path)), CurveReader()
    path = tmp_path / "metrics.jsonl"

    def now() -> tuple[list[float], list[float]]:
        (curve,) = reader.curves(folder)
        return list(curve.x), list(curve.y)

    path.write_bytes(b"no event\n" + progress(1, 0.5) + b"\n" + progress(2, 0.4)[:-9])
    assert now() == ([1], [0.5])
    with path.open("ab") as file:
        file.write(progress(2, 0.4)[-9:] + b"\n" + progress(3, 0.3) + b"\n")
    assert now() == ([1, 2, 3], [0.5, 0.4, 0.3])
    with path.open("ab") as file:  # done once more after a crash
        file.write(progress(2, 0.1) + b"\n")
    assert now() == ([1, 2], [0.5, 0.1])
    path.write_bytes(progress(1, 0.9) + b"\n" + b" " * 5000 + b"\n")
    assert now() == ([1], [0.9])
    with path.open("r+b") as file:  # what was read before is not read again
        file.write(progress(1, 0.7))
        file.seek(0, 2)
        file.write(progress(2, 0.8) + b"\n")
    assert now() == ([1, 2], [0.9, 0.8])
    path.write_bytes(b"".join(progress(step, step) + b"\n" for step in range(1, 1001)))
    xs, ys = now()
    assert (len(xs), xs[0], xs[-1]) == (300, 1, 1000)
    assert xs == ys == sorted(set(xs))


async def test_the_ledger_of_a_finished_stage_is_proven(server: Server, tmp_path: Path) -> None:
    admin = server[0]

    async def proof() -> tuple[bool, list[str]]:
        answer = await admin.GetLedgerProof(messages.GetLedgerProofRequest())
        return answer.clean, list(answer.lines)

    none = admin.GetLedgerProof(messages.GetLedgerProofRequest())
    assert "has no ledger in its folder yet" in await refused(
        none, grpc.StatusCode.FAILED_PRECONDITION
    )
    made = finished(tmp_path / "run", 3, 3)
    pairs = [*ids(1, 0, 1), *ids(2, 0, 1)]
    (made / "pairs.jsonl").write_text("".join(json.dumps({"id": id_}) + "\n" for id_ in pairs))
    (made / LEDGER).write_bytes(packed(events(1, 3)) + packed(events(2, 3)))
    assert await proof() == (
        True,
        [
            "online_dpo: 2 episodes, 6 prompts planned: 4 trained, 2 dropped (tie 2); last version"
            " 2",
            "online_dpo: plan, ledger, pairs and weights agree",
        ],
    )
    (made / LEDGER).write_bytes(packed(events(1, 3)) + packed(events(2, 3)[:-3]))
    clean, lines = await proof()
    assert not clean
    assert f"online_dpo: {ids(2, 2)[0]}: never trained or dropped, last sampled at 2-11" in lines
    (made / LEDGER).write_bytes(b"no gzip")
    clean, (line,) = await proof()
    assert (clean, "cannot be read" in line) == (False, True)


async def test_of_a_stage_that_goes_on_the_episodes_that_are_over_are_proven(
    server: Server, tmp_path: Path
) -> None:
    admin = server[0]
    ledger = begun(tmp_path / "run") / "ledger"
    ledger.mkdir()
    (ledger / "episode-00001.jsonl.gz").write_bytes(packed(events(1, 3)))
    answer = await admin.GetLedgerProof(messages.GetLedgerProofRequest())
    assert (answer.clean, list(answer.lines)) == (
        True,
        [
            "online_dpo: episode 1: 3 prompts dispatched: 2 trained, 1 dropped (tie 1)",
            "online_dpo: it goes on; plan and pairs are held against it when it is done",
        ],
    )
    (ledger / "episode-00002.jsonl.gz").write_bytes(packed(events(2, 3)[:-2]))
    answer = await admin.GetLedgerProof(messages.GetLedgerProofRequest())
    assert not answer.clean
    assert answer.lines[-1].startswith(f"online_dpo: {ids(2, 2)[0]}: never trained or dropped")


def entry(run: str, reason: str) -> AuditEntry:
    return AuditEntry(
        time="2026-01-01T00:00:00.000Z",
        run=run,
        method="PauseRun",
        what="run",
        actor="ada",
        peer="ipv4:1",
        reason=reason,
        request_id="1",
        outcome="done",
    )


async def test_the_audit_stream_comes_latest_first_of_one_run_or_of_all(
    server: Server, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    admin, run, address = server
    runs = await RedisRuns.open(redis_url, 5.0)
    for number in range(5):
        await runs.audit(entry(run.id, f"own\x1b[2J {number}"))
        await runs.audit(entry("another", f"other {number}"))
    await runs.close()
    found, token = [], ""
    while True:
        request = messages.ListAuditRequest(run=run.name, page_size=2, page_token=token)
        page = await admin.ListAudit(request)
        found.append([each.reason[-1] for each in page.entries])
        assert {each.run for each in page.entries} == {run.id}
        token = page.next_page_token
        if not token:
            break
    assert found == [["4", "3"], ["2", "1"], ["0"]]
    page = await admin.ListAudit(messages.ListAuditRequest(page_size=3))
    assert [each.reason for each in page.entries] == ["other 4", "own\x1b[2J 4", "other 3"]
    older = messages.ListAuditRequest(page_size=2, page_token=page.next_page_token)
    assert [each.reason for each in (await admin.ListAudit(older)).entries] == [
        "own\x1b[2J 3",
        "other 2",
    ]
    newest = page.entries[0]
    assert (newest.actor, newest.method, newest.outcome) == ("ada", "PauseRun", "done")
    assert newest.time.ToJsonString() == "2026-01-01T00:00:00Z"
    assert await asyncio.to_thread(main, ["--address", address, "audit", "--run", "demo"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["time", "run", "change"]
    assert [row.split("own")[1].split()[:2] for row in rows] == [
        ["\\x1b[2J", str(number)] for number in (4, 3, 2, 1, 0)
    ]


async def test_without_a_redis_the_audit_stream_is_in_the_folder(tmp_path: Path) -> None:
    run = own_run("demo", "sft", tmp_path)
    runs = await RedisRuns.open(None, 5.0, LiveRun(run, RunHold(tmp_path, run)))
    assert await runs.audited("", 2, "") == Page([], "")
    for number in range(700):
        await runs.audit(entry(run.id, f"{number} " + "x" * 3000))
    with (tmp_path / "audit.jsonl").open("a") as file:
        file.write('{"run": "de')  # a crash
    await runs.audit(entry(run.id, "lost"))
    await runs.audit(entry(run.id, "700"))
    found, token, pages = [], "", 0
    while token or not pages:
        page = await runs.audited(run.id, 400, token)
        found += [each.reason.split()[0] for each in page.items]
        token, pages = page.next, pages + 1
    assert (pages, found) == (2, [str(number) for number in range(700, -1, -1)])
    _, damaged = (await runs.audited("", 2, "")).items
    assert damaged.outcome == "this entry is damaged"
    for hostile in (f"0-{10**18}", "5-7"):
        await runs.audited("", 2, hostile)
    await runs.close()


async def test_pairs_are_printed_and_steer_no_terminal(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server[2]

    async def call(*words: str) -> str:
        assert await asyncio.to_thread(main, ["--address", address, "pairs", *words]) == 0
        return capsys.readouterr().out

    assert await call() == "no pairs\n"
    first, second = pair_of(1, 0), pair_of(1, 1)
    first.prompt.messages[0].content = "two\nlines \u202e"
    first.chosen.text = first.provenance.group_answers[0] = "\x1b]0;title\x07\rab"
    write_pairs(begun(tmp_path / "run") / "learner", 1, [first, second])
    shown = await call("--page-size", "1")
    name, prompt, more, *samples, _, next_ = shown.splitlines()
    assert name.startswith(f"episode 1  {first.id}  best against worst of 3 answers: 2.00 against")
    assert [prompt.split(), more.split()] == [["user:", "two"], ["lines", "\\u202e"]]
    assert [line.split() for line in samples] == [
        ["chosen", "2.00", "\\x1b]0;title\\x07\\rab"],
        ["rejected", "-1.00", "ab"],
        ["0.500", "ab"],
    ]
    assert second.id in await call(*next_.removeprefix("more: ").split())
    told = json.loads(await call("--json"))
    assert [pair["prompt_id"] for pair in told["pairs"]] == [first.id, second.id]
    assert await call("--episode", "9") == "no pairs\n"
