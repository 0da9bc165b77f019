"""Dashboard and alert rules against what a run exports, asked of a real Prometheus.

tests/recorded/online_run.jsonl is the record of a real run: orchestrator, Ray, Redis, reward and
learner, with engines that are fakes (tests/chaos/driver.py), without its pairs and addresses. It is
told to a real exporter once more; queues and workers are asked of a real Redis.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.episodes import EpisodeStore
from orchestrator.online.asked import asked
from pairloop.data.v1.rollout_pb2 import Prompt
from services.queues.backlog import BacklogReader
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.states import State
from services.telemetry.metrics.asked import Asking
from services.telemetry.metrics.exporter import Exporter
from services.telemetry.record.events import Event
from services.telemetry.record.recorder import Recorder, read_line
from tests.integration.conftest import FakeWorkers
from tests.integration.redis_servers import Servers

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "recorded" / "online_run.jsonl"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "pairloop.json"
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
RIGHTS = "+evalsha +script|load +get +ttl +expire +xinfo +hello"
"""Of those that a run's user has (queues.url in docs/jobs.md): what watching takes."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pairloop-prometheus"


def panels() -> dict[str, list[str]]:
    """The queries of each panel, with every run chosen."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        targets = [target["expr"] for target in panel.get("targets", [])]
        if panel["type"] != "row":
            found[panel["title"]] = [
                query.replace("$instance", ".*").replace("$__rate_interval", "1m")
                for query in targets
            ]
    return found


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def metrics_in(query: str) -> set[str]:
    return set(re.findall(r"\bpairloop_\w+", query))


class Told:
    """A recorded run that is told to an exporter, half at a time."""

    def __init__(self, folder: Path) -> None:
        about = {"run": "recorded", "kind": "online_dpo", "version": "0"}
        self.exporter = Exporter("127.0.0.1", 0, about, {"online_dpo": 4})
        self._lines = [read_line(line) for line in RECORDED.read_text().splitlines()]
        self._at = 0.0
        self._record = Recorder(folder, [self.exporter], lambda: self._at)

    def __enter__(self) -> "Told":
        self._record.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._record.stop()

    def tell(self, count: int) -> list[Event]:
        """So many events more."""
        told, self._lines = self._lines[:count], self._lines[count:]
        for self._at, event in told:
            self._record(event)
        return [event for _, event in told]

    def scrape(self) -> str:
        with urllib.request.urlopen(self.exporter.address, timeout=10) as page:  # noqa: S310
            text: str = page.read().decode()
        return text


@pytest.fixture
async def told(tmp_path: Path, redis_url: str, run_name: str) -> AsyncIterator[Told]:
    """Listening, with queues of its own."""
    queues = await RunQueues.open(redis_url, run_name, QueueSettings(credits=8))
    backlog = await BacklogReader.open(redis_url, run_name, 5.0)
    try:
        with Told(tmp_path / "run") as told:
            ask = partial(asked, backlog, FakeWorkers(), 8)
            async with told.exporter.asking.of("online_dpo", ask):
                yield told
    finally:
        await backlog.close()
        await queues.close()


async def test_what_waits_is_counted(redis_url: str, run_name: str) -> None:
    settings = QueueSettings(credits=8, max_failures=1)
    queues = await RunQueues.open(redis_url, run_name, settings)
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    backlog = await BacklogReader.open(redis_url, run_name, 5.0)
    try:
        assert (await backlog.read()).entries == {"prompts": 0, "rollouts": 0}
        await store.create(1, 3)
        await store.move(1, State.SAMPLING)
        sent = await queues.dispatch(1, [Prompt(id=f"p{n}", index=n) for n in range(3)])
        (item,) = await queues.take("prompts", "rollout-0", 1, 0.0)
        found = await backlog.read()
        assert sent.sent == 3
        assert (found.entries, found.credits_in_use) == ({"prompts": 3, "rollouts": 0}, 3)
        assert found.dead_letters == found.max_memory_bytes == 0
        assert found.memory_bytes is not None
        assert found.memory_bytes > 500_000
        assert await queues.fail("prompts", item, "broken")
        assert (await backlog.read()).dead_letters == 1
    finally:
        for each in (backlog, store, queues):
            await each.close()


async def test_a_redis_that_is_silent_is_down_until_it_answers(servers: Servers) -> None:
    """What was cut off at the deadline spoils no later answer."""
    server = servers.start(f"user watcher on nopass ~pairloop:* {RIGHTS}")
    backlog = await BacklogReader.open(f"redis://watcher:x@{server.address}/0", "run", 5.0)
    asking = Asking(answer_s=0.3)

    async def scraped() -> dict[str, float]:
        families = await asyncio.to_thread(lambda: list(asking.collect()))
        return {each.name: each.value for family in families for each in family.samples}

    try:
        async with asking.of("online", partial(asked, backlog, FakeWorkers(), 8)):
            server.process.send_signal(signal.SIGSTOP)
            assert [await scraped() for _ in range(2)] == [{"pairloop_redis_up": 0}] * 2
            server.process.send_signal(signal.SIGCONT)
            async with asyncio.timeout(20):
                while not (found := await scraped())["pairloop_redis_up"]:
                    await asyncio.sleep(0.05)
            assert found["pairloop_credits"] == 8
            assert found["pairloop_queue_entries"] == 0
            assert "pairloop_redis_memory_bytes" not in found  # its user may not ask
            server.kill()
            assert await scraped() == {"pairloop_redis_up": 0}
    finally:
        await backlog.close()


async def test_every_metric_that_is_asked_for_is_exported(told: Told) -> None:
    told.tell(1000)
    text = await asyncio.to_thread(told.scrape)
    exported = {re.split("[{ ]", line)[0] for line in text.splitlines() if line[0] != "#"}
    queries = [query for of in panels().values() for query in of]
    wanted = set().union(*map(metrics_in, [*queries, *(rule["expr"] for rule in rules())]))
    assert len(wanted) > 40
    assert wanted - exported == set()
    labels = set(re.findall(r"[{,](\w+)=", text))
    known = {"stage", "job", "state", "reason", "phase", "part", "name", "queue", "kind", "code"}
    assert labels <= known | {"run", "version"}


def test_every_alert_has_its_section_in_the_runbook() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    sections = re.findall(r"^## (\w+)$", runbook, re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]
    for rule in rules():
        notes = rule["annotations"]
        assert notes["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert f"`{rule['expr']}`" in runbook
        assert " ".join(notes["runbook"].split()) in " ".join(runbook.split())


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of prometheus and promtool: the system's, or Debian's package without installing
    it."""
    if (found := shutil.which("prometheus")) and shutil.which("promtool"):
        return Path(found).parent
    place = CACHE / "usr" / "bin"
    if not (place / "promtool").exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            pytest.skip("no prometheus here, and no apt to fetch it: install prometheus, promtool")
        CACHE.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["apt-get", "download", "prometheus"], cwd=CACHE, capture_output=True, timeout=120
            )
        packages = list(CACHE.glob("prometheus_*.deb"))
        if not packages:
            pytest.skip("apt-get download prometheus failed: apt-get update, or install prometheus")
        subprocess.run(["dpkg", "-x", packages[0], CACHE], check=True)
    return place


class Prometheus:
    """A server of our own that scrapes one exporter every 200 ms."""

    def __init__(self, programs: Path, folder: Path, target: str) -> None:
        folder.mkdir()
        shutil.copy(RULES, folder)
        config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    programs / "prometheus", "--config.file=prometheus.yml",
                    "--storage.tsdb.path=data", f"--web.listen-address={self._address}",
                ],
                cwd=folder, stdout=log, stderr=log,
            )  # fmt: skip

    def get(self, path: str, **asked: str) -> Any:
        """The data of an answer; None while it starts. A query that is none raises HTTPError."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as page:
                return json.load(page)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise
        except urllib.error.URLError:
            return None

    def ask(self, query: str) -> list[Any]:
        return (self.get("query", query=query) or {"result": []})["result"]

    async def until(self, query: str) -> None:
        """It has an answer."""
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(self.ask, query):
                assert self.process.poll() is None
                await asyncio.sleep(0.1)


@pytest.fixture
def prometheus(programs: Path, tmp_path: Path, told: Told) -> Iterator[Prometheus]:
    target = urllib.parse.urlsplit(told.exporter.address).netloc
    server = Prometheus(programs, tmp_path / "prometheus", target)
    yield server
    server.process.terminate()
    server.process.wait(30)


async def test_no_panel_is_empty_and_every_rule_is_evaluated(
    told: Told, prometheus: Prometheus
) -> None:
    first = told.tell(60)
    version = max(event.version for event in first if event.kind == "weights_published")
    assert 0 < version < 6
    await prometheus.until(f"pairloop_weight_version == {version}")
    told.tell(1000)
    await prometheus.until("pairloop_weight_version == 6")

    def empty() -> list[str]:
        wanted = [(title, query) for title, of in panels().items() for query in of]
        wanted += [
            (rule["alert"], name) for rule in rules() for name in sorted(metrics_in(rule["expr"]))
        ]
        return [f"{title}: {query}" for title, query in wanted if not prometheus.ask(query)]

    for _ in range(60):  # a rate needs two scrapes
        if not (lacking := await asyncio.to_thread(empty)):
            break
        await asyncio.sleep(0.5)
    assert lacking == []
    (group,) = (await asyncio.to_thread(prometheus.get, "rules"))["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    reward = await asyncio.to_thread(prometheus.ask, "pairloop_reward_mean")
    assert [float(each["value"][1]) for each in reward] == [pytest.approx(0.479, abs=1e-3)]


def test_promtool_finds_nothing_wrong(programs: Path) -> None:
    for what, path in (("rules", RULES), ("config", RULES.parent / "prometheus.yml")):
        found = subprocess.run(
            [programs / "promtool", "check", what, path], capture_output=True, text=True
        )
        assert found.returncode == 0, found.stdout + found.stderr
    assert len(rules()) == 18
