r"""Upper bounds on singular values that need only products of matrices, and power iteration for comparison.

.. math:: \sigma_1(M)^{2p} = \sigma_1\big((M M^*)^p\big) \le
          \min\big(\|(M M^*)^p\|_F,\ \|(M M^*)^p\|_1\big), \qquad p = 1, 2, 4, \dots

Each squaring halves the logarithm of what the norms on the right exceed the truth by (Delattre et al. 2023, Theorem 1).
Certificates use singular values themselves (``norms``), which on a processor cost less; these bounds are for
training, where gradients must pass, and for hardware without a fast eigensolver.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SQUARINGS = 3  # of a number to divide by: a few per cent too large, which iterations after it make good


def gram_bound(matrices: Tensor, steps: int = 6) -> Tensor:
    r"""An upper bound on the largest singular value of each matrix, differentiable, up to rounding.

    After t steps the power is :math:`p = 2^{t-1}`.  The 1-norm is the better one where the spectrum is flat, as for
    layers that are nearly orthogonal; the Frobenius norm where one singular value leads.

    Args:
        matrices: real or complex, shape (..., m, n).
        steps: products of matrices, at least 1; with six, the largest over the frequencies of a random convolution is
            within 1e-4 of the truth, and so are orthogonal matrices; a single matrix may be 1e-2 off.

    Returns:
        shape (...), 0 for a matrix of zeros.

    Source: Delattre et al. 2023, Algorithm 1 (there with the Frobenius norm only).

    Example:
        >>> import torch
        >>> from hauberk.layers import gram_bound
        >>> matrix = torch.diag(torch.tensor([2.0, 1.9, 1.8, 1.0]))[None]  # its largest singular value is 2
        >>> [round(float(gram_bound(matrix, steps=k)), 3) for k in (1, 2, 6)]
        [2.0, 2.0, 2.0]
    """
    # squares of small entries would vanish in float32, and with them the bound
    largest = matrices.detach().abs().flatten(-2).amax(-1)
    matrices = matrices / torch.where(largest > 0, largest, 1.0)[..., None, None]
    gram = matrices @ matrices.mH if matrices.shape[-2] <= matrices.shape[-1] else matrices.mH @ matrices
    log = gram.real.new_zeros(gram.shape[:-2])
    for step in range(steps):
        size = _frobenius(gram)
        if step + 1 == steps:
            # abs of zero has no gradient; the added number is far below rounding, and raises the bound
            sums = (_squares(gram) + torch.finfo(size.dtype).tiny).sqrt().sum(-2).amax(-1)
            size = torch.minimum(size, sums)
        log = 2.0 * log + torch.where(size > 0, size, 1.0).log() if step else torch.where(size > 0, size, 1.0).log()
        if step + 1 < steps:
            gram = gram / torch.where(size > 0, size, 1.0)[..., None, None]
            gram = gram @ gram
    alive = size > 0
    return torch.where(alive, largest * (log / 2.0**steps).exp(), 0.0)


def _squares(matrices: Tensor) -> Tensor:
    return matrices.real.square() + matrices.imag.square() if matrices.is_complex() else matrices.square()


def _frobenius(matrices: Tensor) -> Tensor:
    total = _squares(matrices).sum((-2, -1))
    return torch.where(total > 0, torch.where(total > 0, total, 1.0).sqrt(), 0.0)  # the root of 0 has no gradient


def positive_bound(matrices: Tensor) -> Tensor:
    """An upper bound on the largest singular value to divide by: positive for a matrix of zeros too.

    Args:
        matrices: real or complex, shape (..., m, n).

    Returns:
        shape (...), up to rounding, differentiable; for zeros an arbitrary positive number.
    """
    rows = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mH
    half = rows @ rows.detach().mH  # the gradient of the second factor is that of the first transposed
    gram = half + (half - half.detach()).mH
    # all that follows is on the small side: products of products neither over- nor underflow, and zeros become ones
    size = gram.detach().abs().amax((-2, -1), keepdim=True)
    used = size > 0
    size = torch.where(used, size, 1.0)
    power = torch.where(used, gram / size, 1.0)
    bound = size[..., 0, 0].sqrt()
    for step in range(_SQUARINGS):
        power = power @ power
        length = torch.linalg.vector_norm(power, dim=(-2, -1))
        if step + 1 == _SQUARINGS:
            length = torch.minimum(length, power.abs().sum(-2).amax(-1))
        else:
            power = power / length[..., None, None]
        bound = bound * length ** (0.5 ** (step + 2))
    return bound


def power_iteration(
    weight: Tensor, size: tuple[int, int], steps: int, padding: int, generator: torch.Generator
) -> float:
    r"""The norm that power iteration finds for a convolution with zero padding: a **lower** bound, for comparison.

    It starts from a random image; started from ones it returns 0 for the kernel [5, -5], whose norm is 7.07.

    Args:
        weight: shape (out, in, kh, kw).
        size: height and width of the feature map.
        steps: applications of the convolution and its transpose.
        padding: zeros on every side.
        generator: of the start.
    """
    image = torch.randn(1, weight.shape[1], *size, generator=generator, dtype=weight.dtype).to(weight)
    reached = 0.0
    with torch.no_grad():
        for _ in range(steps):
            image = image / torch.linalg.vector_norm(image).clamp(min=torch.finfo(weight.dtype).tiny)
            response = nn.functional.conv2d(image, weight, padding=padding)
            reached = float(torch.linalg.vector_norm(response))
            image = nn.functional.conv_transpose2d(response, weight, padding=padding)
    return reached
