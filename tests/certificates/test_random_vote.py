r"""The vote over draws: an order statistic bounds the median margin.

The toy is a half-space with Gaussian noise inside, whose margin in a draw is :math:`x_1 - t + \tau\omega`: the median,
and with it the true radius of the vote, is the distance :math:`x_1 - t`.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special, stats
from tests.random_nets import HalfOff, RandomMask, half_space, net
from torch import Tensor, nn

from hauberk.attacks import APGD
from hauberk.audit.certificates import certify_again
from hauberk.audit.draws import draw_problems
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, RandomVote
from hauberk.certificates.random_vote import _down, rank
from hauberk.defences.frozen_ensemble import frozen_draws
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.layers.lipschitz import walk
from hauberk.records import Part, group
from hauberk.threats import L2
from hauberk.verify.derive import DERIVE
from hauberk.verify.facts import _names
from hauberk.verify.proofs import verify_part

AT, BORDER = 0.7, 0.5


def batch(rows: int = 8, at: float = AT) -> Batch:
    return Batch(torch.full((rows, 1, 1, 2), at), torch.ones(rows, dtype=torch.int64), torch.arange(rows) + 30)


def images(rows: int = 12) -> Batch:
    drawn = torch.rand(rows, 1, 2, 4, generator=torch.Generator().manual_seed(7))
    return Batch(drawn, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


@pytest.mark.parametrize(("n", "alpha"), [(5, 0.05), (20, 0.05), (120, 0.001), (37, 0.3)])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_the_rank_is_the_largest_with_a_tail_of_alpha(n: int, alpha: float, share: float) -> None:
    """By the sum of binomial probabilities, and by enumeration of the definition."""
    def tail(k: int) -> float:
        return math.fsum(math.comb(n, i) * share**i * (1.0 - share) ** (n - i) for i in range(n - k + 1, n + 1))

    k = rank(n, alpha, share)
    assert k == max((j for j in range(1, n + 1) if tail(j) <= alpha), default=0)


def test_a_thousand_radii_of_a_known_vote_exceed_the_truth_with_at_most_alpha() -> None:
    alpha, runs = 0.05, 1000
    vote = RandomVote(n0=1, n=30, alpha=alpha)
    found = vote(half_space(0.4), batch(runs), seed=1)
    true = torch.where(found.prediction == 1, AT - BORDER, 0.0)
    failed = int((found.radius > true + 1e-6).sum())
    spent = special.bdtr(rank(30, alpha, 0.5) - 1, 30, 0.5)
    assert failed <= stats.binom.ppf(1 - 1e-4, runs, alpha)
    assert failed >= stats.binom.ppf(1e-4, runs, 0.5 * spent)  # and it is no looser than it needs to be
    assert int((found.radius > 0.0).sum()) > 100


def test_the_radius_is_the_order_statistic_of_the_margins_of_draws() -> None:
    vote = RandomVote(n0=10, n=64, alpha=0.01)
    seen = vote.gather(half_space(0.1), batch(2), 3, 2)[0]
    margins = np.sort(np.asarray(seen.margins))
    assert stats.kstest((margins - (AT - BORDER)) / 0.1, "norm").pvalue > 1e-3
    assert vote.radius(seen) == pytest.approx(margins[rank(64, 0.01, 0.5) - 1], rel=1e-9)
    assert vote.radius(seen) <= margins[rank(64, 0.01, 0.5) - 1]
    assert len({f"{m:.7g}" for m in seen.margins}) == len({repr(m) for m in seen.margins})  # seven digits on record
    order = np.asarray(seen.margins)
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 4 / np.sqrt(len(order))
    other = vote.gather(half_space(0.1), batch(2), 3, 2)[1]
    assert not set(other.margins) & set(seen.margins)  # another image has other noise


def test_what_chooses_and_what_bounds_are_other_draws() -> None:
    vote = RandomVote()
    keys = [vote._key(0, 3, batch(2), use) for use in ("choose", "bound")]
    assert keys[0].purpose != keys[1].purpose
    assert replace(keys[0], purpose="") == replace(keys[1], purpose="")


def test_what_the_model_rounds_in_its_own_precision_comes_off_the_margins() -> None:
    """Behind logits of 2^17 float32 has steps of 1/64, which the copy in float64 has not."""
    vote, far = RandomVote(n0=30, n=40, alpha=0.01), half_space(0.1)
    near = vote.gather(half_space(0.1), batch(1), 0, 1)[0]
    with torch.no_grad():
        far[-1].bias += 2.0**17
    seen = vote.gather(far, batch(1), 0, 1)[0]
    assert seen.distance > 1e-3
    assert seen.sound
    moved = np.asarray(near.margins) - np.asarray(seen.margins)
    assert float(moved.min()) > 0.9 * min(0.5 * seen.explained, 4.0 * seen.distance)


def test_a_margin_on_record_is_rounded_down() -> None:
    for margin in (0.123456789, -0.123456781, 3e-9 + 1e-20, 12345678.9, 1.0):
        assert margin - 1e-6 * abs(margin) <= _down(margin) <= margin


def test_the_margin_at_a_radius_agrees_with_the_radius_at_a_margin() -> None:
    vote = RandomVote(n0=10, n=100, alpha=0.01)
    seen = vote.gather(half_space(0.1), batch(1), 0, 1)[0]
    for margin in (0.0, 0.2, 0.5, 0.8):
        radius = vote.radius(seen, margin)
        assert vote.margin(seen, radius * (1 - 1e-9)) >= margin - 1e-12
        assert vote.margin(seen, radius + 1e-6) <= margin + 2.0 / 100 + 0.2
    radii = [vote.radius(seen, m) for m in (0.0, 0.3, 0.6)]
    assert radii == sorted(radii, reverse=True)


def test_no_attack_turns_the_vote_inside_the_radius() -> None:
    """The vote of 401 fresh draws at the points that an attack on the mean of draws finds."""
    model, every = net(), images(20)
    found = RandomVote(n=100, alpha=0.01)(model, every)
    sure = found.radius > 0.02
    assert int(sure.sum()) >= 3
    for row in torch.nonzero(sure).flatten().tolist()[:3]:
        one = Batch(every.images[row : row + 1], found.prediction[row : row + 1], every.ids[row : row + 1])
        radius = float(found.radius[row])
        near = APGD(L2(0.99 * radius), steps=20, eot=8)(model, one)
        ensemble = frozen_draws(model, 401, seed=9)
        votes = torch.stack([ensemble.head(body(near.adversarial)) for body in ensemble.mean.bodies()]).argmax(2)
        assert int(votes.mode(0).values[0]) == int(found.prediction[row])


def test_a_draw_that_is_always_the_same_gives_the_deterministic_radius() -> None:
    """Without any noise the vote's radius is the frozen ensemble's, but for rounding."""
    model = net(noise=0.0001)
    quiet = nn.Sequential(*(m for m in model if not isinstance(m, RandomMask))).eval()
    found = RandomVote(n=50, n0=5, alpha=0.01)(quiet, images())
    fixed = LipschitzCertificate()(frozen_draws(quiet, 20), images())
    assert torch.equal(found.prediction, fixed.prediction)
    torch.testing.assert_close(found.radius, fixed.radius, atol=1e-3, rtol=1e-2)


def test_rows_do_not_depend_on_batch_and_tile() -> None:
    vote = RandomVote(n0=5, n=40, alpha=0.01)
    whole = vote(net(), images(), seed=2, tile=12)
    for rows in ([11], [3, 0, 7]):
        part = vote(net(), images().select(rows), seed=2, tile=5)
        torch.testing.assert_close(part.radius, whole.radius[rows], rtol=1e-5, atol=1e-7)
        assert torch.equal(part.prediction, whole.prediction[rows])
    torch.manual_seed(5)
    state = torch.get_rng_state()
    vote(net(), images(), seed=2)
    assert torch.equal(torch.get_rng_state(), state)


def records(folder: Path, vote: RandomVote, model: nn.Module) -> Part:
    setting = Setting("toy", "test", tuple("abc"), tile=6)
    (part,) = group(certificate_records(model, images(), vote, setting, Work(folder)))
    return part


def test_records_verify_and_fresh_draws_fit_them(tmp_path: Path) -> None:
    vote, model = RandomVote(n0=9, n=60, alpha=0.01), net()
    part = records(tmp_path, vote, model)
    assert (part.facts["proof"], part.facts["failure_probability"]) == ("probabilistic", 0.01)
    assert verify_part(part).problems == ()
    name = vote.predictor(model)
    assert name.startswith("random_vote(Sequential[")
    assert part.unit["predictor"] in _names(part, name[len("random_vote(") : -1])
    target, generator = type("Target", (), {"model": model})(), np.random.default_rng(0)
    told: list[str] = []
    assert list(certify_again(part, target, images(), generator, told)) == []  # type: ignore[arg-type]
    assert len(told) == 1
    other = type("Target", (), {"model": net(noise=0.6)})()
    assert list(certify_again(part, other, images(), generator, []))  # type: ignore[arg-type]
    forged = replace(part, facts=part.facts | {"shared": part.facts["shared"] | {"alpha": 0.2}})
    assert verify_part(forged).problems


def test_verify_derives_the_radius_from_margins_by_its_own_code() -> None:
    generator = np.random.default_rng(0)
    for n, alpha in ((10, 0.05), (37, 0.3), (200, 0.001)):
        margins = generator.normal(0.3, 0.2, n)
        row = {"first": [0.1, 0.9], "margins": margins.tolist(), "distance": 0.0, "explained": 1.0}
        shared = {"draws": n, "alpha": alpha}
        k = max(j for j in range(1, n + 1) if stats.binom.cdf(j - 1, n, 0.5) <= alpha)
        expected = float(np.sort(margins)[k - 1])
        assert DERIVE["random_vote"](row, shared) == ((1, expected) if expected > 0 else (-1, 0.0))
        assert DERIVE["random_vote"](row | {"margins": margins.tolist()[:-1]}, shared) == (-1, 0.0)
        assert DERIVE["random_vote"](row | {"distance": 2.0}, shared) == (-1, 0.0)
        assert DERIVE["random_vote"](row, shared | {"alpha": 0.5 ** (n + 1)}) == (-1, 0.0)


def test_honest_draws_are_not_called_forged_and_raised_ones_are() -> None:
    generator = np.random.default_rng(1)

    def rows(shift: float, count: int = 12) -> list[dict[str, object]]:
        return [{"first": [0, 1], "margins": (generator.normal(0.3, 0.2, 200) + shift).tolist()} for _ in range(count)]

    assert sum(bool(list(draw_problems(range(12), rows(0.0), rows(0.0), (200, 200)))) for _ in range(60)) == 0
    assert list(draw_problems(range(12), rows(0.05), rows(0.0), (200, 200)))  # a little on every row
    one = [*rows(0.0, 11), *rows(0.25, 1)]
    assert list(draw_problems(range(12), one, rows(0.0), (200, 200)))
    still = [{"first": [0, 1], "margins": [0.25] * 200}]
    near = [{"first": [0, 1], "margins": [0.2499999] * 200}]
    assert list(draw_problems([0], still, near, (200, 200))) == []  # another machine's last digit


def test_what_is_not_known_is_nothing() -> None:
    vote = RandomVote(n0=5, n=40, alpha=0.01)
    seen = vote.gather(half_space(0.1), batch(1), 0, 1)[0]
    assert vote.decision(seen) == 1
    for broken in (replace(seen, distance=math.nan), replace(seen, distance=2.0 * seen.explained),
                   replace(seen, margins=seen.margins[:-1])):  # fmt: skip
        assert (vote.decision(broken), vote.radius(broken)) == (-1, 0.0)
    half = RandomVote(n0=5, n=40, alpha=1e-5)(half_space(0.4), batch(4, at=BORDER))
    assert half.prediction.tolist() == [-1] * 4
    with pytest.raises(ValueError, match="take n = 10 or more"):
        RandomVote(n=9, alpha=0.001)
    RandomVote(n=10, alpha=0.001)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).eval()
    with pytest.raises(HauberkError, match="no random parts whose draws"):
        vote(plain, images())
    coin = nn.Sequential(nn.Flatten(), HalfOff(), Shift(), nn.Linear(8, 3)).eval()
    with pytest.raises(HauberkError, match="no Lipschitz bound"):
        vote(coin, images())


class Shift(nn.Module):
    """A layer of no known bound."""

    def forward(self, features: Tensor) -> Tensor:
        return features * features.abs()


def test_the_walk_of_a_random_model_holds_for_every_draw() -> None:
    model = net()
    bounds = walk(model, (1, 2, 4)).pairwise()
    for number in range(5):
        one = frozen_draws(model, 1, seed=number)
        assert float((walk(one, (1, 2, 4)).pairwise() - bounds).max()) <= 1e-9
