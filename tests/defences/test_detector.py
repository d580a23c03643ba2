"""The detector: what it reads and rejects, its threshold, the joint loss, and that the joint attack breaks it."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import APGD, PGD
from hauberk.batch import Batch
from hauberk.classifier import Normalize, decide, logits_of, named_outputs, predictor_name, traits, weights_hash
from hauberk.conformance import LinearOracle, check_classifier
from hauberk.data import load
from hauberk.defences.activations import activations_of
from hauberk.defences.detector import DetectedClassifier, DetectorJoint, calibrate, detected
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.objectives.detector import Detector
from hauberk.objectives.standard import Standard
from hauberk.randomness import Key
from hauberk.runs import Run
from hauberk.threats import Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit
from hauberk.verbs.train import model_context

TASK = {"input_shape": (1, 4, 4), "num_classes": 3, "mean": (0.5,), "std": (0.2,)}


def base(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return small_cnn(**TASK, widths=(4, 6), strides=(1, 2)).eval()


def images(rows: int, seed: int = 1) -> Tensor:
    return torch.rand(rows, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


class First(nn.Module):
    """A head whose score is the first pixel."""

    def forward(self, activation: Tensor) -> Tensor:
        return activation.flatten(1)[:, :1]


def by_pixel(threshold: float = 0.5) -> DetectedClassifier:
    """Rejects an image whose first pixel exceeds the threshold: the layer read is the identity before the base."""
    oracle = LinearOracle.random((1, 2, 2), 3)
    return DetectedClassifier(nn.Sequential(nn.Identity(), oracle), First(), "0", threshold).eval()


# --- what it reads and says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [str(k) for k in range(10)])
def test_the_head_reads_that_layer_and_the_logits_are_the_bases(layer: str) -> None:
    """Also before a ReLU that works in place."""
    net, x = base(), images(5)
    with torch.no_grad():
        logits, (activation,) = activations_of(net, [layer], x)
        assert torch.equal(logits, net(x))
        assert torch.equal(activation, net[: int(layer) + 1](x))
    assert not any(m._forward_hooks for m in net.modules())


def test_it_rejects_what_exceeds_the_threshold_and_nothing_else() -> None:
    model = by_pixel(threshold=0.5)
    x = torch.rand(4, 1, 2, 2)
    x[:, 0, 0, 0] = torch.tensor([0.2, 0.5, 0.500001, 0.9])
    found = decide(model, Batch(x, torch.zeros(4).long(), torch.arange(4)))
    assert found.tolist() == [*model.base(x)[:2].argmax(1).tolist(), -1, -1]
    told = named_outputs(model, x)
    assert torch.equal(told["detector"], x[:, 0, 0, 0])
    assert torch.equal(told["threshold"], torch.full((4,), 0.5))
    assert torch.equal(told["logits"], model.base(x))
    assert torch.equal(model(x), model.base(x))


def test_a_score_that_is_no_number_is_rejected() -> None:
    model = DetectedClassifier(LinearOracle.random((1, 2, 2), 3), nn.Identity(), "", 1e9).eval()
    model.head.forward = lambda z: torch.full((len(z), 1), math.nan)  # type: ignore[method-assign]
    assert model.decide(torch.rand(2, 1, 2, 2), Key(0, 0, (0, 1), "decide")).tolist() == [-1, -1]


def test_a_layer_that_is_not_there_or_runs_twice_is_named() -> None:
    with pytest.raises(HauberkError, match="no module 'fc'"):
        detected(base(), "fc")
    relu = nn.ReLU()
    twice = nn.Sequential(nn.Flatten(), relu, nn.Linear(4, 3), relu)
    with pytest.raises(HauberkError, match="ran 2 times"):
        activations_of(twice, ["1"], torch.rand(1, 1, 2, 2))


@pytest.mark.parametrize("layer", ["3", "8", "9"])
def test_the_contract_and_the_spec_of_maps_and_flat_activations(layer: str) -> None:
    model = detected(base(), layer, threshold=0.25, width=5).eval()
    check_classifier(model, (1, 4, 4))
    assert (traits(model).stochastic, traits(model).gradient, traits(model).declared) == (False, "exact", True)
    again = registry.build(model.spec, kind="defence").eval()
    again.load_state_dict(model.state_dict())
    for name, value in model.outputs(images(3)).items():
        assert torch.equal(value, again.outputs(images(3))[name])
    assert predictor_name(again) == predictor_name(model)
    again.spec = again.spec | {"threshold": 0.3}
    assert predictor_name(again) != predictor_name(model)  # another threshold decides otherwise


def test_building_leaves_the_base_as_it_was() -> None:
    net = base().train()
    before = weights_hash(net)
    detected(net, "3")
    assert weights_hash(net) == before
    assert all(m.training for m in net.modules())


def test_what_cannot_be_built_is_named() -> None:
    class Cube(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :, None]

    net = nn.Sequential(Cube(), nn.Flatten(), nn.Linear(4, 3))
    net.spec = {"name": "mine"}
    with pytest.raises(HauberkError, match="input shape"):
        detected(net, "0")
    with pytest.raises(HauberkError, match=r"\(B, F\) or"):
        detected(net, "0", input_shape=(1, 2, 2))
    assert detected(net, "1", input_shape=(1, 2, 2)).spec["input_shape"] == [1, 2, 2]


# --- the threshold -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "rejected"), [(0.0, 0), (0.05, 5), (0.059, 5), (0.5, 50), (0.99, 99)])
def test_calibration_rejects_exactly_the_share_of_clean_images(share: float, rejected: int) -> None:
    model = by_pixel()
    x = torch.rand(100, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, torch.zeros(100).long(), torch.arange(100))
    threshold = calibrate(model, batch, share)
    assert threshold == model.threshold == model.spec["threshold"]
    assert threshold == sorted(x[:, 0, 0, 0].tolist())[-rejected - 1]
    assert int((decide(model, batch) == -1).sum()) == rejected


def test_calibration_errors_are_named() -> None:
    batch = Batch(torch.rand(2, 1, 2, 2), torch.zeros(2).long(), torch.arange(2))
    with pytest.raises(HauberkError, match=r"in \[0, 1\)"):
        calibrate(by_pixel(), batch, 1.0)
    with pytest.raises(HauberkError, match="no images"):
        calibrate(by_pixel(), batch.select(slice(0, 0)))
    with pytest.raises(HauberkError, match="train mode"):
        calibrate(by_pixel().train(), batch)


# --- the joint loss ------------------------------------------------------------------------------------------------


def told(margin: float, above: float) -> dict[str, Tensor]:
    """Label 0; the best wrong class leads by ``margin``, the detector is ``above`` a threshold of 3."""
    logits = torch.tensor([[1.0, 1.0 + margin, 0.5 + margin]], dtype=torch.float64)
    score = torch.tensor([3.0 + above], dtype=torch.float64)
    return {"logits": logits, "detector": score, "threshold": torch.full_like(score, 3.0)}


@pytest.mark.parametrize(
    ("margin", "above", "value"),
    [(-2.0, 4.0, -0.7 * 2 - 0.3 * 4), (-2.0, -4.0, -0.7 * 2), (2.0, 4.0, -0.3 * 4), (2.0, -4.0, 0.3 * 4),
     (1.0, -9.0, 0.7 * 1)],
)  # fmt: skip
def test_the_joint_loss_by_hand(margin: float, above: float, value: float) -> None:
    found = DetectorJoint(weight=0.3)(told(margin, above), torch.tensor([0]), None)
    assert found.tolist() == pytest.approx([value])


@pytest.mark.parametrize("weight", [0.01, 0.5, 0.99])
def test_the_joint_loss_is_positive_exactly_at_a_break(weight: float) -> None:
    for margin, above in product((-30.0, -0.1, 0.1, 30.0), repeat=2):
        found = DetectorJoint(weight=weight)(told(margin, above), torch.tensor([0]), None)
        assert (float(found) > 0) == (margin > 0 and above < 0)


def test_a_targeted_joint_loss_wants_that_class() -> None:
    labels, target = torch.tensor([0]), torch.tensor([2])
    assert DetectorJoint()(told(1.0, -9.0), labels, target).tolist() == pytest.approx([-0.25])  # class 1 leads by 0.5
    outputs = told(1.0, -9.0) | {"logits": torch.tensor([[1.0, 2.0, 2.5]])}
    assert DetectorJoint()(outputs, labels, target).tolist() == pytest.approx([0.25])


def test_a_goal_that_is_reached_leaves_the_gradient_to_the_other() -> None:
    def gradients(margin: float, above: float) -> tuple[bool, bool]:
        outputs = {name: value.requires_grad_(True) for name, value in told(margin, above).items()}
        loss = DetectorJoint()(outputs, torch.tensor([0]), None).sum()
        both = torch.autograd.grad(loss, [outputs["logits"], outputs["detector"]])
        return bool(both[0].any()), bool(both[1].any())

    assert gradients(-1.0, 1.0) == (True, True)
    assert gradients(1.0, 1.0) == (False, True)
    assert gradients(-1.0, -1.0) == (True, False)
    assert gradients(1.0, -2.0) == (True, False)
    assert gradients(2.0, -1.0) == (False, True)


def test_the_joint_loss_needs_a_detector_and_has_a_spec() -> None:
    with pytest.raises(HauberkError, match="needs the outputs of a detector"):
        DetectorJoint()({"logits": torch.zeros(1, 3)}, torch.tensor([0]), None)
    attack = APGD(Linf(0.1), loss=DetectorJoint(weight=0.25))
    assert registry.build(registry.spec(attack)) == attack


def test_the_joint_attack_finds_the_way_between_both() -> None:
    """Class 1 wants the first pixel up, the detector looks at a sum that the second pixel can balance."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first = x.flatten(1)[:, 0]
            return torch.stack([0.5 - first, first - 0.5], 1)

    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1) - 0.45).sum(1, keepdim=True)

    model = DetectedClassifier(nn.Sequential(nn.Identity(), Two()), Sum(), "0", 0.02).eval()
    batch = Batch(torch.full((2, 1, 1, 2), 0.45), torch.zeros(2).long(), torch.arange(2))
    oblivious = PGD(Linf(0.1), steps=20)(model, batch)
    assert oblivious.prediction.tolist() != [1, 1]
    joint = PGD(Linf(0.1), steps=20, loss=DetectorJoint())(model, batch)
    assert joint.prediction.tolist() == [1, 1]
    assert joint.success.all()


# --- on real images ------------------------------------------------------------------------------------------------


def trained(folder: Path, eps: float) -> DetectedClassifier:
    """A convolutional network, then a detector on it, both learnt from the digits; the threshold from validation."""
    data = load("digits")
    settings = {"batch_size": 64, "validate_every": 0}
    torch.manual_seed(0)
    small = {"name": "small_cnn", "widths": [16, 32, 32], "strides": [1, 2, 1]}
    net = registry.build(small, "model", **model_context(data))
    plain = Training(epochs=6, lr=0.05, **settings)
    net = fit(net, Standard(), data, plain, Run.create(folder / "base", {"name": "base"}))
    before = weights_hash(net)
    static = Detector(PGD(Linf(eps), steps=5))
    adam = Training(epochs=8, optimizer="adamw", lr=0.003, **settings)
    model = fit(detected(net, "9"), static, data, adam, Run.create(folder / "detector", {"name": "detector"}))
    assert isinstance(model, DetectedClassifier)
    assert weights_hash(model.base) == before
    calibrate(model, data.val.batch(), false_positives=0.05)
    return model


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> DetectedClassifier:
    return trained(tmp_path_factory.mktemp("detector"), 0.2)


def test_it_catches_the_attack_that_does_not_know_of_it_and_falls_to_the_one_that_does(
    guarded: DetectedClassifier,
) -> None:
    test = load("digits").test.batch()
    clean = decide(guarded, test)
    assert float((decide(guarded.base, test) == test.labels).float().mean()) > 0.95
    assert float((clean == -1).float().mean()) < 0.1
    assert float((clean == test.labels).float().mean()) > 0.87

    few, clean = test.select(slice(0, 200)), clean[:200]
    alone = PGD(Linf(0.2), steps=20, early_stop=False)(guarded.base, few)  # it has never heard of the detector
    assert float(alone.success.float().mean()) > 0.9
    points = Batch(alone.best_loss_point, few.labels, few.ids)
    assert float((decide(guarded, points) == -1).float().mean()) > 0.9
    oblivious = PGD(Linf(0.2), steps=20)(guarded, few)
    assert float((~oblivious.success).float().mean()) > 0.75

    joint = APGD(Linf(0.2), steps=50, loss=DetectorJoint())(guarded, few)
    assert float((~joint.success).float().mean()) < 0.1
    broken = joint.success & (clean == few.labels)
    logits = logits_of(guarded.base, Batch(joint.adversarial, few.labels, few.ids))
    assert bool((logits.argmax(1) != few.labels)[broken].all())  # misclassified, and not by being rejected
    assert bool((joint.prediction >= 0)[broken].all())


def test_it_is_saved_with_its_threshold(guarded: DetectedClassifier, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"name": "run"})
    run.save_model(guarded, {})
    loaded = run.load_model()
    batch = load("digits").test.batch(slice(0, 64))
    assert isinstance(loaded, DetectedClassifier)
    assert loaded.threshold == guarded.threshold
    assert torch.equal(decide(loaded, batch), decide(guarded, batch))


def test_normalisation_does_not_hide_from_the_hook() -> None:
    net = nn.Sequential(Normalize([0.5], [0.25]), nn.Flatten(), nn.Linear(4, 3)).eval()
    _, (activation,) = activations_of(net, ["0"], torch.ones(1, 1, 2, 2))
    assert torch.equal(activation, torch.full((1, 1, 2, 2), 2.0))
