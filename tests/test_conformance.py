"""The suites pass what is right and name the broken rule of what is wrong; the oracle itself is checked by hand."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk import conformance
from hauberk.attacks import FGSM, PGD, Attack, AttackResult, Query
from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN, Certificates, LipschitzCertificate
from hauberk.classifier import Traits
from hauberk.conformance import (
    LinearOracle,
    check_attack,
    check_certificate,
    check_classifier,
    check_lipschitz_layer,
    check_objective,
)
from hauberk.errors import HauberkError
from hauberk.layers import AOLConv2d, AOLLinear, Bound, MaxMin, PadToMultiple, UnitRowLinear
from hauberk.noises import Gaussian
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.gaussian_augmentation import GaussianAugmentation
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.objectives.trades import TRADES
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, L1, L2, Linf

# --- the oracle -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "dual"), [("l1", np.inf), ("l2", 2), ("linf", 1)])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_true_radius_is_the_distance_to_the_nearest_boundary(norm: str, dual: float, classes: int) -> None:
    oracle = LinearOracle.random((2, 3, 2), classes, seed=classes)
    batch = oracle.batch(30)
    weight, bias = (p.detach().double().numpy() for p in oracle.layers.parameters())
    found = oracle.true_radius(batch.images, norm)
    for i, image in enumerate(batch.images.double().flatten(1).numpy()):
        z = weight @ image + bias
        y = int(z.argmax())
        assert y == int(batch.labels[i])
        distances = [(z[y] - z[j]) / np.linalg.norm(weight[y] - weight[j], dual) for j in range(classes) if j != y]
        assert float(found[i]) == pytest.approx(min(distances), rel=1e-9)


@pytest.mark.parametrize("kind", [L1, L2, Linf])
def test_the_nearest_boundary_is_reached_there_and_not_before(kind: type) -> None:
    """Along the steepest direction the decision changes just beyond the true radius; the box is out of reach."""
    oracle = LinearOracle.random((1, 3, 4), 2, seed=1).double()
    batch = oracle.batch(20)
    images = batch.images.double()
    threat = kind(1.0)
    true = oracle.true_radius(images, threat.norm)
    w = oracle.layers[1].weight.detach().diff(dim=0).reshape(1, 1, 3, 4)
    step = threat.steepest_step(w * (1.0 - 2.0 * batch.labels).reshape(-1, 1, 1, 1))
    for factor, same in ((0.999, True), (1.001, False)):
        moved = images + (factor * true).reshape(-1, 1, 1, 1) * step
        assert bool(((moved >= 0) & (moved <= 1)).all())
        assert bool(((oracle(moved).argmax(1) == batch.labels) == same).all())


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_images_at_a_chosen_distance(norm: str) -> None:
    oracle = LinearOracle.random((1, 3, 5), 2, seed=2)
    batch = oracle.at_distance(0.04, norm, rows=12)
    found = oracle.true_radius(batch.images, norm)
    torch.testing.assert_close(found, torch.full((12,), 0.04).double(), rtol=1e-3, atol=0)
    assert torch.equal(oracle(batch.images).argmax(1), batch.labels)
    assert batch.labels.tolist() == [0, 1] * 6


def test_a_tie_has_radius_zero_and_both_views_agree() -> None:
    oracle = LinearOracle(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.zeros(3), (1, 1, 2))
    assert oracle.true_radius(torch.tensor([[[[0.9, 0.1]]]]), "l2").tolist() == [0.0]
    images = oracle.batch(6).images
    torch.testing.assert_close(oracle(images), oracle.layers(images))
    with pytest.raises(HauberkError, match="expected weights"):
        LinearOracle(torch.zeros(2, 3), torch.zeros(2), (1, 2, 2))


# --- attacks that break a rule --------------------------------------------------------------------------------


@dataclass(frozen=True, config=CONFIG)
class Idle(Attack):
    def search(self, query: Query, randomness: Randomness) -> Tensor:
        return query.images


@dataclass(frozen=True, config=CONFIG)
class GlobalRandom(Attack):
    def search(self, query: Query, randomness: Randomness) -> Tensor:
        points = self.threat.project(query.images + 0.01 * torch.randn_like(query.images), query.images)
        query.gradient(points)
        return points


@dataclass(frozen=True, config=CONFIG)
class Neighbourly(Attack):
    """Moves every image by the first one's gradient."""

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        _, gradient = query.gradient(query.images)
        points = self.threat.project(query.images + self.threat.eps * gradient[:1].sign(), query.images)
        query.value(points)
        return points


@dataclass(frozen=True, config=CONFIG)
class Trainer(Attack):
    def search(self, query: Query, randomness: Randomness) -> Tensor:
        with torch.no_grad():
            for p in query.model.parameters():
                p.add_(1e-3)
        return query.images


@dataclass(frozen=True, config=CONFIG)
class Boaster(FGSM):
    """Overrides what must not be overridden and claims success everywhere."""

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = 64) -> AttackResult:
        found = super().__call__(model, batch, seed, tile)
        return AttackResult(**{**vars(found), "success": torch.ones_like(found.success)})


@dataclass(frozen=True, config=CONFIG)
class Far(FGSM):
    """Returns points outside the ball."""

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = 64) -> AttackResult:
        found = super().__call__(model, batch, seed, tile)
        points = (batch.images + 3.0 * (found.adversarial - batch.images)).clamp(0, 1)
        wrong = found.clean_prediction != batch.labels
        points = torch.where(wrong[:, None, None, None], batch.images, points)
        prediction = model(points).argmax(1)
        return AttackResult(**{
            **vars(found), "adversarial": points, "prediction": prediction, "success": prediction != batch.labels,
            "distance": self.threat.distance(points, batch.images),
        })  # fmt: skip


@dataclass(frozen=True, config=CONFIG)
class Sorted(FGSM):
    """Rows come back in another order of margins."""

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = 64) -> AttackResult:
        found = super().__call__(model, batch, seed, tile)
        return AttackResult(**{**vars(found), "logit_margin": found.logit_margin.roll(1)})


@dataclass(frozen=True, config=CONFIG)
class OneBudget(FGSM):
    """Walks in the threat's ball, also where the query has other budgets."""

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        _, gradient = query.gradient(query.images)
        points = self.threat.project(query.images + 0.5 * self.threat.eps * gradient.sign(), query.images)
        if query.track:
            query.value(points)
        return points


@pytest.mark.parametrize(
    ("attack", "rule"),
    [
        (Idle(Linf(0.03)), "1.2 times"),
        (GlobalRandom(Linf(0.03)), "global random states"),
        (Neighbourly(Linf(0.03)), "order of images"),
        (Trainer(Linf(0.03)), "weights and buffers"),
        (Boaster(Linf(0.03)), "success is checked"),
        (Far(Linf(0.03)), "in the ball"),
        (Sorted(Linf(0.03)), "stated margin"),
        (OneBudget(Linf(0.03)), "own budget"),
        (FGSM(Linf(0.3)), "needs a budget"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_broken_attack_is_named(attack: Attack, rule: str) -> None:
    with pytest.raises(HauberkError) as caught:
        check_attack(attack)
    assert rule in caught.value.message
    assert type(attack).__name__ in caught.value.message


def test_a_good_attack_passes_and_one_without_gradients_may_find_nothing() -> None:
    assert check_attack(FGSM(L2(0.1))) is None
    check_attack(Idle(L2(0.1)), gradient=False)


# --- certificates that break a rule ---------------------------------------------------------------------------


class Wrong(LipschitzCertificate):
    """A certificate whose answers are changed by ``change``; its class is looked up as that of its parent."""

    change: Any = staticmethod(lambda found, batch: found)

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = 64) -> Certificates:
        found = super().__call__(model, batch, seed, tile)
        return Certificates(**{**vars(found), **type(self).change(found, batch)})


def changed(change: Callable[[Certificates, Batch], dict[str, Any]]) -> LipschitzCertificate:
    return type("Wrong", (Wrong,), {"change": staticmethod(change)})()


class Careless(LipschitzCertificate):
    """Certifies a model in train mode."""

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = 64) -> Certificates:
        return super().__call__(model.eval(), batch, seed, tile)


class Credulous(LipschitzCertificate):
    """Gives ties and NaN a radius."""

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = 64) -> Certificates:
        found = super().__call__(model, batch, seed, tile)
        return Certificates(**{**vars(found), "radius": found.radius.clamp_min(1e-9)})


@pytest.mark.parametrize(
    ("certificate", "rule"),
    [
        (changed(lambda found, batch: {"radius": found.radius * (1 + 1e-5)}), "no radius exceeds"),
        (changed(lambda found, batch: {"radius": found.radius.float()}), "float64"),
        (changed(lambda found, batch: {"radius": found.radius * 0}), "something is certified"),
        (changed(lambda found, batch: {"prediction": torch.full_like(found.prediction, ABSTAIN)}), "abstains"),
        (changed(lambda found, batch: {"kind": "certain"}), "kind is"),
        (changed(lambda found, batch: {"failure_probability": 0.1}), "failure probability"),
        (changed(lambda found, batch: {"kind": "probabilistic"}), "failure probability"),
        (
            changed(lambda found, batch: {"radius": torch.where(batch.labels == found.prediction, found.radius, 0.0)}),
            "labels are not read",
        ),
        (changed(lambda found, batch: {"radius": found.radius / len(batch)}), "size of the batch"),
        (Careless(), "train mode"),
        (Credulous(), "radius 0 or an error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_certificate_is_named(certificate: LipschitzCertificate, rule: str) -> None:
    with pytest.raises(HauberkError) as caught:
        check_certificate(certificate, verified=False)
    assert rule in caught.value.message


def test_evidence_that_does_not_lead_to_the_radius_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: LipschitzCertificate, seen: Any, margin: float = 0.0) -> float:
        return 0.5 * original(self, seen, margin)

    original = LipschitzCertificate.radius
    monkeypatch.setattr(LipschitzCertificate, "radius", half)
    with pytest.raises(HauberkError, match=r"hauberk\.verify derives"):
        check_certificate(LipschitzCertificate())


class Rounded(nn.Module):
    """A step without a gradient, and what stands in for it."""

    traits = Traits(gradient="none")

    def __init__(self, surrogate: nn.Module | None) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, images: Tensor) -> Tensor:
        return images.mul(8).round().div(8)


class Detached(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.detach()


def test_a_blocked_gradient_is_declared_and_its_surrogate_passes_one_on() -> None:
    def net(step: nn.Module) -> nn.Module:
        return nn.Sequential(step, nn.Flatten(), nn.Linear(4, 3)).eval()

    for surrogate in (None, nn.Identity()):
        check_classifier(net(Rounded(surrogate)), (1, 2, 2))
    with pytest.raises(HauberkError, match="surrogate passes gradients on"):
        check_classifier(net(Rounded(Detached())), (1, 2, 2))
    silent = Rounded(None)
    silent.traits = Traits()
    with pytest.raises(HauberkError, match="or traits say 'none'"):
        check_classifier(net(silent), (1, 2, 2))


# --- layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (AOLConv2d(3, 4, 3, padding=1), (3, 5, 4)),
        (AOLConv2d(2, 2, 3, padding="same", padding_mode="circular"), (2, 5, 3)),
        (AOLLinear(6, 4), (6,)),
        (UnitRowLinear(6, 4), (6,)),
        (MaxMin(), (4, 3, 5)),
        (PadToMultiple(2), (2, 3, 5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_our_layers_pass(layer: nn.Module, shape: tuple[int, ...]) -> None:
    check_lipschitz_layer(layer, shape)


class Stretch(nn.Module):
    def __init__(self, factor: float, claim: float) -> None:
        super().__init__()
        self.factor, self.claim = nn.Parameter(torch.tensor(factor)), claim

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(self.claim, "hope", False)


class OnlyL2(nn.Module):
    """A rotation, which keeps lengths in L2 alone, with a claim about every norm."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.flatten(1).chunk(2, 1)
        return torch.cat([left + right, left - right], 1) / math.sqrt(2.0)

    def lipschitz_bound(self, input_shape: tuple[int, ...], norm: str = "l2") -> Bound:
        return Bound(1.0, "hope", False)


class Saturated(nn.Module):
    """Flat near zero, steep far away."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.abs() < 80.0, 0.1 * x, 3.0 * x)

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(1.0, "hope", False)


class Gated(nn.Module):
    """A branch that is off at the start, and forgotten by the bound."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gain * x.roll(1, 1)

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(1.0, "hope", False)


class Divided(nn.Module):
    """Division by a buffer that starts at one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("deviation", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x / self.deviation

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(1.0, "hope", False)


class Sloppy(nn.Module):
    """Another function in single precision."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.dtype == torch.float64 else 5.0 * x

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(1.0, "hope", False)


class Exported(nn.Module):
    """Another function once it is exported."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def export(self) -> nn.Module:
        return nn.LeakyReLU(-5.0)

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(1.0, "hope", False)


class Centre(nn.Module):
    """Subtracts the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(1.0, "hope", False)


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        (Stretch(1.001, 1.0), "faster than the bound"),
        (Stretch(0.9, 1.0), "weights times 3"),
        (OnlyL2(), "in l1"),
        (Saturated(), "faster than the bound"),
        (Gated(), "weights plus noise"),
        (Divided(), "weights times 1/3"),
        (Sloppy(), "single precision"),
        (Exported(), "what it exports"),
        (Centre(), "rows of a batch"),
        (nn.ReLU(), "has a method"),
    ],
    ids=["stretch", "stale", "norm", "far", "gate", "buffer", "single", "export", "batch", "none"],
)
def test_a_layer_that_promises_too_much_is_named(layer: nn.Module, rule: str) -> None:
    with pytest.raises(HauberkError) as caught:
        check_lipschitz_layer(layer, (2, 3, 3))
    assert rule in caught.value.message


# --- objectives -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective",
    [
        Standard(label_smoothing=0.1),
        GaussianAugmentation(Gaussian(0.1)),
        PGDAdversarial(PGD(Linf(0.03), steps=2), clean_fraction=0.5),
        TRADES(PGD(L2(0.1), "kl", steps=2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_our_objectives_pass(objective: Objective) -> None:
    check_objective(objective)


class BadObjective(Objective):
    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.calls = 0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        self.calls += 1
        if self.fault == "global":
            torch.rand(1)
        if self.fault == "eval":
            model.eval()
        if self.fault == "in place":
            batch.images.add_(0.1)
        loss = nn.functional.cross_entropy(model(batch.images), batch.labels)
        if self.fault == "drift":
            loss = loss * self.calls
        if self.fault == "detached":
            loss = loss.detach()
        if self.fault == "nan":
            loss = loss * float("nan")
        return Loss(loss, {"ce": loss if self.fault == "graph" else loss.detach()})


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("global", "global random"),
        ("eval", "left in train mode"),
        ("in place", "not changed in place"),
        ("drift", "same generator"),
        ("detached", "finite scalar"),
        ("nan", "finite scalar"),
        ("graph", "detached"),
    ],
)
def test_a_broken_objective_is_named(fault: str, rule: str) -> None:
    check_objective(BadObjective(""))
    with pytest.raises(HauberkError) as caught:
        check_objective(BadObjective(fault))
    assert rule in caught.value.message


# --- classifiers ----------------------------------------------------------------------------------------------


class Bad(nn.Module):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.linear = fault, nn.Linear(12, 3)
        self.register_buffer("calls", torch.zeros(()))
        if fault == "blocked":
            self.traits = Traits(gradient="exact")

    def forward(self, images: Tensor) -> Tensor:
        if self.fault == "probabilities":
            return self.linear(images.flatten(1)).softmax(1)
        if self.fault == "in place":
            images.mul_(0.5)
        if self.fault == "counts":
            self.calls += 1
        if self.fault == "random":
            images = images + torch.randn_like(images)
        if self.fault == "batch":
            images = images - images.mean(0)
        if self.fault == "blocked":
            return self.linear(images.flatten(1)).detach()
        return self.linear(images.flatten(1))


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("probabilities", "got probabilities"),
        ("in place", "in place"),
        ("counts", "no weight and no buffer"),
        ("random", "two forward passes"),
        ("batch", "does not depend on the others"),
        ("blocked", "gradients reach"),
    ],
)
def test_a_broken_classifier_is_named(fault: str, rule: str) -> None:
    check_classifier(Bad("").eval(), (1, 3, 4))
    with pytest.raises(HauberkError) as caught:
        check_classifier(Bad(fault).eval(), (1, 3, 4))
    assert rule in caught.value.message


def test_train_mode_is_refused() -> None:
    with pytest.raises(HauberkError, match="train mode"):
        check_classifier(Bad("").train(), (1, 3, 4))


def test_every_suite_is_public() -> None:
    assert all(callable(getattr(conformance, name)) for name in conformance.__all__)
