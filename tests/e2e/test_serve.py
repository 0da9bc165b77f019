"""The reward service as it runs: Ray Serve, the gateway, a tiny Qwen2 reward model."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from ray import serve
from transformers import AutoModelForSequenceClassification, Qwen2Config
from transformers import Qwen2ForCausalLM as Policy

from orchestrator.online.healing import Budget, reborn
from orchestrator.online.settings import RestartSettings
from orchestrator.online.supervision import heartbeat
from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import FINISH_REASON_LENGTH, Prompt, Sample
from services.data.chat import encode_answer, render_prompt, tokenizer_fingerprint
from services.data.settings import TokenizerSettings
from services.data.tokenizer import train_tokenizer
from services.errors import (
    ArtifactError,
    DataError,
    LineageError,
    SlowError,
    UnreachableError,
    WorkerDiedError,
    WorkerError,
)
from services.reward.client import GrpcScorer
from services.reward.launch import RunningReward, launch
from services.reward.settings import RewardSettings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TEXTS = ["put the words in order: pear apple fig", "apple fig pear", "one two three"] * 20
SLOW = """
import time

def slow(prompt, answer, metadata):
    time.sleep(len(answer))
    return 0.5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds reward_model/, policy/ (with no scalar head) and a module of the user's."""
    folder = tmp_path_factory.mktemp("reward")
    tokenizer = train_tokenizer(TEXTS, TokenizerSettings(vocab_size=320))
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    for name, model in (
        ("reward_model", AutoModelForSequenceClassification.from_config(config)),
        ("policy", Policy(config)),
    ):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "slow_reward_of_a_test.py").write_text(SLOW)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "reward_model")


def settings(*extra: dict[str, Any], **changes: Any) -> RewardSettings:
    parts = [
        {"kind": "model", "path": "reward_model", "max_length": 64},
        {"kind": "checker", "weight": 2.0},
        {"kind": "missing_eos", "weight": 0.5},
    ]
    return RewardSettings.model_validate(
        {"parts": [*parts, *extra], "threads": 1, "max_batch_groups": 4, **changes}
    )


@pytest.fixture(scope="module")
def reward(cluster: None, folder: Path) -> Iterator[RunningReward]:
    running = launch(settings(), run="main", folder=str(folder))
    yield running
    running.stop()


def group(tokenizer: Any, index: int) -> tuple[Prompt, list[Sample]]:
    question = "put the words in order: " + " ".join(["pear", "fig", "one"][: 1 + index % 3])
    text, ids = render_prompt(tokenizer, [{"role": "user", "content": question}])
    prompt = Prompt(
        id=f"r/e1/p{index}", index=index, text=text, token_ids=ids, metadata={"answer": "fig"}
    )
    answers = ["fig", "apple fig pear " * (index % 5), "one" * (index % 4) + " two"]
    samples = [
        Sample(index=i, text=answer, token_ids=encode_answer(tokenizer, answer))
        for i, answer in enumerate(answers)
    ]
    samples[2].finish_reason = FINISH_REASON_LENGTH
    del samples[2].token_ids[-1]
    return prompt, samples


async def score(
    address: str, groups: Sequence[tuple[Prompt, list[Sample]]], fingerprint: str, **changes: Any
) -> list[list[Score]]:
    scorer = GrpcScorer(address, settings(**changes), fingerprint)
    try:
        return await asyncio.gather(*(scorer.score(prompt, rows) for prompt, rows in groups))
    finally:
        await scorer.close()


def directly(folder: Path, prompt: Prompt, sample: Sample) -> float:
    """The scalar of one unpadded row, by transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder / "reward_model").eval()
    row = [*prompt.token_ids, *sample.token_ids][-64:]
    with torch.inference_mode():
        return float(model(input_ids=torch.tensor([row])).logits[0, 0])


async def test_scores_are_the_models_and_the_rules(
    reward: RunningReward, folder: Path, tokenizer: Any
) -> None:
    groups = [group(tokenizer, i) for i in range(6)]
    scored = await score(reward.address, groups, tokenizer_fingerprint(tokenizer))
    for (prompt, samples), scores in zip(groups, scored, strict=True):
        for sample, found in zip(samples, scores, strict=True):
            expected = directly(folder, prompt, sample)
            assert found.parts["model"] == pytest.approx(expected, abs=1e-5)
            assert found.parts["checker"] == float(sample.text == "fig")
            assert found.parts["missing_eos"] == -float(sample.index == 2)
            assert found.total == pytest.approx(
                found.parts["model"] + 2 * found.parts["checker"] + 0.5 * found.parts["missing_eos"]
            )
    assert len({found.parts["model"] for scores in scored for found in scores}) > 10
    await reward.ping()


async def test_a_groups_scores_do_not_depend_on_its_company(
    reward: RunningReward, tokenizer: Any
) -> None:
    groups = [group(tokenizer, i) for i in range(24)]
    fingerprint = tokenizer_fingerprint(tokenizer)
    together = await score(reward.address, groups, fingerprint)
    alone = [(await score(reward.address, [one], fingerprint))[0] for one in groups[:4]]
    backwards = await score(reward.address, groups[::-1], fingerprint)
    assert together[:4] == alone
    assert together == backwards[::-1]


async def test_another_tokenizer_is_refused(reward: RunningReward, tokenizer: Any) -> None:
    for fingerprint in ("0123456789abcdef", ""):
        with pytest.raises(LineageError, match="the reward model reads tokenizer"):
            await score(reward.address, [group(tokenizer, 0)], fingerprint)


async def test_a_bad_prompt_fails_alone(reward: RunningReward, tokenizer: Any) -> None:
    good, bad = group(tokenizer, 0), group(tokenizer, 1)
    del bad[0].metadata["answer"]
    scorer = GrpcScorer(reward.address, settings(), tokenizer_fingerprint(tokenizer))
    first, second = await asyncio.gather(
        scorer.score(*good), scorer.score(*bad), return_exceptions=True
    )
    assert await scorer.describe() == "1.0*model(reward_model) + 2.0*checker + 0.5*missing_eos"
    await scorer.close()
    assert isinstance(first, list)
    assert isinstance(second, DataError)
    assert str(second).startswith("r/e1/p1: ")


async def test_the_deadline_ends_a_slow_reward(cluster: None, folder: Path, tokenizer: Any) -> None:
    part = {"kind": "function", "path": "slow_reward_of_a_test:slow"}
    slow = RewardSettings.model_validate({"parts": [part], "threads": 1})
    running = launch(slow, run="slow", folder=str(folder))
    quick = (Prompt(id="r/e1/p0"), [Sample(index=0, text="")])
    assert [s.total for s in (await score(running.address, [quick], ""))[0]] == [0.5]
    late = (Prompt(id="r/e1/p1"), [Sample(index=0, text="twelve chars")])
    with pytest.raises(SlowError, match=r"did not answer within 0\.5 s"):
        await score(running.address, [late], "", timeout_s=0.5)
    running.stop()
    with pytest.raises(WorkerDiedError, match="the reward gateway died: it was ended by"):
        await heartbeat(running.name, running.ping, lambda: 60.0, every_s=0.1)


def test_what_does_not_start_says_why(cluster: None, folder: Path) -> None:
    def model(path: str) -> RewardSettings:
        return RewardSettings.model_validate({"parts": [{"kind": "model", "path": path}]})

    with pytest.raises(ArtifactError, match="no/such/folder: there is no such model folder"):
        launch(model("no/such/folder"), run="absent", folder=str(folder))
    with pytest.raises(WorkerError, match=r"has no score\.weight: it is not a reward model") as e:
        launch(model("policy"), run="policy", folder=str(folder))
    assert "\n" not in str(e.value)


def test_a_start_that_was_called_off_leaves_nothing(
    cluster: None, reward: RunningReward, folder: Path
) -> None:
    (called_off := threading.Event()).set()
    with pytest.raises(WorkerError, match="the start of the reward was called off"):
        launch(settings(), run="called-off", folder=str(folder), called_off=called_off)
    assert not [name for name in serve.status().applications if "called-off" in name]


def test_a_taken_port_is_named(reward: RunningReward, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        rules = RewardSettings.model_validate({"parts": [{"kind": "checker"}], "port": port})
        with pytest.raises(UnreachableError, match=rf"reward\.port {port} on 127\.0\.0\.1"):
            launch(rules, run="port", folder=str(folder))


@pytest.mark.parametrize("part", ["ray::Gateway", "ray::ServeReplica"])
async def test_groups_are_scored_while_gateway_and_replica_are_killed(
    part: str, cluster: None, folder: Path, tokenizer: Any
) -> None:
    running = await asyncio.to_thread(launch, settings(), run="killed", folder=str(folder))
    said: list[str] = []
    budget = Budget(RestartSettings(backoff_s=0), "online", said.append)
    keeping = asyncio.ensure_future(reborn(running, budget))
    scorer = GrpcScorer(running.address, settings(), tokenizer_fingerprint(tokenizer))
    prompt, samples = group(tokenizer, 0)
    before = await scorer.score(prompt, samples)
    hit = pids_of(part)
    for pid in hit:
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(120):
        assert await scorer.score(prompt, samples) == before
        while not pids_of(part) - hit or (part == "ray::Gateway" and not said):
            await asyncio.sleep(0.1)
    assert await scorer.score(prompt, samples) == before
    assert bool(said) == (part == "ray::Gateway")  # replicas are Serve's to look after
    await scorer.close()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await asyncio.to_thread(running.stop)


def pids_of(title: str) -> set[int]:
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.cmdline()):
                found.add(process.pid)
    return found
