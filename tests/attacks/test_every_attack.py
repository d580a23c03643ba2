"""Every registered attack runs on small grey, tiny, non-square and medical images, with 2, 3 and 10 classes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from hauberk import registry
from hauberk.attacks import PGD, Attack, Transfer
from hauberk.batch import Batch
from hauberk.classifier import Normalize
from hauberk.data import load
from hauberk.threats import L1, L2, Linf, Threat

FAST = {
    "fgsm": {}, "n_fgsm": {}, "pgd": {"steps": 3}, "friendly_pgd": {"steps": 3}, "apgd": {"steps": 4},
    "fab": {"steps": 3}, "square": {"queries": 10}, "ddn": {"steps": 4}, "fmn": {"steps": 4}, "deepfool": {"steps": 3},
    "carlini_wagner": {"steps": 4, "binary_searches": 2}, "autoattack": {"version": "fast"},
    "eot_sweep": {"draws": (1, 20), "steps": (2, 3)},
}  # fmt: skip
VARIANTS = {
    "apgd": [{"loss": "dlr"}, {"loss": "dlr", "targets": 9}, {"loss": "margin"}],
    "fab": [{"targets": 9}],
    "pgd": [{"targeted": True, "restarts": 2}, {"momentum": 0.75, "loss": "kl"}],
}
THREATS: dict[str, Threat] = {"linf": Linf(0.1), "l2": L2(0.7), "l1": L1(3.0)}
CASES = [
    (name, settings | variant, threat)
    for name, settings in FAST.items()
    for variant in [{}, *VARIANTS.get(name, [])]
    for norm, threat in THREATS.items()
    if norm in registry.entry(name).load().norms
]


def net(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Any shape, any number of classes."""
    torch.manual_seed(classes)
    head = nn.Linear(5 * shape[1] * shape[2], classes)
    layers = [nn.Conv2d(shape[0], 5, 3, padding=1), nn.ReLU(), nn.Flatten(), head]
    return nn.Sequential(Normalize([0.5] * shape[0], [0.25] * shape[0]), *layers).eval().requires_grad_(False)


def check(attack: Attack, model: nn.Module, batch: Batch) -> None:
    """It ran, and what it says is so."""
    found = attack(model, batch, seed=1, tile=16)
    with torch.no_grad():
        now = model(found.adversarial).argmax(1)
    assert torch.equal(found.success, now != batch.labels)
    assert bool(((found.adversarial >= 0) & (found.adversarial <= 1)).all())
    assert bool((found.distance <= attack.threat.eps).all())
    for name in ("loss", "logit_margin", "probability_margin", "probabilities"):
        assert not bool(getattr(found, name).isnan().any())
    assert bool((found.nearest[found.success] <= found.distance[found.success]).all())


def test_none_is_left_out() -> None:
    others = {"transfer", "part", "towards", "on_grid", "eot"}  # they need another attack, or a defence
    assert {e.name for e in registry.entries("attack")} == {*FAST, *others}


@pytest.mark.parametrize(("shape", "classes"), [((1, 3, 5), 2), ((3, 7, 4), 3), ((1, 8, 8), 10)], ids=str)
@pytest.mark.parametrize(("name", "settings", "threat"), CASES, ids=str)
def test_any_shape_and_number_of_classes(
    name: str, settings: dict[str, object], threat: Threat, shape: tuple[int, int, int], classes: int
) -> None:
    model = net(shape, classes)
    images = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % classes
    attack = registry.build({"name": name, "threat": threat, **settings}, "attack")
    check(attack, model, Batch(images, labels, torch.arange(6)))


@pytest.fixture(scope="module")
def chest(reader) -> Batch:
    """Chest X-rays, 28x28 grey, healthy or not."""
    found = reader.load("pneumoniamnist", ["test"])
    images = torch.from_numpy(found["x_test"][:4]).float().reshape(4, 1, 28, 28) / 255
    return Batch(images, torch.from_numpy(found["y_test"][:4]).long().flatten(), torch.arange(4))


@pytest.mark.parametrize(("name", "settings", "threat"), CASES, ids=str)
def test_medical_images(name: str, settings: dict[str, object], threat: Threat, chest: Batch) -> None:
    attack = registry.build({"name": name, "threat": threat, **settings}, "attack")
    check(attack, net((1, 28, 28), 2), chest)


def test_transfer_from_a_saved_run(tiny_run: Path) -> None:
    source = load("digits").test.batch(slice(0, 6))
    threat = Linf(0.3)
    check(Transfer(threat, source=str(tiny_run), attack=PGD(threat, steps=3)), net((1, 8, 8), 10), source)
