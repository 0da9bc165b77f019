"""The Ray actor around a rollout worker, and how a job gets its workers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import ray

from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from pairloop.data.v1.weights_pb2 import Attestation, WeightManifest
from services.data.chat import load_tokenizer, render_prompt, tokenizer_fingerprint
from services.data.rows import Messages
from services.errors import PairloopError, ResourceError, StallError, WorkerError
from services.ray_errors import answered
from services.rollout.engine import Engine
from services.rollout.settings import EngineSettings
from services.rollout.vllm.environment import engine_environment
from services.rollout.worker import PromptQueue, RolloutWorker
from services.telemetry.tracing.spans import process_spans

Connect = Callable[[], Awaitable[PromptQueue[Any]]]
"""Opens the queues inside the actor; picklable: partial(RunQueues.open, url, run, settings)."""
MakeEngine = Callable[[str], Engine]
"""Starts the engine inside the actor; takes the worker id."""


class RolloutActor:
    """One rollout worker in a process of its own. Messages go in and out serialized."""

    def __init__(self, worker_id: str, make_engine: MakeEngine, dtype: str) -> None:
        self._worker_id = worker_id
        self._make_engine = make_engine
        self._dtype = dtype
        self._queue: PromptQueue[Any] | None = None
        self._consumer = worker_id
        self._at_work = asyncio.Lock()

    async def set_up(self) -> None:
        """Start the engine. Not in `__init__`: Ray hands on what a method raises, not a text."""
        self._spans = process_spans(self._worker_id)
        engine = self._make_engine(self._worker_id)
        self._worker = RolloutWorker(engine, self._worker_id, self._spans)

    async def start(self, connect: Connect, consumer: str) -> None:
        """Connect to the queues; nothing is sampled from them before `load_weights`.

        `consumer`: the name to take prompts by, which no other process has had.
        """
        self._worker.hold()
        self._consumer = consumer
        self._queue = await connect()

    async def run(self) -> None:
        """Sample until `stop`. Raises what ended it."""
        if self._queue is None:
            raise WorkerError(f"worker {self._worker_id} was not connected to a queue")
        async with self._at_work:
            await self._worker.run(self._queue, self._consumer)
            if self._spans is not None:
                await asyncio.to_thread(self._spans.flush)

    async def stop(self) -> None:
        """Let `run` return once what is in flight is committed."""
        self._worker.stop()

    async def drain(self) -> None:
        """As `stop`; returns when `run` has."""
        self._worker.stop()
        async with self._at_work:
            pass

    async def ping(self) -> int:
        """The weight version held; an answer says that the worker lives."""
        return self._worker.version

    async def load_weights(self, manifest: bytes, tensors: Any) -> bytes:
        """Load a version; `tensors` maps names to arrays, or to references of them.

        Those are read where they lie, in memory that is shared. An Attestation.
        """
        described = WeightManifest.FromString(manifest)
        attestation = await self._worker.load_weights(described, await _read(tensors))
        return attestation.SerializeToString()

    async def load_folder(self, folder: str, version: int) -> bytes:
        """Switch to the weights of a Hugging Face folder of the same shape. An Attestation."""
        from services.weights.snapshot import snapshot_folder

        prepare = partial(snapshot_folder, folder, self._dtype, version)
        return (await self._worker.load_prepared(prepare)).SerializeToString()

    async def generate(self, prompts: list[bytes]) -> list[bytes]:
        """Answer prompts directly, in order."""
        rollouts = await self._worker.generate([Prompt.FromString(each) for each in prompts])
        return [rollout.SerializeToString() for rollout in rollouts]

    async def render(self, source: str, dialogues: list[Messages]) -> list[tuple[str, list[int]]]:
        """Text and token ids of each dialogue by the tokenizer of this folder or hub name.

        Here, as an engine has transformers loaded and the orchestrator has not.
        """
        tokenizer = _tokenizer(source)
        return [render_prompt(tokenizer, messages) for messages in dialogues]

    async def tokenizer_fingerprint(self, source: str) -> str:
        """As services.data.chat.tokenizer_fingerprint, of this folder or hub name."""
        return tokenizer_fingerprint(_tokenizer(source))


class RolloutHandle:
    """A rollout actor as the orchestrator and the broadcaster see it: typed, one-line errors."""

    def __init__(self, worker_id: str, actor: Any) -> None:
        self.worker_id = worker_id
        self.actor = actor

    async def set_up(self) -> None:
        """As RolloutActor.set_up."""
        await self._call("set_up")

    async def start(self, connect: Connect, consumer: str) -> None:
        """As RolloutActor.start."""
        await self._call("start", connect, consumer)

    async def run(self) -> None:
        """As RolloutActor.run; returns after `stop`, or raises what ended the worker."""
        await self._call("run")

    async def stop(self) -> None:
        """As RolloutActor.stop."""
        await self._call("stop")

    async def drain(self) -> None:
        """As RolloutActor.drain."""
        await self._call("drain")

    async def ping(self) -> int:
        """As RolloutActor.ping."""
        version: int = await self._call("ping")
        return version

    async def load_weights(self, manifest: bytes, weights: Any) -> bytes:
        """As RolloutActor.load_weights."""
        attestation: bytes = await self._call("load_weights", manifest, weights)
        return attestation

    async def load_folder(self, folder: str | Path, version: int) -> Attestation:
        """As RolloutActor.load_folder."""
        return Attestation.FromString(await self._call("load_folder", str(folder), version))

    async def generate(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        """As RolloutActor.generate."""
        answers = await self._call("generate", [p.SerializeToString() for p in prompts])
        return [Rollout.FromString(answer) for answer in answers]

    async def render(
        self, source: str, dialogues: Sequence[Messages]
    ) -> list[tuple[str, list[int]]]:
        """As RolloutActor.render."""
        rendered: list[tuple[str, list[int]]] = await self._call("render", source, list(dialogues))
        return rendered

    async def tokenizer_fingerprint(self, source: str) -> str:
        """As RolloutActor.tokenizer_fingerprint."""
        fingerprint: str = await self._call("tokenizer_fingerprint", source)
        return fingerprint

    def kill(self) -> None:
        """End the process now."""
        ray.kill(self.actor)

    async def _call(self, method: str, *arguments: Any) -> Any:
        return await answered(getattr(self.actor, method).remote(*arguments), self.worker_id)


async def create_workers(
    settings: EngineSettings, model_folder: str | Path, seed: int, names: Sequence[str]
) -> list[RolloutHandle]:
    """Start a vLLM worker of each name on a model and wait until every engine is up.

    Raises StallError after `settings.start_timeout_s`, or what stopped an engine (ResourceError,
    ArtifactError, WorkerError); no worker is left behind then.
    """
    make_engine = partial(_vllm_engine, str(model_folder), settings, seed)
    environment = engine_environment(settings, str(model_folder))
    return await start_workers(settings, make_engine, names, environment)


async def start_workers(
    settings: EngineSettings,
    make_engine: MakeEngine,
    names: Sequence[str],
    environment: dict[str, str],
) -> list[RolloutHandle]:
    """As `create_workers`, around any engine."""
    kind = ray.remote(RolloutActor).options(
        max_concurrency=64,
        num_cpus=settings.num_cpus,
        num_gpus=settings.num_gpus,
        # An engine is on one node, with all its GPUs; several of them are spread over nodes
        # (docs/adr/0026-placement.md).
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": environment},
    )
    handles = [
        RolloutHandle(name, kind.remote(name, make_engine, settings.dtype)) for name in names
    ]
    up = asyncio.gather(*(handle.set_up() for handle in handles))
    try:
        async with asyncio.timeout(settings.start_timeout_s):
            await up
    except TimeoutError:
        raise _late(settings, len(names)) from None
    finally:
        if up.cancelled() or up.exception() is not None:
            for handle in handles:
                handle.kill()
    return handles


def shortage(settings: EngineSettings, more: int) -> str:
    """What so many more workers ask for that the cluster has not free now; "" when it has."""
    wanted, free = (more * settings.num_cpus, more * settings.num_gpus), ray.available_resources()
    there = (free.get("CPU", 0.0), free.get("GPU", 0.0))
    if wanted[0] <= there[0] and wanted[1] <= there[1]:
        return ""
    return (
        f"{more} more rollout workers ask for {wanted[0]:g} CPUs and {wanted[1]:g} GPUs, free are"
        f" {there[0]:g} and {there[1]:g}: each waits for room, at most engine.start_timeout_s="
        f"{settings.start_timeout_s:g} s"
    )


def _late(settings: EngineSettings, count: int) -> PairloopError:
    wanted, free = (count * settings.num_cpus, count * settings.num_gpus), ray.cluster_resources()
    there = (free.get("CPU", 0.0), free.get("GPU", 0.0))
    if wanted[0] > there[0] or wanted[1] > there[1]:
        return ResourceError(
            f"{count} rollout workers ask for {wanted[0]:g} CPUs and {wanted[1]:g} GPUs, the "
            f"cluster has {there[0]:g} and {there[1]:g}; lower engine.workers, engine.num_cpus or "
            "engine.num_gpus"
        )
    return StallError(
        f"{count} rollout workers were not up within engine.start_timeout_s="
        f"{settings.start_timeout_s:g} s; look at their log, or raise it"
    )


async def _read(tensors: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name, each in tensors.items() if isinstance(each, ray.ObjectRef)]
    arrays = await asyncio.gather(*(tensors[name] for name in names))
    return {**tensors, **dict(zip(names, arrays, strict=True))}


_tokenizer = cache(load_tokenizer)


def _vllm_engine(model: str, settings: EngineSettings, seed: int, worker_id: str) -> Engine:
    from services.rollout.vllm.engine import VllmEngine

    return VllmEngine(model, settings, worker_id=worker_id, seed=seed)
