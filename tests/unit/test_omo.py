"""The Online Merging Optimizer against plain definitions, written apart from the code."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from services.learner.optim.masks import BLOCK, Draw, kept_positions, mask_seed
from services.learner.optim.merging import above, ondare, onties, onties_official, top_threshold
from services.learner.optim.omo import OnlineMerging
from services.learner.optim.slices import SLICE_VALUES, slices
from services.learner.settings import OnDARESettings, OnTIESSettings
from services.learner.train.checkpoint import optimizer_tensors, restore_optimizer


class Net(torch.nn.Module):
    """A matrix, a bias and a norm-like vector."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.w = torch.nn.Parameter(torch.randn(40, 30, generator=g))
        self.b = torch.nn.Parameter(torch.randn(30, generator=g))
        self.n = torch.nn.Parameter(torch.randn(64, generator=g))


KINDS = (Draw.STEP, Draw.TAU)
TAU = {name: 0.1 * p.detach() for name, p in Net(3).named_parameters()}


def top(values: torch.Tensor, reserve: float) -> torch.Tensor:
    """F_T of a whole tensor, by a full sort."""
    count = max(1, round(reserve * values.numel()))
    least = values.abs().flatten().sort(descending=True).values[count - 1]
    return torch.where(values.abs() >= least, values, 0.0)


def mask(like: torch.Tensor, reserve: float, index: int, step: int, draw: Draw) -> torch.Tensor:
    """1 where the optimizer of seed 7 keeps a value."""
    kept = kept_positions(mask_seed(7, index, step, draw), 0, like.numel(), reserve)
    dense = torch.zeros(like.numel())
    dense[slice(None) if kept is None else kept] = 1.0
    return dense.view(like.shape)


def make(settings: OnDARESettings | OnTIESSettings, seed: int = 7) -> tuple[Net, OnlineMerging]:
    net, tau = Net(), TAU
    return net, OnlineMerging(
        list(net.named_parameters()), settings, tau=tau if settings.alpha else None, seed=seed
    )


def gradients(net: Net, step: int) -> None:
    g = torch.Generator().manual_seed(1000 + step)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=g)


def run(net: Net, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        gradients(net, step)
        optimizer.step()


def adam_steps(grads: list[np.ndarray], s: OnDARESettings | OnTIESSettings) -> list[np.ndarray]:
    """-lr m_hat / (sqrt(v_hat) + eps) for each gradient in turn, in float64."""
    m = v = np.zeros_like(grads[0])
    out = []
    for t, g in enumerate(grads, start=1):
        m = s.beta1 * m + (1 - s.beta1) * g
        v = s.beta2 * v + (1 - s.beta2) * g * g
        m_hat, v_hat = m / (1 - s.beta1**t), v / (1 - s.beta2**t)
        out.append(-s.lr * m_hat / (np.sqrt(v_hat) + s.eps))
    return out


@pytest.mark.parametrize("kind", [OnDARESettings, OnTIESSettings])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_reserve_one_alpha_zero_is_adamw(kind: type, decay: float) -> None:
    settings = kind(lr=1e-2, reserve=1.0, alpha=0.0, weight_decay=decay)
    ours, optimizer = make(settings)
    theirs = Net()
    adamw = torch.optim.AdamW(
        [
            {"params": [theirs.w], "weight_decay": decay},
            {"params": [theirs.b, theirs.n], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    run(ours, optimizer, range(20))
    run(theirs, adamw, range(20))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        # 1e-7 in units of the weights: two roundings of float32.
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rescale", [False, True])
def test_ondare_is_equation_4(rescale: bool) -> None:
    step, tau = torch.randn(1000), torch.randn(1000)
    kept = [(torch.rand(1000) < 0.3).nonzero()[:, 0] for _ in range(2)]
    update = ondare(
        step, tau, reserve=0.3, alpha=0.2, rescale=rescale, kept_step=kept[0], kept_tau=kept[1]
    )
    scale = 1 / 0.3 if rescale else 1.0
    for i in range(1000):
        kept_step = float(step[i]) * scale if i in kept[0] else 0.0
        kept_tau = float(tau[i]) * scale if i in kept[1] else 0.0
        assert update[i] == pytest.approx(0.8 * kept_step + 0.2 * kept_tau, abs=1e-5)


def test_ondare_that_keeps_everything_is_the_weighted_sum() -> None:
    step, tau = torch.tensor([1.0, 2.0]), torch.tensor([10.0, -10.0])
    rule = {"reserve": 1.0, "alpha": 0.1, "rescale": False, "kept_step": None, "kept_tau": None}
    assert ondare(step, tau, **rule).tolist() == pytest.approx([1.9, 0.8])


@pytest.mark.parametrize("reserve", [1e-9, 0.01, 0.1, 0.5, 0.999, 1.0])
def test_the_threshold_is_that_of_a_full_sort(
    reserve: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn(37 * 11) * 10.0 ** torch.randint(-9, 9, (37 * 11,))
    values[100:180] = 0.25
    values[200:220] = 0.0
    monkeypatch.setitem(SLICE_VALUES, "cpu", 100)
    found = top_threshold(lambda piece: values[piece], slices(values), reserve)
    assert torch.equal(above(values, found), top(values, reserve))


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("mode", ["paper", "official"])
def test_onties_elects_signs_by_its_definition(mode: str, rescale: bool) -> None:
    step, tau, alpha, p = torch.randn(30, 30), 3 * torch.randn(30, 30), 0.4, 0.4
    kept_step, kept_tau = top(step, p), top(tau, p)
    rule = onties if mode == "paper" else onties_official
    update = rule(kept_step, kept_tau, reserve=p, alpha=alpha, rescale=rescale).flatten().tolist()
    scale = 1 / p if rescale else 1.0
    pairs = zip(kept_step.flatten().tolist(), kept_tau.flatten().tolist(), strict=True)
    for found, (d, t) in zip(update, pairs, strict=True):
        weighted = [(1 - alpha) * d * scale, alpha * t * scale]
        if mode == "paper":
            agree = weighted[0] * weighted[1] >= 0
            expected = sum(weighted) if agree else max(weighted, key=abs)
        else:
            sign = 1 if d + t >= 0 else -1
            expected = sum(
                w for w, raw in zip(weighted, (d, t), strict=True) if np.sign(raw) == sign
            )
        assert found == pytest.approx(expected, abs=1e-5)


def test_official_onties_freezes_what_opposes_tau_and_paper_does_not() -> None:
    step, tau = torch.tensor([1e-3, -1e-3]), torch.tensor([1.0, 1.0])
    paper = onties(step, tau, reserve=1.0, alpha=1e-6, rescale=False)
    official = onties_official(step, tau, reserve=1.0, alpha=1e-6, rescale=False)
    assert paper[1].item() == pytest.approx(-1e-3, rel=1e-3)
    assert official[1].item() == pytest.approx(1e-6, rel=1e-3)


def test_a_whole_ondare_run_equals_the_plain_definition() -> None:
    settings = OnDARESettings(lr=1e-2, reserve=0.25, alpha=0.1, rescale=True, weight_decay=0.1)
    net, optimizer = make(settings)
    start = {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}
    taus = {name: tau.double().numpy() for name, tau in TAU.items()}
    grads: dict[str, list[np.ndarray]] = {name: [] for name in start}
    for step in range(5):
        gradients(net, step)
        for name, p in net.named_parameters():
            assert p.grad is not None
            grads[name].append(p.grad.double().numpy())
        optimizer.step()
    for index, (name, p) in enumerate(net.named_parameters()):
        theta = start[name]
        for t, delta in enumerate(adam_steps(grads[name], settings), start=1):
            kept = [mask(p, 0.25, index, t, draw).double().numpy() for draw in KINDS]
            theta = theta * (1 - 1e-2 * 0.1) if theta.ndim == 2 else theta
            theta = theta + 0.9 * kept[0] * delta / 0.25 + 0.1 * kept[1] * taus[name] / 0.25
        np.testing.assert_allclose(p.detach().numpy(), theta, atol=2e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("kind", [OnDARESettings, OnTIESSettings])
def test_step_k_merges_every_parameter_by_algorithm_2(kind: type, decay: float) -> None:
    settings = kind(lr=1e-2, reserve=0.5, alpha=0.1, merge_every=3, weight_decay=decay)
    net, optimizer = make(settings)
    theta = {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}
    cached = {name: np.zeros_like(value) for name, value in theta.items()}
    grads: dict[str, list[np.ndarray]] = {name: [] for name in theta}
    for t in range(1, 8):
        gradients(net, t)
        for name, p in net.named_parameters():
            assert p.grad is not None
            grads[name].append(p.grad.double().numpy())
        optimizer.step()
        for index, (name, p) in enumerate(net.named_parameters()):
            delta = adam_steps(grads[name], settings)[-1]
            if p.ndim >= 2:
                # All that is held decays: the last merge's weights and what came on top of them.
                theta[name] = theta[name] * (1 - 1e-2 * decay)
                cached[name] = cached[name] * (1 - 1e-2 * decay)
            if t % 3:
                theta[name], cached[name] = theta[name] + delta, cached[name] + delta
            else:
                theta[name], delta = theta[name] - cached[name], delta + cached[name]
                cached[name] = np.zeros_like(delta)
                whole, tau = torch.from_numpy(delta).float(), TAU[name]
                if kind is OnTIESSettings:
                    rule = {"reserve": 0.5, "alpha": 0.1, "rescale": False}
                    update = onties(top(whole, 0.5), top(tau, 0.5), **rule)
                else:
                    kept = [mask(whole, 0.5, index, t, draw) for draw in KINDS]
                    update = 0.9 * kept[0] * whole + 0.1 * kept[1] * tau
                theta[name] = theta[name] + update.double().numpy()
            np.testing.assert_allclose(p.detach().numpy(), theta[name], atol=3e-6)


def test_a_whole_official_run_equals_the_plain_definition() -> None:
    settings = OnDARESettings(lr=1e-2, reserve=0.25, alpha=0.1, mode="official")
    net = Net()
    start = {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}
    optimizer = OnlineMerging(list(net.named_parameters()), settings, tau=TAU, seed=7)
    grads: dict[str, list[np.ndarray]] = {name: [] for name in start}
    for step in range(5):
        gradients(net, step)
        for name, p in net.named_parameters():
            assert p.grad is not None
            grads[name].append(p.grad.double().numpy())
        optimizer.step()
    for index, (name, p) in enumerate(net.named_parameters()):
        theta = start[name]
        # Masked once, before the first step; survivors of both are divided by p.
        once = mask(p, 0.25, index, 0, Draw.TAU).double().numpy()
        for t, delta in enumerate(adam_steps(grads[name], settings), start=1):
            kept = mask(p, 0.25, index, t, Draw.STEP).double().numpy()
            theta = theta + (0.9 * kept * delta + 0.1 * once * TAU[name].double().numpy()) / 0.25
        np.testing.assert_allclose(p.detach().numpy(), theta, atol=2e-6)


def test_step_k_leaves_dropped_values_exactly_where_they_were() -> None:
    net, optimizer = make(OnDARESettings(lr=1e-2, reserve=0.1, alpha=0.0, merge_every=4))
    before = net.w.detach().clone()
    run(net, optimizer, range(4))
    assert (net.w == before).float().mean() == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_changed_values_are_counted(mode: str) -> None:
    net, optimizer = make(OnDARESettings(lr=1e-2, reserve=0.1, alpha=0.0, mode=mode))
    before = [p.detach().clone() for p in net.parameters()]
    run(net, optimizer, range(1))
    assert optimizer.changed_values == 0
    optimizer.count_changes = True
    before = [p.detach().clone() for p in net.parameters()]
    run(net, optimizer, range(1, 2))
    changed = sum(int((a != b).sum()) for a, b in zip(before, net.parameters(), strict=True))
    assert optimizer.changed_values == changed
    assert changed / 1294 == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("merge_every", [1, 3])
def test_a_restart_from_the_state_goes_on_as_if_nothing_happened(merge_every: int) -> None:
    settings = OnDARESettings(lr=1e-2, reserve=0.2, alpha=0.0, merge_every=merge_every)
    straight, optimizer = make(settings)
    run(straight, optimizer, range(7))
    first, optimizer = make(settings)
    run(first, optimizer, range(4))
    saved = {
        name: t.clone()
        for name, t in optimizer_tensors(dict(first.named_parameters()), optimizer).items()
    }
    assert not any("tau" in name for name in saved)
    second, optimizer = make(settings)
    second.load_state_dict(first.state_dict())
    restore_optimizer(dict(second.named_parameters()), optimizer, saved)
    run(second, optimizer, range(4, 7))
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_share_that_follows_tau_is_counted() -> None:
    net, optimizer = make(OnDARESettings(lr=1e-2, reserve=0.5, alpha=0.0))
    optimizer.count_changes = True
    run(net, optimizer, range(1))
    assert optimizer.share_following_tau is None
    net, optimizer = make(OnDARESettings(lr=1e-2, reserve=0.5, alpha=1e-4))
    run(net, optimizer, range(1))
    assert optimizer.share_following_tau is None
    optimizer.count_changes = True
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    run(net, optimizer, range(1, 2))
    moved = {name: p.detach() - before[name] for name, p in net.named_parameters()}
    follows = sum(int((moved[name] * TAU[name] > 0).sum()) for name in TAU)
    changed = sum(int((move != 0).sum()) for move in moved.values())
    assert optimizer.changed_values == changed
    assert optimizer.share_following_tau == follows / changed
    # A third of what changed is tau's alone, and of the rest about half goes its way.
    assert follows / changed == pytest.approx(2 / 3, abs=0.05)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    # A step computes with one thread a slice, and then puts back what was.
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("moments", ["float32", "int8"])
@pytest.mark.parametrize("kind", [OnDARESettings, OnTIESSettings])
def test_a_tensor_longer_than_a_slice_is_stepped_as_one(
    kind: type, moments: str, monkeypatch: pytest.MonkeyPatch, three_threads: None
) -> None:
    settings = kind(lr=1e-2, reserve=0.2, alpha=1e-3, moments=moments)
    g = torch.Generator().manual_seed(0)
    start, grad, tau = (torch.randn(3, BLOCK + 77, generator=g) for _ in range(3))
    found = []
    for length in (BLOCK, 2 * BLOCK, 1 << 30):
        monkeypatch.setitem(SLICE_VALUES, "cpu", length)
        p = torch.nn.Parameter(start.clone())
        optimizer = OnlineMerging([("w", p)], settings, tau={"w": tau}, seed=3)
        for _ in range(3):
            p.grad = grad
            optimizer.step()
        found.append(p.detach())
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[2])
    assert not torch.equal(found[0], start)


def test_gradients_are_let_go_when_asked_for() -> None:
    net, optimizer = make(OnDARESettings(alpha=0.0))
    run(net, optimizer, range(1))
    assert all(p.grad is not None for p in net.parameters())
    optimizer.free_gradients = True
    run(net, optimizer, range(1))
    assert all(p.grad is None for p in net.parameters())
