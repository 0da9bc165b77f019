"""Which engines are started, reused and ended from stage to stage."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.stages.engines import EnginePool
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from pairloop.data.v1.weights_pb2 import Attestation, TensorMismatch
from services.errors import AttestationError, ResourceError
from services.rollout.actor import RolloutHandle
from services.rollout.settings import EngineSettings


class FakeHandle(RolloutHandle):
    """An engine that only takes note; `bad` loads differ from what they should hold."""

    def __init__(self, worker_id: str, history: list[str], bad: int = 0) -> None:
        super().__init__(worker_id, actor=None)
        self._history = history
        self._bad = bad

    async def load_folder(self, folder: str | Path, version: int) -> Attestation:
        self._history.append(f"{self.worker_id} loads {Path(folder).name}")
        self._bad -= 1
        wrong = [TensorMismatch(tensor="w", expected="1", found="2")] if self._bad >= 0 else []
        return Attestation(mismatches=wrong)

    async def generate(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        self._history.append(f"{self.worker_id} answers {len(prompts)}")
        return [Rollout(prompt=prompt, worker_id=self.worker_id) for prompt in prompts]

    def kill(self) -> None:
        self._history.append(f"{self.worker_id} ends")


class Started:
    """Starts fakes and takes note."""

    def __init__(self, bad: int = 0) -> None:
        self.history: list[str] = []
        self._bad = bad

    async def __call__(
        self, settings: EngineSettings, model: str, seed: int, names: Sequence[str]
    ) -> list[RolloutHandle]:
        self.history.append(f"{len(names)} start with {Path(model).name}")
        return [FakeHandle(name, self.history, self._bad) for name in names]


TWO = EngineSettings(workers=2)


def policy(folder: Path, name: str, hidden: int = 64) -> str:
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps({"hidden_size": hidden}))
    return str(folder / name)


async def test_engines_of_one_shape_live_on_and_load_the_next_policy(tmp_path: Path) -> None:
    first, second = policy(tmp_path, "sft"), policy(tmp_path, "dpo")
    start = Started()
    async with EnginePool(0, start) as pool:
        engines = await pool.with_weights(first, TWO)
        assert await pool.with_weights(second, TWO) is engines
        assert await pool.for_architecture(first, TWO) is engines
    assert start.history == [
        "2 start with sft",
        *("rollout-0 loads dpo", "rollout-1 loads dpo"),
        *("rollout-0 ends", "rollout-1 ends"),
    ]


async def test_the_next_stage_has_as_many_as_its_settings_say(tmp_path: Path) -> None:
    first, second = policy(tmp_path, "sft"), policy(tmp_path, "dpo")
    start = Started()
    async with EnginePool(0, start) as pool:
        pool.remove((await pool.for_architecture(first, TWO))[0])
        for name in ("rollout-2", "rollout-3"):
            await pool.added(name)
        engines = await pool.with_weights(first, TWO)
        assert [engine.worker_id for engine in engines] == ["rollout-1", "rollout-2"]
        pool.remove(engines[0])
        engines = await pool.with_weights(second, TWO)
        assert [engine.worker_id for engine in engines] == ["rollout-2", "rollout-0"]
    assert start.history == [
        *("2 start with sft", "rollout-0 ends", "1 start with sft", "1 start with sft"),
        *("rollout-3 ends", "rollout-1 loads sft", "rollout-2 loads sft", "rollout-1 ends"),
        *("1 start with dpo", "rollout-2 loads dpo", "rollout-2 ends", "rollout-0 ends"),
    ]


async def test_another_shape_or_setting_ends_them_before_the_next_start(tmp_path: Path) -> None:
    small, large = policy(tmp_path, "small"), policy(tmp_path, "large", hidden=128)
    start = Started()
    async with EnginePool(0, start) as pool:
        await pool.for_architecture(small, EngineSettings())
        await pool.for_architecture(large, EngineSettings())
        await pool.for_architecture(large, EngineSettings(max_num_seqs=7))
    assert start.history == [
        *("1 start with small", "rollout-0 ends"),
        *("1 start with large", "rollout-0 ends"),
        *("1 start with large", "rollout-0 ends"),
    ]


async def test_engines_that_did_not_start_are_not_taken_for_live(tmp_path: Path) -> None:
    model = policy(tmp_path, "sft")
    start, failed = Started(), []

    async def once(
        settings: EngineSettings, model: str, seed: int, count: int
    ) -> list[RolloutHandle]:
        if not failed:
            failed.append(model)
            raise ResourceError("no room")
        return await start(settings, model, seed, count)

    async with EnginePool(0, once) as pool:
        with pytest.raises(ResourceError, match="no room"):
            await pool.for_architecture(model, TWO)
        assert len(await pool.for_architecture(model, TWO)) == 2


async def test_weights_that_differ_twice_are_refused_by_name(tmp_path: Path) -> None:
    first, second = policy(tmp_path, "sft"), policy(tmp_path, "dpo")
    async with EnginePool(0, Started(bad=1)) as pool:
        await pool.with_weights(first, EngineSettings())
        await pool.with_weights(second, EngineSettings())  # repaired
    async with EnginePool(0, Started(bad=2)) as pool:
        await pool.with_weights(first, EngineSettings())
        with pytest.raises(AttestationError, match=r"rollout-0 does not hold .*dpo"):
            await pool.with_weights(second, EngineSettings())


async def test_prompts_are_dealt_out_and_answered_in_order(tmp_path: Path) -> None:
    start = Started()
    prompts = [Prompt(id=f"p{n}") for n in range(5)]
    async with EnginePool(0, start) as pool:
        engines = await pool.for_architecture(policy(tmp_path, "sft"), TWO)
        rollouts = await pool.generate(engines, prompts)
    assert [rollout.prompt.id for rollout in rollouts] == [prompt.id for prompt in prompts]
    assert start.history[1:3] == ["rollout-0 answers 3", "rollout-1 answers 2"]
