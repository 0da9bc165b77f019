"""Two gloo processes against one: the same weights, the same masks."""

import multiprocessing
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from services.learner.jobs.settings import Place
from services.learner.losses.objectives import DirectPreference, LanguageModelling
from services.learner.model.load import new_model
from services.learner.model.policy import Policy
from services.learner.model.reference_cache import ReferenceCache
from services.learner.optim.masks import Draw, kept_positions, mask_seed
from services.learner.settings import DPOSettings, OnDARESettings, TrainSettings
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedPair, EncodedText
from services.learner.train.offline import run_offline
from tests.unit import learner_parts as parts


def train(
    kind: str, worker: Worker, folder: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The weights after six steps, and the metrics of the last one.

    With a folder every step leaves its checkpoint there.
    """
    torch.set_num_threads(1)
    held = parts.tokenizer()
    policy = Policy(new_model(parts.SHAPE, held, 4), "float32")
    g = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(3, 250, (count,), generator=g).tolist()

    objective: Any
    examples: list[Any]
    if kind == "lm":
        # Unequal lengths and an odd batch: shards differ in tokens and in number.
        examples = [EncodedText(str(n), ids(4 + 3 * n), [1] * (4 + 3 * n)) for n in range(15)]
        objective = LanguageModelling(policy)
    else:
        examples = [EncodedPair(str(n), ids(3), ids(2 + n), ids(5)) for n in range(15)]
        reference = {str(n): (-10.0 - n, -12.0) for n in range(15)}
        objective = DirectPreference(policy, DPOSettings(), reference)
    tau = {name: torch.full_like(p, 0.5) for name, p in policy.named_parameters().items()}
    result = run_offline(
        policy,
        held,
        objective,
        examples,
        TrainSettings(
            # A large eps: Adam's first steps are signs, which float order could flip.
            optimizer=OnDARESettings(lr=1e-3, reserve=0.3, alpha=1e-3, eps=1e-3),
            # Alone in its batch, an example leaves the second worker without a share.
            batch_size=1 if kind == "lone" else 5,
            max_steps=6,
            checkpoint_minutes=0,
        ),
        Place(stage="x", seed=1, out="", folder=folder),
        tau=tau,
        worker=worker,
        report=lambda _: None,
    )
    return {
        name: p.detach().clone() for name, p in policy.named_parameters().items()
    }, result.steps[-1]


def masks(
    start: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Of the six steps: where no mask of a parameter kept a value, and where one kept tau's."""
    still, tau_kept = {}, {}
    for index, (name, parameter) in enumerate(start.items()):
        any_kept = torch.zeros(parameter.numel(), dtype=torch.bool)
        of_tau = any_kept.clone()
        for step in range(1, 7):
            for draw in (Draw.STEP, Draw.TAU):
                key = mask_seed(1, index, step, draw)
                kept = kept_positions(key, 0, parameter.numel(), 0.3)
                any_kept[kept] = True
                if draw == Draw.TAU:
                    of_tau[kept] = True
        still[name] = ~any_kept.view(parameter.shape)
        tau_kept[name] = of_tau.view(parameter.shape)
    return still, tau_kept


def run_rank(rank: int, world: int, port: int, kind: str, out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
    )
    worker = Worker.current(0)
    torch.save(train(kind, worker, out), f"{out}/{rank}.pt")
    if worker.is_main:
        # As if they had been killed while the last checkpoint was written.
        shutil.rmtree(Path(out, "checkpoints", "step-000000006"))
    worker.barrier()
    torch.save(train(kind, worker, out), f"{out}/{rank}-again.pt")
    if kind == "dpo":
        ask_the_reference_twice(worker, Path(out))
    torch.distributed.destroy_process_group()


def ask_the_reference_twice(worker: Worker, at: Path) -> None:
    """The second time every worker has what the leading one has read."""
    pairs = [EncodedPair(str(n), [5, 6], [7] * (n + 1), [8]) for n in range(3)]
    computed = {pair.id: (-0.5 - n, -1.0 / 3) for n, pair in enumerate(pairs)}

    def cache() -> ReferenceCache:
        return ReferenceCache(at / "reference", str(at / "policy"), "float32", worker)

    def again() -> dict[str, tuple[float, float]]:
        raise AssertionError(f"worker {worker.rank} computes what is kept")

    first = cache().sums(pairs, lambda: computed)
    assert first["2"] == (-2.5, pytest.approx(-1 / 3))
    assert cache().sums(pairs, again) == first


@pytest.mark.parametrize("kind", ["lm", "dpo", "lone"])
def test_two_workers_train_the_weights_of_one(kind: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parts.policy(tmp_path / "policy")
    spawn = multiprocessing.get_context("spawn")
    ranks = [
        spawn.Process(target=run_rank, args=(rank, 2, port, kind, str(tmp_path)))
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(200)
        assert rank.exitcode == 0
    (first, metrics), (second, of_second) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    for rank, expected in enumerate([metrics, of_second]):
        again, of_again = torch.load(tmp_path / f"{rank}-again.pt", weights_only=True)
        assert all(torch.equal(first[name], value) for name, value in again.items())
        assert of_again == expected
    held = parts.tokenizer()
    start = dict(new_model(parts.SHAPE, held, 4).named_parameters())
    alone, expected = train(kind, Worker())
    # What changed, and followed tau, is counted by the worker that reports.
    for counted in ("changed_fraction", "following_tau"):
        expected.pop(counted)
        metrics.pop(counted)
    assert metrics == of_second == pytest.approx(expected, rel=1e-4)
    still, tau_kept = masks(start)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=2e-6)
        for trained in (first[name], value):
            # Where every mask of both vectors was 0 a value stands exactly where it stood, and
            # where tau's was 1 it has moved: the masks are the same, on either number of workers.
            assert torch.equal(trained[still[name]], start[name][still[name]]), name
            assert (trained[tau_kept[name]] != start[name][tau_kept[name]]).all(), name
