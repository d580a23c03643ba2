"""Estimates of attacked accuracy: margins by hand, and worst accurate models tried one after the other."""

import numpy as np
import pytest

from hauberk import records
from hauberk.report import collect, mixing
from hauberk.report.estimate import estimates, scaled_margins


def attack(margins, eps=0.5, norm="l2", ids=None, nearest=None, success=None, clean=None, after=None, stochastic=False):
    n = len(margins)
    unit = {"threat": {"name": norm, "eps": eps}, "method": {"name": "apgd"}}
    columns = {"id": ids or list(range(n)), "label": [0] * n, "probability_margin": margins,
               "success": success or [m <= 0 for m in margins], "nearest": nearest or [float("inf")] * n}
    likely = {"clean_probabilities": clean, "probabilities": after} if clean else {}
    return records.part("attack", unit, {"stochastic": stochastic}, columns | likely)


def counts(found, *alphas):
    return [round(found.accuracy(a).value * found.accuracy(a).n) for a in alphas]


def test_an_image_counts_from_one_over_one_plus_its_margin():
    [found] = estimates([attack([0.5, 0.25, -0.1, 1.0])], range(4), 1.0)
    assert found.needed == pytest.approx((2 / 3, 0.8, None, 0.5))
    assert (found.norm, found.eps, found.ids) == ("l2", 0.5, (0, 1, 2, 3))
    assert counts(found, 0.5, 0.51, 0.66, 0.67, 0.79, 0.81, 1.0) == [0, 1, 1, 2, 2, 3, 3]


def test_a_margin_that_is_just_met_is_not_enough():
    [found] = estimates([attack([0.25])], [0], 1.0)
    assert counts(found, 0.8, 0.8 + 1e-9) == [0, 1]


def test_below_one_half_there_is_no_estimate():
    [found] = estimates([attack([1.0])], [0], 1.0)
    assert found.accuracy(0.49).n == 0
    assert np.isnan(found.accuracy(0.49).value)


def test_the_worst_attack_counts_and_so_does_one_with_a_smaller_budget():
    strong, weak = attack([0.5, 0.9, 0.5]), attack([0.8, 0.2, 0.9])
    small, large = attack([0.9, 0.9, 0.1], eps=0.2), attack([0.05, 0.05, 0.05], eps=0.9)
    found = {e.eps: e for e in estimates([strong, weak, small, large], range(3), 1.0)}
    assert found[0.5].needed == pytest.approx((1 / 1.5, 1 / 1.2, 1 / 1.1))
    assert found[0.2].needed == pytest.approx((1 / 1.9, 1 / 1.9, 1 / 1.1))


def test_another_norm_says_nothing_here():
    found = {e.norm: e for e in estimates([attack([0.5]), attack([0.1], norm="linf")], [0], 1.0)}
    assert found["l2"].needed == pytest.approx((1 / 1.5,))


def test_what_was_broken_never_counts():
    suite = [attack([-0.2, 0.5]), attack([0.5], ids=[1])]  # a later stage sees the survivors alone
    assert estimates(suite, range(2), 1.0)[0].needed == pytest.approx((None, 1 / 1.5))
    undecided = attack([0.5], success=[True])
    assert estimates([undecided], [0], 1.0)[0].needed == (None,)
    passed = attack([-0.3, -0.3], eps=0.9, nearest=[0.4, 0.6])  # found within 0.5 by an attack that went further
    assert estimates([attack([0.5, 0.5]), passed], range(2), 1.0)[0].needed == pytest.approx((None, 1 / 1.5))


def test_only_images_of_the_mix_count():
    [found] = estimates([attack([0.5, 0.25, 0.1], ids=[3, 5, 9])], [5, 9, 11], 1.0)
    assert found.ids == (5, 9)
    assert found.needed == pytest.approx((0.8, 1 / 1.1))
    assert estimates([attack([0.5])], [7], 1.0) == ()


def test_a_random_robust_model_has_no_estimate():
    assert estimates([attack([0.5], stochastic=True)], [0], 1.0) == ()


def test_scaled_margins_by_hand():
    found = scaled_margins(np.array([[0.6, 0.3, 0.1], [0.2, 0.8, 0.0]]), np.array([0, 0]), 2.0)
    assert found == pytest.approx([0.27 / 0.46, (0.04 - 0.64) / 0.68])


def test_with_a_scale_the_returned_points_and_the_images_are_what_is_known():
    clean, after = [[0.5, 0.4, 0.1], [0.9, 0.1, 0.0]], [[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]]
    [found] = estimates([attack([0.01, 0.01], clean=clean, after=after)], range(2), 2.0)
    assert found.needed == pytest.approx((1 / (1 + 0.09 / 0.42), 1 / (1 + 0.27 / 0.46)))
    broken = attack([-0.1, 0.2], clean=[None, None], after=[None, None])  # no probabilities: nothing known, but broken
    [found] = estimates([broken], range(2), 2.0)
    assert (found.ids, found.needed) == ((0,), (None,))


def test_it_is_what_survives_the_worst_accurate_model(lab) -> None:
    """Every found point, mixed with each accurate model that is sure of one wrong class."""
    parts = [p for run in collect.load(lab.runs) for p in run.parts]
    [mix] = mixing.mixes(parts, collect.subjects(parts))
    x, y, _ = lab.data
    assert {(e.norm, e.eps) for e in mix.estimates} == {("l2", e) for e in lab.grid} | {
        ("linf", e / 255) for e in (4, 8, 16)
    }
    guess = next(e for e in mix.estimates if (e.norm, e.eps) == ("l2", 0.5))
    points = [x, *(lab.robust.attack(x, y, eps * w, "l2") for eps in (0.25, 0.5) for w in (0.8, 1.0))]
    clean_right = lab.robust.logits(x).argmax(1) == y
    for alpha in (0.5, 0.55, 0.7, 0.85, 0.93, 1.0):
        right = clean_right.copy()
        for p in (lab.robust.probabilities(q) for q in points[1:]):
            for wrong in range(10):
                worst = np.eye(10)[np.where(y == wrong, (wrong + 1) % 10, wrong)]
                right &= ((1 - alpha) * worst + alpha * p).argmax(1) == y
        if alpha == 0.5:
            right &= False  # a tie is decided by the order of classes; the estimate asks for more
        assert guess.accuracy(alpha).value == pytest.approx(right.mean())
    alone = next(d for d in mix.dots if (d.alpha, d.norm, d.eps) == (1.0, "l2", 0.5))
    assert guess.accuracy(1.0) == alone.attacked
