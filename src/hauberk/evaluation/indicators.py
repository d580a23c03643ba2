"""Single checks of an evaluation that look at the model: its output, its gradients, its neighbourhoods.

Each returns a ``Check``: a number, the limit it is held against, a verdict, and one sentence for a reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from hauberk.attacks import Attack
from hauberk.attacks.losses import LossName, attack_loss
from hauberk.batch import Batch
from hauberk.boundary import called
from hauberk.classifier import logits_of, margins, traits
from hauberk.randomness import PerSample
from hauberk.threats import Threat, norms

Verdict = Literal["sound", "questionable", "broken"]
ORDER: tuple[Verdict, ...] = ("sound", "questionable", "broken")

# Up to the first number a check is sound, beyond the second it is broken; where the second is the smaller one, small
# values are the bad ones.  Without a second number the check shows a risk, whose effect others measure, and is never
# broken.  Chosen on the tuning half of benchmarks/masked_nets.py.
LIMITS: dict[str, tuple[float, float | None]] = {
    "randomness": (1e-6, 1e-3),
    "output_form": (0.2, None),
    "zero_gradients": (0.05, 0.5),
    "vanishing_gradients": (0.1, None),
    "wrong_gradients": (0.3, 0.7),
    "neighbourhood": (0.05, 0.2),
    "silent_success": (0.0, 0.0),
    "rising_loss": (0.1, 0.3),
    "black_box": (0.02, 0.05),
    "random_search": (0.0, 0.02),
    "single_step": (0.02, 0.05),
    "more_steps": (0.03, 0.1),
    "stronger_attack": (0.05, 0.2),
    "transfer": (0.02, 0.05),
    "budget_sweep": (0.02, 0.1),
    "unbounded": (0.0, 0.05),
    "binarisation": (0.95, 0.8),
    "noise_share": (1.0, None),  # whatever the noise does, it is no symptom
    "eot_pgd": (0.05, 0.2),
    "draw_transfer": (0.05, 0.2),
    "more_draws": (0.05, 0.2),
    "fewer_steps": (0.03, 0.1),
}
NEAR = 1 / 16  # share of the budget within which a model should be nearly linear
DIRECTIONS = 4
NEIGHBOURS = 8


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Args:
        name: key of ``LIMITS``.
        value: what was measured.
        threshold: the limit of what is sound.
        verdict: ``sound``, ``questionable`` or ``broken``.
        reason: one sentence: what was seen, and what to do unless it is sound.
        images: how many images the value rests on.
    """

    name: str
    value: float
    threshold: float
    verdict: Verdict
    reason: str
    images: int


@dataclass(frozen=True)
class Subject:
    """The object of the checks: a model in eval mode with frozen parameters, and the images that it classifies right.

    Args:
        model: gives logits.
        batch: images, labels, ids.
        threat: of the evaluation.
        attack: the attack that is judged.
        seed: of all randomness.
        tile: rows of a model call.
    """

    model: nn.Module
    batch: Batch
    threat: Threat
    attack: Attack
    seed: int
    tile: int

    @property
    def loss(self) -> LossName:
        """What the attack maximises; cross-entropy stands in for a loss of its own, and for one without labels."""
        own = self.attack.loss
        return own if own in ("ce", "margin", "dlr") else "ce"

    def draws(self, purpose: str) -> PerSample:
        """Random numbers for one purpose."""
        return PerSample(self.seed, self.batch.ids, purpose, self.batch.images.device)

    def logits(self, points: Tensor, draw: int = 0) -> Tensor:
        """Logits at points, (B, K); of a random model those of one draw."""
        batch = Batch(points, self.batch.labels, self.batch.ids)
        return logits_of(self.model, batch, self.tile, (self.seed, draw, "diagnosis"))

    def gradient(self, points: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Gradient of ``loss(logits, labels)`` at points, (B, C, H, W)."""
        found = []
        for part, used in Batch(points, self.batch.labels, self.batch.ids).tiles(self.tile):
            leaf = part.images.detach().requires_grad_(True)
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(loss(called(self.model, leaf), part.labels).sum(), leaf)
            found.append(gradient[:used])
        return torch.cat(found)


def grade(name: str, value: float, images: int, seen: str, remedy: str, worst: Verdict = "broken") -> Check:
    """The check with its verdict by ``LIMITS``, no worse than ``worst``; it has a remedy unless it is sound."""
    sound, broken = LIMITS[name]
    sign = -1.0 if broken is not None and broken < sound else 1.0
    level = 0 if sign * value <= sign * sound else 1 if broken is None or sign * value <= sign * broken else 2
    verdict = ORDER[min(level, ORDER.index(worst))]
    reason = f"{seen}." if verdict == "sound" else f"{seen}: {remedy}."
    return Check(name, value, sound, verdict, reason[:1].upper() + reason[1:], images)


def odds(logits: Tensor, labels: Tensor) -> Tensor:
    r"""The unsaturated form of cross-entropy, :math:`\log\sum_{j\ne y} e^{z_j} - z_y`, (B,).

    :math:`\mathrm{CE} = \log(1 + e^{o})`, so both have the same gradient up to a positive factor
    :math:`1 - p_y`, which float32 rounds to zero on a confident model.
    """
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.logsumexp(1) - logits.gather(1, labels[:, None]).squeeze(1)


def randomness(subject: Subject) -> Check:
    """Whether two forwards differ although the model is not declared stochastic; relative to the spread of logits."""
    first, second = (subject.logits(subject.batch.images, draw) for draw in (0, 1))
    change = float((first - second).abs().max() / _spread(first).mean().clamp_min(1e-30))
    images = len(subject.batch)
    if traits(subject.model).stochastic:
        said = "the model is declared random, and gradients are averaged over its draws"
        return Check("randomness", change, LIMITS["randomness"][0], "sound", f"{said[:1].upper()}{said[1:]}.", images)
    seen = f"two forward passes differ by {change:.2g} of the logits' spread" if change else "two forward passes agree"
    return grade("randomness", change, images, seen, "declare it with Traits(stochastic=True), or fix its noise")


def output_form(subject: Subject) -> Check:
    """Whether the output is squashed: many images have the same largest value, or all values lie in [0, 1].

    The value is the share of images whose largest logit is the largest of all images up to 1 % of the logits' range:
    a softmax, a sigmoid, a tanh or a clamp has a ceiling that confident images share, and logits have none.
    """
    logits, images = subject.logits(subject.batch.images).double(), len(subject.batch)
    low, high = logits.min(), logits.max()
    at_ceiling = (logits.amax(1) >= high - 0.01 * (high - low)).double()
    value = max(0.0, float(at_ceiling.sum() - 1)) / images  # one image always has the largest value
    seen = f"{value:.0%} of the images share one largest output"
    if bool(low >= 0) and bool(high <= 1):
        seen, value = f"all outputs lie between {float(low):.2g} and {float(high):.2g}, as probabilities do", 1.0
    return grade("output_form", value, images, seen, "attack the scores before the squashing function")


def zero_gradients(subject: Subject) -> Check:
    """Share of images with an all-zero gradient, at the image or at a random point of the ball."""
    images = subject.batch.images
    points = images, subject.threat.random_point(images, subject.draws("diagnosis start"))
    names: list[LossName] = list(dict.fromkeys([subject.loss, "ce", "margin"]))
    shares = {}
    for name in names:
        flat = [norms(subject.gradient(p, partial(attack_loss, name)), "linf") == 0 for p in points]
        shares[name] = float((flat[0] | flat[1]).double().mean())
    own = shares[subject.loss]
    name = max(names, key=lambda n: shares[n])
    remedy = "give the blocking step a surrogate (BPDA), or attack with the margin loss, and run a black-box attack"
    if grade("zero_gradients", own, len(images), "", "").verdict == "sound" and shares[name] > own:
        seen = f"gradients of the {name} loss are zero on {shares[name]:.0%} of the images, those of the attack are not"
        return grade("zero_gradients", shares[name], len(images), seen, f"avoid the {name} loss", "questionable")
    return grade("zero_gradients", own, len(images), f"gradients are zero on {own:.0%} of the images", remedy)


def vanishing_gradients(subject: Subject) -> Check:
    """Share of images where rounding turns the gradient of cross-entropy away from its true direction.

    The reference is the gradient of ``odds``, which has the same direction and does not saturate; cosine below 0.9.
    """
    images = subject.batch.images
    rounded = subject.gradient(images, partial(attack_loss, "ce")).flatten(1)
    exact = subject.gradient(images, odds).flatten(1)
    # scaled by the largest entry first: squares of tiny gradients underflow
    cosine = torch.cosine_similarity(_unit(rounded), _unit(exact), dim=1)
    share = float((cosine < 0.9).double().mean())
    seen = f"cross-entropy is saturated in float32 on {share:.0%} of the images"
    return grade("vanishing_gradients", share, len(images), seen, "attack with the margin or dlr loss")


def wrong_gradients(subject: Subject) -> Check:
    r"""Median disagreement of autograd with finite differences, :math:`\sum|a - p| / \sum(|a| + |p|)`, in [0, 1].

    p is the change of ``odds`` that the gradient predicts between :math:`x - hu` and :math:`x + hu`, a the one that
    is seen, with h a sixteenth of the budget.  The worse of two is taken: along the gradient's steepest direction,
    and summed over random ones u.  Where a part of the input is cut off the gradient, the steepest step leaves it
    alone, and only random ones show what it does.
    """
    images, threat = subject.batch.images, subject.threat
    gradient = subject.gradient(images, odds)
    randomness, step = subject.draws("diagnosis directions"), NEAR * threat.eps
    apart = torch.zeros(2, len(images), dtype=torch.float64, device=images.device)
    size = apart.clone()
    for k in range(1 + DIRECTIONS):
        aim = gradient if k == 0 else randomness.normal(*images.shape[1:]).to(images)
        move = step * threat.steepest_step(aim)
        ahead, behind = (images + move).clamp(0.0, 1.0), (images - move).clamp(0.0, 1.0)
        predicted = (gradient.double() * (ahead - behind).double()).flatten(1).sum(1)
        labels = subject.batch.labels
        actual = odds(subject.logits(ahead).double(), labels) - odds(subject.logits(behind).double(), labels)
        apart[min(k, 1)] += (actual - predicted).abs()
        size[min(k, 1)] += actual.abs() + predicted.abs()
    value = float((apart / size.clamp_min(1e-300)).median(1).values.max())
    exact = traits(subject.model).gradient == "exact"
    seen = f"gradients and finite differences disagree by {value:.0%}"
    remedy = "look for detached tensors, surrogates and steps without a gradient"
    return grade("wrong_gradients", value, len(images), seen, remedy, "broken" if exact else "questionable")


def neighbourhood(subject: Subject) -> Check:
    """Mean change of the margin within a sixteenth of the budget, in parts of the logits' spread (indicator I2)."""
    images, labels = subject.batch.images, subject.batch.labels
    logits = subject.logits(images)
    here, spread = margins(logits, labels), _spread(logits).clamp_min(1e-30)
    draws, total = subject.draws("diagnosis neighbours"), torch.zeros_like(here)
    for _ in range(NEIGHBOURS):
        there = subject.threat.random_point(images, draws, NEAR * subject.threat.eps)
        total += (margins(subject.logits(there), labels) - here).abs() / spread
    value = float((total / NEIGHBOURS).mean())
    seen = f"within a sixteenth of the budget the margin moves by {value:.1%} of the logits' spread"
    remedy = "the loss is too rough for gradients, so add a black-box attack"
    return grade("neighbourhood", value, len(images), seen, remedy)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def _spread(logits: Tensor) -> Tensor:
    return logits.amax(1) - logits.amin(1)
