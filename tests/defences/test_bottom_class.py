"""The bottom class: its rule on linear nets, training's bottom logit, and what is certified of it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import APGD
from hauberk.batch import Batch
from hauberk.certificates import FrozenLipschitz, LipschitzCertificate, MixedCertificate, freeze
from hauberk.classifier import decide, named_outputs, predictor_name
from hauberk.conformance import LinearOracle, check_classifier
from hauberk.defences import mixed
from hauberk.defences.bottom_class import BottomClass, BottomMargin, bottom_class
from hauberk.errors import HauberkError
from hauberk.identity import structure
from hauberk.models import lip_mlp, small_cnn
from hauberk.objectives.gloro import bottom_logit
from hauberk.threats import L2

TASK = {"input_shape": (1, 4, 4), "num_classes": 4, "mean": (0.5,), "std": (0.2,)}


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return lip_mlp(**TASK, widths=(12, 8)).eval()


def batch_of(rows: int, seed: int = 1) -> Batch:
    images = torch.rand(rows, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.arange(rows) % 4, torch.arange(rows))


def middle(model: nn.Module, batch: Batch) -> float:
    """A radius that about half of the images have."""
    return float(FrozenLipschitz(model, (1, 4, 4))(batch.images)[1].median())


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_of_a_linear_model_it_abstains_nearer_to_the_border_than_eps(norm: str) -> None:
    oracle = LinearOracle.random((1, 3, 3), 3, seed=2)
    batch = oracle.batch(40, seed=3)
    true = oracle.true_radius(batch.images, norm)
    eps = float(true.median())
    model = BottomClass(oracle.layers, eps, norm).eval()
    said, far = decide(model, batch), (true - eps).abs() > 2e-3 * true
    assert torch.equal(said[far], torch.where(true > eps, oracle.layers(batch.images).argmax(1), -1)[far])
    assert 0 < int((said == -1).sum()) < 40


def test_it_decides_as_the_bottom_logit_of_training_does() -> None:
    base, batch = net(), batch_of(64)
    eps = middle(base, batch)
    model = bottom_class(base, eps).eval()
    logits = base(batch.images).double()
    bottom = bottom_logit(logits, model.constants((1, 4, 4)), eps)
    ahead = logits.amax(1) - bottom
    clear = ahead.abs() > 1e-2 * logits.abs().amax(1)
    assert torch.equal((decide(model, batch) >= 0)[clear], (ahead > 0)[clear])
    assert int(clear.sum()) > 40


def test_what_it_decides_is_certified_at_eps_and_nothing_else_is() -> None:
    base, batch = net(), batch_of(64)
    eps = middle(base, batch)
    model = bottom_class(base, eps).eval()
    said, found, plain = decide(model, batch), LipschitzCertificate()(model, batch), LipschitzCertificate()(base, batch)
    assert torch.equal(found.prediction, said)
    assert bool((found.radius[said >= 0] > eps).all())
    assert bool((found.radius[said < 0] == 0).all())
    assert torch.equal(found.radius[said >= 0], plain.radius[said >= 0])
    assert found.predictor == predictor_name(model)
    assert f"eps={eps!r}" in found.predictor
    assert 10 < int((said >= 0).sum()) < 54


def test_new_weights_have_new_constants() -> None:
    base, batch = net(), batch_of(32)
    model = bottom_class(base, middle(base, batch)).eval()
    before = decide(model, batch)
    with torch.no_grad():
        next(m for m in base if isinstance(m, nn.Linear)).bias.add_(0.0)
        base[0].std.fill_(0.01)  # a layer that stretches: constants a hundred times as large, logits likewise
    assert float(model.constants((1, 4, 4))[0, 1]) > 50.0
    fresh = copy.deepcopy(model)
    assert torch.equal(decide(model, batch), decide(fresh, batch))
    assert not torch.equal(decide(model, batch), before)


def test_images_of_different_classes_lie_two_radii_apart() -> None:
    base = net()
    batch = batch_of(600, seed=5)
    eps = middle(base, batch)
    said = decide(bottom_class(base, eps).eval(), batch)
    flat = batch.images.flatten(1).double()
    apart = torch.cdist(flat, flat)
    other = (said[:, None] != said) & (said[:, None] >= 0) & (said >= 0)
    assert bool(other.any())
    assert float(apart[other].min()) >= 2.0 * eps


def test_the_loss_is_positive_exactly_where_it_is_fooled() -> None:
    base, batch = net(), batch_of(64)
    model = bottom_class(base, middle(base, batch)).eval()
    told, said = named_outputs(model, batch.images), decide(model, batch)
    assert torch.equal(BottomMargin()(told, batch.labels, None) > 0, (said >= 0) & (said != batch.labels))
    wanted = (batch.labels + 1) % 4
    assert torch.equal(BottomMargin()(told, batch.labels, wanted) > 0, said == wanted)
    with pytest.raises(HauberkError, match="bottom class"):
        BottomMargin()({"logits": base(batch.images)}, batch.labels, None)


def test_an_attack_within_the_radius_finds_nothing_and_a_large_one_does() -> None:
    base, batch = net(), batch_of(24)
    eps = middle(base, batch)
    model = bottom_class(base, eps).eval()
    right = decide(model, batch)
    batch = Batch(batch.images, right.clamp_min(0), batch.ids)
    kept = right >= 0
    near, far = (APGD(L2(size), BottomMargin(), steps=30)(model, batch) for size in (eps, 40.0 * eps))
    assert not bool(near.success[kept].any())
    assert bool(far.success[kept].any())


def test_its_name_and_structure_stay_when_it_is_asked() -> None:
    model = bottom_class(net(), 0.1).eval()
    before = structure(model), predictor_name(model)
    decide(model, batch_of(2))
    assert (structure(model), predictor_name(model)) == before


def test_nan_abstains() -> None:
    model = bottom_class(net(), 0.1).eval()
    with torch.no_grad():
        broken = torch.full((2, 4), math.nan)
    told = {"logits": broken, "leads": torch.full((2, 4), math.nan)}
    model.outputs = lambda _: told  # type: ignore[method-assign]
    assert decide(model, batch_of(2)).tolist() == [-1, -1]


def test_the_contract_and_the_round_trip() -> None:
    model = bottom_class(net(), 0.25, "linf").eval()
    again = registry.build(registry.spec(model)).eval()
    again.load_state_dict(model.state_dict())
    assert predictor_name(again) == predictor_name(model)
    assert torch.equal(decide(again, batch_of(9)), decide(model, batch_of(9)))
    check_classifier(model, (1, 4, 4))


def test_what_has_no_bound_or_makes_no_sense_is_refused() -> None:
    residual = registry.build({"name": "resnet18", "width": 4}, "model", **TASK).eval()
    with pytest.raises(HauberkError, match="no Lipschitz bound"):
        bottom_class(residual, 0.1)
    with pytest.raises(HauberkError, match="radius"):
        BottomClass(net(), 0.0, "l2")
    model = bottom_class(net(), 0.1).eval()
    model.eps = -1.0
    with pytest.raises(HauberkError, match="radius"):
        LipschitzCertificate()(model, batch_of(2))
    with pytest.raises(HauberkError, match="rule of its own"):
        freeze(bottom_class(net(), 0.1).eval(), (1, 4, 4))
    model.eps = 0.1
    with pytest.raises(HauberkError, match="rule of its own"):
        MixedCertificate()(mixed(small_cnn(**TASK, widths=(4,), strides=(1,)), model, 0.6).eval(), batch_of(2))


def test_a_subclass_is_not_certified() -> None:
    class Eager(BottomClass):
        def decide(self, images: Tensor, key: object) -> Tensor:
            return self.base(images).argmax(1)

    with pytest.raises(HauberkError, match="exactly BottomClass"):
        LipschitzCertificate()(Eager(net(), 0.1, "l2").eval(), batch_of(2))
