"""The nearest neighbour against brute force in numpy, its radius, its gradients and its refusals."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hauberk import registry
from hauberk.attacks import PGD
from hauberk.batch import Batch
from hauberk.classifier import predictor_name
from hauberk.conformance import check_classifier
from hauberk.defences import nearest_neighbour as room
from hauberk.defences.locally_biased import GradientMixed
from hauberk.defences.nearest_neighbour import NearestNeighbour, nearest_neighbour
from hauberk.errors import HauberkError
from hauberk.threats import L1, L2, Linf

SHAPE = (2, 3, 4)
ORDERS = {"l1": 1, "l2": 2, "linf": np.inf}


def images(rows: int, seed: int) -> Tensor:
    return torch.rand(rows, *SHAPE, generator=torch.Generator().manual_seed(seed))


def stored(norm: str = "l2", rows: int = 40, classes: int = 3) -> NearestNeighbour:
    labels = torch.randint(0, classes, (rows,), generator=torch.Generator().manual_seed(1))
    labels[:classes] = torch.arange(classes)
    return nearest_neighbour(SHAPE, classes, rows, norm).remember(images(rows, 0), labels).eval()


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("searched", [7, 4096])
def test_it_is_brute_force(norm, searched, monkeypatch):
    monkeypatch.setattr(room, "SEARCHED", searched)
    model, few = stored(norm), images(9, 5)
    known = model.references.double().flatten(1).numpy()
    for row, image in zip(model(few), few.double().flatten(1).numpy(), strict=True):
        apart = np.linalg.norm(known - image, ord=ORDERS[norm], axis=1)
        expected = [-apart[model.labels.numpy() == c].min() for c in range(3)]
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-5, atol=1e-6)
        assert int(row.argmax()) == int(model.labels[apart.argmin()])


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_stored_images_have_their_own_class_and_finite_gradients_of_any_order(norm):
    model = stored(norm)
    leaf = model.references.clone().requires_grad_(True)
    logits = model(leaf)
    assert torch.equal(logits.argmax(1), model.labels)
    (gradient,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
    assert bool(gradient.isfinite().all())
    steep = GradientMixed(model, model, 0.5, "gradient_ratio", "logits", "l2")(leaf)
    (second,) = torch.autograd.grad(steep[:, 0].sum(), leaf)
    assert bool(second.isfinite().all())


def test_references_that_are_all_but_the_image_are_told_apart():
    """Distances of 0.001 and more, beside lengths of 20: a product of matrices would see none of them."""
    generator = torch.Generator().manual_seed(6)
    image = 0.2 + 0.6 * torch.rand(1, 3, 20, 20, generator=generator)
    away = torch.randn(6, 3, 20, 20, generator=generator)
    length = torch.tensor([5e-3, 1e-3, 2e-3, 4e-3, 3e-3, 6e-3])
    references = image + away * (length / away.flatten(1).norm(dim=1))[:, None, None, None]
    model = nearest_neighbour((3, 20, 20), 2, 6).remember(references, torch.tensor([0, 0, 0, 1, 1, 1])).eval()
    found = -model(torch.cat([image, torch.rand(30, 3, 20, 20, generator=generator)]))[0]
    np.testing.assert_allclose(found.numpy(), [1e-3, 3e-3], rtol=1e-3)


@pytest.mark.parametrize("threat", [L1, L2, Linf])
def test_no_attack_breaks_it_within_half_the_gap(threat):
    model = stored(threat.norm)
    few = images(24, 5)
    top = model(few).topk(2, dim=1)
    radius = (0.5 * (top.values[:, 0] - top.values[:, 1])).tolist()
    for b, r in enumerate(radius):
        one = Batch(few[b : b + 1], top.indices[b : b + 1, 0], torch.tensor([b]))
        assert not bool(PGD(threat(0.999 * r), steps=5, restarts=2, loss="margin")(model, one).success.any())
    wide = PGD(threat(8 * max(radius)), steps=20, restarts=2, loss="margin")
    assert bool(wide(model, Batch(few, top.indices[:, 0], torch.arange(24))).success.any())


def test_the_contract_and_the_spec():
    model = stored("linf")
    check_classifier(model, SHAPE)
    again = registry.build(model.spec, "defence").eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images(4, 2)), model(images(4, 2)))
    assert predictor_name(again) == predictor_name(model)


def test_before_it_remembers_nothing_is_known():
    assert bool(nearest_neighbour(SHAPE, 3, 5)(images(2, 0)).isnan().all())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x[:-1], y[:-1]), "expected images of shape"),
        (lambda x, y: (2.0 * x, y), r"images in \[0, 1\]"),
        (lambda x, y: (x, y + 1), "labels in 0..2"),
        (lambda x, y: (x, y.clamp_max(1)), "no image of class 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    with pytest.raises(HauberkError, match=words):
        nearest_neighbour(SHAPE, 3, 9).remember(*change(images(9, 0), torch.arange(9) % 3))


def test_impossible_sizes_and_norms_are_refused():
    for arguments in ((1, 5, "l2"), (3, 2, "l2"), (3, 5, "l3")):
        with pytest.raises(HauberkError):
            nearest_neighbour(SHAPE, *arguments)
