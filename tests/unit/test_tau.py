"""tau_r from two folders: the same figures as from two models in memory, and nothing held."""

from pathlib import Path

import pytest
import torch

from services.errors import LineageError
from services.learner.model.load import load_policy
from services.learner.model.stored import StoredTensors
from services.learner.optim.build import make_optimizer
from services.learner.optim.omo import OnlineMerging
from services.learner.optim.tau import ReferenceVector
from services.learner.settings import AdamWSettings, OnDARESettings, OnTIESSettings, TrainSettings
from services.learner.train.offline import reference_delta
from tests.unit import learner_parts as parts
from tests.unit.test_stored import folder, mapped_bytes


def test_it_is_the_difference_of_the_models_bit_for_bit(tmp_path: Path) -> None:
    reference, base = parts.policy(tmp_path / "r", 1), parts.policy(tmp_path / "b", 2)
    tau = ReferenceVector(StoredTensors(reference), StoredTensors(base))
    ours, theirs = (dict(load_policy(one).named_parameters()) for one in (reference, base))
    assert tau.keys() == ours.keys()
    for name in ours:
        expected = ours[name].detach() - theirs[name].detach()
        assert torch.equal(tau[name], expected)
        assert torch.equal(tau.flat(name, 3, 11), expected.flatten()[3:11])


def test_the_difference_of_bfloat16_files_is_exact_and_then_rounded(tmp_path: Path) -> None:
    ours, theirs = torch.randn(300).bfloat16(), torch.randn(300).bfloat16()
    stored = [
        StoredTensors(folder(tmp_path / name, w=values))
        for name, values in (("r", ours), ("b", theirs))
    ]
    exact = ours.float() - theirs.float()
    assert torch.equal(ReferenceVector(stored[0], stored[1])["w"], exact)
    rounded = ReferenceVector(stored[0], stored[1], torch.bfloat16)
    assert torch.equal(rounded["w"], exact.bfloat16())
    assert torch.equal(rounded.flat("w", 0, 300), exact.bfloat16().float())


@pytest.mark.parametrize("kind", [OnDARESettings, OnTIESSettings])
@pytest.mark.parametrize("mode", ["paper", "official"])
def test_training_reads_it_from_the_files_and_holds_no_page(
    kind: type, mode: str, tmp_path: Path
) -> None:
    g = torch.Generator().manual_seed(0)
    weights, base, grad = (torch.randn(1 << 17, generator=g) for _ in range(3))
    files = [folder(tmp_path / "r", w=weights), folder(tmp_path / "b", w=base)]
    rule = kind(lr=1e-2, alpha=1e-2, reserve=0.3, mode=mode)
    ended = []
    for streamed in (True, False):
        p = torch.nn.Parameter(weights.clone())
        tau = ReferenceVector(*map(StoredTensors, files)) if streamed else {"w": weights - base}
        optimizer = OnlineMerging([("w", p)], rule, tau=tau, seed=1)
        for _ in range(3):
            p.grad = grad
            optimizer.step()
        ended.append(p.detach())
        assert sum(mapped_bytes(file / "model.safetensors") for file in files) == 0
    assert torch.equal(*ended)
    assert not torch.equal(ended[0], weights)


def test_shapes_and_names_are_held_against_each_other_up_front(tmp_path: Path) -> None:
    one = StoredTensors(folder(tmp_path / "one", a=torch.zeros(2, 3), b=torch.zeros(2)))
    wide = StoredTensors(folder(tmp_path / "wide", a=torch.zeros(2, 4), b=torch.zeros(2)))
    less = StoredTensors(folder(tmp_path / "less", a=torch.zeros(2, 3)))
    with pytest.raises(LineageError, match=r"a is \(2, 3\) in the reference and \(2, 4\) in the"):
        ReferenceVector(one, wide)
    with pytest.raises(LineageError, match="b is missing in the base; base must be the model"):
        ReferenceVector(one, less)
    with pytest.raises(LineageError, match="b is missing in the reference"):
        ReferenceVector(less, one)


def test_a_policy_of_another_shape_than_its_reference_is_refused(tmp_path: Path) -> None:
    stored = StoredTensors(folder(tmp_path / "one", a=torch.zeros(2, 3)))
    tau = ReferenceVector(stored, stored)
    rule = OnDARESettings()
    with pytest.raises(LineageError, match="c of the policy is missing in the reference"):
        make_optimizer({"c": torch.nn.Parameter(torch.zeros(2))}, rule, tau=tau)
    with pytest.raises(LineageError, match=r"a is \(2, 3\) in the reference and \(3,\) in the"):
        make_optimizer({"a": torch.nn.Parameter(torch.zeros(3))}, rule, tau=tau)
    with pytest.raises(LineageError, match="needs a base model"):
        make_optimizer({"a": torch.nn.Parameter(torch.zeros(2, 3))}, rule)


def test_only_an_optimizer_that_merges_asks_for_it(tmp_path: Path) -> None:
    path = folder(tmp_path / "one", a=torch.zeros(2, 3))
    for optimizer in (AdamWSettings(), OnDARESettings(alpha=0.0)):
        assert reference_delta(path, path, TrainSettings(optimizer=optimizer)) is None
    merging = TrainSettings(optimizer=OnDARESettings())
    assert reference_delta(path, None, merging) is None
    assert isinstance(reference_delta(path, path, merging), ReferenceVector)
