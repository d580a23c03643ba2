"""Settings that cannot mean anything are refused with what was perhaps meant, before anything is spent."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import hauberk
from hauberk import recipes, registry
from hauberk.attacks import APGD, FGSM, PGD, AutoAttack
from hauberk.certificates import MixedCertificate, SmoothingCertificate
from hauberk.data import load
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.evaluation.sense import check_budget, check_sense, check_votes, needed_votes
from hauberk.noises import Gaussian
from hauberk.recipes import Evaluation
from hauberk.statistics import clopper_pearson_lower, two_sided_binomial_p
from hauberk.subjects import Subject
from hauberk.threats import L1, L2, Linf, epsilon

SHAPE = (1, 8, 8)
PGD_8 = {"name": "pgd", "threat": "linf:8"}


@pytest.mark.parametrize(
    ("threat", "hint"),
    [
        (Linf(8), "did you mean linf:8/255?"), (Linf(1), "did you mean linf:1/255?"), (Linf(2.0), "linf:2/255"),
        (Linf(255), "choose a smaller budget"), (Linf(16), "linf:16/255"), (L2(8), "l2:8/255"), (L2(128), "l2:128/255"),
        (L2(1e9), "choose a smaller budget"), (L1(64), "l1:64/255"), (L1(1000), "l1:1000/255"),
    ],
)  # fmt: skip
def test_a_budget_that_covers_the_box_is_refused(threat, hint) -> None:
    with pytest.raises(HauberkError, match="turns every image of 1x8x8 values into any other") as caught:
        check_budget(threat, SHAPE)
    assert hint in caught.value.hint


@pytest.mark.parametrize("threat", [Linf(0.999), Linf(8 / 255), Linf(0), L2(7.99), L2(0.5), L1(63.9), L1(12)])
def test_any_smaller_budget_is_a_question(threat) -> None:
    check_budget(threat, SHAPE)


@pytest.mark.parametrize("threat", [L2(1e9), L1(1e9)])
def test_without_a_shape_only_linf_is_known(threat) -> None:
    check_budget(threat)
    with pytest.raises(HauberkError, match="turns every image into any other"):
        check_budget(Linf(1.0))


@pytest.mark.parametrize("alpha", [0.5, 0.3, 0.05, 0.01, 0.001, 1e-4, 2**-10, 1e-9, 1e-300])
def test_the_fewest_votes_are_those_that_can_decide(alpha) -> None:
    n = needed_votes(SmoothingCertificate(Gaussian(0.5), alpha=alpha))
    assert clopper_pearson_lower(n, n, alpha) > 0.5
    assert n == 1 or clopper_pearson_lower(n - 1, n - 1, alpha) <= 0.5 + 1e-12
    assert alpha ** (1 / n) > 0.5


@pytest.mark.parametrize(("more", "needed"), [({"rival": "runner_up"}, 11), ({"rule": "anytime"}, 13)])
def test_other_rules_need_other_numbers_of_votes(more, needed) -> None:
    votes = SmoothingCertificate(Gaussian(0.5), alpha=0.001, **more)
    assert needed_votes(votes) == needed
    with pytest.raises(HauberkError, match=f"{needed} votes are needed"):
        check_sense(SmoothingCertificate(Gaussian(0.5), n=needed - 1, alpha=0.001, **more))


@pytest.mark.parametrize(("looks", "needed"), [((), 12), ((128, 100_000), 11), ((100_000,), 10)])
def test_each_look_has_its_share_of_alpha(looks, needed) -> None:
    assert needed_votes(SmoothingCertificate(Gaussian(0.5), alpha=0.001, rule="looks", looks=looks)) == needed


@pytest.mark.parametrize(
    ("n", "alpha", "needed"), [(9, 0.001, 10), (1, 0.001, 10), (3, 0.05, 5), (6, 0.01, 7), (1, 0.5, 2)]
)
@pytest.mark.parametrize("wrap", [lambda c: c, MixedCertificate, lambda c: MixedCertificate(c, "theorem_3_5")])
def test_votes_that_can_never_decide_are_refused(n, alpha, needed, wrap) -> None:
    with pytest.raises(HauberkError, match=f"{n} votes always abstain .* {needed} votes are needed"):
        check_sense(wrap(SmoothingCertificate(Gaussian(0.5), n=n, alpha=alpha)))
    check_sense(wrap(SmoothingCertificate(Gaussian(0.5), n=needed, alpha=alpha)))


@pytest.mark.parametrize(
    ("votes", "alpha", "needed"), [(10, 0.001, 11), (5, 0.05, 6), (1, 0.9, 2), (3, 0.2, 4), (7, 0.01, 8), (1, 0.5, 2)]
)
def test_a_smoothed_classifier_that_always_abstains_is_refused(votes, alpha, needed) -> None:
    def vote(count: int) -> nn.Module:
        return nn.Sequential(SmoothedClassifier(nn.Flatten(), Gaussian(0.5), 2, count, alpha))

    with pytest.raises(HauberkError, match=f"{needed} votes are needed"):
        check_votes(vote(votes))
    check_votes(vote(needed))
    assert two_sided_binomial_p(needed, 0) <= alpha < two_sided_binomial_p(votes, 0)


METHODS = {
    "attack": FGSM(Linf(8)),
    "suite": AutoAttack(Linf(8)),
    "custom suite": AutoAttack(Linf(8), version="custom", attacks=(APGD(Linf(8)),)),
    "objective": registry.build({"name": "pgd_adversarial", "attack": PGD_8}, "objective"),
    "trades": registry.build({"name": "trades", "attack": PGD_8 | {"loss": "kl"}}, "objective"),
    "estimate": registry.build({"name": "local_lipschitz", "threat": "linf:8"}, "certificate"),
    "threat": Linf(8),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_budget_is_found_wherever_it_is(name) -> None:
    with pytest.raises(HauberkError, match="did you mean linf:8/255"):
        check_sense(METHODS[name])


@pytest.mark.parametrize(
    "change",
    [
        {"objective": {"name": "pgd_adversarial", "attack": PGD_8}},
        {"evaluation": {"attacks": [{"name": "fgsm", "threat": "linf:8"}]}},
        {"evaluation": {"diagnoses": [PGD_8]}},
        {"evaluation": {"certificates": [{"name": "smoothing", "sigma": 0.5, "n": 9}]}},
        {"training": {"validation_attack": PGD_8}},
    ],
)
def test_a_recipe_is_refused_before_it_is_trained(change) -> None:
    plain = {"name": "x", "data": {"name": "digits"}, "model": {"name": "small_cnn"}, "objective": {"name": "standard"}}
    recipes.parse(plain)
    with pytest.raises(HauberkError, match=r"did you mean linf:8/255|10 votes are needed"):
        recipes.parse(plain | change)


@pytest.fixture
def target() -> Subject:
    torch.manual_seed(0)
    return Subject(None, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), load("digits"))  # type: ignore[arg-type]


def test_noise_that_hides_every_image_is_refused() -> None:
    check_sense(SmoothingCertificate(Gaussian(2.0)))
    for sigma in (128.0, 1e300):
        with pytest.raises(HauberkError, match="hides the image completely"):
            check_sense([SmoothingCertificate(Gaussian(sigma))])


def test_every_verb_refuses_before_it_starts(target) -> None:
    plan = Evaluation(images=4)
    for act in (
        lambda: hauberk.attack(target, [PGD(L2(8))], plan),
        lambda: hauberk.diagnose(target, PGD(L2(8)), plan),
        lambda: hauberk.check(target, L2(8)),
        lambda: hauberk.certify(target, [SmoothingCertificate(Gaussian(0.5), n=9)], plan),
    ):
        with pytest.raises(HauberkError, match=r"turns every image|10 votes are needed"):
            act()
    target.model.append(SmoothedClassifier(nn.Identity(), Gaussian(0.5), 2, 10, 0.001))
    with pytest.raises(HauberkError, match="11 votes are needed"):
        hauberk.attack(target, [PGD(L2(0.5))], plan)


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (36 / 255, "36/255"), (0.2, "0.2"), (0.05, "0.05"), (1 / 3, "85/255"), (0.1234567, "0.1235"),
     (2.0, "2"), (1.0, "1"), (254 / 255, "254/255"), (8, "8"), (1e-9, "1e-09"), (0.0, "0")],
)  # fmt: skip
def test_budgets_are_written_in_steps_of_a_pixel_only_below_one(eps, text) -> None:
    assert epsilon(eps) == text
    assert math.isclose(eval(text), eps, rel_tol=1e-2)


def test_shipped_recipes_make_sense() -> None:
    read = [recipes.read(Path(path)) for path in recipes.available()]
    assert len({recipe.name for recipe in read}) == len(read) >= 20
