r"""Expected clamped logits: bounds of their differences by concentration, and constants that hold after the clamp.

The toy is a half-space with Gaussian noise inside: :math:`E[\mathrm{clamp}(x_1 - t + \tau\omega)]` is known by the
normal law, and 0 at the border, so that the true radius is the distance :math:`x_1 - t`.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from tests.random_nets import half_space, net
from torch import nn

from hauberk.audit.certificates import certify_again
from hauberk.audit.draws import draw_problems
from hauberk.batch import Batch
from hauberk.certificates import ExpectedLogits, LipschitzCertificate
from hauberk.certificates.draw_bounds import DrawPlan
from hauberk.certificates.evidence import Constants
from hauberk.certificates.expected_logits import MeanGaps
from hauberk.certificates.lipschitz import reach
from hauberk.confidence import bernstein_lower, hoeffding_lower
from hauberk.defences.frozen_ensemble import frozen_draws
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.layers import NoiseInjection
from hauberk.layers.lipschitz import walk
from hauberk.noises import Gaussian
from hauberk.records import group
from hauberk.verify.derive import DERIVE
from hauberk.verify.facts import _names
from hauberk.verify.proofs import verify_part

AT, BORDER, TAU = 0.8, 0.5, 0.4


def batch(rows: int = 8, at: float = AT) -> Batch:
    return Batch(torch.full((rows, 1, 1, 2), at), torch.ones(rows, dtype=torch.int64), torch.arange(rows) + 30)


def images(rows: int = 10) -> Batch:
    drawn = torch.rand(rows, 1, 2, 4, generator=torch.Generator().manual_seed(7))
    return Batch(drawn, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


def expected(clamp: float, distance: float = AT - BORDER) -> float:
    r""":math:`E[\mathrm{clamp}(d + \tau\omega, -B, B)]`, by quadrature."""
    law = stats.norm(distance, TAU)
    inside = integrate.quad(lambda z: z * law.pdf(z), -clamp, clamp)[0]
    return float(inside + clamp * (law.sf(clamp) - law.cdf(-clamp)))


# --- concentration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", ["bernstein", "hoeffding"])
@pytest.mark.parametrize("clamp", [0.3, 1.0])
def test_a_thousand_bounds_of_a_known_mean_fail_with_at_most_alpha(interval: str, clamp: float) -> None:
    alpha, runs = 0.05, 1000
    certificate = ExpectedLogits(clamp, n0=1, n=50, alpha=alpha, interval=interval)  # type: ignore[arg-type]
    found = certificate(half_space(TAU), batch(runs), seed=1, tile=500)
    lower = np.array([certificate.lower(seen)[0][0] for seen in found.evidence])
    true = np.where([seen.chosen == 1 for seen in found.evidence], expected(clamp), -expected(clamp))
    assert (lower > true).sum() <= stats.binom.ppf(1 - 1e-4, runs, alpha)
    inside = torch.where(found.prediction == 1, AT - BORDER, 0.0)
    assert int((found.radius > inside).sum()) <= stats.binom.ppf(1 - 1e-4, runs, alpha)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5])
def test_the_bounds_fail_with_at_most_alpha_by_enumeration_over_counts(p: float) -> None:
    """Of n coins the bound depends on the number of heads alone, whose law is binomial."""
    for n, alpha in ((10, 0.05), (60, 0.05), (60, 0.4)):
        heads = np.arange(n + 1)
        means, law = heads / n, stats.binom.pmf(heads, n, p)
        for bounds in (hoeffding_lower(means, n, 1.0, alpha),
                       bernstein_lower(means, heads * (n - heads) / (n * (n - 1.0)), n, 1.0, alpha)):  # fmt: skip
            assert law[bounds > p].sum() <= alpha


def test_hoeffdings_bound_is_its_closed_form_and_bernsteins_that_of_maurer_and_pontil() -> None:
    mean, variance, n, width, alpha = np.array([0.3]), np.array([0.04]), 100, 4.0, 0.01
    assert hoeffding_lower(mean, n, width, alpha)[0] == pytest.approx(0.3 - 4.0 * math.sqrt(math.log(100.0) / 200.0))
    log = math.log(200.0)
    by_hand = 0.3 - math.sqrt(2.0 * 0.04 * log / 100.0) - 7.0 * 4.0 * log / (3.0 * 99.0)
    assert bernstein_lower(mean, variance, n, width, alpha)[0] == pytest.approx(by_hand)


def test_means_and_variances_are_those_of_the_draws() -> None:
    certificate = ExpectedLogits(0.5, n0=4, n=600)
    seen = certificate.gather(half_space(TAU), batch(1), 0, 1)[0]
    assert seen.gaps[seen.chosen] == 0.0
    law = stats.norm(AT - BORDER, TAU)
    drawn = np.clip(law.rvs(200_000, random_state=0), -0.5, 0.5)
    assert abs(seen.gaps[0] - expected(0.5)) < 5.0 * math.sqrt(drawn.var() / 600)
    assert seen.variances[0] == pytest.approx(drawn.var(), rel=0.15)
    assert 0.0 < seen.lost < 1e-4
    assert seen.shared()["clamp"] == 0.5


# --- the trap: constants after the clamp -----------------------------------------------------------------------------


def parallel() -> nn.Sequential:
    """Two logits that move together, one ahead: without a clamp their difference never changes."""
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[3.0, 0.0], [3.0, 0.0]]))
        linear.bias.copy_(torch.tensor([0.0, 0.5]))
    return nn.Sequential(nn.Flatten(), NoiseInjection(Gaussian(0.01)), linear).eval()


def test_what_two_logits_have_in_common_is_lost_by_the_clamp() -> None:
    r"""At :math:`x_1 = 0` class 1 is ahead by 1/2, at :math:`x_1 = 1` both are clamped and level: a tie at distance 1.

    The constants of differences say that no image flips: :math:`\|w_0 - w_1\| = 0`.
    """
    model, certificate = parallel(), ExpectedLogits(1.0, n0=5, n=600)
    bounds = walk(model, (1, 1, 2))
    assert float(bounds.pairwise().max()) == 0.0
    assert float(bounds.separate()[0, 1]) == pytest.approx(6.0, rel=1e-6)  # 3 + 3, and sqrt 2 times 3 sqrt 2
    found = certificate(model, batch(1, at=0.0))
    level = torch.stack([model(torch.tensor([[[[x, 0.0]]]])).detach().clamp(-1.0, 1.0)[0] for x in (0.0, 1.0)])
    assert float(level[1, 1] - level[1, 0]) == 0.0
    assert 0.0 < float(found.radius[0]) <= 1.0
    unsound = reach(certificate.lower(found.evidence[0])[0], bounds.pairwise().numpy()[1][[0]])
    assert float(unsound[0]) > 1.0


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_constants_after_a_clamp_hold_for_pairs_of_points(norm: str) -> None:
    torch.manual_seed(0)
    order = {"l1": 1.0, "l2": 2.0, "linf": math.inf}[norm]
    tight = 0.0
    for _ in range(20):
        linear = nn.Linear(3, 4).double().eval()
        linear.weight.data.mul_(4.0)
        bounds = walk(linear, (3,)).separate(norm)  # type: ignore[arg-type]
        assert torch.equal(bounds, bounds.T)
        assert float(bounds.diagonal().abs().max()) == 0.0
        points = torch.randn(400, 3).double()
        others = points + torch.randn(400, 3).double() * torch.logspace(-3, 0, 400).double()[:, None]
        first, second = (linear(x).detach().clamp(-0.7, 0.7) for x in (points, others))
        moved = (first - second)[:, :, None] - (first - second)[:, None, :]
        speed = moved.abs() / torch.linalg.vector_norm(points - others, order, 1)[:, None, None]
        assert bool((speed <= bounds * (1 + 1e-9)).all())
        tight = max(tight, float((speed.amax(0) / bounds.clamp(min=1e-9)).max()))
    assert tight > 0.6


def test_separate_constants_are_the_best_of_two() -> None:
    one = nn.Linear(2, 2).eval()
    one.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(walk(one, (2,)).separate()[0, 1]) == pytest.approx(math.sqrt(2.0), rel=1e-6)  # the whole, not 1 + 1
    one.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert float(walk(one, (2,)).separate()[0, 1]) == pytest.approx(1.0, rel=1e-6)  # 0 + 1, not sqrt 2


# --- the certificate ----------------------------------------------------------------------------------------------


def test_the_radius_comes_up_to_that_of_a_large_ensemble_and_not_beyond() -> None:
    """Wide clamps change nothing: the frozen ensemble of many draws has the same logits, and smaller constants."""
    model = net(noise=0.05)
    certificate = ExpectedLogits(0.7, n0=20, n=800, alpha=0.05)
    found = certificate(model, images(6))
    ensemble = frozen_draws(model, 200)(images(6).images).detach()
    sure = found.prediction >= 0
    assert int(sure.sum()) >= 1
    assert torch.equal(ensemble.argmax(1)[sure], found.prediction[sure])
    fixed = LipschitzCertificate()(frozen_draws(model, 12), images(6))
    assert bool((found.radius[sure] <= fixed.radius[sure] + 0.02).all())


def test_bernstein_pays_where_draws_are_alike_and_either_is_kept_beforehand() -> None:
    usual = ExpectedLogits(0.5, n0=5, n=400, alpha=0.01)
    both = [c(half_space(0.05), batch(2)) for c in (usual, replace(usual, interval="hoeffding"))]
    assert float(both[0].radius[0]) > float(both[1].radius[0])
    assert both[0].predictor == both[1].predictor
    assert ExpectedLogits(1.0).predictor(net()) != ExpectedLogits(2.0).predictor(net())


def test_margins_and_radii_agree() -> None:
    certificate = ExpectedLogits(0.5, n0=5, n=800)
    seen = certificate.gather(half_space(0.1), batch(1), 0, 1)[0]
    for margin in (0.0, 0.02, 0.05):
        radius = certificate.radius(seen, margin)
        assert radius > 0.0
        assert certificate.margin(seen, radius) >= margin - 1e-9
        assert certificate.margin(seen, radius * 1.01 + 1e-6) <= margin
    assert certificate.radius(seen, 0.5) == 0.0


def test_rows_do_not_depend_on_batch_and_tile() -> None:
    certificate = ExpectedLogits(1.0, n0=5, n=60, alpha=0.2)
    whole = certificate(net(noise=0.02), images(), seed=2, tile=10)
    part = certificate(net(noise=0.02), images().select([7, 2]), seed=2, tile=3)
    for one, other in zip(part.evidence, [whole.evidence[7], whole.evidence[2]], strict=True):
        np.testing.assert_allclose(one.gaps, other.gaps, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(one.variances, other.variances, rtol=1e-9, atol=1e-12)


def test_records_verify_and_fresh_draws_fit_them(tmp_path: Path) -> None:
    certificate, model = ExpectedLogits(0.5, n0=9, n=500, alpha=0.01), half_space(0.1)
    setting = Setting("toy", "test", ("a", "b"), tile=6)
    (part,) = group(certificate_records(model, batch(), certificate, setting, Work(tmp_path)))
    assert float(part.table.column("radius").to_numpy().min()) > 0.0
    assert verify_part(part).problems == ()
    name = certificate.predictor(model)
    assert name.startswith("expected_logits(clamp=0.5, Sequential[")
    assert part.unit["predictor"] in _names(part, name.split(", ", 1)[1][:-1])
    target, generator = type("Target", (), {"model": model})(), np.random.default_rng(0)
    assert list(certify_again(part, target, batch(), generator, [])) == []  # type: ignore[arg-type]
    other = type("Target", (), {"model": half_space(0.1, border=0.52)})()
    assert list(certify_again(part, other, batch(), generator, []))  # type: ignore[arg-type]
    for key, value in (("alpha", 0.2), ("clamp", 0.4), ("interval", "hoeffding"), ("draws", 5000)):
        forged = replace(part, facts=part.facts | {"shared": part.facts["shared"] | {key: value}})
        assert verify_part(forged).problems, key


def test_verify_derives_the_radius_by_its_own_code() -> None:
    row = {"first": [0.1, 0.9, 0.2], "gaps": [0.5, 0.0, 0.7], "variances": [0.04, 0.0, 0.01], "rounding": 1e-6,
           "distance": 0.0, "explained": 1.0}  # fmt: skip
    speeds = [[0.0, 2.0, 3.0], [2.0, 0.0, 4.0], [3.0, 4.0, 0.0]]
    shared = {"draws": 4000, "alpha": 0.01, "clamp": 0.5, "interval": "bernstein", "pairwise": speeds}
    log = math.log(2.0 / 0.005)
    off = 14.0 * log / (3.0 * 3999) + 1e-6
    gaps = [g - math.sqrt(2.0 * v * log / 4000) - off for g, v in ((0.5, 0.04), (0.7, 0.01))]
    top, radius = DERIVE["expected_logits"](row, shared)
    assert (top, radius) == (1, pytest.approx(min(gaps[0] / 2.0, gaps[1] / 4.0), rel=1e-12))
    wide = 2.0 * math.sqrt(math.log(1.0 / 0.005) / 8000)
    top, radius = DERIVE["expected_logits"](row, shared | {"interval": "hoeffding"})
    assert radius == pytest.approx(min((0.5 - wide - 1e-6) / 2.0, (0.7 - wide - 1e-6) / 4.0), rel=1e-12)
    few = ({"distance": 2.0}, {"gaps": [math.nan, 0.0, 0.7]}, {"rounding": math.nan}, {"gaps": [0.01, 0.0, 0.7]})
    for broken in few:
        assert DERIVE["expected_logits"](row | broken, shared) == (-1, 0.0)


@pytest.mark.parametrize("interval", ["bernstein", "hoeffding"])
def test_each_rival_has_its_share_of_alpha(interval: str) -> None:
    """Three classes: certificate and `verify` agree, which divide alpha by two."""
    table = np.array([[0.0, 2.0, 3.0], [2.0, 0.0, 4.0], [3.0, 4.0, 0.0]])
    certificate = ExpectedLogits(0.5, n0=1, n=900, alpha=0.02, interval=interval)  # type: ignore[arg-type]
    plan = DrawPlan(1, 900, 0.02, Constants(table), certificate.settings)
    seen = MeanGaps((0.1, 0.9, 0.2), 0.0, 1.0, plan, (0.5, 0.0, 0.7), (0.04, 0.0, 0.01), 1e-6)
    top, radius = DERIVE["expected_logits"](seen.row(), seen.shared())
    assert (certificate.decision(seen), certificate.radius(seen)) == (top, pytest.approx(radius, rel=1e-9))


def test_honest_means_are_not_called_forged_and_raised_ones_are() -> None:
    generator = np.random.default_rng(1)

    def rows(shift: float, count: int = 12) -> list[dict[str, object]]:
        means = (float(generator.normal(0.5, 0.2 / 20)) + shift for _ in range(count))
        return [{"first": [0, 1], "gaps": [mean, 0.0], "variances": [0.04, 0.0]} for mean in means]

    assert sum(bool(list(draw_problems(range(12), rows(0.0), rows(0.0), (400, 400)))) for _ in range(100)) == 0
    assert list(draw_problems(range(12), rows(0.03), rows(0.0), (400, 400)))
    assert list(draw_problems(range(12), [*rows(0.0, 11), *rows(0.1, 1)], rows(0.0), (400, 400)))


def test_what_is_not_known_is_nothing() -> None:
    certificate = ExpectedLogits(0.5, n0=5, n=800)
    seen = certificate.gather(half_space(0.1), batch(1), 0, 1)[0]
    assert certificate.decision(seen) == 1
    for broken in (replace(seen, distance=math.nan), replace(seen, gaps=(math.nan, 0.0)),
                   replace(seen, distance=2.0 * seen.explained)):  # fmt: skip
        assert (certificate.decision(broken), certificate.radius(broken)) == (-1, 0.0)
    assert certificate(half_space(TAU), batch(2, at=BORDER)).prediction.tolist() == [-1, -1]
    with pytest.raises(ValueError, match="greater than 0"):
        ExpectedLogits(0.0)
