"""The local estimate against dense grids of the ball, where the true extremes are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk.attacks.apgd import APGD
from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN
from hauberk.certificates.evidence import WorstPoints, on_record
from hauberk.certificates.local_lipschitz import ClassChange, LocalLipschitz, class_constants, local_lipschitz
from hauberk.classifier import classes
from hauberk.conformance import LinearOracle, check_certificate
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian
from hauberk.threats import L1, L2, Linf, Threat

EPS = 0.1


class Curved(nn.Module):
    """Three classes of two pixels, with logits that bend inside the ball."""

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, 1, 1, 2) to logits (B, 3)."""
        a, b = (images.flatten(1) - 0.5).mul(8.0).unbind(1)
        return torch.stack([1.2 + torch.sin(a), torch.tanh(b) + 0.3 * a, 0.7 * b * b - 0.5 * a], 1)


def images_of(count: int) -> Batch:
    draw = torch.Generator().manual_seed(3)
    images = 0.4 + 0.2 * torch.rand(count, 1, 1, 2, generator=draw, dtype=torch.float64)
    return Batch(images, torch.zeros(count, dtype=torch.int64), torch.arange(count))


def grid(image: Tensor, threat: Threat) -> np.ndarray:
    """Probabilities at all points of a fine lattice that lie in the ball, (n, 3)."""
    steps = torch.linspace(-threat.eps, threat.eps, 201, dtype=torch.float64)
    change = torch.cartesian_prod(steps, steps)
    order = {"l1": 1.0, "l2": 2.0, "linf": math.inf}[threat.norm]
    inside = torch.linalg.vector_norm(change, ord=order, dim=1) <= threat.eps * (1 + 1e-9)
    with torch.no_grad():
        return Curved()(image + change[inside].reshape(-1, 1, 1, 2)).softmax(1).numpy()


@pytest.mark.parametrize("threat", [L2(0.03), Linf(0.005)], ids=str)
def test_the_contract(threat: Threat) -> None:
    check_certificate(LocalLipschitz(threat, steps=2))


@pytest.mark.parametrize("threat", [L1(EPS), L2(EPS), Linf(EPS)], ids=str)
def test_it_finds_the_extremes_that_a_grid_finds(threat: Threat) -> None:
    """Each probability's largest change in its own direction, and the smallest margin, to a percent of the grid's."""
    batch = images_of(6)
    certificate = LocalLipschitz(threat, steps=40, restarts=6)
    rows, shared = on_record(certificate.gather(Curved().eval(), batch, 0, 64))
    assert shared == {"norm": threat.norm, "eps": EPS}
    for row, image in zip(rows, batch.images, strict=True):
        clean, points, dense = np.array(row["clean"]), np.array(row["points"]), grid(image[None], threat)
        y = int(clean.argmax())
        assert points.shape == (4, 3)
        own, others = class_constants(clean, points, y, EPS)
        assert own * EPS == pytest.approx(clean[y] - dense[:, y].min(), abs=1e-2)
        np.testing.assert_allclose(others * EPS, np.delete(dense.max(0) - clean, y), atol=1e-2)
        least = (dense[:, y] - np.delete(dense, y, 1).max(1)).min()
        seen = WorstPoints.read(row, shared)
        assert certificate.margin(seen, EPS) == pytest.approx(least, abs=1e-2)
        assert certificate.margin(seen, EPS / 2) == certificate.margin(seen, EPS)
        assert certificate.margin(seen, 0.0) == pytest.approx(clean[y] - np.delete(clean, y).max())
        assert certificate.margin(seen, 1.01 * EPS) == -1.0
        # the paper's relaxed condition moves each class by itself, so it is never the more generous one
        relaxed = (clean[y] - np.delete(clean, y) - EPS * (own + others)).min()
        assert relaxed <= certificate.margin(seen, EPS) + 1e-12


def test_the_smallest_margin_of_all_searches_is_kept() -> None:
    """Wherever a search walked: the margin on record is the least that any of them saw on its way."""
    batch, threat, model = images_of(20), L2(EPS), Curved().eval()
    certificate = LocalLipschitz(threat, steps=5)
    rows, shared = on_record(certificate.gather(model, batch, 0, 64))
    with torch.no_grad():
        own = Batch(batch.images, classes(model(batch.images)), batch.ids)
    losses = [ClassChange(0), ClassChange(1), ClassChange(2), "margin"]
    seen = [APGD(threat, loss, early_stop=False, steps=5)(model, own).probability_margin for loss in losses]
    assert len(set(torch.stack(seen).argmin(0).tolist())) > 2
    kept = [certificate.margin(WorstPoints.read(row, shared), EPS) for row in rows]
    np.testing.assert_allclose(kept, torch.stack(seen).amin(0), atol=1e-9)


def test_equation_12_averages_the_changes_and_is_negative_as_printed() -> None:
    """By hand on three classes, and on the grid of a curved model: the true average is positive."""
    clean = np.array([0.7, 0.2, 0.1])
    points = np.array([[0.4, 0.5, 0.1], [0.6, 0.1, 0.3], [0.8, 0.1, 0.1]])
    own, others = class_constants(clean, points, 0, 0.5)
    assert (own, others.tolist()) == (pytest.approx(0.6), pytest.approx([0.6, 0.4]))
    assert local_lipschitz(clean, points, 0, 0.5) == pytest.approx((0.3 + 0.3 + 0.2) / (3 * 0.5))
    assert local_lipschitz(clean, points, 0, 0.5, as_printed=True) == pytest.approx((0.1 - 0.3 - 0.2) / (3 * 0.5))
    for image in images_of(6).images:
        dense = grid(image[None], Linf(EPS))
        middle = dense[len(dense) // 2]  # the lattice is symmetric about the image
        y = int(middle.argmax())
        corrected = local_lipschitz(middle, dense, y, EPS)
        changes = [(middle[y] - dense[:, y]).max(), *np.delete(dense - middle, y, 1).max(0)]
        assert corrected == pytest.approx(np.mean(changes) / EPS)
        assert local_lipschitz(middle, dense, y, EPS, as_printed=True) < 0.0 < corrected


def test_no_change_is_a_constant_of_zero_and_never_a_negative_one() -> None:
    clean, better = np.array([0.6, 0.4]), np.array([[0.7, 0.3]])
    own, others = class_constants(clean, better, 0, 0.1)
    assert (own, others.tolist()) == (0.0, [0.0])


def test_a_class_is_lowered_where_it_is_the_label_and_raised_elsewhere() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    value = ClassChange(1)({"logits": logits}, torch.tensor([1, 0]), None)
    expected = logits[0].log_softmax(0)[1]
    torch.testing.assert_close(value, torch.stack([-expected, expected]))


def test_pass_or_fail_at_the_budget_follows_the_true_radius_of_a_linear_model() -> None:
    """APGD is exact on two linear classes: the verdict is right on all images but those at the border."""
    oracle = LinearOracle.random((1, 2, 3), 2, seed=2)
    batch = oracle.batch(32)
    for threat in (L2(0.05), Linf(0.02)):
        found = LocalLipschitz(threat, steps=10)(oracle.layers.eval(), batch)
        true = oracle.true_radius(batch.images, threat.norm)
        clear = (true / threat.eps - 1).abs() > 1e-3
        assert found.kind == "estimate"
        assert found.norm == threat.norm
        assert torch.equal((found.radius == threat.eps)[clear], (true > threat.eps)[clear])
        assert 3 <= int((found.radius > 0).sum()) <= 29


def test_the_evidence_is_that_of_the_models_own_class() -> None:
    """Labels are not read, and the class of the row is the model's argmax."""
    batch = images_of(5)
    model = Curved().eval()
    found = LocalLipschitz(Linf(0.02), steps=2)(model, batch)
    with torch.no_grad():
        assert torch.equal(found.prediction, classes(model(batch.images)))
        np.testing.assert_allclose(found.rows[2]["clean"], model(batch.images)[2].softmax(0), rtol=1e-6)


def test_a_number_that_is_none_abstains() -> None:
    certificate, shared = LocalLipschitz(Linf(0.1)), {"norm": "linf", "eps": 0.1}
    for row in ({"clean": [0.9, math.nan], "points": [[0.9, 0.1]]}, {"clean": [0.9, 0.1], "points": [[math.nan, 0.1]]}):
        assert certificate.decision(WorstPoints.read(row, shared)) == ABSTAIN
        assert certificate.radius(WorstPoints.read(row, shared)) == 0.0
    assert certificate.radius(WorstPoints.read({"clean": [0.5, 0.5], "points": [[0.5, 0.5]]}, shared)) == 0.0


def test_votes_and_empty_budgets_are_refused() -> None:
    oracle = LinearOracle.random((1, 2, 2), 2)
    smoothed = SmoothedClassifier(oracle.layers, Gaussian(0.1), bank=2, votes=10, alpha=0.01).eval()
    with pytest.raises(HauberkError, match="decides by a vote"):
        LocalLipschitz(Linf(0.1))(smoothed, oracle.batch(2))
    with pytest.raises(ValueError, match="budget above 0"):
        LocalLipschitz(Linf(0.0))
