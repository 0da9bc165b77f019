"""Rollout actors on a local Ray, real vLLM inside: sample, sync by reference, die in one line."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import ray

from pairloop.data.v1.rollout_pb2 import Prompt, Rollout, SamplingSettings
from services.errors import ArtifactError, ResourceError, WorkerError
from services.rollout.actor import create_workers
from services.rollout.settings import EngineSettings
from services.weights.broadcaster import broadcast
from services.weights.snapshot import snapshot_folder
from tests.e2e import tiny_qwen2

pytestmark = pytest.mark.e2e

SETTINGS = EngineSettings(max_model_len=128, max_num_seqs=32, kv_cache_gib=0.1, threads=1)


def prompt(index: int, **sampling: Any) -> Prompt:
    asked = {"n": 4, "temperature": 1.0, "top_p": 1.0, "max_tokens": 8, "seed": index, **sampling}
    return Prompt(
        id=f"run/e1/p{index}",
        index=index,
        token_ids=[5 + index, 9, 40],
        sampling=SamplingSettings(**asked),
    )


class FileQueue:
    """Prompts from a folder's files; a rollout is committed by writing it beside them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting = sorted(folder.glob("*.prompt"))

    async def take(
        self, stream: Literal["prompts"], consumer: str, count: int, block_s: float
    ) -> list[Any]:
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        if not taken:
            await asyncio.sleep(block_s)
        return [FileItem(path) for path in taken]

    async def commit_rollout(self, item: Any, rollout: Rollout) -> bool:
        item.path.with_suffix(".rollout").write_bytes(rollout.SerializeToString())
        return True

    async def fail(self, stream: Literal["prompts"], item: Any, error: str) -> bool:
        item.path.with_suffix(".error").write_text(error)
        return True


class FileItem:
    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def payload(self) -> bytes:
        return self.path.read_bytes()


async def _open(folder: Path) -> FileQueue:
    return FileQueue(folder)


async def _written(folder: Path, count: int) -> list[Rollout]:
    async with asyncio.timeout(120):
        while len(list(folder.glob("*.rollout"))) < count:
            await asyncio.sleep(0.05)
    return [Rollout.FromString(path.read_bytes()) for path in sorted(folder.glob("*.rollout"))]


async def test_workers_sample_and_change_weights_while_they_run(
    cluster: None, tmp_path: Path
) -> None:
    first, second = (tiny_qwen2.save(tmp_path / str(s), tied=True, seed=s) for s in (0, 1))
    queue = tmp_path / "queue"
    queue.mkdir()
    for index in range(10):
        (queue / f"{index}.prompt").write_bytes(prompt(index).SerializeToString())
    (queue / "zz.prompt").write_bytes(prompt(99, max_tokens=1000).SerializeToString())

    (worker,) = await create_workers(SETTINGS, first, seed=3, names=["rollout-0"])
    try:
        assert await worker.ping() == 0
        await worker.start(partial(_open, queue), "rollout-0.1")
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(1.0)
        assert not list(queue.glob("*.rollout"))  # it waits for weights of this run
        manifest, tensors = snapshot_folder(first, "float32", 0)
        await broadcast(
            [worker],
            manifest.SerializeToString(),
            ray.put(tensors),
            timeout_s=120.0,
            stage="online",
        )
        rollouts = await _written(queue, 10)
        assert [len(rollout.samples) for rollout in rollouts] == [4] * 10
        assert {rollout.worker_id for rollout in rollouts} == {"rollout-0"}
        async with asyncio.timeout(60):
            while not (queue / "zz.error").is_file():
                await asyncio.sleep(0.05)
        assert "are more than engine.max_model_len=128" in (queue / "zz.error").read_text()

        manifest, tensors = snapshot_folder(second, "float32", 1)
        published = await broadcast(
            [worker],
            manifest.SerializeToString(),
            ray.put(tensors),
            timeout_s=120.0,
            stage="online",
        )
        assert (published.version, published.workers, published.repaired) == (1, 1, 0)
        assert published.max_canary_difference < 1e-4
        assert await worker.ping() == 1

        (answer,) = await worker.generate([prompt(0, n=1, temperature=0.0)])
        expected = tiny_qwen2.greedy(second, list(answer.prompt.token_ids), 8)
        assert list(answer.samples[0].token_ids) == expected
        attestation = await worker.load_folder(first, 2)
        assert not attestation.mismatches
        assert await worker.ping() == 2

        await worker.stop()
        await asyncio.wait_for(running, 60)
        worker.kill()
        with pytest.raises(
            WorkerError, match=r"rollout-0 died: it was ended by ray\.kill"
        ) as caught:
            await worker.ping()
        assert "\n" not in str(caught.value)
    finally:
        worker.kill()


async def test_a_worker_that_cannot_start_says_why_in_one_line(
    cluster: None, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="there is no such model folder") as caught:
        await create_workers(SETTINGS, tmp_path / "missing", seed=0, names=["rollout-0"])
    assert "\n" not in str(caught.value)
    greedy_for_cpus = SETTINGS.model_copy(update={"num_cpus": 64.0, "start_timeout_s": 1.0})
    with pytest.raises(ResourceError, match=r"1 rollout workers ask for 64 CPUs .* has 8"):
        await create_workers(greedy_for_cpus, tmp_path, seed=0, names=["rollout-0"])
