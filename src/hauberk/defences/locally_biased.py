"""Locally biased smoothing, and mixes weighted by gradient lengths (Bai et al. 2024, Sections 2.3 and 3; Eq. 1-4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk import registry
from hauberk.boundary import called
from hauberk.classifier import Traits
from hauberk.errors import HauberkError

Trust = Literal["constant", "gradient", "top_gradient", "gradient_ratio"]
Scale = Literal["probabilities", "logits"]
Form = Literal["binary", "multiclass", "normalised"]
ThreatNorm = Literal["linf", "l2"]


# --- lengths of gradients -------------------------------------------------------------------------------------


def log_length(vectors: Tensor, norm: ThreatNorm) -> Tensor:
    r"""Logarithm of the dual length, :math:`\log\|v\|_{p*}`: L1 for an Linf threat, L2 for an L2 threat.

    Finite and with finite derivatives of any order, also where v is zero (there they are zero) or tiny.

    Args:
        vectors: (B, d).
        norm: of the threat.

    Returns:
        shape (B,).
    """
    tiny = torch.finfo(vectors.dtype).tiny
    # log|v| = log m + log|v / m| for every constant m, so the largest entry needs no derivative of its own
    largest = vectors.detach().abs().amax(1, keepdim=True).clamp_min(tiny)
    scaled = vectors / largest
    if norm == "linf":
        length = scaled.abs().sum(1).clamp_min(tiny).log()
    else:
        length = 0.5 * scaled.square().sum(1).clamp_min(tiny).log()
    return largest.log().squeeze(1) + length


def log_gradient_lengths(values: Tensor, images: Tensor, norm: ThreatNorm, differentiable: bool) -> Tensor:
    r"""Logarithms of :math:`\|\nabla_x v_i\|_{p*}`, one backward pass for each column.

    Args:
        values: (B, k), computed from the images, rows apart.
        images: (B, C, H, W), part of the graph.
        norm: of the threat.
        differentiable: build the graph of the lengths too, so that an attack can follow them.

    Returns:
        shape (B, k).

    Raises:
        HauberkError: if no gradient reaches the images.
    """
    if not values.requires_grad:
        raise HauberkError("the base has no gradient with respect to its images", "use a differentiable base")
    columns = []
    for column in values.unbind(1):
        (gradient,) = torch.autograd.grad(
            column.sum(), images, create_graph=differentiable, retain_graph=True, materialize_grads=True
        )
        columns.append(log_length(gradient.flatten(1), norm))
    return torch.stack(columns, 1)


def _leaf(images: Tensor) -> Tensor:
    return images if images.requires_grad else images.detach().requires_grad_(True)


# --- Equation 4 -----------------------------------------------------------------------------------------------


class GradientMixed(nn.Module):
    r"""Two frozen classifiers mixed class by class, weighted by how steep they are (Eq. 4).

    .. math:: m_i(x) = \frac{g_i(x) + \gamma R_i(x)\,h_i(x)}{1 + \gamma R_i(x)}, \qquad R_i \in \Big\{1,\
        \|\nabla g_i\|_{p*},\ \|\nabla \max_j g_j\|_{p*},\ \frac{\|\nabla g_i\|_{p*}}{\|\nabla h_i\|_{p*}}\Big\}

    On logits the output is m.  On probabilities g and h are softmax outputs, R is taken of their gradients, and the
    output is the logarithm of m; unless R is the same for all classes its exponentials do not sum to 1.  ``constant``
    on probabilities is Eq. 5 with :math:`\alpha = \gamma/(1+\gamma)`, the paper's choice and ``mixed``; the others are
    for comparison.  The full Jacobian costs one backward pass for each class and base.

    The weight is computed as :math:`\mathrm{sigmoid}(\log\gamma + \log R_i)`, and the gradient of a probability as that
    of its logarithm times the probability, so nothing underflows.  A gradient of zero counts as a length near the
    smallest float; if both of a ratio are zero it is 1.  The gradient that an attack follows goes through R too, but a
    network of ReLUs has a gradient that jumps, and so does m: attack it without gradients as well.

    Section 3 of the paper prints :math:`\|g_i(x)\|_{p*}` for the choice of earlier work; the gradient sign is missing.

    Args:
        accurate: the accurate model g.
        robust: the robust model h.
        gamma: weight of the robust model, 0 or more; at 0 it is not run.
        trust: R: ``constant``, ``gradient``, ``top_gradient`` or ``gradient_ratio``, in the order above.
        on: what is mixed, ``probabilities`` or ``logits``.
        norm: p, the threat's norm, whose dual measures gradients: ``linf`` or ``l2``.
    """

    traits = Traits()

    def __init__(
        self, accurate: nn.Module, robust: nn.Module, gamma: float, trust: Trust, on: Scale, norm: ThreatNorm
    ) -> None:
        super().__init__()
        _check_gamma(gamma)
        _check("trust", trust, get_args(Trust))
        _check("on", on, get_args(Scale))
        _check("norm", norm, get_args(ThreatNorm))
        self.accurate, self.robust = accurate, robust
        self.gamma, self.trust, self.on, self.norm = gamma, trust, on, norm
        self.spec: dict[str, Any] = {}
        self.train()

    def train(self, mode: bool = True) -> Self:
        """The bases are frozen and stay in eval mode."""
        super().train(mode)
        self.accurate.eval()
        self.robust.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to log m or m, (B, K)."""
        if self.gamma == 0.0:
            return self._values(self.accurate, images)
        if self.trust == "constant":
            accurate, robust = self._values(self.accurate, images), self._values(self.robust, images)
            return self._mix(accurate, robust, torch.full_like(accurate, math.log(self.gamma)))
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            points = _leaf(images)
            accurate, robust = self._values(self.accurate, points), self._values(self.robust, points)
            log_trust = self._log_trust(points, accurate, robust, differentiable)
            mixed = self._mix(accurate, robust, math.log(self.gamma) + log_trust)
        return mixed if differentiable else mixed.detach()

    def _values(self, base: nn.Module, images: Tensor) -> Tensor:
        logits: Tensor = base(images.clone())  # it may work in place
        return logits.log_softmax(1) if self.on == "probabilities" else logits

    def _mix(self, accurate: Tensor, robust: Tensor, log_odds: Tensor) -> Tensor:
        if self.on == "logits":
            return log_odds.neg().sigmoid() * accurate + log_odds.sigmoid() * robust
        return torch.logaddexp(functional.logsigmoid(-log_odds) + accurate, functional.logsigmoid(log_odds) + robust)

    def _log_trust(self, points: Tensor, accurate: Tensor, robust: Tensor, differentiable: bool) -> Tensor:
        """Logarithm of R, (B, K), or (B, 1) where it is the same for all classes."""

        def lengths(values: Tensor) -> Tensor:
            found = log_gradient_lengths(values, points, self.norm, differentiable)
            return found + values if self.on == "probabilities" else found  # grad p = p grad log p

        if self.trust == "top_gradient":
            return lengths(accurate.max(1, keepdim=True).values)
        steep = lengths(accurate)
        return steep - lengths(robust) if self.trust == "gradient_ratio" else steep


def gradient_mixed(
    accurate: nn.Module,
    robust: nn.Module,
    gamma: float,
    trust: Trust = "constant",
    on: Scale = "probabilities",
    norm: ThreatNorm = "linf",
) -> GradientMixed:
    """Build a mix weighted by gradient lengths.

    Args:
        accurate: a built model, or in a spec its description.
        robust: likewise.
        gamma: weight of the robust model, 0 or more.
        trust: ``constant``, ``gradient``, ``top_gradient`` or ``gradient_ratio``.
        on: ``probabilities`` or ``logits``.
        norm: of the threat, ``linf`` or ``l2``.
    """
    model = GradientMixed(accurate, robust, gamma, trust, on, norm)
    model.spec = {
        "name": "gradient_mixed", "accurate": registry.spec(accurate), "robust": registry.spec(robust), "gamma": gamma,
        "trust": trust, "on": on, "norm": norm,
    }  # fmt: skip
    return model


# --- Equations 1 to 3 -----------------------------------------------------------------------------------------


class Direction(nn.Module):
    """A classifier as direction oracle: +1 for the class it decides for, -1 for the others.

    Its true gradient is zero almost everywhere, so an attack gets that of ``surrogate``.

    Args:
        oracle: a classifier.
    """

    traits = Traits(gradient="none")

    def __init__(self, oracle: nn.Module) -> None:
        super().__init__()
        self.oracle = oracle

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, K) of +1 and -1."""
        logits: Tensor = self.oracle(images)
        return 2.0 * functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits) - 1.0

    def surrogate(self, images: Tensor) -> Tensor:
        """The soft direction, 2 softmax - 1, (B, K)."""
        logits: Tensor = self.oracle(images)
        return 2.0 * logits.softmax(1) - 1.0


class LocallyBiased(nn.Module):
    r"""A base moved towards the class that an oracle names, by as much as a step of length gamma could (Eq. 1-3).

    With h_i = +1 for the oracle's class and -1 for the others, and g the base's logits:

    - ``binary``, Eq. 1: :math:`g + \gamma h \|\nabla g\|_{p*}`, with :math:`g = g_1 - g_0` and h that of class 1;
      the logits are -1/2 and +1/2 of it.
    - ``multiclass``, Eq. 2: :math:`g_i + \gamma h_i \|\nabla g_i\|_{p*}`, each class by itself.
    - ``normalised``, Eq. 3: that, divided by :math:`1 + \gamma\|\nabla g_i\|_{p*}`.

    For an affine base Eq. 1 is the base at the point of the ball of radius gamma that is best for the oracle's class.
    Eq. 2 of a two-class base is Eq. 1 only where one of its logits is constant.  Eq. 3 with h a differentiable
    classifier's logits is ``gradient_mixed`` with trust ``gradient`` on logits.

    Args:
        base: the classifier g.
        oracle: the classifier that names the direction, for example ``NearestNeighbour``.
        gamma: bound on the shift, in pixel units for Eq. 1; 0 or more.
        form: ``binary``, ``multiclass`` or ``normalised``.
        norm: p, the norm in which gamma is measured, ``linf`` or ``l2``.
    """

    traits = Traits()

    def __init__(self, base: nn.Module, oracle: nn.Module, gamma: float, form: Form, norm: ThreatNorm) -> None:
        super().__init__()
        _check_gamma(gamma)
        _check("form", form, get_args(Form))
        _check("norm", norm, get_args(ThreatNorm))
        self.base, self.direction = base, Direction(oracle)
        self.gamma, self.form, self.norm = gamma, form, norm
        self.spec: dict[str, Any] = {}
        self.train()

    def train(self, mode: bool = True) -> Self:
        """The bases are frozen and stay in eval mode."""
        super().train(mode)
        self.base.eval()
        self.direction.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to logits (B, K)."""
        differentiable = torch.is_grad_enabled()
        direction = called(self.direction, images)
        with torch.enable_grad():
            points = _leaf(images)
            values: Tensor = self.base(points.clone())
            if self.form == "binary":
                values, direction = self._one(values), direction[:, 1:]
            reach = self.gamma * log_gradient_lengths(values, points, self.norm, differentiable).exp()
            moved: Tensor = values + reach * direction
            if self.form == "binary":
                moved = torch.cat([-0.5 * moved, 0.5 * moved], 1)
            elif self.form == "normalised":
                moved = moved / (1.0 + reach)
        return moved if differentiable else moved.detach()

    @staticmethod
    def _one(logits: Tensor) -> Tensor:
        if logits.shape[1] != 2:
            raise HauberkError(f"Eq. 1 is for 2 classes, but the base has {logits.shape[1]}", "use form multiclass")
        return logits[:, 1:] - logits[:, :1]


def locally_biased(
    base: nn.Module, oracle: nn.Module, gamma: float, form: Form = "normalised", norm: ThreatNorm = "linf"
) -> LocallyBiased:
    """Build a locally biased classifier.

    Args:
        base: a built model, or in a spec its description.
        oracle: likewise.
        gamma: bound on the shift, 0 or more.
        form: ``binary``, ``multiclass`` or ``normalised``.
        norm: of the threat, ``linf`` or ``l2``.
    """
    model = LocallyBiased(base, oracle, gamma, form, norm)
    model.spec = {
        "name": "locally_biased", "base": registry.spec(base), "oracle": registry.spec(oracle), "gamma": gamma,
        "form": form, "norm": norm,
    }  # fmt: skip
    return model


def _check_gamma(gamma: float) -> None:
    if not 0.0 <= gamma < math.inf:
        raise HauberkError(f"expected a finite gamma of 0 or more, got {gamma}", "gamma 0 gives the base itself")


def _check(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise HauberkError(f"there is no {name} {value!r}", registry.suggestion(value, list(known)) or ", ".join(known))
