"""Bounds by products of matrices: above the truth, near it, and with a gradient; power iteration is below."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.layers.gram import gram_bound, positive_bound, power_iteration
from hauberk.layers.norms import conv_norm

SAME = ((1, 1), (1, 1))


def spectrum(weight: torch.Tensor, size: int) -> torch.Tensor:
    """The channel matrices of a circular convolution, by torch's FFT."""
    return torch.fft.fft2(weight, s=(size, size)).permute(2, 3, 0, 1).flatten(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(1, 9), st.booleans(),
    st.sampled_from([1e-60, 1.0, 1e60]),
)  # fmt: skip
def test_never_below_the_singular_value(seed, shape, steps, imaginary, scale) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.complex128 if imaginary else torch.float64
    matrices = scale * torch.randn(3, *shape, generator=generator, dtype=dtype)
    truth = torch.linalg.svdvals(matrices).amax(-1)
    assert bool((gram_bound(matrices, steps) >= truth * (1 - 1e-12)).all())


@pytest.mark.parametrize("seed", range(4))
def test_six_steps_end_within_a_ten_thousandth_on_convolutions(seed: int) -> None:
    weight = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrices = spectrum(weight, 16)
    assert 1.0 <= float(gram_bound(matrices).max() / torch.linalg.svdvals(matrices).max()) <= 1.0001


def test_orthogonal_and_zero_matrices() -> None:
    orthogonal = torch.linalg.qr(torch.randn(5, 64, 64, dtype=torch.float64))[0]
    assert bool(((gram_bound(orthogonal, 6) - 1.0).abs() < 1e-9).all())
    assert gram_bound(torch.zeros(2, 3, 4)).tolist() == [0.0, 0.0]


def test_the_gradient_is_that_of_the_singular_value() -> None:
    matrix = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = torch.autograd.grad(gram_bound(matrix, 10), matrix)[0]
    left, _, right = torch.linalg.svd(matrix.detach(), full_matrices=False)
    assert torch.allclose(found, torch.outer(left[:, 0], right[0]), atol=1e-3)
    zero = torch.zeros(3, 3, requires_grad=True)
    gram_bound(zero).backward()
    assert bool(zero.grad.isfinite().all())


def test_power_iteration_is_below_the_norm() -> None:
    for seed in range(6):
        weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        truth = conv_norm(weight, (8, 8), padding=SAME, padding_mode="zeros").value
        found = power_iteration(weight, (8, 8), 100, 1, torch.Generator().manual_seed(seed))
        assert 0.9 * truth < found <= truth


def test_power_iteration_finds_the_difference_of_channels() -> None:
    weight = torch.tensor([[[[5.0]], [[-5.0]]]])
    assert power_iteration(weight, (4, 4), 50, 0, torch.Generator().manual_seed(0)) == pytest.approx(50**0.5, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_single_precision_neither_vanishes_nor_overflows(scale: float) -> None:
    matrix = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    truth = float(torch.linalg.svdvals(matrix.double())[0]) * scale
    assert float(gram_bound(matrix * scale)) == pytest.approx(truth, rel=2e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_the_positive_bound_is_above_the_norm_and_has_its_gradient(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrices = torch.randn(2, *shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    ratio = positive_bound(matrices) / torch.linalg.matrix_norm(matrices, 2)
    assert bool(((ratio >= 1.0 - 1e-12) & (ratio < 1.1)).all())
    assert torch.autograd.gradcheck(positive_bound, (matrices,))
