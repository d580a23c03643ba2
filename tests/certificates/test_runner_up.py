"""Two bounds, of the chosen class and of the runner-up: the lecture's radius with alpha split as it must be."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hauberk.certificates import ABSTAIN, MixedCertificate, SmoothingCertificate
from hauberk.certificates.evidence import OfMix, VoteCounts, on_record
from hauberk.noises import Gaussian, GridGaussian, Laplace, Noise, Uniform
from hauberk.verify.derive import DERIVE

LECTURE = (4600, 1500, 1500, 1200, 1200)


def certificate(**settings: object) -> SmoothingCertificate:
    given = {"noise": Gaussian(0.5), "n0": 100, "n": 10_000, "alpha": 0.001, "rival": "runner_up"} | settings
    return SmoothingCertificate(**given)  # type: ignore[arg-type]


def seen(votes: SmoothingCertificate, counts: tuple[int, ...], chosen: int = 0) -> VoteCounts:
    first = tuple(votes.n0 if k == chosen else 0 for k in range(len(counts)))
    return VoteCounts(first, counts, votes.plan)


def test_the_lectures_example() -> None:
    """One bound abstains at 46 % of the votes; two give 0.211, each at half of alpha."""
    one = certificate(rival="rest")
    assert one.decision(seen(one, LECTURE)) == ABSTAIN
    two = certificate()
    assert two.decision(seen(two, LECTURE)) == 0
    assert two.radius(seen(two, LECTURE)) == pytest.approx(0.211, abs=5e-4)
    half = 0.0005
    lower, upper = stats.beta.ppf(half, 4600, 5401), stats.beta.isf(half, 1501, 8500)
    assert two.radius(seen(two, LECTURE)) == pytest.approx(0.25 * (stats.norm.ppf(lower) - stats.norm.ppf(upper)))
    assert two.decision(seen(two, LECTURE, chosen=1)) == ABSTAIN  # the class was chosen on other votes


def test_two_classes_lose_only_by_the_split() -> None:
    counts = (9000, 1000)
    one, two = certificate(rival="rest", alpha=0.0005), certificate()
    assert two.radius(seen(two, counts)) == pytest.approx(one.radius(seen(one, counts)), rel=1e-9)
    whole = certificate(rival="rest")
    assert two.radius(seen(two, counts)) < whole.radius(seen(whole, counts))


@pytest.mark.parametrize("rule", ["fixed", "anytime"])
@pytest.mark.parametrize(
    "p", [(0.5, 0.5, 0.0), (0.4, 0.3, 0.3), (0.34, 0.33, 0.33), (0.6, 0.2, 0.2), (0.8, 0.15, 0.05), (0.2, 0.4, 0.4)]
)
def test_it_fails_with_at_most_alpha_by_enumeration(p: tuple[float, float, float], rule: str) -> None:
    """Over all counts of 18 votes for three classes: a certified radius exceeds the true one seldom enough."""
    n, alpha = 18, 0.1
    votes = certificate(n=n, alpha=alpha, rule=rule)
    true = 0.25 * (stats.norm.ppf(p[0]) - stats.norm.ppf(max(p[1:])))
    failing = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if a + b <= n and votes.radius(seen(votes, (a, b, n - a - b))) > max(true, 0.0):
            failing += float(stats.multinomial.pmf((a, b, n - a - b), n, p))
    assert failing <= alpha


@pytest.mark.parametrize("rule", ["fixed", "anytime"])
@pytest.mark.parametrize("rival", ["rest", "runner_up"])
@pytest.mark.parametrize("noise", [Gaussian(0.5), GridGaussian(0.5), Laplace(0.3), Uniform(0.4)], ids=str)
def test_verify_derives_the_same_by_other_means(noise: Noise, rival: str, rule: str) -> None:
    votes = certificate(noise=noise, n=500, rival=rival, rule=rule)
    mixes = [MixedCertificate(votes, bound) for bound in ("exact", "theorem_3_5", "theorem_a1")]
    draws = np.random.default_rng(0)
    certified = 0
    for alpha in (0.55, 0.8, 1.0):
        for _ in range(12):
            counts = tuple(map(int, draws.multinomial(500 - int(draws.integers(3)), draws.dirichlet((4, 1, 0.3, 0.3)))))
            evidence = seen(votes, counts)
            (row,), shared = on_record([evidence])
            top, radius = DERIVE["smoothing"](row, shared)
            assert top == votes.decision(evidence)
            assert votes.radius(evidence) == pytest.approx(radius, rel=1e-8, abs=1e-9)
            for mix in mixes:
                whole = OfMix(evidence, alpha, None, "smoothing")
                (row,), shared = on_record([whole])
                top, radius = DERIVE["mixed_margin"](row, shared | {"bound": mix.bound})
                assert top == mix.decision(whole)
                assert mix.radius(whole) == pytest.approx(radius, rel=1e-8, abs=1e-9)
                certified += mix.radius(whole) > 0
    assert certified > 20


def test_of_a_mix_the_exact_bound_is_never_smaller_than_the_theorem() -> None:
    votes = certificate()
    exact, printed = (MixedCertificate(votes, bound) for bound in ("exact", "theorem_a1"))
    for alpha in (0.6, 0.79, 0.95, 1.0):
        for counts in (LECTURE, (9000, 400, 300, 200, 100), (9990, 10, 0, 0, 0)):
            whole = OfMix(seen(votes, counts), alpha, None, "smoothing")
            assert exact.radius(whole) >= printed.radius(whole) * (1 - 1e-9)
            if alpha == 1.0:
                assert exact.radius(whole) == pytest.approx(printed.radius(whole), rel=1e-9)
    loose = replace(votes, rival="rest")
    assert MixedCertificate(loose).decision(OfMix(seen(loose, LECTURE), 1.0, None, "smoothing")) == ABSTAIN
    assert exact.decision(OfMix(seen(votes, LECTURE), 1.0, None, "smoothing")) == 0
