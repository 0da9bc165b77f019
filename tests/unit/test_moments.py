"""Moments of one byte: how far off the code is, that it has no bias, and that training bears it."""

import pytest
import torch

from services.learner.optim.build import make_optimizer
from services.learner.optim.eight_bit import BLOCK, EightBit
from services.learner.optim.omo import OnlineMerging
from services.learner.settings import AdamWSettings, OnDARESettings, OnTIESSettings
from services.learner.train.checkpoint import optimizer_tensors, restore_optimizer

COUNT = 3 * BLOCK + 100
CODE = EightBit()


def coded(values: torch.Tensor, *, square: bool, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Values through the code; codes and scales."""
    code, blocks = CODE, -(-values.numel() // BLOCK)
    codes = torch.zeros(values.numel(), dtype=torch.uint8 if square else torch.int8)
    scales = torch.zeros(blocks)
    decode = code.decode_square if square else code.decode_signed
    encode = code.encode_square if square else code.encode_signed
    buffer = decode(codes, scales)
    buffer.copy_(values)
    encode(buffer, codes, scales, 0, seed)
    return decode(codes, scales).clone(), codes, scales


@pytest.mark.parametrize("square", [False, True])
def test_an_error_is_at_most_the_distance_to_the_next_code(square: bool) -> None:
    values = torch.randn(COUNT) * 10.0 ** torch.randint(-4, 1, (COUNT,))
    values = values.square() if square else values
    found, codes, scales = coded(values, square=square)
    q = codes.float().abs()
    power, most = (4, 255.0) if square else (2, 127.0)
    per_block = scales.repeat_interleave(BLOCK)[:COUNT]
    gap = ((q + 1.3) / most) ** power - ((q - 1.3).clamp(min=0) / most) ** power
    assert bool(((found - values).abs() <= gap * per_block).all())
    largest = values.abs() == per_block
    assert int(largest.sum()) == 4
    # Of the largest in a block the code is off by 1.6% at most, one code of 127 or 255.
    torch.testing.assert_close(found[largest], values[largest], rtol=0.017, atol=0)


def test_no_second_moment_is_rounded_to_zero() -> None:
    values = torch.full((BLOCK,), 1e-12)
    values[0] = 1.0
    found, codes, _ = coded(values, square=True)
    assert int(codes.min()) == 1
    assert found[1].item() == pytest.approx(255.0**-4)


def test_zeros_stay_zeros() -> None:
    for square in (False, True):
        found, _, _ = coded(torch.zeros(COUNT), square=square)
        assert bool(torch.isfinite(found).all())
        assert found.abs().max().item() < 1e-30


@pytest.mark.parametrize("square", [False, True])
def test_the_mean_of_many_codes_is_the_value(square: bool) -> None:
    values = torch.linspace(0.02, 1.0, BLOCK) ** (4 if square else 2)
    mean = torch.stack([coded(values, square=square, seed=s)[0] for s in range(2000)]).mean(0)
    # Of 2000 draws the mean is within 1%; the nearest code alone would be off by 10% at the least.
    torch.testing.assert_close(mean, values, rtol=0.06, atol=0)
    torch.testing.assert_close(mean[50:], values[50:], rtol=0.01, atol=0)


def test_a_second_moment_decays_although_a_step_is_less_than_a_code() -> None:
    values = torch.linspace(0.1, 1.0, BLOCK) ** 4
    kept = values.clone()
    for step in range(300):
        kept = coded(kept * 0.995, square=True, seed=step)[0]
    expected = values * 0.995**300
    assert (kept / expected).mean().item() == pytest.approx(1.0, abs=0.1)


def network(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Embedding(50, 24),
        torch.nn.Flatten(),
        torch.nn.Linear(24 * 4, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 50),
    )


def losses(net: torch.nn.Sequential, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    """Cross entropy of predicting (sum of four tokens) mod 50, batch by batch."""
    found = []
    for step in steps:
        g = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 12, (64, 4), generator=g)
        loss = torch.nn.functional.cross_entropy(net(ids), ids.sum(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


RULES = [
    AdamWSettings(lr=3e-3),
    OnDARESettings(lr=3e-3, reserve=0.5, alpha=0.0, rescale=True),
    OnTIESSettings(lr=3e-3, reserve=0.5, alpha=0.0),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_two_hundred_steps_come_as_far_as_with_float32_moments(
    rule: AdamWSettings | OnDARESettings | OnTIESSettings,
) -> None:
    ended = {}
    for moments in ("float32", "int8"):
        net = network()
        settings = rule.model_copy(update={"moments": moments})
        optimizer = make_optimizer(dict(net.named_parameters()), settings)
        found = losses(net, optimizer, range(200))
        assert found[0] > 3.5
        ended[moments] = sum(found[-20:]) / 20
    assert ended["float32"] < 2.6
    # Within 5% of the loss that float32 moments reach.
    assert ended["int8"] == pytest.approx(ended["float32"], rel=0.05)


@pytest.mark.parametrize("merge_every", [1, 3])
def test_a_restart_is_exact_to_the_byte(merge_every: int) -> None:
    rule = OnDARESettings(lr=1e-2, reserve=0.2, alpha=0.0, moments="int8", merge_every=merge_every)

    def made() -> tuple[torch.nn.Sequential, torch.optim.Optimizer]:
        net = network()
        return net, make_optimizer(dict(net.named_parameters()), rule, seed=3)

    straight, optimizer = made()
    losses(straight, optimizer, range(7))
    state = optimizer_tensors(dict(straight.named_parameters()), optimizer)
    first, optimizer = made()
    losses(first, optimizer, range(4))
    saved = {
        name: value.clone()
        for name, value in optimizer_tensors(dict(first.named_parameters()), optimizer).items()
    }
    assert saved["0.weight|exp_avg"].dtype == torch.int8
    assert saved["0.weight|exp_avg_sq"].dtype == torch.uint8
    second, optimizer = made()
    second.load_state_dict(first.state_dict())
    restore_optimizer(dict(second.named_parameters()), optimizer, saved)
    losses(second, optimizer, range(4, 7))
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    again = optimizer_tensors(dict(second.named_parameters()), optimizer)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_rounding_is_the_same_on_every_rank_and_another_in_every_step() -> None:
    values = torch.rand(COUNT)
    first, again, other = (coded(values, square=True, seed=seed)[1] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_state_is_two_bytes_and_the_scales() -> None:
    p = torch.nn.Parameter(torch.randn(64, 64))
    optimizer = OnlineMerging([("w", p)], AdamWSettings(moments="int8"), tau=None, seed=0)
    p.grad = torch.randn(64, 64)
    optimizer.step()
    held = sum(value.nbytes for value in optimizer.state[p].values())
    assert held == 2 * 4096 + 2 * 4 * 4096 // BLOCK + 4
