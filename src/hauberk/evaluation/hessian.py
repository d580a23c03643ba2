"""The largest eigenvalues of the loss's Hessian in the image: how much the loss bends around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.gradients import draws
from hauberk.batch import Batch
from hauberk.boundary import called
from hauberk.classifier import check_classifier, check_eval, frozen
from hauberk.errors import HauberkError
from hauberk.randomness import PerSample

Product = Callable[[Tensor], Tensor]


def hessian_eigenvalues(model: nn.Module, batch: Batch, number: int = 1, steps: int = 20, seed: int = 0) -> Tensor:
    r"""The largest eigenvalues of :math:`\nabla_x^2\,\mathrm{CE}(f(x), y)` of each image, by Lanczos.

    Curvature regularisation makes these values small, and so does adversarial training (Moosavi-Dezfooli et al. 2019,
    Section 3). A small value means that the loss is flat at the image itself, not at points further away: it is not a
    measure of robustness.  Values are Ritz values, which never exceed the true ones but for rounding; as many steps as
    pixels give all of them.  A piecewise linear net has :math:`J^\top(\mathrm{diag}\,p - pp^\top)J` with the Jacobian
    J, so that at most K - 1 eigenvalues of K classes are not 0, and none is negative.

    Each step is a Hessian-vector product, two backward passes, in the model's own dtype; the recurrence is made
    orthogonal again at every step in float64.

    Args:
        model: a deterministic, differentiable classifier in eval mode.
        batch: images, labels and ids; memory grows with its size times ``steps``.
        number: eigenvalues of each image, the largest first.
        steps: of Lanczos, at most the number of pixels.
        seed: with each sample's id, the source of the first vector.

    Returns:
        shape (B, number), float64, per squared pixel unit, descending.

    Raises:
        HauberkError: if the model breaks the classifier contract or is random, ``number`` or ``steps`` do not fit, or a
            product is not finite.
    """
    pixels = batch.images[0].numel()
    most = min(steps, pixels)
    if not 1 <= number <= most:
        raise HauberkError(
            f"expected 1 to {most} eigenvalues, got {number}", "raise steps, or compute fewer eigenvalues"
        )
    check_eval(model)
    check_classifier(model, batch)
    if draws(model, batch.images[:1]) > 1:
        raise HauberkError(
            "a random model has another Hessian at each draw", "fix its draws first with frozen_ensemble"
        )
    start = PerSample(seed, batch.ids, "hessian", batch.images.device).normal(pixels).double()
    with frozen(model), torch.enable_grad():
        leaf = batch.images.detach().clone().requires_grad_(True)
        # of the sum: an image's loss depends on that image alone
        loss = functional.cross_entropy(called(model, leaf), batch.labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)

        def product(vectors: Tensor) -> Tensor:
            if not slope.requires_grad:  # a loss whose slope is constant
                return torch.zeros_like(vectors)
            (found,) = torch.autograd.grad(slope, leaf, vectors.reshape(leaf.shape).to(leaf), retain_graph=True)
            return found.flatten(1).double()

        return lanczos(product, start, most)[:, :number]


def lanczos(product: Product, start: Tensor, steps: int) -> Tensor:
    """Ritz values of a symmetric matrix for each row, descending, (B, steps).

    With full orthogonalisation.  A row whose Krylov space ends early goes on from another vector, so that every value
    is one of the matrix on some subspace.

    Args:
        product: (B, n) to the matrices times the rows, (B, n), float64.
        start: first vectors, (B, n), float64.
        steps: at most n.

    Raises:
        HauberkError: if a product is not finite.
    """
    basis = [functional.normalize(start, dim=1)]
    matrix = start.new_zeros(len(start), steps, steps)
    for step in range(steps):
        image = product(basis[step])
        if not bool(image.isfinite().all()):
            raise HauberkError(
                "a product with the Hessian is not finite",
                "check the model: its logits and their derivatives must be finite",
            )
        matrix[:, step, step] = (basis[step] * image).sum(1)
        if step + 1 == steps:
            break
        scale, known = image.norm(dim=1), torch.stack(basis, 2)
        rest = _apart(image, known)
        length = rest.norm(dim=1)
        left = length > 1e-10 * scale  # what is left of an exhausted space is rounding
        matrix[:, step + 1, step] = torch.where(left, length, 0.0)
        following = torch.where(left[:, None], rest, _apart(start.roll(step + 1, 1), known))
        basis.append(functional.normalize(following, dim=1, eps=torch.finfo(following.dtype).tiny))
    ascending: Tensor = torch.linalg.eigvalsh(matrix)  # it reads the lower triangle alone
    return ascending.flip(1)


def _apart(vectors: Tensor, known: Tensor) -> Tensor:
    """What is left of vectors (B, n) beside orthonormal ones (B, n, m); taken off twice, which is enough in float64."""
    for _ in range(2):
        vectors = vectors - (known * (known * vectors[:, :, None]).sum(1, keepdim=True)).sum(2)
    return vectors
