"""The vLLM adapter against transformers, on real engines in processes of their own."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairloop.data.v1.rollout_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Prompt,
    Rollout,
    SamplingSettings,
)
from services.data.chat import load_tokenizer
from services.errors import ArtifactError, DataError, ResourceError, WeightsError
from services.rollout.settings import EngineSettings
from services.weights.canary import compare
from services.weights.snapshot import snapshot_folder
from tests.e2e import tiny_qwen2

pytestmark = pytest.mark.e2e

SETTINGS = EngineSettings(max_model_len=128, max_num_seqs=32, kv_cache_gib=0.1, threads=1)
LONG = [1 + i * 7 % 200 for i in range(60)]


def prompt(index: int, ids: list[int], **sampling: Any) -> Prompt:
    asked = {"n": 1, "temperature": 1.0, "top_p": 1.0, "max_tokens": 16, "seed": index, **sampling}
    return Prompt(id=f"p{index}", index=index, token_ids=ids, sampling=SamplingSettings(**asked))


def answer(engine: Any, prompts: list[Prompt]) -> list[Rollout]:
    """All prompts admitted before the first step; in prompt order."""
    for each in prompts:
        engine.add(each)
    done: dict[str, Rollout] = {}
    while engine.running:
        done.update((rollout.prompt.id, rollout) for rollout in engine.step())
    return [done[each.id] for each in prompts]


def start(folder: str, settings: EngineSettings = SETTINGS) -> Any:
    from services.rollout.vllm.engine import VllmEngine

    return VllmEngine(folder, settings, worker_id="rollout-0", seed=7)


_engine: Any = None


def _bring_up(folder: str) -> None:
    global _engine
    _engine = start(folder)


def _do(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return work(_engine, *arguments)


class Remote:
    """One engine in a child process; `remote(work, *arguments)` runs work(engine, *arguments)."""

    def __init__(self, pool: ProcessPoolExecutor, folders: list[Path]) -> None:
        self._pool = pool
        self.first, self.second = folders

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.submit(_do, work, arguments).result(timeout=240)


@pytest.fixture(scope="module", params=["tied", "untied"])
def remote(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Remote]:
    root, tied = tmp_path_factory.mktemp(request.param), request.param == "tied"
    folders = [tiny_qwen2.save(root / str(seed), tied=tied, seed=seed) for seed in (0, 1)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _bring_up, (str(folders[0]),)) as pool:
        yield Remote(pool, folders)


def load(engine: Any, folder: Path, version: int) -> Any:
    return engine.load_weights(*snapshot_folder(folder, "float32", version))


def _load_and_answer(engine: Any, folder: Path, version: int, ids: list[int]) -> Any:
    attestation = load(engine, folder, version)
    return attestation, answer(engine, [prompt(0, ids, temperature=0.0)])[0], engine.logprobs(LONG)


def test_new_weights_give_transformers_answers(remote: Remote) -> None:
    for version, folder in enumerate([remote.second, remote.first, remote.second], start=1):
        attestation, rollout, logprobs = remote(_load_and_answer, folder, version, LONG)
        assert list(attestation.mismatches) == []
        assert attestation.version == version
        assert attestation.max_canary_difference < 1e-4
        assert attestation.tensors_checked == 26 + (folder.parent.name[:6] == "untied")
        (sample,) = rollout.samples
        assert list(sample.token_ids) == tiny_qwen2.greedy(folder, LONG, 16)
        assert [(s.version, s.token_count) for s in sample.policy_versions] == [
            (version, len(sample.token_ids))
        ]
        # The same prompt as under the version before: the prefix cache did not survive.
        assert logprobs == pytest.approx(tiny_qwen2.scores(folder, LONG), abs=1e-4)


def _sample_groups(engine: Any) -> Any:
    prompts = [prompt(i, [5 + i, 9, 30 + i], n=4) for i in range(12)]
    prompts += [prompt(20, [7, 8], temperature=0.7, top_k=20, top_p=0.9)]
    return answer(engine, prompts), answer(engine, prompts), engine.version


def test_samples_are_the_same_for_the_same_seed(remote: Remote) -> None:
    first, second, version = remote(_sample_groups)
    for one, two in zip(first, second, strict=True):
        assert list(one.samples) == list(two.samples)
        assert one.worker_id == "rollout-0"
    texts = [tuple(s.token_ids) for rollout in first[:12] for s in rollout.samples]
    assert len(set(texts)) == len(texts)
    assert [s.index for s in first[0].samples] == [0, 1, 2, 3]
    assert {span.version for r in first for s in r.samples for span in s.policy_versions} == {
        version
    }


def _crowd(engine: Any) -> Any:
    """More prompt tokens than one step takes: 32 sequences of 100, all at once and alone."""
    prompts = [prompt(i, [(i + j) % 250 for j in range(100)], n=4) for i in range(8)]
    together = answer(engine, prompts)
    return together, [answer(engine, [each])[0] for each in prompts[:2]]


def test_samples_do_not_depend_on_what_runs_beside_them(remote: Remote) -> None:
    together, alone = remote(_crowd)
    assert [len(rollout.samples) for rollout in together] == [4] * 8
    for one, two in zip(alone, together, strict=False):
        assert [list(s.token_ids) for s in one.samples] == [list(s.token_ids) for s in two.samples]


def _load_and_sample(engine: Any, folder: Path) -> Any:
    load(engine, folder, 9)
    return answer(engine, [prompt(i, LONG[: 10 + i], n=8, temperature=1.5) for i in range(8)])


def test_logprobs_are_of_the_raw_logits_and_ends_are_told_apart(remote: Remote) -> None:
    rollouts = remote(_load_and_sample, remote.first)
    tokenizer = load_tokenizer(str(remote.first))
    reasons = set()
    for rollout in rollouts:
        given = list(rollout.prompt.token_ids)
        for sample in rollout.samples:
            ids = list(sample.token_ids)
            expected = tiny_qwen2.scores(remote.first, given + ids)[len(given) - 1 :]
            assert list(sample.logprobs) == pytest.approx(expected, abs=1e-4)
            ended = ids[-1] in (tiny_qwen2.EOS, 256)
            assert sample.finish_reason == (FINISH_REASON_STOP if ended else FINISH_REASON_LENGTH)
            said = ids[:-1] if ended else ids
            assert sample.text == tokenizer.decode(said, skip_special_tokens=True)
            assert "<|" not in sample.text
            reasons.add(sample.finish_reason)
    assert FINISH_REASON_LENGTH in reasons


def _damaged(engine: Any, folder: Path) -> Any:
    load(engine, folder, 3)
    before = engine.logprobs(LONG)
    manifest, tensors = snapshot_folder(folder, "float32", 4)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = tensors[name].copy()
    tensors[name][3, 5] += 1e-3
    return engine.load_weights(manifest, tensors), engine.version, before, engine.logprobs(LONG)


def test_a_damaged_tensor_is_named_and_not_loaded(remote: Remote) -> None:
    attestation, version, before, after = remote(_damaged, remote.first)
    (mismatch,) = attestation.mismatches
    assert mismatch.tensor == "model.layers.1.mlp.down_proj.weight"
    assert mismatch.expected != mismatch.found
    assert version == 3
    assert before == after


def _other_head(engine: Any, folder: Path) -> Any:
    """A manifest that fits its tensors, and a canary of another output head."""
    manifest, _ = snapshot_folder(folder, "float32", 5)
    _, tensors = snapshot_folder(folder, "float32", 5)
    head = "lm_head.weight" if "lm_head.weight" in tensors else "model.embed_tokens.weight"
    tensors[head] = np.roll(tensors[head], 1, axis=0)
    from services.weights.manifest import checksum

    for entry in manifest.tensors:
        entry.checksum = checksum(tensors[entry.name])
    attestation = engine.load_weights(manifest, tensors)
    with pytest.raises(WeightsError, match="holds weights that failed their canary"):
        engine.add(prompt(1, [1, 2]))
    repaired = load(engine, folder, 5)
    engine.add(prompt(1, [1, 2]))
    while engine.running:
        engine.step()
    return attestation, repaired


def test_the_canary_finds_a_wrong_head_and_a_full_sync_repairs_it(remote: Remote) -> None:
    attestation, repaired = remote(_other_head, remote.second)
    (mismatch,) = attestation.mismatches
    assert mismatch.tensor == "canary"
    assert attestation.max_canary_difference > 0.1
    assert not repaired.mismatches


def _stale_head(engine: Any, folder: Path, other: Path) -> Any:
    """The new weights under the old packed head, which is what vLLM alone leaves behind."""
    load(engine, other, 6)
    (packed,) = engine._engine.apply_model(lambda model: model.lm_head.cpu_linear)
    manifest, tensors = snapshot_folder(folder, "float32", 7)
    engine.load_weights(manifest, tensors)
    engine._engine.apply_model(lambda model: setattr(model.lm_head, "cpu_linear", packed))
    canary = manifest.canary
    mismatch = compare(canary.logprobs, engine.logprobs(canary.token_ids), canary.tolerance)
    return mismatch, load(engine, folder, 7)


def test_the_canary_finds_a_stale_packed_head(remote: Remote) -> None:
    mismatch, repaired = remote(_stale_head, remote.second, remote.first)
    assert mismatch is not None
    assert mismatch.tensor == "canary"
    assert not repaired.mismatches


def _refusals(engine: Any, folder: Path) -> list[str]:
    load(engine, folder, 8)
    said = []
    for bad in (
        prompt(1, [1] * 120),
        prompt(2, []),
        prompt(3, [5000]),
        prompt(4, [1], n=2, temperature=0.0),
    ):
        try:
            engine.add(bad)
        except DataError as error:
            said.append(str(error))
    engine.add(prompt(5, [1, 2]))
    try:
        load(engine, folder, 9)
    except WeightsError as error:
        said.append(str(error))
    manifest, tensors = snapshot_folder(folder, "float32", 9)
    while engine.running:
        engine.step()
    del manifest.tensors[0]
    try:
        engine.load_weights(manifest, tensors)
    except WeightsError as error:
        said.append(str(error))
    return said


def test_what_cannot_be_done_is_refused_in_one_line(remote: Remote) -> None:
    said = remote(_refusals, remote.first)
    assert len(said) == 6
    assert "120 tokens and sampling.max_tokens=16 are more than engine.max_model_len=128" in said[0]
    assert "has no tokens" in said[1]
    assert "p3" in said[2]
    assert "set sampling.n to 1" in said[3]
    assert "was given weights with 1 prompts running" in said[4]
    assert "does not fit the engine's model" in said[5]
    assert not any("\n" in text for text in said)


def _start_badly(folder: str, missing: str) -> list[tuple[str, str]]:
    said = []
    small = SETTINGS.model_copy(update={"kv_cache_gib": 0.00001})
    large = SETTINGS.model_copy(update={"kv_cache_gib": 100_000.0})
    for path, settings in ((missing, SETTINGS), (folder, small), (folder, large)):
        try:
            start(path, settings)
        except (ArtifactError, ResourceError) as error:
            said.append((type(error).__name__, str(error)))
    return said


def test_an_engine_that_cannot_start_says_which_key_to_change(tmp_path: Path) -> None:
    folder = tiny_qwen2.save(tmp_path / "model", tied=True, seed=0)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        said = pool.submit(_start_badly, str(folder), str(tmp_path / "no")).result(timeout=240)
    kinds = [kind for kind, _ in said]
    assert kinds == ["ArtifactError", "ResourceError", "ResourceError"]
    assert "there is no such model folder" in said[0][1]
    assert (
        "engine.kv_cache_gib=1e-05 does not hold one sequence of engine.max_model_len" in said[1][1]
    )
    assert "engine.kv_cache_gib=100000 GiB of KV cache; lower it" in said[2][1]
