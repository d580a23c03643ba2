"""Spectral normalisation: bounds from above, and a target that is kept."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from hauberk.errors import HauberkError
from hauberk.layers import AOLConv2d, MaxMin, conv_norm, layer_bounds, linear_norm, model_bound
from hauberk.layers.norms import conv_layer_norm
from hauberk.layers.spectral import (
    SpectralScaling,
    normalise_spectral,
    project_spectral,
    spectral_norm_factor,
    unfolding_upper_norm,
    upper_norm,
)


def dense_norm(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """Largest singular value of an affine layer's matrix."""
    size = math.prod(shape)
    with torch.no_grad():
        eye = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
        columns = (layer(eye) - layer(torch.zeros_like(eye))).flatten(1)
    return float(torch.linalg.svdvals(columns)[0])


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), MaxMin(), nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2), nn.ReLU(),
        AOLConv2d(4, 4, 1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


# --- the bound ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    mode=st.sampled_from(["zeros", "circular"]),
    oversampling=st.sampled_from([2, 3, 6]),
)
def test_never_below_the_dense_norm(
    seed: int,
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    mode: str,
    oversampling: int,
) -> None:
    padding = tuple(dilation * (k - 1) // 2 for k in kernel)
    layer = nn.Conv2d(
        groups * channels[0], groups * channels[1], kernel, stride, padding, dilation, groups, False, mode,
        dtype=torch.float64,
    )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(random(seed, *layer.weight.shape))
    blocks = (stride, stride) if dilation == 1 and seed % 2 else (1, 1)
    bound = float(upper_norm(layer.weight, blocks, groups, oversampling).detach())
    loose = float(unfolding_upper_norm(layer.weight, blocks, groups).detach())
    assert dense_norm(layer, (groups * channels[0], 8, 8)) <= min(bound, loose) * (1 + 1e-12)


@pytest.mark.parametrize(("oversampling", "loss"), [(4, 1.18), (6, 1.08), (12, 1.02)])
def test_tight_enough(oversampling: int, loss: float) -> None:
    for seed in range(4):
        weight = random(seed, 6, 4, 3, 3)
        true = conv_norm(weight, (48, 48), padding=((1, 1), (1, 1)), padding_mode="circular").value
        assert 1.0 - 1e-8 <= float(upper_norm(weight, oversampling=oversampling)) / true <= loss


@pytest.mark.parametrize("oversampling", [2, 3, 4])
def test_between_the_frequencies_of_the_grid(oversampling: int) -> None:
    # I + R e^{i w} with a rotation R by half a step of the grid: its norm is 2 half way between two frequencies, where
    # the grid sees least of it, and the cosine in the bound is attained
    turn = math.pi / oversampling
    rotation = torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]], dtype=torch.float64)
    kernel = torch.stack([torch.eye(2, dtype=torch.float64), rotation], 2)[:, :, None, :]
    circle = conv_norm(kernel, (1, 2 * oversampling), padding=((0, 0), (0, 1)), padding_mode="circular").value
    assert circle == pytest.approx(2.0, rel=1e-7)
    on_the_grid = conv_norm(kernel, (1, oversampling), padding=((0, 0), (0, 1)), padding_mode="circular").value
    assert on_the_grid == pytest.approx(2.0 * math.cos(turn / 2.0), rel=1e-7)
    assert 2.0 * (1 - 1e-9) <= float(upper_norm(kernel, oversampling=oversampling)) <= 2.1


def test_unfoldings_by_hand() -> None:
    # a constant kernel: both unfoldings have norm 3, the convolution 9, and the bound is attained
    assert float(unfolding_upper_norm(torch.ones(1, 1, 3, 3))) == pytest.approx(9.0, rel=1e-5)
    assert float(unfolding_upper_norm(torch.ones(1, 1, 4, 2), stride=(2, 2))) == pytest.approx(4.0, rel=1e-5)
    # one output of five equal inputs: T has norm sqrt 5, U as well; two taps: T sqrt 10, U sqrt 10
    assert float(unfolding_upper_norm(torch.ones(1, 5, 1, 2))) == pytest.approx(math.sqrt(20.0), rel=1e-5)
    # T tells the taps apart (norm 1), U adds them (norm sqrt 2)
    apart = torch.eye(2).reshape(2, 1, 1, 2)
    assert float(unfolding_upper_norm(apart)) == pytest.approx(math.sqrt(2.0), rel=1e-5)
    assert float(unfolding_upper_norm(apart.transpose(0, 1))) == pytest.approx(math.sqrt(2.0), rel=1e-5)
    assert float(unfolding_upper_norm(torch.diag(torch.tensor([2.0, 1.0])))) == pytest.approx(2.0, rel=1e-3)
    assert float(unfolding_upper_norm(torch.tensor([0.65, 0.1]).reshape(2, 1, 1, 1), groups=2)) >= 0.65 * (1 - 1e-6)
    assert float(unfolding_upper_norm(torch.zeros(2, 1, 3, 3))) == 0.0
    kernel = random(2, 2, 3, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: unfolding_upper_norm(k, steps=3), kernel)


def test_vectors_and_gradients() -> None:
    left, right = torch.linalg.qr(random(0, 5, 3))[0], torch.linalg.qr(random(1, 4, 3))[0]
    matrix = left @ torch.diag(torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64)) @ right.T
    assert float(upper_norm(matrix)) == pytest.approx(3.0, rel=1e-6)
    matrix.requires_grad_()
    gradient = torch.autograd.grad(upper_norm(matrix), matrix)[0]
    assert torch.allclose(gradient, torch.outer(left[:, 0], right[:, 0]), atol=1e-4)
    kernel = random(2, 2, 3, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: upper_norm(k, oversampling=4, steps=3), kernel)


def test_known_traps() -> None:
    assert float(upper_norm(torch.tensor([5.0, -5.0]).reshape(1, 2, 1, 1))) >= math.sqrt(50.0) * (1 - 1e-6)
    assert float(upper_norm(torch.ones(1, 1, 3, 3))) >= 9.0
    assert float(upper_norm(torch.tensor([1.0, -1.0]).reshape(1, 1, 1, 2))) >= 2.0 * (1 - 1e-6)
    groups = torch.tensor([0.65, 0.1]).reshape(2, 1, 1, 1)
    assert float(upper_norm(groups, groups=2)) == pytest.approx(0.65, rel=1e-5)
    assert float(upper_norm(torch.zeros(2, 2, 3, 3))) == 0.0
    for scale in (1e-30, 1e30):  # in float32 the squares would under- and overflow
        assert float(upper_norm(scale * torch.eye(3))) == pytest.approx(scale, rel=1e-5)
    with pytest.raises(HauberkError, match="at least 2"):
        upper_norm(torch.ones(1, 1, 3, 3), oversampling=1)


# --- the parametrisation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", [0.25, 1.0, 8.0])
def test_parametrised_models_keep_the_target(target: float, dtype: torch.dtype) -> None:
    model = net().to(dtype)
    normalise_spectral(model, target)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    x = random(0, 4, 2, 4, 4).to(dtype)
    for _ in range(4):
        optimiser.zero_grad()
        model(x).square().sum().backward()
        optimiser.step()
    model.eval()
    assert model_bound(model, (2, 4, 4)).value <= target
    plain = [b.bound.value for b in layer_bounds(model, (2, 4, 4)) if b.kind in ("Conv2d", "Linear")]
    assert len(plain) == 3
    assert max(plain) <= target ** (1 / 3)
    assert math.prod(plain) >= 0.65 * target  # no signal is thrown away: the bound is tight
    twin = copy.deepcopy(model)
    fresh = net(1).to(dtype)
    normalise_spectral(fresh, target)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(x), model(x))
    assert torch.equal(twin(x), model(x))


@pytest.mark.parametrize("oversampling", [0, 4])
def test_trained_to_stretch(oversampling: int) -> None:
    layer = nn.Conv2d(2, 2, 3, padding=1, bias=False, dtype=torch.float64)
    normalise_spectral(layer, oversampling=oversampling)
    optimiser, eye, best = torch.optim.Adam(layer.parameters(), 0.05), torch.eye(50, dtype=torch.float64), 0.0
    for _ in range(40):
        norm = torch.linalg.matrix_norm(layer(eye.reshape(50, 2, 5, 5)).flatten(1), 2)
        best = max(best, norm.item())
        optimiser.zero_grad()
        (-norm).backward()
        optimiser.step()
    assert 0.7 < best <= 1.0


def test_settings_of_the_layer_are_used() -> None:
    groups = nn.Conv2d(2, 2, 1, groups=2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        groups.weight.fill_(1.0)
    normalise_spectral(groups, 3.0)
    assert 2.99 < dense_norm(groups, (2, 2, 2)) <= 3.0


def test_blocks_are_not_used_where_they_would_be_wrong() -> None:
    # all taps of the first read one place of a block, and the circle of the second has a block cut in two
    for layer, size in (
        (nn.Conv2d(1, 1, 3, stride=2, dilation=2, padding=2), 16),
        (nn.Conv2d(1, 1, 3, stride=2, padding=1, padding_mode="circular"), 3),
        (nn.Conv2d(1, 1, 3, stride=2, padding=1), 16),
    ):
        with torch.no_grad():
            layer.weight.fill_(1.0)
        normalise_spectral(layer.double())
        assert 0.6 < dense_norm(layer, (1, size, size)) <= 1.0


@pytest.mark.parametrize("oversampling", [0, 6])
def test_zero_weights_stay_zero(oversampling: int) -> None:
    for shape, groups in (((3, 2), 1), ((3, 2, 3, 3), 1), ((4, 2, 3, 3), 2)):
        weight = torch.zeros(shape)
        if groups == 2:
            weight[0] = 1.0  # the second group has no weights
        weight.requires_grad_()
        effective = SpectralScaling(groups=groups, oversampling=oversampling)(weight)
        effective.square().sum().backward()
        assert bool(effective.isfinite().all())
        assert weight.grad is not None
        assert bool(weight.grad.isfinite().all())
        assert groups == 2 or not bool(effective.any())


# --- the projection -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_keeps_the_target_and_changes_no_more(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    with torch.no_grad():
        model[0].weight.mul_(5.0)
        model[2].weight.mul_(0.01)
    before = copy.deepcopy(model.state_dict())
    project_spectral(model, (2, 4, 4), 1.0)
    after = model.state_dict()
    assert all(m.training for m in model.modules())
    assert linear_norm(model[6].weight).value <= 1.0
    assert conv_layer_norm(model[0], (2, 4, 4)).value == pytest.approx(1.0, abs=1e-4)
    assert conv_layer_norm(model[0], (2, 4, 4)).value <= 1.0
    assert torch.equal(after["2.weight"], before["2.weight"])  # it is small enough
    assert torch.equal(after["0.bias"], before["0.bias"])
    scale = after["0.weight"] / before["0.weight"]
    assert torch.allclose(scale, scale.mean().expand_as(scale))
    model.eval()
    assert model_bound(model, (2, 4, 4)).value <= 1.0
    project_spectral(model, (2, 4, 4), 1.0)
    assert torch.equal(model[0].weight, after["0.weight"])  # once is enough
    project_spectral(model, (2, 4, 4), 0.001)
    assert max(conv_layer_norm(model[i], s).value for i, s in ((0, (2, 4, 4)), (2, (4, 4, 4)))) <= 0.1
    assert model_bound(model, (2, 4, 4)).value <= 0.001


def test_both_ways_every_norm_ends_at_its_share() -> None:
    """The lecture's equation, W L^(1/m) / norm, has no minimum in it."""
    model = net().double()
    with torch.no_grad():
        model[0].weight.mul_(5.0)
        model[2].weight.mul_(0.01)
    project_spectral(model, (2, 4, 4), 8.0, both_ways=True)
    norms = [conv_layer_norm(model[0], (2, 4, 4)).value, conv_layer_norm(model[2], (4, 4, 4)).value]
    assert [*norms, linear_norm(model[6].weight).value] == pytest.approx([2.0] * 3, rel=1e-6)
    assert max(norms) <= 2.0
    with torch.no_grad():
        model[2].weight.zero_()
    project_spectral(model, (2, 4, 4), 8.0, both_ways=True)
    assert not bool(model[2].weight.any())


def test_projection_while_training() -> None:
    model = net()
    optimiser = torch.optim.SGD(model.parameters(), 1.0)
    for step in range(3):
        optimiser.zero_grad()
        model(random(step, 4, 2, 4, 4).float()).square().sum().backward()
        optimiser.step()
        project_spectral(model, (2, 4, 4))
    assert model_bound(model.eval(), (2, 4, 4)).value <= 1.0


def test_a_layer_that_is_used_twice_is_judged_at_both_sizes() -> None:
    shared = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular", bias=False, dtype=torch.float64)
    model = nn.Sequential(shared, nn.AvgPool2d(2), shared)
    project_spectral(model, (2, 6, 6))
    for size in (6, 3):
        assert dense_norm(shared, (2, size, size)) <= 1.0
    assert max(conv_layer_norm(shared, (2, n, n)).value for n in (6, 3)) == pytest.approx(1.0, abs=1e-6)


# --- what torch does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride", "factor"), [(3, 1, 3.0), (3, 2, 2.0), (2, 2, 1.0), (5, 3, 2.0)])
def test_the_norm_of_the_reshaped_kernel_is_too_small_by_a_factor(kernel: int, stride: int, factor: float) -> None:
    assert spectral_norm_factor((kernel, kernel), (stride, stride)) == pytest.approx(factor)
    size = 6 * stride
    for seed in range(3):
        layer = nn.Conv2d(2, 3, kernel, stride, kernel // 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(random(seed, *layer.weight.shape))
        reshaped = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        assert dense_norm(layer, (2, size, size)) <= factor * reshaped * (1 + 1e-12)


def test_torchs_spectral_norm_of_a_constant_kernel() -> None:
    # after "normalisation" the convolution triples the length of a constant image
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    theirs, ours = spectral_norm(copy.deepcopy(layer)).eval(), copy.deepcopy(layer)
    normalise_spectral(ours)
    assert dense_norm(theirs, (1, 8, 8)) == pytest.approx(3.0)
    assert dense_norm(ours, (1, 8, 8)) <= 1.0
    project_spectral(layer, (1, 8, 8))
    assert dense_norm(layer, (1, 8, 8)) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(HauberkError, match="scale its source"):
        project_spectral(theirs, (1, 8, 8))


def test_refusals() -> None:
    for change in (normalise_spectral, lambda m, t=1.0: project_spectral(m, (2, 4, 4), t)):
        with pytest.raises(HauberkError, match="no plain"):
            change(nn.Sequential(AOLConv2d(2, 2, 3)))
        with pytest.raises(HauberkError, match="positive"):
            change(net(), 0.0)
        with pytest.raises(HauberkError, match="reflect"):
            change(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"))
    model = net()
    normalise_spectral(model)
    with pytest.raises(HauberkError, match="parametrised already"):
        normalise_spectral(model)
    assert parametrize.is_parametrized(model[0])
    with torch.no_grad():
        net_with_nan = net()
        net_with_nan[0].weight.fill_(math.nan)
    with pytest.raises(HauberkError, match="NaN"):
        project_spectral(net_with_nan, (2, 4, 4))
