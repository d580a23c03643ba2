"""One step from noise: the closed form on a linear model, and that an evaluation stays in the ball."""

import pytest
import torch
from torch import nn

from hauberk.attacks.n_fgsm import NFGSM
from hauberk.batch import Batch
from hauberk.conformance import LinearOracle, check_attack
from hauberk.randomness import PerSample
from hauberk.threats import L2, Linf


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_conformance(loss: str) -> None:
    # from the far end of the noise, 3 eps reach the ball's corner; eps alone need not
    check_attack(NFGSM(Linf(0.03), loss=loss, step_size=0.09))
    check_attack(NFGSM(Linf(0.03), loss=loss), gradient=False)


@pytest.mark.parametrize(("noise", "step_size"), [(2.0, None), (0.5, 0.01), (0.0, 0.3)])
def test_the_closed_form_on_a_linear_model(noise: float, step_size: float | None) -> None:
    oracle = LinearOracle.random((2, 3, 4), 2, seed=1)
    images = torch.rand(20, 2, 3, 4, generator=torch.Generator().manual_seed(0))  # the box matters here
    labels = torch.arange(20) % 2
    attack = NFGSM(Linf(0.1), noise=noise, step_size=step_size)
    points = attack.perturb(oracle, images, labels, PerSample(3, range(20), "attack"))
    weight = oracle.layers[1].weight.detach()
    toward = ((weight[1] - weight[0]).reshape(1, 2, 3, 4) * (1.0 - 2.0 * labels.reshape(-1, 1, 1, 1))).sign()
    uniform = PerSample(3, range(20), "attack").uniform(2, 3, 4)
    start = (images + noise * 0.1 * (2 * uniform - 1)).clamp(0, 1)
    expected = (start + (0.1 if step_size is None else step_size) * toward).clamp(0, 1)
    torch.testing.assert_close(points, expected, atol=1e-6, rtol=0)


def test_training_leaves_the_ball_and_an_evaluation_does_not(network: nn.Module, batch: Batch) -> None:
    attack = NFGSM(Linf(0.1))
    points = attack.perturb(network, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
    assert 0.25 < float((points - batch.images).abs().max()) <= 0.3 + 1e-6
    found = attack(network, batch)
    assert float(found.distance.max()) <= 0.1
    assert set(found.forwards[~(found.clean_prediction != batch.labels)].tolist()) <= {3, 4}
    slow = NFGSM(Linf(0.1), early_stop=False)(network, batch)
    assert set(slow.forwards.tolist()) == {4}
    assert set(slow.backwards.tolist()) == {1}
    projected = Linf(0.1).project(points, batch.images)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(network(projected), batch.labels, reduction="none")
        clean = nn.functional.cross_entropy(network(batch.images), batch.labels, reduction="none")
    torch.testing.assert_close(slow.loss, torch.maximum(loss, clean))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="not in l2"):
        NFGSM(L2(0.5))
    with pytest.raises(ValueError, match="zero at the clean image"):
        NFGSM(Linf(0.1), noise=0.0, loss="kl")
