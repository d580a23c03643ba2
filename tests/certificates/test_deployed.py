"""The deployed model beside the frozen predictor: what rounding explains, what it does not, and what comes off gaps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hauberk import verify
from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN, FrozenLipschitz, LipschitzCertificate, MixedCertificate, freeze
from hauberk.certificates.deployed import compare
from hauberk.certificates.evidence import LogitMargins
from hauberk.certificates.rounding import exact_forward
from hauberk.classifier import weights_hash
from hauberk.defences.mixed import MixedClassifier
from hauberk.layers import AOLLinear, Bound, MaxMin, UnitRowLinear
from hauberk.models import cnn_6c2f, li_resnet, lip_convnet, lip_convnet_n, lip_mlp, small_cnn

read = LogitMargins.read
CERTIFICATE = LipschitzCertificate()
TASK = ((1, 8, 8), 10, (0.3,), (0.4,))


def images_of(rows: int, *shape: int) -> Batch:
    images = torch.rand(rows, *shape, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.zeros(rows).long(), torch.arange(rows))


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return layer


class InSinglePrecision(nn.Module):
    """The identity in float64, something else in float32, as a kernel of lower precision would be."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x) if x.dtype == torch.float32 else x

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(1.0, "identity", True)


OTHER: dict[str, Callable[[Tensor], Tensor]] = {
    "bfloat16": lambda x: x.bfloat16().float(),
    "ten bits, as tensor cores": lambda x: (x * 2.0**10).round() / 2.0**10,
    "a thousandth more": lambda x: x * (1.0 + 1e-3 * torch.arange(x.shape[1])),
    "a shift of the first": lambda x: x + torch.tensor([1e-3] + [0.0] * (x.shape[1] - 1)),
    "small values vanish": lambda x: torch.where(x.abs() < 0.1, 0.0, x),
    "one channel lost": lambda x: x * torch.tensor([0.0] + [1.0] * (x.shape[1] - 1)),
}


@pytest.mark.parametrize("kind", OTHER)
def test_another_function_abstains_though_it_decides_alike(kind: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), AOLLinear(4, 4), InSinglePrecision(OTHER[kind]), UnitRowLinear(4, 3)).eval()
    batch = images_of(6, 1, 2, 2)
    found = CERTIFICATE(net, batch)
    alike = [row["deployed"] == max(range(3), key=row["logits"].__getitem__) for row in found.rows]
    assert any(alike)
    beyond = [row["distance"] > row["explained"] for row in found.rows]
    assert sum(beyond) >= 4
    for row, prediction, radius in zip(found.rows, found.prediction.tolist(), found.radius.tolist(), strict=True):
        if row["distance"] > row["explained"]:
            assert (prediction, radius) == (ABSTAIN, 0.0)
            assert verify.lipschitz(row, found.shared) == (ABSTAIN, 0.0)


def test_a_record_says_what_was_compared_and_old_ones_are_read_as_before() -> None:
    net = lip_mlp(*TASK).eval()
    found = CERTIFICATE(net, images_of(4, 1, 8, 8))
    assert set(found.rows[0]) == {"logits", "rounding", "deployed", "distance", "explained"}
    assert found.shared["frozen"] == weights_hash(freeze(net, (1, 8, 8)))
    row = found.rows[0]
    old = {key: row[key] for key in ("logits", "rounding", "deployed")}
    for some in (old, {"logits": row["logits"]}):
        top, radius = verify.lipschitz(some, found.shared)
        assert CERTIFICATE.decision(read(some, found.shared)) == top == row["deployed"]
        assert CERTIFICATE.radius(read(some, found.shared)) == pytest.approx(radius)
    for broken in (math.nan, math.inf):
        assert CERTIFICATE.decision(read(row | {"distance": broken}, found.shared)) == ABSTAIN
        assert verify.lipschitz(row | {"distance": broken}, found.shared) == (ABSTAIN, 0.0)


def test_the_estimate_by_hand() -> None:
    """Twice sqrt 2 u (|x_2| + L_2 |x_1| + L_2 (|x_1| + L_1 |x_0|)) of a flattening and a layer of norm 2."""
    net = nn.Sequential(nn.Flatten(), linear([[2.0, 0.0], [0.0, 2.0]], [0.0, 0.0])).eval()
    batch = Batch(torch.tensor([[[[0.6, 0.8]]]]), torch.zeros(1).long(), torch.arange(1))
    for unit, dtype in ((2.0**-24, torch.float32), (2.0**-53, torch.float64)):
        model, images = copy.deepcopy(net).to(dtype), batch.images.to(dtype)
        row = CERTIFICATE(model, Batch(images, batch.labels, batch.ids)).rows[0]
        size = 2.0 + 2.0 + 2.0 * (1.0 + 1.0)
        assert row["explained"] == pytest.approx(2.0 * math.sqrt(2.0) * unit * size, rel=1e-6)


@pytest.mark.parametrize("bias", [1.0, 1e2, 1e4, 1e6, 1e8])
def test_no_flip_in_single_precision_just_inside_where_biases_are_large(bias: float) -> None:
    """A linear net, whose radii are tight: float32 logits of that size are coarser than the gaps."""
    net = nn.Sequential(nn.Flatten(), linear([[1.0, 0.0], [0.0, 1.0]], [bias, bias + 0.1])).eval()
    batch = images_of(200, 1, 1, 2)
    found = CERTIFICATE(net, batch)
    sign = torch.where(found.prediction == 0, 1.0, -1.0)[:, None]
    step = sign * torch.tensor([[1.0, -1.0]]) / math.sqrt(2.0)
    for share in (0.5, 0.9, 0.99, 0.9995):
        moved = (batch.images.flatten(1).double() - share * found.radius[:, None] * step).float()
        inside = (moved.double() - batch.images.flatten(1).double()).norm(dim=1) < found.radius
        with torch.no_grad():
            now = net(moved.reshape(-1, 1, 1, 2)).argmax(1)
        assert bool((now == found.prediction)[inside & (found.radius > 0)].all())
    if bias >= 1e8:
        assert not bool((found.radius > 0).any())
    if bias <= 1e2:
        assert bool((found.radius > 0).any())


def test_a_batch_norm_that_removes_much_gives_no_more_than_single_precision_keeps() -> None:
    net = nn.Sequential(nn.Flatten(), linear([[1.0, 0.0], [0.0, 1.0]], [1e5, 1e5]), nn.BatchNorm1d(2)).eval()
    net[2].running_mean.fill_(1e5)
    batch = images_of(50, 1, 1, 2)
    found = CERTIFICATE(net, batch)
    gaps = (batch.images[:, 0, 0, 0] - batch.images[:, 0, 0, 1]).abs().double()
    coarse = 2.0**-8  # two halves of the unit of 1e5
    assert bool((found.radius <= ((gaps - coarse).clamp_min(0.0) / math.sqrt(2.0) + 1e-4)).all())
    assert bool((found.radius > 0).any())


def test_levels_in_single_precision_decide_nothing() -> None:
    net = nn.Sequential(nn.Flatten(), linear([[1.0, 0.0], [0.0, 1.0]], [3e7, 3e7])).eval()
    batch = Batch(torch.tensor([[[[0.9, 0.1]]]]), torch.zeros(1).long(), torch.arange(1))
    found = CERTIFICATE(net, batch)
    assert found.rows[0]["logits"][0] > found.rows[0]["logits"][1]
    assert found.rows[0]["deployed"] == ABSTAIN
    assert found.prediction.tolist() == [ABSTAIN]


def test_overflow_in_single_precision_decides_nothing() -> None:
    layers = [linear([[factor, 0.0], [0.0, 1.0]], [0.0, 0.0]) for factor in (1e38, 1e4)]
    net = nn.Sequential(nn.Flatten(), *layers)
    found = CERTIFICATE(net.eval(), images_of(4, 1, 1, 2))
    assert found.prediction.tolist() == [ABSTAIN] * 4
    assert [row["distance"] for row in found.rows] == [math.inf] * 4


def test_luck_at_the_image_does_not_hide_what_rounding_does_elsewhere() -> None:
    """Pixels that are whole multiples of the coarse unit lose nothing; others of the ball do."""
    middle = [linear([[1.0, 0.0], [0.0, 1.0]], [2.0**20, 2.0**20]), linear([[1.0, 0.0], [0.0, 1.0]], [-(2.0**20)] * 2)]
    net = nn.Sequential(nn.Flatten(), *middle).eval()
    image = torch.tensor([[[[0.75, 0.5]]]])  # the unit is 1/8
    found = CERTIFICATE(net, Batch(image, torch.zeros(1).long(), torch.arange(1)))
    assert found.rows[0]["distance"] == 0.0
    assert float(found.radius) < 0.25 / math.sqrt(2.0) - 1.0 / 16.0


SMALL = {
    "lip_convnet": {"widths": (4, 6), "hidden": 8}, "lip_convnet_n": {"width": 2}, "cnn_6c2f": {"scale": 0.1},
    "small_cnn": {"widths": (4, 4, 4, 4, 4, 8)},
}  # fmt: skip


@pytest.mark.parametrize("build", [lip_convnet, lip_mlp, lip_convnet_n, li_resnet, cnn_6c2f, small_cnn])
def test_honest_nets_keep_their_radii(build: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    net = build(*TASK, **SMALL.get(build.__name__, {})).eval()
    batch = images_of(64, 1, 8, 8)
    found = CERTIFICATE(net, batch)
    classes, radii = FrozenLipschitz(net, (1, 8, 8))(batch.images)
    assert torch.equal(classes, found.prediction)
    assert bool((found.radius <= radii * (1.0 + 1e-9)).all())
    kept = (found.radius - radii).abs() <= 1e-9 * radii
    assert float(kept.double().mean()) >= 0.95
    assert max(row["distance"] / row["explained"] for row in found.rows) < 0.2
    assert min(row["distance"] / row["explained"] for row in found.rows) > 1e-6


def test_the_frozen_predictor_itself_has_no_distance() -> None:
    net = freeze(lip_mlp(*TASK).eval(), (1, 8, 8))
    found = CERTIFICATE(net, images_of(8, 1, 8, 8))
    assert all(row["distance"] < 1e-14 for row in found.rows)
    assert bool((found.radius > 0).all())


def test_what_single_precision_loses_comes_off_a_mix_too() -> None:
    net = nn.Sequential(nn.Flatten(), linear([[30.0, 0.0], [0.0, 30.0]], [1e6, 1e6])).eval()
    batch = Batch(torch.tensor([[[[0.9, 0.1]]]]), torch.zeros(1).long(), torch.arange(1))
    row, scaled = CERTIFICATE(net, batch).rows[0], None
    mix = MixedClassifier(net, net, 0.9, 1.0, 2.0).eval()
    scaled = MixedCertificate(CERTIFICATE)(mix, batch).rows[0]
    assert row["rounding"] > 0.01
    assert scaled["rounding"] == pytest.approx(2.0 * row["rounding"])


def test_the_share_of_the_estimate_is_measured_once() -> None:
    net, calls = nn.Sequential(nn.Flatten(), AOLLinear(4, 4), MaxMin(), UnitRowLinear(4, 3)).eval(), []
    _, forward = exact_forward(net, (1, 2, 2))
    batch = images_of(5, 1, 2, 2)
    logits, rounding = forward(batch.images.double())
    net.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        compare(net, forward, batch, 16, logits, rounding)
    assert len(calls) == 4
    assert forward.share is not None
    assert 0.0 < forward.share < 0.5


class Widen(nn.Module):
    """From here on in float64, whatever came before."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(1.0, "identity", True)


def test_the_coarsest_precision_of_a_model_counts() -> None:
    """A head in float64 gives float64 logits, of features that float32 has rounded."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), Widen(), nn.Linear(4, 3).double()).eval()
    row = CERTIFICATE(net, images_of(2, 1, 2, 2)).rows[0]
    assert 1e-8 < row["explained"] < 1e-4
    assert row["distance"] <= row["explained"]


def test_what_vanishes_in_single_precision_is_explained_and_proves_nothing() -> None:
    """Squares of 1e-25 are zero in float32; 1e25 of them make logits."""
    layers = [linear([[factor, 0.0], [0.0, factor]], [0.0, 0.0]) for factor in (1e-25, 1e-25, 1e25, 1e25)]
    net = nn.Sequential(nn.Flatten(), *layers, linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.25])).eval()
    found = CERTIFICATE(net, images_of(8, 1, 1, 2))
    assert all(row["distance"] <= row["explained"] for row in found.rows)
    assert found.radius.tolist() == [0.0] * 8
