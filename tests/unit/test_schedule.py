import pytest

from services.learner.optim.schedule import lr_factor
from services.learner.optim.warnings import optimizer_warnings
from services.learner.settings import AdamWSettings, OnDARESettings, ScheduleSettings


def factors(steps: int, **settings: object) -> list[float]:
    schedule = ScheduleSettings(**settings)  # type: ignore[arg-type]
    return [lr_factor(schedule, step, steps) for step in range(steps)]


def test_linear_with_warmup() -> None:
    found = factors(6, kind="linear", warmup_steps=2)
    assert found == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_cosine_ends_at_min_ratio() -> None:
    schedule = ScheduleSettings(kind="cosine", min_ratio=0.1)
    assert lr_factor(schedule, 0, 10) == 1.0
    assert lr_factor(schedule, 5, 10) == pytest.approx(0.55)
    assert lr_factor(schedule, 10, 10) == pytest.approx(0.1)
    assert lr_factor(schedule, 99, 10) == pytest.approx(0.1)


def test_constant_stays() -> None:
    assert factors(4, kind="constant", warmup_steps=1) == [1.0, 1.0, 1.0, 1.0]


def test_a_tiny_reserve_without_rescale_is_advised_against() -> None:
    (line,) = optimizer_warnings(OnDARESettings(reserve=0.01, lr=1e-6))
    assert "rescale: true" in line
    assert optimizer_warnings(OnDARESettings(reserve=0.01, lr=1e-6, rescale=True)) == []
    assert optimizer_warnings(OnDARESettings(reserve=0.01, lr=1e-6, mode="official")) == []
    assert optimizer_warnings(AdamWSettings()) == []


def test_an_alpha_that_collapsed_is_advised_against() -> None:
    (line,) = optimizer_warnings(OnDARESettings(alpha=1e-3, rescale=True))
    assert "collapse" in line
