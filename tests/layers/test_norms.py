"""Bounds on spectral norms against dense matrices."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers import norms
from hauberk.layers.norms import SLACK, conv_layer_norm, conv_norm, linear_norm


def dense_norm(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """Largest singular value of a linear layer's matrix, found by feeding it every unit vector."""
    size = math.prod(shape)
    with torch.no_grad():
        columns = layer(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1)
    return float(torch.linalg.svdvals(columns)[0])


def conv(weight: Tensor, **settings: object) -> nn.Conv2d:
    groups = int(settings.get("groups", 1))  # type: ignore[call-overload]
    layer = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), bias=False, dtype=torch.float64, **settings
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def random_weight(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=pairs,
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    mode=st.sampled_from(["zeros", "circular"]),
)
def test_never_below_the_dense_norm(
    seed: int,
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mode: str,
) -> None:
    if any(n + 2 * p <= d * (k - 1) for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)):
        return
    weight = random_weight(seed, channels[0] * groups, channels[1], *kernel)
    layer = conv(weight, stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=mode)
    shape = (channels[1] * groups, *size)
    truth, bound = dense_norm(layer, shape), conv_layer_norm(layer, shape)
    assert bound.value >= truth
    assert bound.value <= (truth + 1e-12) * (1 + 1e-8) or not bound.exact


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 4), (5, 2)])
def test_same_padding_of_even_kernels(mode: str, kernel: tuple[int, int]) -> None:
    for seed in range(5):
        layer = conv(random_weight(seed, 3, 2, *kernel), padding="same", padding_mode=mode)
        truth, bound = dense_norm(layer, (2, 6, 5)), conv_layer_norm(layer, (2, 6, 5))
        assert truth <= bound.value
        assert bound.exact == (mode == "circular")
        assert mode == "zeros" or bound.value <= truth * (1 + 1e-8)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_tight_on_circles(kernel: int, stride: int) -> None:
    weight = random_weight(kernel, 3, 4, kernel, kernel)
    layer = conv(weight, padding=kernel // 2, padding_mode="circular", stride=stride)
    bound = conv_layer_norm(layer, (4, 8, 6))
    assert bound.exact
    assert 1.0 <= bound.value / dense_norm(layer, (4, 8, 6)) <= 1 + 1e-8


@pytest.mark.parametrize("stride", [1, 2])
def test_reasonably_tight_with_zero_padding(stride: int) -> None:
    ratios = []
    for seed in range(5):
        layer = conv(random_weight(seed, 4, 4, 3, 3), padding=1, stride=stride)
        ratios.append(conv_layer_norm(layer, (4, 10, 10)).value / dense_norm(layer, (4, 10, 10)))
    assert min(ratios) >= 1.0
    assert max(ratios) < 1.08


def test_disjoint_windows_have_the_norm_of_their_matrix() -> None:
    weight = random_weight(0, 5, 3, 4, 2)
    bound = conv_norm(weight, (9, 6), stride=(4, 2))
    assert bound.exact
    assert bound.value == pytest.approx(float(torch.linalg.svdvals(weight.flatten(1))[0]), rel=2e-9)


# --- planted traps --------------------------------------------------------------------------------------------


def test_difference_of_channels_is_not_missed() -> None:
    # power iteration started from ones returns 0 here
    bound = conv_norm(torch.tensor([[[[5.0]], [[-5.0]]]]), (4, 4))
    assert bound.value == pytest.approx(math.sqrt(50.0), rel=2e-9)
    assert bound.value >= math.sqrt(50.0)


def test_constant_kernel_adds_up() -> None:
    # its reshaped matrix has norm 3, the convolution 9
    bound = conv_norm(torch.ones(1, 1, 3, 3), (8, 8), padding=((1, 1), (1, 1)), padding_mode="circular")
    assert bound.value == pytest.approx(9.0, rel=2e-9)
    assert bound.value >= 9.0


def test_groups_take_the_largest_and_not_the_product() -> None:
    weight = torch.tensor([0.65, 0.1]).reshape(2, 1, 1, 1)
    assert conv_norm(weight, (3, 3), groups=2).value == pytest.approx(0.65, rel=1e-6)


def test_all_zero_filter_has_norm_zero() -> None:
    assert conv_norm(torch.zeros(2, 3, 3, 3), (5, 5), padding=((1, 1), (1, 1))).value == 0.0
    assert linear_norm(torch.zeros(2, 3)).value == 0.0


def test_grid_of_the_kernel_would_be_unsound() -> None:
    found = 0
    for seed in range(20):
        weight = random_weight(seed, 2, 2, 3, 3)
        layer = conv(weight, padding=1, padding_mode="circular")
        truth = dense_norm(layer, (2, 8, 8))
        frequencies = torch.fft.fft2(weight).permute(2, 3, 0, 1)
        found += float(torch.linalg.svdvals(frequencies).max()) < 0.99 * truth
        assert conv_layer_norm(layer, (2, 8, 8)).value >= truth
    assert found > 5


def test_kernel_longer_than_the_circle_wraps() -> None:
    layer = conv(random_weight(1, 2, 2, 5, 7), padding=(2, 3), padding_mode="circular")
    bound = conv_layer_norm(layer, (2, 3, 4))
    assert 1.0 <= bound.value / dense_norm(layer, (2, 3, 4)) <= 1 + 1e-8


def test_circular_padding_that_repeats_outputs_adds_length() -> None:
    # a 1x1 identity padded by the whole circle shows every pixel nine times
    layer = conv(torch.ones(1, 1, 1, 1), padding=4, padding_mode="circular")
    assert dense_norm(layer, (1, 4, 4)) == pytest.approx(3.0)
    assert conv_layer_norm(layer, (1, 4, 4)).value == pytest.approx(3.0, rel=2e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e150])
def test_no_underflow_or_overflow(scale: float) -> None:
    weight = random_weight(0, 3, 3, 3, 3)
    plain = conv_norm(weight, (6, 6), padding=((1, 1), (1, 1))).value
    assert conv_norm(weight * scale, (6, 6), padding=((1, 1), (1, 1))).value == pytest.approx(plain * scale, rel=1e-12)


def test_linear_norm_of_a_known_matrix() -> None:
    left = torch.linalg.qr(random_weight(0, 7, 4))[0]
    right = torch.linalg.qr(random_weight(1, 5, 4))[0]
    matrix = left @ torch.diag(torch.tensor([0.5, 3.0, 1.0, 0.0], dtype=torch.float64)) @ right.T
    bound = linear_norm(matrix)
    assert 3.0 <= bound.value <= 3.0 * (1 + 2 * SLACK)
    assert bound.exact


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize(("stride", "dilation", "padding"), [(1, 1, 1), (2, 1, 1), (2, 1, 2), (1, 2, 2), (3, 1, 3)])
def test_taps_that_read_zeros_alone_do_not_count(
    size: tuple[int, int], stride: int, dilation: int, padding: int
) -> None:
    for seed in range(3):
        layer = conv(random_weight(seed, 3, 2, 3, 3), stride=stride, dilation=dilation, padding=padding)
        truth, bound = dense_norm(layer, (2, *size)), conv_layer_norm(layer, (2, *size))
        assert truth <= bound.value
        if size == (1, 1) and padding == dilation:  # the middle tap alone
            assert bound.value <= truth * (1 + 1e-8)


@pytest.mark.parametrize("padding", [(0, 1), (1, 0)])
def test_differences_on_a_circle_of_three_are_too_small(padding: tuple[int, int]) -> None:
    # [1, -1] along three pixels and a zero: 2 cos(pi / 7); on the circle it would be 2 sin(pi / 3), which is less
    bound = conv_norm(torch.tensor([[[[1.0, -1.0]]]]), (1, 3), padding=((0, 0), padding))
    assert bound.value >= 2.0 * math.cos(math.pi / 7.0)


def test_a_pixel_meets_the_middle_of_the_kernel_alone() -> None:
    weight = random_weight(0, 4, 3, 3, 3)
    middle = float(torch.linalg.svdvals(weight[:, :, 1, 1])[0])
    bound = conv_norm(weight, (1, 1), padding=((1, 1), (1, 1)))
    assert bound.value == pytest.approx(middle, rel=2e-9)
    assert bound.exact


def test_eigenvalues_give_the_same_norms_as_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = [3.0 * random_weight(seed, *shape) for seed, shape in enumerate([(4, 9), (9, 4), (5, 5)])]
    weight = 3.0 * random_weight(0, 4, 3, 3, 3)
    plain = [linear_norm(m).value for m in matrices], conv_norm(weight, (6, 6)).value
    monkeypatch.setattr(norms, "_SIDE", 0)
    assert [linear_norm(m).value for m in matrices] == pytest.approx(plain[0], rel=1e-12)
    assert conv_norm(weight, (6, 6)).value == pytest.approx(plain[1], rel=1e-12)
    assert linear_norm(torch.zeros(3, 2)).value == 0.0


@pytest.mark.parametrize("shape", [(6, 6, 3, 3), (3, 9, 3, 3), (8, 2, 1, 5), (1, 1, 9, 9)])
def test_frequencies_are_discarded_only_where_the_largest_value_is_not(shape: tuple[int, ...]) -> None:
    # the whole transform decomposed, random filters and filters whose frequencies are nearly level
    for seed in range(30):
        weight = random_weight(seed, *shape)
        if seed % 3 == 0:
            weight[:, :, shape[2] // 2, shape[3] // 2] += 50.0 * torch.eye(*shape[:2], dtype=torch.float64)
        if seed % 3 == 1:
            weight = weight - weight.mean((2, 3), keepdim=True)
        transform = torch.fft.fft2(weight, s=(12, 11)).permute(2, 3, 0, 1)
        margins = tuple((k // 2, k // 2) for k in shape[2:])
        bound = conv_norm(weight, (12, 11), padding=margins, padding_mode="circular")
        assert bound.value == pytest.approx(float(torch.linalg.svdvals(transform).max()), rel=1.1e-9, abs=0.0)


@pytest.mark.parametrize("noise", [1e-7, 1e-9])
@pytest.mark.parametrize("height", [1, 2])
def test_taps_that_meet_on_a_small_circle_and_cancel(height: int, noise: float) -> None:
    # what is left of their sums is all noise, which single precision loses
    weight = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]], dtype=torch.float64)
    weight = (weight + noise * torch.tensor([[0.0], [1.0], [0.0]]))[None, None]
    bound = conv_norm(weight, (height, 32), padding=((1, 1), (1, 1)), padding_mode="circular")
    rows = [[Fraction(v) for v in row] for row in weight[0, 0].tolist()]
    met = [[sum(row[b] for row in rows) for b in range(3)]] if height == 1 else [
        [rows[0][b] + rows[2][b] for b in range(3)], [rows[1][b] for b in range(3)]
    ]  # fmt: skip
    # at the frequencies 0 and 0 or pi all taps add up, with signs by row
    truth = max(abs(sum(met[0]) + sign * sum(met[-1] if height == 2 else [0])) for sign in (1, -1))
    assert float(truth) <= bound.value <= float(truth) * 1.001 + 1e-12


def test_what_rounding_leaves_of_taps_that_cancel_stays_below() -> None:
    for k in range(1, 40):
        taps = [0.77 + 1e-9 * k, 0.33, -1.1]  # on one row of pixels they all read the same
        weight = torch.tensor(taps, dtype=torch.float64).reshape(1, 1, 3, 1)
        bound = conv_norm(weight, (1, 8), padding=((1, 1), (0, 0)), padding_mode="circular")
        assert float(abs(sum(map(Fraction, taps), Fraction(0)))) <= bound.value


def test_few_frequencies_of_a_random_filter_are_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    largest = norms._largest
    monkeypatch.setattr(norms, "_largest", lambda m: (counted.append(len(m)), largest(m))[1])
    conv_norm(random_weight(0, 32, 32, 3, 3), (16, 16), padding=((1, 1), (1, 1)))
    assert sum(counted) < 20  # of 153


def test_torch_may_not_lower_the_precision_of_what_discards() -> None:
    weight = random_weight(1, 16, 16, 3, 3)
    before = conv_norm(weight, (8, 8), padding=((1, 1), (1, 1))).value
    torch.set_float32_matmul_precision("medium")
    try:
        assert conv_norm(weight, (8, 8), padding=((1, 1), (1, 1))).value == before
    finally:
        torch.set_float32_matmul_precision("highest")


# --- refusals and speed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_other_paddings_are_refused(mode: str) -> None:
    with pytest.raises(HauberkError, match=mode):
        conv_layer_norm(nn.Conv2d(1, 1, 3, padding=1, padding_mode=mode), (1, 8, 8))


def test_a_circular_padding_that_was_changed_later_is_refused() -> None:
    # torch pads by a number of its own, from the time when the layer was built
    layer = conv(torch.ones(1, 1, 1, 1), padding=4, padding_mode="circular")
    layer.padding = (0, 0)
    assert dense_norm(layer, (1, 4, 4)) == pytest.approx(3.0)
    with pytest.raises(HauberkError, match="padding was changed"):
        conv_layer_norm(layer, (1, 4, 4))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_weights_are_refused(bad: float) -> None:
    weight = torch.ones(2, 2, 3, 3)
    weight[0, 0, 0, 0] = bad
    with pytest.raises(HauberkError, match="NaN or infinity"):
        conv_norm(weight, (8, 8))
    with pytest.raises(HauberkError, match="NaN or infinity"):
        linear_norm(weight.flatten(1))


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(HauberkError, match="does not fit"):
        conv_norm(torch.ones(1, 1, 5, 5), (4, 8))


def test_the_same_whether_frequencies_come_at_once_or_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random_weight(0, 4, 3, 3, 3)
    at_once = conv_norm(weight, (8, 8), padding=((1, 1), (1, 1)))
    monkeypatch.setattr(norms, "_ENTRIES", 1)
    assert conv_norm(weight, (8, 8), padding=((1, 1), (1, 1))).value == pytest.approx(at_once.value, rel=1e-13)


def test_cheap_enough_to_run_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gram products leave few of the 16 x 9 frequencies for which singular values are computed."""
    weight, counts, largest = random_weight(0, 128, 64, 3, 3), [], norms._largest

    def counted(matrices: torch.Tensor) -> float:
        counts.append(len(matrices))
        return largest(matrices)

    monkeypatch.setattr(norms, "_largest", counted)
    conv_norm(weight, (16, 16), padding=((1, 1), (1, 1)))
    assert 1 <= sum(counts) <= 24
