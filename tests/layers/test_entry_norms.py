"""Norms from entries, against the dense matrix written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.entry_norms import conv_entry_norms, linear_entry_norms
from hauberk.layers.norms import conv_layer_norm, linear_norm


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    size = math.prod(shape)
    with torch.no_grad():
        return layer(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T


def truths(matrix: Tensor) -> dict[tuple[str, str], float]:
    return {
        ("l1", "l1"): float(matrix.abs().sum(0).max()),
        ("linf", "linf"): float(matrix.abs().sum(1).max()),
        ("l2", "linf"): float(torch.linalg.vector_norm(matrix, dim=1).max()),
        ("l1", "l2"): float(torch.linalg.vector_norm(matrix, dim=0).max()),
        ("l1", "linf"): float(matrix.abs().max()),
    }


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=pairs,
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    mode=st.sampled_from(["zeros", "circular"]),
)
def test_convolutions_against_the_dense_matrix(seed, channels, groups, kernel, size, stride, padding, dilation, mode):
    if any(n + 2 * p <= d * (k - 1) for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)):
        return
    torch.manual_seed(seed)
    layer = nn.Conv2d(
        channels[1] * groups, channels[0] * groups, kernel, stride=stride, padding=padding, dilation=dilation,
        groups=groups, padding_mode=mode, bias=False, dtype=torch.float64,
    )  # fmt: skip
    shape = (channels[1] * groups, *size)
    found = conv_entry_norms(layer, shape)
    for pair, truth in truths(dense(layer, shape)).items():
        assert found[pair].value >= truth
        # with zero padding some taps may never meet the image, and entries are then read off the kernel
        if found[pair].exact and pair != ("l1", "linf"):
            assert found[pair].value <= truth * (1 + 1e-8) + 1e-300


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 1)])
def test_matrices(shape: tuple[int, int]) -> None:
    weight = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for pair, truth in truths(weight).items():
        assert truth <= linear_entry_norms(weight)[pair].value <= truth * (1 + 1e-8)
    assert linear_norm(weight, "linf").value == linear_entry_norms(weight)["linf", "linf"].value


def test_taps_that_meet_on_a_circle_add_up() -> None:
    layer = nn.Conv2d(1, 1, (1, 3), padding=(0, 1), padding_mode="circular", bias=False, dtype=torch.float64)
    nn.init.ones_(layer.weight)
    found = conv_entry_norms(layer, (1, 1, 2))  # the outer taps meet: rows are (1, 2) and (2, 1)
    assert not found["l2", "linf"].exact
    assert found["l2", "linf"].value >= math.sqrt(5.0)
    assert found["l1", "l2"].value >= math.sqrt(5.0)
    assert found["l1", "linf"].value >= 2.0
    assert found["linf", "linf"].value == pytest.approx(3.0)


def test_zero_and_broken_weights_and_other_paddings() -> None:
    assert linear_norm(torch.zeros(2, 3), "l1").value == 0.0
    with pytest.raises(HauberkError, match="NaN or infinity"):
        linear_norm(torch.full((2, 2), math.nan), "linf")
    reflected = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")
    with pytest.raises(HauberkError, match="reflect"):
        conv_layer_norm(reflected, (1, 4, 4), "linf")
    with pytest.raises(HauberkError, match="reflect"):
        conv_entry_norms(reflected, (1, 4, 4))
