"""LOT: the unitary factor of every frequency's matrix."""

from __future__ import annotations

import numpy as np
import torch
from numpy.testing import assert_allclose

from hauberk.layers.lot import LOTConv2d


def test_the_printed_formula_frequency_by_frequency() -> None:
    layer = LOTConv2d(3, 2, 3, (4, 5), steps=40).double()
    generator = torch.Generator().manual_seed(0)
    free = layer.parametrizations.weight.original
    with torch.no_grad():
        free.copy_(torch.randn(free.shape, generator=generator, dtype=torch.float64))
    kernel, effective = free.detach().numpy(), layer.weight.detach().numpy()
    for row in range(4):
        for column in range(3):
            taps = np.array([[2 * np.pi * (row * y / 4 + column * x / 5) for x in (-1, 0, 1)] for y in (-1, 0, 1)])
            matrix = (kernel * np.exp(1j * taps)).sum((2, 3))
            values, vectors = np.linalg.eigh(matrix @ matrix.conj().T)
            root = vectors @ np.diag(values**-0.5) @ vectors.conj().T
            assert_allclose(effective[row, column], root @ matrix, atol=1e-10)


def test_it_starts_as_an_orthogonal_matrix_at_each_pixel() -> None:
    layer = LOTConv2d(2, 2, 3, 4).double()
    image = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    image[0, 0, 1, 2] = 1.0
    out = layer(image)
    assert float(out[0, :, 1, 2].square().sum().detach()) > 1 - 1e-6
    assert float(out.square().sum().detach()) < 1 + 1e-6
