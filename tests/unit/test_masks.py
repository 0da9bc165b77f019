"""What a random F_R keeps: its rate, its independence, and that it is a function of a counter."""

import pytest
import torch

from services.learner.optim.masks import BLOCK, Draw, kept_positions, mask_seed

COUNT = 3 * BLOCK + 1234


def kept(reserve: float, *counters: int, count: int = COUNT) -> torch.Tensor:
    found = kept_positions(mask_seed(*counters), 0, count, reserve)
    assert found is not None
    dense = torch.zeros(count)
    dense[found] = 1.0
    return dense


@pytest.mark.parametrize("reserve", [5e-4, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_the_rate_is_the_reserve(reserve: float) -> None:
    found = kept_positions(mask_seed(1, 2), 0, COUNT, reserve)
    assert found is not None
    assert found.dtype == torch.int64
    assert bool((found.diff() > 0).all())
    assert int(found[0]) >= 0
    assert int(found[-1]) < COUNT
    # Four standard deviations of a binomial.
    allowed = 4 * (reserve * (1 - reserve) / COUNT) ** 0.5
    assert len(found) / COUNT == pytest.approx(reserve, abs=allowed)


def test_all_are_kept_at_reserve_one() -> None:
    assert kept_positions(mask_seed(1), 0, COUNT, 1.0) is None


def test_every_place_is_as_likely_and_neighbours_are_independent() -> None:
    masks = torch.stack([kept(0.2, 5, 0, step) for step in range(200)])
    places = masks.mean(0)
    # 200 draws: a standard deviation of 0.028 at each of 198k places; their mean is far closer.
    assert places.max().item() < 0.2 + 7 * 0.0283
    assert places.view(-1)[:BLOCK:97].mean().item() == pytest.approx(0.2, abs=0.01)
    assert places[BLOCK : BLOCK + 50].mean().item() == pytest.approx(0.2, abs=0.02)
    both = (masks[:, 1:] * masks[:, :-1]).mean().item()
    assert both == pytest.approx(0.04, abs=0.0005)


@pytest.mark.parametrize("other", [(1, 0, 1, 1), (1, 0, 2, 0), (1, 1, 1, 0), (2, 0, 1, 0)])
def test_another_counter_draws_independently(other: tuple[int, ...]) -> None:
    first, second = kept(0.1, 1, 0, 1, 0), kept(0.1, *other)
    assert torch.equal(first, kept(0.1, 1, 0, 1, 0))
    assert (first * second).mean().item() == pytest.approx(0.01, abs=0.001)


def test_a_part_of_a_tensor_finds_what_the_whole_finds() -> None:
    key = mask_seed(9, Draw.TAU)
    whole = kept_positions(key, 0, COUNT, 0.1)
    assert whole is not None
    for start, stop in ((0, 7), (7, BLOCK), (BLOCK - 1, BLOCK + 1), (BLOCK, COUNT), (99, COUNT)):
        part = kept_positions(key, start, stop, 0.1)
        assert part is not None
        assert torch.equal(part, whole[(whole >= start) & (whole < stop)] - start)


def test_the_positions_are_these_on_every_machine() -> None:
    found = kept_positions(mask_seed(7, 0, 1, Draw.STEP), 0, 2 * BLOCK, 0.001)
    assert found is not None
    assert found[:6].tolist() == [16, 1431, 3285, 5855, 6877, 7111]
