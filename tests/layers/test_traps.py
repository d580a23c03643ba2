"""Traps in which published or widespread code certifies what is false: the wrong answer, the truth, and ours.

Each test reproduces the wrong method in a few lines, states the truth by a witness that shares no code with the library
(singular values of a dense matrix, or a calculation by hand), and shows on which side ours lies.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers import (
    AOLConv2d,
    BCOPConv2d,
    BjorckLinear,
    CayleyLinear,
    Householder2,
    SOCConv2d,
    UnitRowLinear,
    conv_norm,
    model_bound,
    walk,
)
from hauberk.layers.norms import conv_layer_norm
from hauberk.layers.spectral import normalise_spectral, upper_norm

CERTIFICATE = LipschitzCertificate()


def dense_norm(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """Largest singular value of an affine layer's matrix, found by feeding it every unit vector."""
    size = math.prod(shape)
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    with torch.no_grad():
        columns = (layer(eye) - layer(torch.zeros_like(eye))).flatten(1)
    return float(torch.linalg.svdvals(columns)[0])


def conv(weight: Tensor, **settings: object) -> nn.Conv2d:
    """A convolution with that kernel and no bias, in float64 and eval mode."""
    groups = int(settings.get("groups", 1))  # type: ignore[call-overload]
    size = (weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]))
    layer = nn.Conv2d(*size, bias=False, dtype=torch.float64, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer.eval()


def linear(rows: list[list[float]], bias: list[float]) -> nn.Sequential:
    """A linear classifier of images of one row of pixels."""
    layer = nn.Linear(len(rows[0]), len(rows))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(nn.Flatten(), layer).eval()


def image(*pixels: float) -> Batch:
    values = torch.tensor(pixels).reshape(1, 1, 1, -1)
    return Batch(values, torch.zeros(1).long(), torch.arange(1))


# --- norms of convolutions ------------------------------------------------------------------------------------


def test_power_iteration_that_starts_from_ones_sees_nothing_of_5_minus_5() -> None:
    layer = conv(torch.tensor([5.0, -5.0]).reshape(1, 2, 1, 1))
    start = torch.ones(1, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(500):
            back = nn.functional.conv_transpose2d(layer(start), layer.weight)
            start = nn.functional.normalize(back, dim=(1, 2, 3))
        reached = float(layer(start).norm())
    assert reached == 0.0  # the wrong answer: a constant layer, an infinite radius
    truth = dense_norm(layer, (2, 4, 4))
    assert truth == pytest.approx(math.sqrt(50))  # by hand
    assert truth <= conv_layer_norm(layer, (2, 4, 4)).value <= truth * (1 + 1e-8)
    assert float(upper_norm(layer.weight.detach())) >= truth * (1 - 1e-12)


def test_the_norms_of_groups_are_not_multiplied() -> None:
    weight = torch.zeros(4, 2, 3, 3, dtype=torch.float64)
    weight[:2, :, 1, 1], weight[2:, :, 1, 1] = 0.5 * torch.eye(2), 0.2 * torch.eye(2)
    layer = conv(weight, groups=2, padding=1)
    product = math.prod(dense_norm(conv(half, padding=1), (2, 5, 5)) for half in weight.chunk(2))
    assert product == pytest.approx(0.1)  # the wrong answer
    assert dense_norm(layer, (4, 5, 5)) == pytest.approx(0.5)
    assert 0.5 <= conv_layer_norm(layer, (4, 5, 5)).value <= 0.5 * (1 + 1e-8)
    assert float(upper_norm(layer.weight.detach(), groups=2)) >= 0.5 * (1 - 1e-12)


def test_the_norm_of_the_reshaped_kernel_is_not_that_of_the_convolution() -> None:
    layer = conv(torch.ones(1, 1, 3, 3), padding=1, padding_mode="circular")
    normalised = spectral_norm(conv(torch.ones(1, 1, 3, 3), padding=1, padding_mode="circular"))
    reshaped = normalised.weight.detach().flatten(1)
    assert float(torch.linalg.svdvals(reshaped)[0]) == pytest.approx(1.0)  # what is normalised
    truth = dense_norm(normalised, (1, 6, 6))
    assert truth == pytest.approx(3.0)  # nine taps of 1/3
    assert conv_layer_norm(normalised, (1, 6, 6)).value >= truth * (1 - 1e-12)
    ours = nn.Sequential(layer)
    normalise_spectral(ours)
    assert dense_norm(ours, (1, 6, 6)) <= 1.0


def test_a_grid_of_the_size_of_the_kernel_is_too_coarse() -> None:
    generator = torch.Generator().manual_seed(0)
    worst = 1.0
    for _ in range(25):
        weight = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64)
        layer = conv(weight, padding=1, padding_mode="circular")
        truth = dense_norm(layer, (2, 7, 7))
        coarse = float(torch.linalg.matrix_norm(torch.fft.fft2(weight).permute(2, 3, 0, 1), 2).max())
        worst = min(worst, coarse / truth)
        assert truth <= conv_layer_norm(layer, (2, 7, 7)).value <= truth * (1 + 1e-8)
        assert float(upper_norm(weight)) >= truth
    assert worst < 0.8  # the wrong answer


def test_the_difference_of_neighbours_has_no_gram_iteration_on_its_own_grid() -> None:
    weight = torch.tensor([1.0, -1.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    spectrum = torch.fft.fft2(weight).flatten()  # 0 and 2
    size = spectrum.abs()
    rescaled = (spectrum / size).abs().square().sqrt() * size.log().exp()
    assert bool(rescaled.max().isnan())  # the wrong answer: zero over zero at the frequency zero
    layer = conv(weight, padding="same", padding_mode="circular")
    truth = dense_norm(layer, (1, 1, 8))
    assert truth == pytest.approx(2.0)
    assert truth <= conv_layer_norm(layer, (1, 1, 8)).value <= 2.0 * (1 + 1e-8)
    assert 2.0 <= float(upper_norm(weight)) < 3.0


def test_padding_by_reflection_stretches_an_average_and_is_refused() -> None:
    layer = conv(torch.full((1, 1, 3, 3), 1 / 9), padding=1, padding_mode="reflect")
    assert float(layer.weight.detach().abs().sum()) == pytest.approx(1.0)  # at most 1 under zero and circular padding
    assert dense_norm(layer, (1, 4, 4)) > 1.1
    with pytest.raises(HauberkError, match="no sound bound is known for reflect padding"):
        conv_layer_norm(layer, (1, 4, 4))


# --- layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("terms", "excess"), [(5, 4e-3), (14, 4e-8)])
def test_five_and_fourteen_terms_of_the_exponential_stretch(terms: int, excess: float) -> None:
    layer = SOCConv2d(2, 2, terms=terms, padding_mode="circular", bias=False).double().eval()
    with torch.no_grad():  # a constant kernel between two channels is scaled to the largest norm, 2.1
        free = torch.zeros(2, 2, 3, 3)
        free[0, 1] = 1.0
        layer.parametrizations.weight.original.copy_(free)
    skew = conv(layer.weight.detach(), padding=1, padding_mode="circular")
    with torch.no_grad():
        a = skew(torch.eye(128, dtype=torch.float64).reshape(128, 2, 8, 8)).flatten(1).T
    assert float(torch.linalg.svdvals(a)[0]) == pytest.approx(2.1)
    series = sum(torch.linalg.matrix_power(a, i) / math.factorial(i) for i in range(terms + 1))
    truth = float(torch.linalg.svdvals(series)[0])
    assert truth > 1.0 + excess  # published code takes 1
    assert dense_norm(layer, (2, 8, 8)) == pytest.approx(truth, abs=1e-13)
    assert truth <= layer.lipschitz_bound((2, 8, 8)).value < 1.01
    layer.terms = 4 if terms == 5 else 16
    assert layer.lipschitz_bound((2, 8, 8)).value == 1.0
    assert dense_norm(layer, (2, 8, 8)) <= 1.0 + 1e-14


def test_an_angle_just_below_zero_wraps_to_two_pi_and_belongs_to_a_sector() -> None:
    layer = Householder2(2)
    with torch.no_grad():
        layer.theta0.fill_(math.pi / 2)
        layer.theta1.fill_(1.0)
        layer.theta2.fill_(1.0)
    on_border, below = torch.tensor([[0.70710677, 0.70710677]]), torch.tensor([[0.70710677, 0.70710665]])
    phi = (torch.atan2(below[:, 1], below[:, 0]) - 0.5 * layer.theta0.detach()) % (2 * math.pi)
    borders = [0.0, 0.5, 1.0, math.pi + 0.5, 2 * math.pi]
    inside = [bool((phi >= low) & (phi < high)) for low, high in itertools.pairwise(borders)]
    assert not any(inside)  # the wrong answer: no sector holds it, and the sum over sectors is zero
    distance = float((on_border - below).norm())
    assert float(on_border.norm()) / distance > 1e6  # by which that jump would stretch
    with torch.no_grad():
        assert float(layer(below).norm()) == pytest.approx(float(below.norm()), rel=1e-6)
        assert float((layer(on_border) - layer(below)).norm()) < distance + 1e-6  # rounding of float32
    exact = layer.double()
    ring = torch.arange(4001, dtype=torch.float64) * (2 * math.pi / 4000)
    points = torch.stack([ring.cos(), ring.sin()], 1)
    with torch.no_grad():
        steps = (exact(points).diff(dim=0)).norm(dim=1) / points.diff(dim=0).norm(dim=1)
    assert float(steps.max()) <= exact.lipschitz_bound((2,)).value


@pytest.mark.parametrize("dead", ["all", "one"])
@pytest.mark.parametrize("kind", ["spectral", "aol", "bcop", "soc", "bjorck", "cayley", "rows"])
def test_filters_of_zeros_give_no_nan(kind: str, dead: str) -> None:
    makers = {
        "spectral": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)),
        "aol": lambda: AOLConv2d(4, 4, 3, padding=1),
        "bcop": lambda: BCOPConv2d(4, 4, 3),
        "soc": lambda: SOCConv2d(4, 4, 3),
        "bjorck": lambda: BjorckLinear(4, 4),
        "cayley": lambda: CayleyLinear(4, 4),
        "rows": lambda: UnitRowLinear(4, 4),
    }
    layer = makers[kind]().double()
    if kind == "spectral":
        normalise_spectral(layer)
    with torch.no_grad():
        for name, free in layer.named_parameters():
            if name.endswith("original") or ".original" in name:
                free.copy_(free if dead == "one" else torch.zeros_like(free))
                free[0] = 0.0
    shape = (4,) if kind in ("bjorck", "cayley", "rows") else (4, 5, 5)
    layer.train()(torch.rand(2, *shape, dtype=torch.float64)).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in layer.parameters() if p.grad is not None)
    truth = dense_norm(layer.eval(), shape)
    bound = model_bound(layer, shape).value
    assert truth <= bound * (1 + 1e-12)
    assert math.isfinite(bound)


def test_spectral_norm_of_torch_turns_zeros_into_nan() -> None:
    theirs = spectral_norm(nn.Linear(3, 2))
    with torch.no_grad():
        theirs.parametrizations.weight.original.zero_()
        theirs.train()(torch.zeros(1, 3))
    assert bool(theirs.eval().weight.isnan().any())
    with pytest.raises(HauberkError, match="NaN or infinity"):
        walk(theirs, (3,))
    assert conv_norm(torch.zeros(2, 2, 3, 3), (5, 5)).value == 0.0


# --- certificates ---------------------------------------------------------------------------------------------


def test_a_tie_has_radius_zero() -> None:
    logits = torch.tensor([0.0, 0.0])
    rivals = logits != logits.max()  # masks the winner by its value, and its equal with it
    gaps = torch.where(rivals, logits.max() - logits, torch.inf)
    assert float(gaps.min()) == math.inf  # the wrong answer: certified at every radius
    model = linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    flipped = image(0.5, 0.5 + 1e-6)
    assert int(model(flipped.images).argmax()) != int(model(image(0.5, 0.5).images).argmax())
    assert float(CERTIFICATE(model, image(0.5, 0.5)).radius) == 0.0
    nearly = CERTIFICATE(model, image(0.5 + 2**-20, 0.5))
    assert 0.0 < float(nearly.radius) <= 2**-20 / math.sqrt(2)


def test_a_rival_that_is_level_and_never_moves_leaves_radius_zero() -> None:
    """Nought over nought: the two logits are equal everywhere, and a third one is far behind."""
    model = linear([[0.0], [0.0], [1.0]], [1.0, 1.0, 0.0])
    assert float(CERTIFICATE(model, image(0.5)).radius) == 0.0


def test_pixels_are_divided_by_the_smallest_deviation() -> None:
    std = [0.5, 0.1]
    layer = Normalize([0.0, 0.0], std)
    assert 1.0 / max(std) == 2.0  # the wrong answer
    truth = dense_norm(layer.double(), (2, 3, 3))
    assert truth == pytest.approx(10.0)
    assert truth <= model_bound(layer.eval(), (2, 3, 3)).value <= truth * (1 + 1e-12)
    model = nn.Sequential(Normalize([0.0, 0.0], std), *linear([[0.0, 1.0], [0.0, -1.0]], [0.0, 0.0])).eval()
    pixels = Batch(torch.tensor([0.5, 0.01]).reshape(1, 2, 1, 1), torch.zeros(1).long(), torch.arange(1))
    assert float(CERTIFICATE(model, pixels).radius) == pytest.approx(0.01, rel=1e-6)  # 1/max(std) says 0.05
    assert float(CERTIFICATE(model, pixels).radius) <= 0.0100000001


def test_a_mask_of_a_million_overflows_in_half_precision_which_is_refused() -> None:
    logits = torch.tensor([[3.0, 1.0]]).half()
    winner = torch.tensor([[1.0, 0.0]]).half()
    masked = logits - winner * torch.tensor(1e6).half()  # 1e6 is infinite there, and 0 times it is NaN
    assert bool(masked.amax(1).isnan())
    assert not bool(logits[:, 0] - masked.amax(1) <= 0.1)  # "not within 0.1 of losing" is true of NaN
    with pytest.raises(HauberkError, match="half precision"):
        CERTIFICATE(linear([[1.0], [-1.0]], [0.0, 0.0]).half(), image(0.5))


def test_bfloat16_rounds_a_lead_up_and_is_refused() -> None:
    """Logits 128.51 and 128: bfloat16 has no number between 128 and 129."""
    model = linear([[1.0, 0.0], [0.0, 1.0]], [128.0, 128.0])
    coarse = linear([[1.0, 0.0], [0.0, 1.0]], [128.0, 128.0]).bfloat16()
    logits = coarse(image(0.51, 0.0).images.bfloat16()).detach().float()
    claimed = float(logits[0, 0] - logits[0, 1]) / math.sqrt(2)
    assert claimed == pytest.approx(math.sqrt(0.5))  # the wrong answer
    other = image(0.49, 0.52)
    assert float((other.images - image(0.51, 0.0).images).norm()) < claimed
    for net, dtype in ((coarse, torch.bfloat16), (model, torch.float32)):
        assert int(net(other.images.to(dtype)).argmax()) == 1
        assert int(net(image(0.51, 0.0).images.to(dtype)).argmax()) == 0
    with pytest.raises(HauberkError, match="half precision"):
        CERTIFICATE(coarse, image(0.51, 0.0))
    truth = 0.51 / math.sqrt(2)  # distance to the diagonal
    assert truth * (1 - 1e-4) <= float(CERTIFICATE(model, image(0.51, 0.0)).radius) <= truth * (1 + 1e-6)


# --- what a layer does beyond its weights ---------------------------------------------------------------------


def test_train_mode_is_refused() -> None:
    model = nn.Sequential(*linear([[1.0], [-1.0]], [0.0, 0.0]), nn.Dropout(0.5)).train()
    torch.manual_seed(0)
    answers = torch.cat([model(image(0.5).images) for _ in range(20)])
    assert len(answers.unique(dim=0)) > 1  # one image, many answers: nothing is certified at any distance
    for refused in (lambda: walk(model, (1, 1, 1)), lambda: CERTIFICATE(model, image(0.5))):
        with pytest.raises(HauberkError, match="train mode"):
            refused()


def test_dropout_is_the_identity_in_eval_mode_and_refused_where_it_is_left_on() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).eval()
    assert walk(model, (1, 1, 2)).total().value == pytest.approx(1.0, abs=1e-9)
    model[1].train()
    with pytest.raises(HauberkError, match=r"Dropout|train mode"):
        walk(model, (1, 1, 2))


class SelfAttention(nn.Module):
    """Each value attends to all of them, without weights of its own."""

    def forward(self, values: Tensor) -> Tensor:
        """Shape (B, N) to the same shape."""
        scores = values[:, :, None] * values[:, None, :]
        return (scores.softmax(-1) @ values[:, :, None]).squeeze(-1)


def test_attention_is_no_1_lipschitz_layer_and_is_refused() -> None:
    attention = SelfAttention()
    for scale in (3.0, 30.0):
        at = torch.tensor([0.0, scale, -scale], dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda v: attention(v[None])[0], at)
        steepest = float(torch.linalg.svdvals(jacobian)[0])
        # by hand: the variance of the values under equal weights, and the weight of the value itself
        assert jacobian[0, 0] == pytest.approx(2 * scale**2 / 3 + 1 / 3)
        assert steepest >= 2 * scale**2 / 3  # "unknown layers count as 1" is wrong by any factor
    for layer in (attention.eval(), nn.MultiheadAttention(4, 1).eval(), nn.TransformerEncoderLayer(4, 1).eval()):
        with pytest.raises(HauberkError, match="no Lipschitz bound for layer"):
            walk(nn.Sequential(layer).eval(), (3,))


def test_batch_norm_in_train_mode_answers_for_an_image_that_did_not_move() -> None:
    layer = nn.BatchNorm2d(1).double()
    first, other, moved = (torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in (0.5, 0.6, 0.4))
    before, after = (layer.train()(torch.cat([first, second]))[0] for second in (other, moved))
    assert float((before - after).abs().detach()) > 1.0  # the first image stayed where it was
    with pytest.raises(HauberkError, match="train mode"):
        walk(layer, (1, 1, 1))
    for shapeless in (nn.BatchNorm2d(1, track_running_stats=False), nn.InstanceNorm2d(1), nn.LayerNorm([1, 2, 2])):
        with pytest.raises(HauberkError, match="no Lipschitz bound for layer"):
            walk(shapeless.eval(), (1, 2, 2))
    layer.running_var.fill_(0.04)  # type: ignore[union-attr, operator]
    truth = dense_norm(layer.eval(), (1, 2, 2))
    assert truth == pytest.approx(5.0, rel=1e-3)
    assert truth <= model_bound(layer, (1, 2, 2)).value <= truth * (1 + 1e-9)
