"""The walk over a model: sound on what it knows, closed to everything else."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers import (
    AOLConv2d,
    AOLLinear,
    Bound,
    BoundedLayer,
    ConvexResidual,
    MaxMin,
    SLLLinear,
    UnitRowLinear,
    layer_bounds,
    model_bound,
    pairwise_bounds,
    walk,
)
from hauberk.layers.bound import times
from hauberk.layers.norms import conv_layer_norm


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def dense_norm(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Largest singular value of an affine model's matrix."""
    size = math.prod(shape)
    with torch.no_grad():
        eye = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
        return float(torch.linalg.svdvals((model(eye) - model(torch.zeros_like(eye))).flatten(1))[0])


def steepest_ratio(function: Callable[[Tensor], Tensor], shape: tuple[int, ...], steps: int = 60) -> float:
    """The largest ``|f(x) - f(x')| / |x - x'|`` that gradient ascent on both points finds, in float64."""
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(8, *shape, dtype=torch.float64, generator=generator)
    second = first + 0.1 * torch.randn(8, *shape, dtype=torch.float64, generator=generator)
    points = [first.requires_grad_(), second.requires_grad_()]
    optimiser, best = torch.optim.Adam(points, 0.02), 0.0
    for _ in range(steps):
        change = torch.linalg.vector_norm((function(first) - function(second)).flatten(1), dim=1)
        ratio = change / torch.linalg.vector_norm((first - second).flatten(1), dim=1)
        best = max(best, float(ratio.detach().max()))
        optimiser.zero_grad()
        (-ratio.sum()).backward()
        optimiser.step()
    return best


# --- soundness ------------------------------------------------------------------------------------------------


def mixed_model() -> nn.Sequential:
    return nn.Sequential(
        Normalize((0.1, 0.5, 0.4), (0.5, 0.2, 0.9)),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(2)),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        MaxMin(),
        nn.Identity(),
        nn.PixelUnshuffle(2),
        AOLConv2d(24, 8, 1),
        nn.Flatten(),
        AOLLinear(8, 6),
        MaxMin(),
        UnitRowLinear(6, 4),
    ).double().eval()  # fmt: skip


def test_gradient_ascent_never_beats_the_bound() -> None:
    model = mixed_model()
    bound = model_bound(model, (3, 8, 8)).value
    assert steepest_ratio(model, (3, 8, 8)) <= bound
    pairwise = pairwise_bounds(model, (3, 8, 8))
    for i, j in ((0, 1), (2, 3)):
        found = steepest_ratio(lambda x, i=i, j=j: model(x)[:, [i]] - model(x)[:, [j]], (3, 8, 8))
        assert found <= float(pairwise[i, j])


def test_the_ascent_is_a_real_adversary() -> None:
    # on a linear map it comes close to the true norm, so the test above has teeth
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double().eval()
    bound = model_bound(model, (3, 2, 2)).value
    assert 0.95 * bound < steepest_ratio(model, (3, 2, 2)) <= bound


def test_names_kinds_and_product() -> None:
    items = layer_bounds(mixed_model(), (3, 8, 8))
    assert [i.name for i in items][:4] == ["0", "1.0", "1.1", "1.2"]
    assert [i.kind for i in items][-3:] == ["AOLLinear", "MaxMin", "UnitRowLinear"]
    assert items[0].bound.value == pytest.approx(5.0)
    assert items[0].bound.method == "1/min(std)"
    assert items[3].bound.value == pytest.approx(0.5)
    total = model_bound(mixed_model(), (3, 8, 8))
    assert total.method == "product of 13 layers"
    assert not total.exact


def test_affine_models_against_the_dense_matrix() -> None:
    for std in ((1.0, 1.0), (0.1, 0.7), (0.7, 0.1)):
        model = nn.Sequential(
            Normalize((0.3, 0.6), std), nn.Conv2d(2, 4, 3, padding=1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        )
        model = model.double().eval()
        assert dense_norm(model, (2, 4, 4)) <= model_bound(model, (2, 4, 4)).value


def test_unequal_deviations_use_the_smallest() -> None:
    # a classifier that looks at the channel of small deviation alone: the largest would be unsound by a factor 9
    model = nn.Sequential(Normalize((0.0, 0.0), (0.1, 0.9)), nn.Flatten(), nn.Linear(2, 2, bias=False)).double().eval()
    with torch.no_grad():
        model[2].weight.copy_(torch.eye(2))
    truth = dense_norm(model, (2, 1, 1))
    assert truth == pytest.approx(10.0)
    assert truth <= model_bound(model, (2, 1, 1)).value <= truth * (1 + 1e-6)


def test_pairwise_is_the_truth_on_a_linear_classifier() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double().eval()
    bounds = pairwise_bounds(model, (3, 2, 2))
    weight = model[1].weight.detach()
    for i in range(5):
        for j in range(5):
            truth = math.dist(weight[i].tolist(), weight[j].tolist())
            assert truth <= float(bounds[i, j]) <= truth * (1 + 1e-8)
    assert bounds.dtype == torch.float64
    assert torch.equal(bounds, bounds.T)
    assert bounds.diagonal().tolist() == [0.0] * 5


def test_pairwise_without_a_last_linear_layer() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.AvgPool2d(4), nn.Flatten()).double().eval()
    bounds = pairwise_bounds(model, (2, 4, 4))
    whole = model_bound(model, (2, 4, 4)).value
    expected = math.sqrt(2) * whole * (1 - torch.eye(3, dtype=torch.float64))
    assert torch.allclose(bounds, expected)
    assert steepest_ratio(lambda x: model(x)[:, [0]] - model(x)[:, [1]], (2, 4, 4)) <= float(bounds[0, 1])


def test_unit_rows_are_at_most_two_apart() -> None:
    model = nn.Sequential(nn.Flatten(), AOLLinear(12, 6), MaxMin(), UnitRowLinear(6, 4)).eval()
    assert float(pairwise_bounds(model, (3, 2, 2)).max()) <= 2.0


def test_a_layer_used_twice_counts_twice() -> None:
    layer = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(3.0 * torch.eye(4))
    model = nn.Sequential(layer, layer).eval()
    assert [i.name for i in layer_bounds(model, (4,))] == ["0", "1"]
    assert model_bound(model, (4,)).value == pytest.approx(9.0)


def test_a_zero_layer_makes_the_network_constant() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 3)).eval()
    nn.init.zeros_(model[1].weight)
    assert model_bound(model, (1, 2, 2)).value == 0.0
    assert float(pairwise_bounds(model, (1, 2, 2)).max()) == 0.0


def test_tiny_products_do_not_vanish() -> None:
    assert times(1e-300, 1e-300) > 0.0
    assert times(0.0, 5.0) == 0.0
    assert times(1.0, 3.0) == 3.0
    assert times(0.1, 0.1) > 0.1 * 0.1


def test_effective_weights_are_bounded() -> None:
    # the free parameters of a parametrised layer say nothing about its norm
    layer = weight_norm(nn.Conv2d(2, 3, 3, padding=1)).double()
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(10.0)
    model = nn.Sequential(layer).eval()
    assert dense_norm(model, (2, 4, 4)) <= model_bound(model, (2, 4, 4)).value
    assert layer_bounds(model, (2, 4, 4))[0].kind == "Conv2d"


def test_a_single_layer_is_a_model() -> None:
    layer = AOLLinear(3, 3).eval()
    items = layer_bounds(layer, (3,))
    assert [(i.name, i.kind) for i in items] == [("model", "AOLLinear")]
    assert model_bound(layer, (3,)) == layer.lipschitz_bound((3,))  # and not a product
    assert isinstance(MaxMin(), BoundedLayer)
    assert not isinstance(nn.Linear(1, 1), BoundedLayer)


def test_a_layer_of_ones_own() -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

        def lipschitz_bound(self, input_shape: Sequence[int]) -> Bound:
            return Bound(2.0, f"doubles {tuple(input_shape)}", True)

    model = nn.Sequential(OrderedDict(pool=nn.AvgPool2d(2), twice=Double())).eval()
    assert layer_bounds(model, (1, 4, 4))[1].bound.method == "doubles (1, 2, 2)"
    assert model_bound(model, (1, 4, 4)).value == pytest.approx(1.0)


# --- refusals -------------------------------------------------------------------------------------------------


class Scaled(nn.Conv2d):
    """A convolution that computes something else than its weights say."""

    def forward(self, features: Tensor) -> Tensor:
        return 100 * super().forward(features)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Conv2d(2, 2, 1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.branch(features)


class Doubled(nn.Sequential):
    def forward(self, features: Tensor) -> Tensor:
        return 2 * super().forward(features)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.AlphaDropout(0.5),
        nn.GELU(),
        nn.MultiheadAttention(2, 1),
        nn.MaxPool2d(3, stride=1, return_indices=True),
        Scaled(2, 2, 1),
        Residual(),
        Doubled(nn.Identity()),
        nn.Flatten(start_dim=0),
        nn.Flatten(start_dim=0, end_dim=1),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 2, 1),
        Normalize((0.0, 0.0), (1.0, 0.0)),
        Normalize((0.0, 0.0), (1.0, math.nan)),
        Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(layer)).eval()
    with pytest.raises(HauberkError, match=r"no Lipschitz bound for layer '1\.0'") as caught:
        layer_bounds(model, (2, 4, 4))
    assert type(layer).__name__ in str(caught.value)


def test_channels_repeated_by_broadcasting_are_refused() -> None:
    # three deviations on one channel would make three outputs of each pixel
    with pytest.raises(HauberkError, match="3 channels, the input has 1"):
        model_bound(Normalize((0.0,) * 3, (1.0,) * 3).eval(), (1, 2, 2))


def test_train_mode_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    model[1].train()
    with pytest.raises(HauberkError, match="train mode"):
        model_bound(model, (1, 2, 2))


def test_hooks_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    handle = model[1].register_forward_hook(lambda module, args, out: 5 * out)
    with pytest.raises(HauberkError, match=r"layer '1' \(Linear\) has a forward hook"):
        model_bound(model, (1, 2, 2))
    handle.remove()
    model[1].forward = lambda x: 5 * x[:, :2]  # type: ignore[method-assign]
    with pytest.raises(HauberkError, match="replaced method"):
        model_bound(model, (1, 2, 2))
    del model[1].forward
    model[0].register_forward_pre_hook(lambda module, args: (5 * args[0],))
    with pytest.raises(HauberkError, match=r"layer '0' \(Flatten\) has a forward hook"):
        model_bound(model, (1, 2, 2))


def test_broken_weights_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[1].weight[0, 0] = math.nan
    with pytest.raises(HauberkError, match=r"layer '1' \(Linear\).*NaN"):
        pairwise_bounds(model, (1, 2, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_bound_is_finite(value: float) -> None:
    with pytest.raises(HauberkError, match="finite Lipschitz bound"):
        Bound(value, "guess", False)


def test_pairwise_wants_logits() -> None:
    with pytest.raises(HauberkError, match="expected logits"):
        pairwise_bounds(nn.Sequential(nn.Conv2d(1, 2, 1)).eval(), (1, 4, 4))
    with pytest.raises(HauberkError, match="no layers"):
        pairwise_bounds(nn.Sequential().eval(), (1, 4, 4))


# --- other norms ----------------------------------------------------------------------------------------------


def steepest_by_corners(model: nn.Module, shape: tuple[int, ...], norm: str) -> Tensor:
    """The largest L1 or Linf slope of every logit difference of a piecewise linear net over random points."""
    points = torch.rand(40, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: model(x[None])[0]))(points).flatten(2)
    apart = jacobian[:, :, None] - jacobian[:, None]
    return (apart.abs().sum(-1) if norm == "linf" else apart.abs().amax(-1)).amax(0)


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_jacobians_never_beat_the_bounds_in_other_norms(norm: str) -> None:
    body = (nn.Conv2d(2, 4, 3, padding=1), MaxMin(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 8), nn.ReLU())
    for tail in ((nn.Linear(8, 3),), (AOLLinear(8, 4), MaxMin())):
        model = nn.Sequential(Normalize((0.5, 0.5), (0.5, 0.25)), *body, *tail).double().eval()
        found, bounds = steepest_by_corners(model, (2, 4, 4), norm), pairwise_bounds(model, (2, 4, 4), norm)
        assert bool((found <= bounds + 1e-12).all())
        # never worse than norm equivalence from L2
        factor = math.sqrt(32) if norm == "linf" else 1.0
        assert bool((bounds <= factor * pairwise_bounds(model, (2, 4, 4)) * (1 + 1e-8)).all())


@pytest.mark.parametrize(("norm", "dual"), [("l1", math.inf), ("l2", 2.0), ("linf", 1.0)])
def test_linear_classifiers_are_exact_in_every_norm(norm: str, dual: float) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double().eval()
    weight = model[1].weight.detach()
    truth = torch.linalg.vector_norm(weight[:, None] - weight[None], dual, 2)
    assert torch.allclose(pairwise_bounds(model, (3, 2, 2), norm), truth, rtol=1e-7)
    assert bool((pairwise_bounds(model, (3, 2, 2), norm) >= truth).all())
    own = torch.linalg.vector_norm(weight, dual, 1)
    assert torch.allclose(walk(model, (3, 2, 2)).logits(norm), own, rtol=1e-7)


def test_the_native_norm_is_used_where_it_is_tighter() -> None:
    # one pixel counts a thousandfold: by norm equivalence Linf would pay for all sixteen
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False)).double().eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[0, 3] = 1000.0
    assert float(pairwise_bounds(model, (1, 4, 4), "linf")[0, 1]) == pytest.approx(1000.0)
    # all pixels count the same: L1 through L2 would pay four times as much
    nn.init.ones_(model[1].weight[:1])
    assert model_bound(model[1], (16,), "l1").value == pytest.approx(1.0)


def test_norms_change_on_the_way() -> None:
    # an L1 step enters a layer of short columns, and goes on in L2: 1 * 1 * sqrt(2), natively it would be 4 * 4 * 1
    spread = nn.Linear(2, 16, bias=False)
    mix = nn.Linear(16, 16, bias=False)
    with torch.no_grad():
        spread.weight.copy_(torch.full((16, 2), 0.25))
        mix.weight.copy_(torch.linalg.qr(torch.randn(16, 16))[0])
    model = nn.Sequential(spread, mix, nn.Linear(16, 2, bias=False)).double().eval()
    with torch.no_grad():
        model[2].weight.copy_(torch.eye(2, 16))
    assert float(pairwise_bounds(model, (2,), "l1")[0, 1]) <= math.sqrt(2.0) * (1 + 1e-6)


def test_a_layer_that_knows_one_norm_alone() -> None:
    class Tallest(nn.Module):
        """1-Lipschitz from Linf to Linf."""

        def forward(self, x: Tensor) -> Tensor:
            return x.abs().amax(1, keepdim=True) - torch.linspace(0, 1, 3, dtype=x.dtype)

        def lipschitz_bound(self, input_shape: Sequence[int], norm: str = "l2") -> Bound:
            if norm != "linf":
                raise HauberkError("only Linf", "")
            return Bound(1.0, "a maximum", True)

    model = nn.Sequential(nn.Flatten(), Tallest()).eval()
    assert 2.0 <= float(pairwise_bounds(model, (1, 2, 2), "linf")[0, 1]) <= 2.0 * (1 + 1e-8)
    assert float(pairwise_bounds(model, (1, 2, 2))[0, 1]) == pytest.approx(2.0)  # Linf is at most L2
    assert layer_bounds(model, (1, 2, 2))[1].norm == "linf"


def test_batch_norm_in_eval_mode_is_a_diagonal() -> None:
    layer = nn.BatchNorm2d(3).double().eval()
    with torch.no_grad():
        layer.running_var.copy_(torch.tensor([0.25, 4.0, 1.0]))
        layer.weight.copy_(torch.tensor([1.0, -9.0, 2.0]))
    truth = dense_norm(layer, (3, 2, 2))
    assert truth == pytest.approx(4.5, rel=1e-4)
    for norm in ("l1", "l2", "linf"):
        assert truth <= model_bound(layer, (3, 2, 2), norm).value <= truth * (1 + 1e-9)
    assert model_bound(nn.LeakyReLU(-3.0).eval(), (3,)).value == 3.0


class Tripled(nn.Linear):
    """Another map than its weight says, and a bound that says so."""

    def forward(self, features: Tensor) -> Tensor:
        return 3 * super().forward(features)

    def lipschitz_bound(self, input_shape: Sequence[int]) -> Bound:
        return Bound(3.0 * float(torch.linalg.matrix_norm(self.weight.detach().double(), 2)) + 1e-9, "tripled", True)


class TripledConv(nn.Conv2d):
    def _conv_forward(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return 3 * super()._conv_forward(features, weight, bias)

    def lipschitz_bound(self, input_shape: Sequence[int]) -> Bound:
        return Bound(
            3.0 * float(torch.linalg.matrix_norm(self.weight.detach().double().flatten(1), 2)), "tripled", True
        )


class TripledAfter(TripledConv):
    _conv_forward = nn.Conv2d._conv_forward

    def forward(self, features: Tensor) -> Tensor:
        return 3 * super().forward(features)

    def lipschitz_bound(self, input_shape: Sequence[int]) -> Bound:
        return super().lipschitz_bound(input_shape)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("first", [TripledConv, TripledAfter, nn.Conv2d])
@pytest.mark.parametrize("last", [Tripled, nn.Linear])
def test_layers_that_compute_more_than_their_weight_says(norm: str, first: type, last: type) -> None:
    model = nn.Sequential(first(2, 3, 1, bias=False), nn.Flatten(), last(12, 3)).double().eval()
    found, bounds = steepest_by_corners(model, (2, 2, 2), norm), walk(model, (2, 2, 2))
    assert bool((found <= bounds.pairwise(norm)).all())
    jacobian = torch.func.jacrev(lambda x: model(x[None])[0])(torch.rand(2, 2, 2, dtype=torch.float64)).flatten(1)
    dual = {"l1": math.inf, "l2": 2.0, "linf": 1.0}[norm]
    assert bool((torch.linalg.vector_norm(jacobian, dual, 1) <= bounds.logits(norm)).all())


def test_a_layer_that_knows_l2_alone_serves_other_norms_by_equivalence() -> None:
    model = nn.Sequential(nn.Flatten(), Tripled(4, 3)).double().eval()
    items = layer_bounds(model, (1, 2, 2), "linf")
    assert [i.norm for i in items] == ["linf", "l2"]
    own = items[1].bound.value
    assert float(pairwise_bounds(model, (1, 2, 2), "linf")[0, 1]) == pytest.approx(2.0 * math.sqrt(2.0) * own)
    assert walk(model, (1, 2, 2)).logits("linf").tolist() == pytest.approx([2.0 * own] * 3)


def test_features_that_grow_in_number() -> None:
    # one value becomes sixteen equal ones: Linf stays 1, L2 becomes 4 and L1 16, by the sizes of what leaves a layer
    model = nn.Sequential(nn.Linear(1, 16, bias=False), nn.ReLU(), nn.Linear(16, 2, bias=False)).double().eval()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[2].weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 16))
    for norm in ("l1", "l2", "linf"):
        assert 32.0 <= float(pairwise_bounds(model, (1,), norm)[0, 1]) <= 32.0 * (1 + 1e-6)
        assert walk(model, (1,)).logits(norm).tolist() == pytest.approx([16.0, 16.0])


# --- what a review found --------------------------------------------------------------------------------------


def test_longer_means_would_repeat_channels() -> None:
    with pytest.raises(HauberkError, match="3 channels, the input has 1"):
        model_bound(nn.Sequential(Normalize((0.0, 0.0, 0.0), (1.0,))).eval(), (1, 2, 2))


def test_a_slope_that_is_no_number_is_refused() -> None:
    with pytest.raises(HauberkError, match="finite Lipschitz bound"):
        model_bound(nn.Sequential(nn.LeakyReLU(math.nan)).eval(), (4,))


class Drawn(nn.Module):
    """A weight that is drawn anew at each look."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * (1 + 10 * torch.rand(()))


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - 0.999 * x.mean(0)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: str = "l2") -> Bound:
        return Bound(1.0, "claimed", False)


def test_random_layers_and_layers_that_mix_rows_are_refused() -> None:
    layer = nn.Linear(4, 3)
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Drawn(), unsafe=True)
    with pytest.raises(HauberkError, match="two calls"):
        model_bound(nn.Sequential(nn.Flatten(), layer).eval(), (1, 2, 2))
    with pytest.raises(HauberkError, match="depends on the other images"):
        model_bound(nn.Sequential(Centred()).eval(), (4,))


class Mixing(nn.Module):
    """One of several ways in which a row of a batch may see another."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: str = "l2") -> Bound:
        return Bound(1.0, "claimed", False)


@pytest.mark.parametrize(
    "way",
    [
        lambda x: x - 0.999 * x.mean(0),
        lambda x: x + 1e-6 * x.sum(),
        lambda x: x.flip(0),
        lambda x: torch.cat([x[:1], x[:1]]),
        lambda x: torch.cat([x[1:], x[1:]]),
        lambda x: x * x.abs().amax(),
        lambda x: x - torch.cat([torch.zeros_like(x[:1]), x[:-1]]),
        lambda x: x.sort(dim=0).values,
        lambda x: x / (1.0 + x.std(0)),
        lambda x: torch.where(x.sum() > 0, x, 0.5 * x),
    ],
)
def test_every_way_of_seeing_another_row_is_refused(way: Callable[[Tensor], Tensor]) -> None:
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(HauberkError, match="depends on the other images"):
            model_bound(nn.Sequential(nn.Linear(4, 4), Mixing(way)).to(dtype).eval(), (4,))


def test_a_kernel_that_rounds_batches_of_one_otherwise_is_no_mixing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MKL does with products of one to seven rows; where large numbers cancel, the last bit is all there is."""
    real = nn.functional.linear

    def uneven(x: Tensor, *rest: Tensor) -> Tensor:
        return real(x, *rest) * (1.0 + len(x) * 2.0**-52)

    monkeypatch.setattr(nn.functional, "linear", uneven)
    layers = [nn.Linear(4, 4, dtype=torch.float64) for _ in range(2)]
    with torch.no_grad():
        for layer, bias in zip(layers, (1e15, -1e15), strict=True):
            layer.weight.copy_(torch.eye(4))
            layer.bias.fill_(bias)
    step = SLLLinear(4, 4).double()
    with torch.no_grad():
        step.bias.fill_(1e15)
    for net in (nn.Sequential(*layers), nn.Sequential(ConvexResidual(nn.Sequential(*layers)).double(), step)):
        assert model_bound(net.eval(), (4,)).value >= 1.0 - 1e-9


class OtherConvolution(AOLConv2d):
    def _conv_forward(self, *arguments: Tensor) -> Tensor:
        return 100 * super()._conv_forward(*arguments)


class OtherCall(AOLLinear):
    def __call__(self, x: Tensor) -> Tensor:
        return 100 * super().__call__(x)


class Pretender(nn.Linear):
    """Not parametrised, though it looks so, and its forward is its own."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.parametrizations = nn.ModuleDict({"x": nn.Identity()})

    def forward(self, x: Tensor) -> Tensor:
        return 100 * x


@pytest.mark.parametrize(
    ("layer", "shape"), [(OtherConvolution(2, 2, 1), (2, 4, 4)), (OtherCall(4, 4), (4,)), (Pretender(), (4,))],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_ways_around_forward_are_seen(layer: nn.Module, shape: tuple[int, ...]) -> None:
    seen = r"inherits the bound|nothing is known|not an nn\.Sequential|changes how modules work"
    with pytest.raises(HauberkError, match=seen):
        model_bound(nn.Sequential(layer).eval(), shape)


def test_replaced_helpers_and_hooks_on_everything_are_seen() -> None:
    layer = nn.Conv2d(1, 1, 1)
    layer._conv_forward = lambda x, w, b: 100 * x  # type: ignore[method-assign]
    with pytest.raises(HauberkError, match="replaced method"):
        model_bound(nn.Sequential(layer).eval(), (1, 2, 2))
    everywhere = nn.modules.module
    for register, hook in (
        (everywhere.register_module_forward_hook, lambda module, args, out: 5 * out),
        (everywhere.register_module_forward_pre_hook, lambda module, args: (5 * args[0],)),
    ):
        handle = register(hook)
        try:
            with pytest.raises(HauberkError, match="on all modules"):
                model_bound(nn.Sequential(nn.Flatten()).eval(), (1, 2, 2))
        finally:
            handle.remove()


def test_a_bound_on_the_object_is_refused_by_name() -> None:
    layer = nn.Identity()
    layer.lipschitz_bound = lambda shape: Bound(1.0, "claimed", True)  # type: ignore[assignment]
    with pytest.raises(HauberkError, match="is defined on the object"):
        model_bound(nn.Sequential(layer).eval(), (4,))


def test_rows_whose_squares_vanish_still_move() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 2)).double().eval()
    with torch.no_grad():
        model[0].weight.fill_(1e170)
        model[1].weight.copy_(torch.tensor([[1e-170, 1e-170], [0.0, 0.0]], dtype=torch.float64))
    assert float(pairwise_bounds(model, (1,))[0, 1]) == pytest.approx(2.0)


def test_padding_changed_afterwards_is_seen() -> None:
    layer = nn.Conv2d(1, 1, 1, padding=1, padding_mode="circular", bias=False).double().eval()
    layer.padding = (0, 0)  # torch goes on to pad by one
    with pytest.raises(HauberkError, match="changed after it was built"):
        conv_layer_norm(layer, (1, 2, 2))
    assert dense_norm(layer, (1, 2, 2)) <= model_bound(layer, (1, 2, 2)).value  # from the norms that look at it
