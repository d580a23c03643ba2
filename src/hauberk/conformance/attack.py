"""The attack contract, on linear classifiers."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hauberk.attacks import Attack, AttackResult
from hauberk.batch import Batch
from hauberk.classifier import decide, margins
from hauberk.conformance.oracle import LinearOracle
from hauberk.conformance.rules import SHAPES, TILE, check_alike, require, untouched
from hauberk.errors import HauberkError
from hauberk.randomness import Shared
from hauberk.threats import Norm

REACH: dict[Norm, float] = {"l1": 0.3, "l2": 0.15, "linf": 0.05}
SLACK = 1e-4  # relative, for float32 logits near a boundary


def check_attack(attack: Attack, gradient: bool = True) -> None:
    """Every rule of the attack contract, on linear classifiers of several shapes with 2 and 3 classes.

    Args:
        attack: with a budget small enough that the pixel box stays out of reach: L1(0.3), L2(0.15), Linf(0.05) at most.
        gradient: whether it follows gradients, and so must succeed at 1.2 times the true radius of a linear model.

    Raises:
        HauberkError: naming the broken rule.
    """
    norm, eps = attack.threat.norm, attack.threat.eps
    require(0.0 < eps <= REACH[norm], attack, f"the suite needs a budget in (0, {REACH[norm]}]", f"got {eps}")
    for number, shape in enumerate(SHAPES):
        for classes in (2, 3):
            oracle = LinearOracle.random(shape, classes, seed=number)
            batch = oracle.batch(9, seed=number)
            # some images get the label of another class: they are wrong before any attack
            labels = torch.where(batch.ids % 5 == 0, 1 - batch.labels.clamp_max(1), batch.labels)
            batch = Batch(batch.images, labels, batch.ids)
            with untouched(oracle, attack):
                found = attack(oracle, batch, seed=1, tile=TILE)
            _check_points(attack, oracle, batch, found)
            check_alike(attack, attack, oracle, batch)
            _check_budgets(attack, oracle, batch)
        oracle = LinearOracle.random(shape, 2, seed=number)
        early = attack(oracle, oracle.at_distance(eps / 0.98, norm), seed=2, tile=TILE)
        require(not bool(early.success.any()), attack, "nothing is found below the true radius", f"{norm}, {shape}")
        if gradient:
            late = attack(oracle, oracle.at_distance(eps / 1.2, norm), seed=2, tile=TILE)
            require(bool(late.success.all()), attack, "linear models are broken at 1.2 times their radius", f"{shape}")


def _check_budgets(attack: Attack, oracle: LinearOracle, batch: Batch) -> None:
    """Training may give each image a budget of its own: its point is that of the attack under this budget."""

    def points(by: Attack, budget: Tensor | None = None) -> Tensor:
        randomness = Shared(torch.Generator().manual_seed(1), len(batch))
        return by.perturb(oracle, batch.images, batch.labels, randomness, budget)

    small = batch.ids % 2 == 0
    try:
        found = points(attack, torch.where(small, 0.5 * attack.threat.eps, attack.threat.eps))
        half = replace(attack, threat=replace(attack.threat, eps=0.5 * attack.threat.eps))
    except (HauberkError, ValueError):
        return  # it does not train, says that it has one budget, or holds an attack in the same threat
    expected = torch.where(small[:, None, None, None], points(half), points(attack))
    require(torch.allclose(found, expected, atol=1e-5), attack, "each image's point is that of its own budget",
            "ask query.budget, query.start and query.project in the place of the threat's")  # fmt: skip


def _check_points(attack: Attack, oracle: LinearOracle, batch: Batch, found: AttackResult) -> None:
    threat = attack.threat
    for name in ("adversarial", "best_loss_point", "logit_margin_point", "probability_margin_point"):
        points = getattr(found, name)
        inside = bool(((points >= 0) & (points <= 1)).all())
        require(inside, attack, "every returned point lies in the pixel box", name)
        far = float(threat.distance(points, batch.images).max())
        held = far <= threat.eps * (1 + 1e-5) + 1e-6
        require(held, attack, "every returned point lies in the ball", f"{name}: {far}")
    require(torch.equal(found.distance, threat.distance(found.adversarial, batch.images)), attack, "distance is true")
    now = decide(oracle, Batch(found.adversarial, batch.labels, batch.ids), tile=TILE)
    wrong = found.clean_prediction != batch.labels
    require(torch.equal(found.prediction, now), attack, "prediction is the decision at the returned point")
    require(torch.equal(found.success, now != batch.labels), attack, "success is checked at the returned point")
    require(bool((found.distance[wrong] == 0).all()), attack, "an image that is wrong already is returned as it is")
    true = oracle.true_radius(batch.images, threat.norm)
    legal = found.distance >= true * (1 - SLACK) - 1e-6
    require(bool((legal | wrong | ~found.success).all()), attack, "no success is nearer than the true radius")
    with torch.no_grad():
        least = margins(oracle(found.logit_margin_point), batch.labels)
        shares = margins(oracle(found.probability_margin_point).softmax(1), batch.labels)
    pairs = {"logit": (found.logit_margin, least), "probability": (found.probability_margin, shares)}
    for name, (stated, value) in pairs.items():
        close = torch.allclose(stated, value, rtol=1e-4, atol=1e-5)
        require(close, attack, f"the point of smallest {name} margin has the stated margin")
