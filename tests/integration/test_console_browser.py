"""The console in a real headless Chromium, over a real admin server, Redis and episode store."""

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import grpc
import pytest

from orchestrator.control.hold import RunHold
from orchestrator.control.live import LiveRun
from orchestrator.control.registration import own_run
from orchestrator.control.runs import RedisRuns
from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.admin.settings import AdminSettings
from services.learner.online.pair_record import write_pairs
from services.pairs.build import make_pair
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.chromium import chromium
from tests.integration.conftest import admin_of, serving
from tests.integration.test_queues import prompts
from tests.integration.test_queues_episodes import finish_all
from tests.integration.test_records import RECORDED, begun
from tests.unit.test_pairs_build import SCORES, SELECTION, rollout

api = pytest.importorskip("playwright.async_api", reason="no playwright: make setup installs it")

CONSOLE = AdminSettings(port=0, console_port=0)
HOSTILE = "<img src=x onerror=\"window.hacked='yes'\"><script>window.hacked=1</script>\u202egpj.exe"
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
  (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


class Watched:
    """A page, and what its browser complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._told)

    def _told(self, message: Any) -> None:
        # A refusal of the API is no error of the page.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    async def sees(self, text: str | re.Pattern[str], within: str = "main") -> None:
        await api.expect(self.page.locator(within)).to_contain_text(text, timeout=20_000)

    async def state(self, episode: int, state: str) -> None:
        badge = self.page.locator(f'[data-episode="{episode}"] .badge')
        await api.expect(badge).to_have_text(state, timeout=20_000)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    async def unharmed(self) -> None:
        """Nothing ran that is not the page's own, nothing was refused to it, nothing overflows."""
        assert await self.page.evaluate("window.hacked") is None
        assert await self.page.evaluate("window.violations") == []
        assert await self.page.locator("main img, main script").count() == 0
        wide = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        full, shown = await self.page.evaluate(wide)
        assert full <= shown
        assert self.errors == []


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    program, environment = chromium()
    async with api.async_playwright() as playwright:
        # Without a sandbox of its own, which root may not have: the pages are ours.
        browser = await playwright.chromium.launch(
            executable_path=program, env=environment, args=["--no-sandbox"]
        )
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.add_init_script(_WATCH)
        yield Watched(page)
        await browser.close()


@pytest.fixture
async def queues(redis_url: str, store: EpisodeStore) -> AsyncIterator[RunQueues]:
    queues = await RunQueues.open(redis_url, store.run, QueueSettings())
    yield queues
    await queues.close()


async def test_a_click_pauses_an_episode_and_grpc_resumes_it(
    redis_url: str, store: EpisodeStore, queues: RunQueues, watched: Watched
) -> None:
    await store.move(1, State.SAMPLING)
    await queues.dispatch(1, prompts(store.run, 2))
    async with admin_of(redis_url, store.run, CONSOLE) as (server, address):
        page = watched.page
        await page.goto(server.console_url)
        await page.get_by_role("link", name=store.run, exact=True).click()
        await watched.state(1, "SAMPLING")
        await watched.sees("2 in flight")
        await page.get_by_label("Reason").fill(HOSTILE)
        await watched.button("Pause episode 1").click()
        await watched.state(1, "PAUSING")
        await finish_all(queues)
        await watched.state(1, "PAUSED")
        await api.expect(page.locator("#said")).to_have_text("episode 1 is PAUSED", timeout=20_000)
        change = (await store.get(1)).last_change
        assert (change.actor, change.reason) == ("console at 127.0.0.1", HOSTILE)
        # Hostile text is text, with what it hides made visible.
        await watched.sees("<script>window.hacked=1</script>U+202Egpj.exe", '[data-episode="1"]')
        await watched.unharmed()

        async with grpc.aio.insecure_channel(address) as channel:
            stub = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
            await stub.ResumeEpisode(messages.ResumeEpisodeRequest(reason="go", request_id="r"))
        await watched.state(1, "SAMPLING")
        await watched.button("Pause episode 1").focus()
        await page.keyboard.press("Enter")
        await watched.state(1, "PAUSED")
        await api.expect(watched.button("Resume episode 1")).to_be_focused()

        await watched.button("Pause run").click()
        await watched.sees(re.compile(r"PAUS(ING|ED).*Resume run", re.DOTALL))
        await page.set_viewport_size({"width": 360, "height": 740})
        tabs = await page.get_by_role("navigation", name="This run").get_by_role("link").all()
        assert len(tabs) == 8
        for tab in tabs:
            await tab.click()
            await page.wait_for_load_state("networkidle")
            await watched.unharmed()


async def test_a_token_is_asked_for_and_a_reader_may_change_nothing(
    redis_url: str, store: EpisodeStore, watched: Watched, tmp_path: Any
) -> None:
    (tokens := tmp_path / "tokens").write_text("ada read a-token-for-reading\n")
    await store.move(1, State.SAMPLING)
    settings = AdminSettings(port=0, console_port=0, tokens=str(tokens))
    async with admin_of(redis_url, store.run, settings) as (server, _):
        page = watched.page
        await page.goto(f"{server.console_url}#/run/{store.run}")
        for token, then in (("a-token-of-nobody", "UNAUTHENTICATED"), ("a-token-for-reading", "")):
            await page.get_by_label("Token").fill(token)
            await page.keyboard.press("Enter")
            await watched.sees(then or "Episode 1")
        await watched.button("Pause episode 1").click()
        await watched.sees("PERMISSION_DENIED ada has the role read")
        await watched.state(1, "SAMPLING")
        await watched.unharmed()
        await watched.button("Sign out").click()
        await watched.sees("Sign in")
        assert await page.evaluate("[sessionStorage.length, localStorage.length]") == [0, 0]


async def test_what_cannot_be_taken_back_is_asked_for_twice(
    redis_url: str, store: EpisodeStore, watched: Watched
) -> None:
    await store.move(1, State.SAMPLING)
    async with admin_of(redis_url, store.run, CONSOLE) as (server, _):
        page = watched.page
        await page.goto(f"{server.console_url}#/run/{store.run}")
        for answer in ("Escape", "Enter"):  # the safe one has the focus
            await watched.button("Cancel episode 1").click()
            await page.keyboard.press(answer)
            await api.expect(page.get_by_role("dialog")).to_have_count(0)
            await api.expect(watched.button("Cancel episode 1")).to_be_focused()
        assert (await store.get(1)).state == messages.EPISODE_STATE_SAMPLING
        await watched.button("Cancel episode 1").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        await watched.state(1, "CANCELLED")
        await watched.unharmed()


async def test_answers_of_models_are_text(redis_url: str, watched: Watched, tmp_path: Path) -> None:
    long = "x" * 3000
    group = rollout()
    group.prompt.messages[0].content = f"<style>*{{display:none}}</style>{long}"
    hostile = (f"<svg onload=window.hacked=2>{long}", HOSTILE, "</script>\x00\x1b[31m\u2066")
    for sample, text in zip(group.samples, hostile, strict=True):
        sample.text = text
    write_pairs(begun(tmp_path) / "learner", 1, [make_pair(group, SCORES, SELECTION, HOSTILE)] * 2)
    copyfile(RECORDED, tmp_path / "metrics.jsonl")
    (tmp_path / "config.yaml").write_text(json.dumps({"name": HOSTILE}))
    async with contextlib.AsyncExitStack() as stack:
        own = own_run("demo", "online_dpo", tmp_path)
        runs = await RedisRuns.open(redis_url, 5.0, LiveRun(own, RunHold(tmp_path, own)))
        stack.push_async_callback(runs.close)
        server, _ = await stack.enter_async_context(serving(runs, CONSOLE))
        page = watched.page
        await page.set_viewport_size({"width": 360, "height": 740})
        await page.goto(f"{server.console_url}#/run/{own.id}/pairs")
        await watched.sees("<style>*{display:none}</style>xxx")
        shown = HOSTILE.replace("\u202e", "U+202E")
        both = [
            f"sample 1\n2\nchosen\n<svg onload=window.hacked=2>{long}",
            f"sample 2\n-1\nrejected\n{shown}",
        ]
        samples = await page.locator(".pair > .samples > .sample").all_inner_texts()
        assert samples == both * 2  # of equal names too
        await watched.sees(f"scored by {shown}")
        await page.get_by_text("1 sample that was not taken").first.click()
        await watched.sees("</script>U+0000U+001B[31mU+2066")
        await watched.unharmed()
        for tab, text in (("config", "<script>window.hacked=1"), ("curves", "reward mean")):
            await page.goto(f"{server.console_url}#/run/{own.id}/{tab}")
            await watched.sees(text)
            await watched.unharmed()
