"""MaxMin against sorting by hand."""

from __future__ import annotations

import pytest
import torch

from hauberk.errors import HauberkError
from hauberk.layers import MaxMin


def test_sorts_first_half_against_second_half() -> None:
    features = torch.tensor([[1.0, -2.0, 3.0, -5.0]])
    assert MaxMin()(features).tolist() == [[3.0, -2.0, 1.0, -5.0]]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 5)])
def test_permutes_the_values_and_never_stretches(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    layer = MaxMin()
    assert torch.equal(layer(first).flatten(1).sort(1).values, first.flatten(1).sort(1).values)
    before = torch.linalg.vector_norm((first - second).flatten(1), dim=1)
    after = torch.linalg.vector_norm((layer(first) - layer(second)).flatten(1), dim=1)
    assert bool((after <= before * (1 + 1e-15)).all())
    assert bool((after < 0.999 * before).any())  # it does fold somewhere: it is not linear


def test_preserves_the_norm_of_gradients() -> None:
    for row in torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)):
        jacobian = torch.autograd.functional.jacobian(lambda x: MaxMin()(x[None])[0], row)
        assert torch.equal(jacobian @ jacobian.T, torch.eye(8, dtype=torch.float64))


def test_odd_width_is_refused() -> None:
    with pytest.raises(HauberkError, match="even number, got 3"):
        MaxMin()(torch.zeros(2, 3, 4, 4))


def test_channels_last_gives_the_same() -> None:
    features = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(MaxMin()(features.to(memory_format=torch.channels_last)), MaxMin()(features))
