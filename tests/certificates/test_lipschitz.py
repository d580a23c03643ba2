"""Margin over Lipschitz bound: tight on linear nets, never broken by brute force on small ones."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.capabilities import Decides
from hauberk.certificates import ABSTAIN, LipschitzCertificate, freeze
from hauberk.certificates.evidence import LogitMargins, on_record
from hauberk.classifier import Normalize
from hauberk.cli.certify import _certificates, _completed
from hauberk.conformance import LinearOracle, check_certificate
from hauberk.defences.mixed import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.layers import (
    AOLConv2d,
    AOLLinear,
    MaxMin,
    UnitRowLinear,
    walk,
)

read = LogitMargins.read
CERTIFICATE = LipschitzCertificate()


class Deciding(nn.Sequential, Decides):
    """A network that decides in a way of its own."""



def evidence(logits: list[float], speed: float = 1.0) -> tuple[dict, dict]:
    classes = len(logits)
    pairwise = (speed * (1 - np.eye(classes))).tolist()
    return {"logits": logits}, {"pairwise": pairwise, "layers": []}


def small_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    body = (AOLConv2d(1, 4, 2), MaxMin(), nn.Flatten(), AOLLinear(4, 4), MaxMin())
    net = nn.Sequential(*body, UnitRowLinear(4, 3)).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return net


def images_of(rows: int, seed: int, side: int = 2) -> Batch:
    images = torch.rand(rows, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.zeros(rows).long(), torch.arange(rows))


def test_conformance() -> None:
    check_certificate(CERTIFICATE)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_on_a_linear_net_the_radius_is_the_true_one(classes: int) -> None:
    oracle = LinearOracle.random((1, 4, 5), classes, seed=classes)
    batch = oracle.batch(50)
    found = CERTIFICATE(oracle.layers, batch)
    true = oracle.true_radius(batch.images, "l2")
    assert bool((found.radius <= true).all())
    torch.testing.assert_close(found.radius, true, rtol=1e-6, atol=0)
    assert torch.equal(found.prediction, batch.labels)
    assert (found.norm, found.kind) == ("l2", "deterministic")


@pytest.mark.parametrize("seed", range(4))
def test_brute_force_finds_no_violation(seed: int) -> None:
    """20 images, 4000 changes each, from just inside the radius inwards; the frozen net's decision never changes."""
    net, batch = small_net(seed), images_of(20, seed)
    found = CERTIFICATE(net, batch)
    exact = freeze(small_net(seed), (1, 2, 2))
    assert bool((found.radius > 0).any())
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(20, 4000, 4, generator=generator, dtype=torch.float64)
    direction /= direction.norm(dim=2, keepdim=True)
    length = found.radius[:, None, None] * torch.rand(20, 4000, 1, generator=generator, dtype=torch.float64).pow(0.1)
    moved = (batch.images.double().flatten(1)[:, None] + length * direction).reshape(-1, 1, 2, 2)
    with torch.no_grad():
        decisions = exact(moved).argmax(1).reshape(20, 4000)
    assert bool((decisions == found.prediction[:, None]).all())


@pytest.mark.parametrize("seed", range(4))
def test_the_propagated_margin_is_never_above_what_happens(seed: int) -> None:
    net, batch = small_net(seed), images_of(20, seed + 10)
    rows, shared = on_record(CERTIFICATE.gather(net, batch, 0, 32))
    exact = freeze(small_net(seed), (1, 2, 2))
    generator = torch.Generator().manual_seed(seed)
    for radius in (0.0, 0.02, 0.1, 0.3):
        direction = torch.randn(20, 1500, 4, generator=generator, dtype=torch.float64)
        direction *= radius / direction.norm(dim=2, keepdim=True)
        moved = (batch.images.double().flatten(1)[:, None] + direction).reshape(-1, 1, 2, 2)
        with torch.no_grad():
            p = exact(moved).softmax(1).reshape(20, 1500, 3)
        for i, row in enumerate(rows):
            y = CERTIFICATE.decision(read(row, shared))
            others = [j for j in range(3) if j != y]
            least = float((p[i, :, y, None] - p[i][:, others]).min())
            stated = CERTIFICATE.margin(read(row, shared), radius)
            assert stated <= least + 1e-12
            if radius == 0.0:
                wide = p[i, 0, y] * (1 - p[i, 0, others].max() / p[i, 0, y])
                assert stated == pytest.approx(float(wide), abs=1e-9)


def test_the_margin_of_two_classes_is_attained_on_a_linear_net() -> None:
    oracle = LinearOracle.random((1, 2, 3), 2, seed=5)
    batch = oracle.batch(10)
    rows, shared = on_record(CERTIFICATE.gather(oracle.layers, batch, 0, 16))
    w = oracle.layers[1].weight.detach().double().diff(dim=0)[0]
    for row in rows:
        y = CERTIFICATE.decision(read(row, shared))
        gap = row["logits"][y] - row["logits"][1 - y]
        for r in (0.0, 0.3 * gap / float(w.norm()), 0.9 * gap / float(w.norm())):
            worst = math.tanh(0.5 * (gap - r * float(w.norm())))  # p_y - p_j of two classes
            assert CERTIFICATE.margin(read(row, shared), r) == pytest.approx(worst, rel=1e-6)
            assert CERTIFICATE.margin(read(row, shared), r) <= worst + 1e-15
        assert CERTIFICATE.margin(read(row, shared), 1.1 * gap / float(w.norm())) == -1.0


@pytest.mark.parametrize("margin", [0.1, 0.5, 0.9])
def test_the_radius_at_a_margin_is_the_largest_that_keeps_it(margin: float) -> None:
    row, shared = evidence([6.0, 1.0, 0.5], speed=2.0)
    found = CERTIFICATE.radius(read(row, shared), margin)
    assert CERTIFICATE.margin(read(row, shared), found) > margin
    assert CERTIFICATE.margin(read(row, shared), found + 1e-9) < margin
    assert found < CERTIFICATE.radius(read(row, shared))


def test_the_nearest_rival_counts_by_its_own_bound() -> None:
    shared = {"pairwise": [[0.0, 1.0, 4.0], [1.0, 0.0, 3.0], [4.0, 3.0, 0.0]], "layers": []}
    assert CERTIFICATE.radius(read({"logits": [5.0, 3.0, 1.0]}, shared)) == pytest.approx(1.0)  # 4 / 4 before 2 / 1
    assert CERTIFICATE.radius(read({"logits": [3.0, 5.0, 1.0]}, shared)) == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    "logits",
    [
        [1.0, 1.0, 0.0],
        [0.0, 0.0, 0.0],
        [2.0, 1.0, 2.0],
        [math.nan, 1.0, 0.0],
        [math.inf, 0.0, 1.0],
        [-math.inf, 0.0, 1.0],
    ],
)
def test_ties_nan_and_infinity_give_nothing(logits: list[float]) -> None:
    row, shared = evidence(logits)
    assert CERTIFICATE.radius(read(row, shared)) == 0.0
    assert CERTIFICATE.radius(read(row, shared), 0.3) == 0.0
    assert CERTIFICATE.margin(read(row, shared), 0.0) <= 0.0
    if not all(map(math.isfinite, logits)):
        assert CERTIFICATE.decision(read(row, shared)) == ABSTAIN


@pytest.mark.parametrize("bias", [0.0, 1.0, 1e3, 1e6, 1e9])
def test_large_biases_do_not_round_a_radius_up(bias: float) -> None:
    """Two logits of that size and a tiny gap: the sum loses digits that the difference of the two then shows."""
    oracle = LinearOracle(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([bias, bias]), (1, 1, 2), centre=0.0)
    gaps = torch.linspace(1e-7, 3e-6, 200)
    images = torch.stack([gaps, torch.zeros(200)], 1).reshape(200, 1, 1, 2)
    batch = Batch(images, torch.zeros(200).long(), torch.arange(200))
    single = CERTIFICATE(oracle.layers, batch)
    found = CERTIFICATE(oracle.layers.double(), Batch(images.double(), batch.labels, batch.ids))
    for radius in (single.radius, found.radius):
        assert bool((radius <= gaps.double()).all())  # the gap is the distance: w_0 - w_1 has length 1
    assert bool((found.radius > 0.9 * gaps.double()).all()) == (bias <= 1e3)
    # deployed in float32, logits of 1000 are level here, and no class is ahead
    assert bool((single.radius > 0.0).any()) == (bias <= 1.0)


def test_what_the_model_itself_decides_otherwise_is_not_certified() -> None:
    """In float32 the bias swallows the gap, so the model that is attacked sees a tie and says class 0."""
    oracle = LinearOracle(torch.tensor([[0.0, 0.0], [0.01, 0.0]]), torch.tensor([3e6, 3e6]), (1, 1, 2), centre=0.0)
    batch = Batch(torch.tensor([[[[0.9, 0.1]]]]), torch.tensor([1]), torch.tensor([0]))
    found = CERTIFICATE(oracle.layers, batch)
    assert found.rows[0]["logits"][1] > found.rows[0]["logits"][0]
    assert int(oracle.layers(batch.images).argmax(1)) == 0
    assert (found.prediction.tolist(), found.radius.tolist()) == ([ABSTAIN], [0.0])


def test_a_level_rival_that_never_moves_is_a_tie() -> None:
    """Two identical rows of the last layer: their gap is 0 and so is its bound."""
    row, shared = evidence([3.0, 3.0, 1.0])
    shared["pairwise"][0][1] = shared["pairwise"][1][0] = 0.0
    assert CERTIFICATE.radius(read(row, shared)) == 0.0
    assert CERTIFICATE.radius(read({"logits": [3.0, 2.0, 1.0]}, shared)) == pytest.approx(2.0)  # behind, never nearer


def test_a_constant_net_claims_nothing() -> None:
    row, shared = evidence([3.0, 1.0], speed=0.0)
    assert CERTIFICATE.radius(read(row, shared)) == 0.0


def test_tiny_and_huge_logits() -> None:
    for scale in (1e-300, 1e-30, 1e30, 1e300):
        row, shared = evidence([2.0 * scale, scale], speed=scale)
        assert CERTIFICATE.radius(read(row, shared)) == pytest.approx(1.0, rel=1e-9)
        assert CERTIFICATE.radius(read(row, shared)) <= 1.0


def test_the_evidence_is_in_double_precision() -> None:
    net, batch = small_net(0), images_of(3, 1)
    rows, shared = on_record(CERTIFICATE.gather(net, batch, 0, 4))
    with torch.no_grad():
        logits = freeze(small_net(0), (1, 2, 2))(batch.images)
    np.testing.assert_allclose([row["logits"] for row in rows], logits.numpy(), rtol=1e-12)
    assert next(net.parameters()).dtype == torch.float32
    pairwise = np.asarray(shared["pairwise"])
    assert (pairwise == pairwise.T).all()
    assert (np.diag(pairwise) == 0).all()
    assert [layer["kind"] for layer in shared["layers"]][-1] == "UnitRowLinear"


def test_what_is_not_understood_is_refused() -> None:
    with pytest.raises(HauberkError, match="no Lipschitz bound"):
        CERTIFICATE(nn.Sequential(nn.Flatten(), nn.GELU(), nn.Linear(4, 2)).eval(), images_of(2, 0))


def test_a_constant_that_is_no_number_gives_nothing() -> None:
    row, shared = {"logits": [3.0, 0.0, 0.0], "deployed": 0}, {"pairwise": [[0.0, float("nan"), 1.0]] * 3}
    assert LipschitzCertificate().radius(read(row, shared)) == 0.0


@pytest.mark.parametrize("norm", ["l1", "linf"])
@pytest.mark.parametrize("classes", [2, 5])
def test_in_other_norms_a_linear_net_is_certified_exactly(norm: str, classes: int) -> None:
    oracle = LinearOracle.random((1, 4, 5), classes, seed=classes)
    batch = oracle.batch(50)
    single = LipschitzCertificate(norm)(oracle.layers, batch)
    found = LipschitzCertificate(norm)(oracle.layers.double(), Batch(batch.images.double(), batch.labels, batch.ids))
    true = oracle.true_radius(batch.images, norm)
    assert found.norm == single.norm == norm
    assert bool((found.radius <= true).all())
    torch.testing.assert_close(found.radius, true, rtol=1e-6, atol=0)
    # in float32 rounding takes some of the smallest gap
    assert bool((single.radius <= true).all())
    assert int(((single.radius - true).abs() > 1e-6 * true).sum()) <= 1
    torch.testing.assert_close(single.radius, true, rtol=1e-2, atol=0)


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_corners_of_the_ball_do_not_break_other_norms(norm: str) -> None:
    net, batch = small_net(0), images_of(20, 0)
    found = LipschitzCertificate(norm)(net, batch)
    assert bool((found.radius > 0).any())
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4) if norm == "linf" else torch.eye(4)
    corners = torch.cat([corners, -corners]).double()
    moved = batch.images.double().flatten(1)[:, None] + found.radius[:, None, None] * corners
    with torch.no_grad():
        decisions = freeze(net, (1, 2, 2))(moved.reshape(-1, 1, 2, 2)).argmax(1).reshape(20, -1)
    assert bool((decisions == found.prediction[:, None]).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    batch = images_of(2, 0)
    with pytest.raises(HauberkError, match="half precision"):
        CERTIFICATE(small_net(0).to(dtype), batch)


def test_half_precision_statistics_are_refused_too() -> None:
    net = nn.Sequential(Normalize((0.5,), (0.3,)).half(), *small_net(0)).eval()
    with pytest.raises(HauberkError, match="half precision"):
        CERTIFICATE(net, images_of(2, 0))


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_evidence_names_its_norm(norm: str) -> None:
    net, batch = small_net(0), images_of(2, 1)
    _, shared = on_record(LipschitzCertificate(norm).gather(net, batch, 0, 4))
    found = walk(freeze(net, (1, 2, 2)), (1, 2, 2))
    assert shared["norm"] == norm
    assert shared["pairwise"] == found.pairwise(norm).tolist()
    layers = found.layers(norm)[1:]  # the first one carries images to float64
    assert [(b["norm"], b["value"]) for b in shared["layers"]] == [(b.norm, b.bound.value) for b in layers]
    assert "l1" not in {b["norm"] for b in shared["layers"]} or norm == "l1"
    assert any(b["norm"] == norm for b in shared["layers"])


def test_each_certificate_of_a_recipe_takes_the_settings_that_it_has() -> None:
    specs = [{"name": "lipschitz"}, {"name": "smoothing", "sigma": 0.25}]
    run = SimpleNamespace(recipe={"evaluation": {"certificates": specs}})
    subject = SimpleNamespace(run=run, recipe=run.recipe, model=small_net(0))
    first, second = _certificates(subject, None, {"norm": "linf", "n": 50}, None)
    assert (first.norm, second.n) == ("linf", 50)
    with pytest.raises(HauberkError, match="no certificate of this recipe has a setting 'other'"):
        _certificates(subject, None, {"other": 1}, None)


def test_certificates_are_completed_by_what_is_asked_on_the_command_line() -> None:
    plain = SimpleNamespace(model=small_net(0))
    mix = SimpleNamespace(model=MixedClassifier(small_net(0), small_net(1), 0.8, 1.0, 1.0))
    lipschitz, local = {"name": "lipschitz", "norm": "l2"}, {"name": "local_lipschitz"}
    linf = {"name": "lipschitz", "norm": "linf"}
    assert _completed(plain, lipschitz, {"norm": "linf"}, None) == linf
    with pytest.raises(HauberkError, match="of a mix"):
        _completed(plain, lipschitz, {}, "exact")
    # of a mix, what is asked belongs to the certificate on which the mix's rests
    assert _completed(mix, lipschitz, {"norm": "linf"}, None) == {
        "name": "mixed_margin",
        "base": linf,
        "bound": "exact",
    }
    assert _completed(mix, local, {}, None)["bound"] == "theorem_3_5"
    written = {"name": "mixed_margin", "base": lipschitz, "bound": "theorem_3_5"}
    assert _completed(mix, written, {"norm": "linf"}, None) == written | {"base": linf}
    assert _completed(mix, written, {}, "theorem_a1")["bound"] == "theorem_a1"
    assert _completed(mix, {"name": "mixed_margin"}, {}, None)["base"] == {"name": "lipschitz"}
    assert written["base"] is lipschitz
    assert lipschitz["norm"] == "l2"


def test_a_model_that_decides_otherwise_is_refused() -> None:
    net = small_net(0)
    net.__class__ = Deciding
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        CERTIFICATE(net, images_of(2, 0))
