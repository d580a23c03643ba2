"""Checks of an evaluation of a random model: how much its noise does, and what other means over draws would find."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hauberk.attacks import EOT, PGD, Attack
from hauberk.attacks.gradients import EOT_DRAWS
from hauberk.evaluation.indicators import Check, Subject, grade

DRAWS = 20  # from which the noise of the output is told
MORE = 50  # draws of a gradient beside the usual number
PLAIN_STEPS = 50  # of the EOT-PGD that the judged attack should not fall behind
LITTLE = 0.05  # share of the output below which a model is called deterministic

Rivals = dict[str, tuple[Attack, str, str]]


def noise_share(logits: Tensor) -> float:
    r"""How much of a random model's output its noise moves, against what the images move.

    .. math::
        \sqrt{\frac{V}{V + S}}, \quad V = \operatorname{mean}_{ik} \operatorname{Var}_t c_{tik}, \quad
        S = \max\Bigl(0, \operatorname{mean}_k \operatorname{Var}_i \bar c_{ik} - V / T\Bigr)

    With :math:`c` the logits of T draws minus their mean over classes, which does not affect decisions.  S is the
    spread over images of the mean output, without what the noise of T draws adds to it.  0 is a deterministic model, 1
    one whose output does not depend on the image.

    Args:
        logits: shape (T, B, K), at least two draws and two images.
    """
    centred = logits.double() - logits.double().mean(2, keepdim=True)
    noise = float(centred.var(0).mean())
    spread = max(0.0, float(centred.mean(0).var(0).mean()) - noise / len(logits))
    return (noise / (noise + spread)) ** 0.5 if noise > 0.0 else 0.0


def noise_check(subject: Subject) -> Check:
    """The effect of the noise, which is reported and is not a sign of a weak attack."""
    images = subject.batch.images
    if len(images) < 2:
        return grade("noise_share", 0.0, len(images), "of one image no spread can be told", "")
    share = noise_share(torch.stack([subject.logits(images, draw) for draw in range(DRAWS)]))
    said = f"The noise moves {share:.1%} of the output"
    said += ": the model is deterministic in all but name" if share < LITTLE else ""
    return grade("noise_share", share, len(images), said, "")


def rivals(subject: Subject) -> Rivals:
    """Attacks that should break nothing that the judged one missed, with other means over draws."""
    attack, threat = subject.attack, subject.threat
    found: Rivals = {
        "eot_pgd": (
            EOT(threat, attack=PGD(threat, "margin", steps=PLAIN_STEPS, early_stop=False), mean="logits"),
            f"PGD on the mean logits of {EOT_DRAWS} draws", "add it, or eot_sweep, to the evaluation",
        ),
        "draw_transfer": (
            EOT(threat, attack=PGD(threat, "margin", steps=PLAIN_STEPS, early_stop=False), mean="logits", fixed=True),
            f"an attack on {EOT_DRAWS} fixed draws", "the noise misleads the attack, so average over more draws",
        ),
    }  # fmt: skip
    if plain(attack):
        inner = attack.inner if isinstance(attack, EOT) else attack
        many = EOT(threat, attack=replace(inner, early_stop=False, eot=None), draws=MORE)
        found["more_draws"] = many, f"the same attack with {MORE} draws a gradient", "use eot_sweep"
    return found


def plain(attack: Attack) -> bool:
    """Whether it is one search, which EOT can be put around."""
    return isinstance(attack, EOT) or hasattr(attack, "steps")
