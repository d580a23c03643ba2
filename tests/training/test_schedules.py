import math

import pytest

from hauberk.training.schedules import learning_rate, scale


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "piecewise", "constant"])
@pytest.mark.parametrize(("t", "expected"), [(0.0, 0.0), (0.05, 0.25), (0.1, 0.5), (0.15, 0.75), (0.2, 1.0)])
def test_every_schedule_warms_up_linearly(schedule, t, expected):
    assert math.isclose(scale(schedule, t, warmup=0.2), expected)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("one_cycle", [1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0]),
        ("constant", [1.0] * 5),
    ],
)
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_closed_forms_at_the_quarters_after_warm_up(schedule, values, warmup):
    for quarter, value in enumerate(values):
        assert math.isclose(scale(schedule, warmup + (1 - warmup) * quarter / 4, warmup), value, abs_tol=1e-12)


def test_piecewise_drops_at_half_and_three_quarters():
    found = [scale("piecewise", t) for t in (0.0, 0.499, 0.5, 0.749, 0.75, 1.0)]
    assert found == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


def test_no_step_is_wasted_at_zero():
    rates = [learning_rate("one_cycle", 0.2, step, 10, warmup=0.5) for step in range(10)]
    assert all(0 < rate < 0.2 for rate in rates)
    assert rates == pytest.approx(rates[::-1])
    assert rates[0] == pytest.approx(0.2 * 0.05 / 0.5)
