"""Training for a certified radius against independent numpy evaluations, closed forms and special cases."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import nn
from torch.nn import functional

from hauberk.attacks import PGD, DeepFool
from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian, Uniform
from hauberk.objectives.base import Context
from hauberk.objectives.gaussian_augmentation import GaussianAugmentation
from hauberk.objectives.macer import MACER
from hauberk.objectives.noisy_copies import NoisyCopies
from hauberk.objectives.smooth_adv import SmoothAdv
from hauberk.objectives.smoothed_consistency import SmoothedConsistency
from hauberk.objectives.stability import Stability
from hauberk.threats import L2

NOISE = Gaussian(0.3)


def fresh(progress: float = 0.0) -> Context:
    return Context(torch.Generator().manual_seed(7), progress=progress)


def copies(network: nn.Module, batch: Batch, m: int, noise=NOISE) -> np.ndarray:
    """Logits of the noisy copies that an objective meets, (B, m, K)."""
    draws = noise.sample(fresh().randomness(len(batch)), m, *batch.images.shape[1:])
    with torch.no_grad():
        return np.stack([network(batch.images + draws[:, j]).double().numpy() for j in range(m)], 1)


@pytest.fixture
def still(network: nn.Module) -> nn.Module:
    """Without batch norm, so that copies may be passed one after another."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4)).train()


@pytest.mark.parametrize(
    "objective",
    [
        MACER(NOISE, copies=3),
        SmoothAdv(PGD(L2(0.5), steps=2), NOISE),
        SmoothAdv(PGD(L2(0.5), steps=2), Uniform(0.2), copies=1),
        SmoothedConsistency(NOISE),
        Stability(NOISE),
        Stability(Uniform(0.2), weight=0.5),
    ],
    ids=lambda o: type(o).__name__,
)
def test_the_contract(objective) -> None:
    check_objective(objective)


# --- MACER ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "gamma"), [(16.0, 8.0), (4.0, 1.9), (1.0, 8.0)])
def test_macer_is_what_numpy_says(still, batch, beta: float, gamma: float) -> None:
    z, y = copies(still, batch, 5), batch.labels.numpy()
    soft = special.softmax(z, 2).mean(1)
    loss = -np.log(soft[np.arange(16), y]).mean()
    p = special.softmax(beta * z, 2).mean(1)
    hinge, counted = 0.0, 0
    for row, label in zip(p, y, strict=True):
        if row.argmax() == label:
            xi = stats.norm.ppf(row[label]) - stats.norm.ppf(np.delete(row, label).max())
            if np.isfinite(xi) and xi <= gamma:
                hinge += 0.15 * (gamma - xi) / 16
                counted += 1
    assert counted == (2 if gamma < 8.0 else 4)
    found = MACER(NOISE, copies=5, weight=3.0, gamma=gamma, temperature=beta)(still, batch, fresh())
    assert float(found.total.detach()) == pytest.approx(loss + 3.0 * hinge, rel=1e-5)
    assert float(found.terms["accuracy"]) == pytest.approx((p.argmax(1) == y).mean())


def test_macer_without_weight_is_the_cross_entropy_of_the_mean(still, batch) -> None:
    soft = special.softmax(copies(still, batch, 4), 2).mean(1)
    expected = -np.log(soft[np.arange(16), batch.labels.numpy()]).mean()
    for objective, context in (
        (MACER(NOISE, copies=4, weight=0.0), fresh()), (MACER(NOISE, copies=4, start=0.5), fresh(progress=0.4)),
    ):  # fmt: skip
        assert float(objective(still, batch, context).total.detach()) == pytest.approx(expected, rel=1e-5)
    late = MACER(NOISE, copies=4, start=0.5)(still, batch, fresh(progress=0.5))
    assert float(late.total.detach()) > expected + 1e-3


def test_certain_rows_have_no_hinge_and_no_gradient_that_is_not_a_number() -> None:
    logits = torch.tensor([[[300.0, 0.0]] * 2, [[0.2, 0.0]] * 2, [[0.0, 300.0]] * 2], requires_grad=True)
    gaps, right = MACER(NOISE).gaps(logits, torch.zeros(3, dtype=torch.int64))
    assert right.tolist() == [True, True, False]
    assert gaps.shape == (1,)  # the first one's xi is infinite, the third is wrong
    gaps.sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert bool((logits.grad[1] != 0).any())
    assert not logits.grad[[0, 2]].any()


def test_the_gradient_of_the_hinge() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    objective = MACER(NOISE, temperature=1.5)
    labels = torch.arange(6) % 4
    assert len(objective.gaps(logits, labels)[0]) >= 1
    assert torch.autograd.gradcheck(lambda z: objective.gaps(z, labels)[0].sum(), logits)


# --- consistency and stability ---------------------------------------------------------------------------------


def test_consistency_is_what_numpy_says(still, batch) -> None:
    z, y = copies(still, batch, 3), batch.labels.numpy()
    p = special.softmax(z, 2)
    mean = p.mean(1)
    loss = -np.log(p[np.arange(16), :, y]).mean()
    apart = np.mean([stats.entropy(mean[b], p[b, j]) for b in range(16) for j in range(3)])
    undecided = np.mean([stats.entropy(mean[b]) for b in range(16)])
    found = SmoothedConsistency(NOISE, copies=3, weight=7.0, entropy=0.5)(still, batch, fresh())
    assert float(found.total.detach()) == pytest.approx(loss + 7.0 * apart + 0.5 * undecided, rel=1e-5)
    plain = SmoothedConsistency(NOISE, copies=3, weight=0.0, entropy=0.0)(still, batch, fresh())
    assert float(plain.total.detach()) == pytest.approx(loss, rel=1e-5)


def test_stability_is_what_numpy_says(still, batch) -> None:
    with torch.no_grad():
        clean = special.softmax(still(batch.images).double().numpy(), 1)
    noisy = special.softmax(copies(still, batch, 1)[:, 0], 1)
    loss = -np.log(clean[np.arange(16), batch.labels.numpy()]).mean()
    apart = -(clean * np.log(noisy)).sum(1).mean()
    found = Stability(NOISE, weight=2.0)(still, batch, fresh())
    assert float(found.total.detach()) == pytest.approx(loss + 2.0 * apart, rel=1e-5)


# --- SmoothAdv -------------------------------------------------------------------------------------------------


def test_smooth_adv_without_a_budget_is_gaussian_augmentation(still, batch) -> None:
    found = SmoothAdv(PGD(L2(1e-12), steps=1, random_start=False), NOISE, copies=1)(still, batch, fresh())
    expected = GaussianAugmentation(NOISE)(still, batch, fresh())
    assert float(found.total.detach()) == pytest.approx(float(expected.total.detach()), rel=1e-5)


def test_the_search_follows_the_gradient_of_the_mean(still, batch) -> None:
    """One normalised step from the image is the direction that central differences of the mean softmax give."""
    wrapped = NoisyCopies.drawn(still, batch.images, NOISE, 4, fresh()).double()
    images = batch.images.double()
    wrapped.draws = wrapped.draws.double()
    attack = PGD(L2(0.05), steps=1, step_size=0.05, random_start=False)
    moved = attack.perturb(wrapped, images, batch.labels, fresh().randomness(16)) - images
    z = np.stack([wrapped.model(images + wrapped.draws[:, j]).detach().numpy() for j in range(4)], 1)
    assert np.allclose(wrapped(images).detach().numpy(), np.log(special.softmax(z, 2).mean(1)))
    step, gradient = 1e-5, torch.zeros_like(images)
    for c, h, w in np.ndindex(3, 2, 2):
        up, down = images.clone(), images.clone()
        up[:, c, h, w] += step
        down[:, c, h, w] -= step
        losses = [functional.nll_loss(wrapped(x), batch.labels, reduction="none").detach() for x in (up, down)]
        gradient[:, c, h, w] = (losses[0] - losses[1]) / (2 * step)
    inside = ((images + moved > 1e-6) & (images + moved < 1 - 1e-6)).flatten(1).all(1)
    assert inside.sum() > 3
    for row in inside.nonzero().flatten().tolist():
        cosine = functional.cosine_similarity(moved[row].flatten(), gradient[row].flatten(), 0)
        assert float(cosine) == pytest.approx(1.0, abs=1e-4)
        assert float(moved[row].norm()) == pytest.approx(0.05, rel=1e-6)


def test_an_attack_that_leaves_images_behind_is_refused(still, batch) -> None:
    """Each image has noise of its own, and some rows alone would meet that of others."""
    with pytest.raises(HauberkError, match="pgd or apgd"):
        SmoothAdv(DeepFool(L2(0.5)), NOISE)(still, batch, fresh())
    wrapped = NoisyCopies.drawn(still, batch.images, NOISE, 2, fresh())
    with pytest.raises(HauberkError, match="16 images have noise"):
        wrapped(batch.images[:1])


def test_the_budget_grows_over_the_warm_up(still, batch, monkeypatch) -> None:
    seen = []
    perturb = PGD.perturb

    def watched(self, *given):
        assert isinstance(given[0], NoisyCopies)  # what is attacked is the smoothed model
        seen.append(given[-1])
        return perturb(self, *given)

    monkeypatch.setattr(PGD, "perturb", watched)
    objective = SmoothAdv(PGD(L2(0.8), steps=1), NOISE, warm_up=0.5)
    for progress in (0.0, 0.25, 0.5, 1.0):
        objective(still, batch, fresh(progress))
    assert seen == pytest.approx([0.0, 0.4, 0.8, 0.8])
