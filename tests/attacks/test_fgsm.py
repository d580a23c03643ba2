"""One step of the whole budget, against closed forms on linear models."""

import pytest
import torch

from hauberk.attacks import FGSM
from hauberk.conformance import LinearOracle, check_attack
from hauberk.randomness import PerSample
from hauberk.threats import L1, L2, Linf, Threat


@pytest.mark.parametrize("threat", [L1(0.2), L2(0.1), Linf(0.03)], ids=str)
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_conformance(threat: Threat, loss: str) -> None:
    check_attack(FGSM(threat, loss=loss))


@pytest.mark.parametrize("threat", [L1(0.2), L2(0.1), Linf(0.03)], ids=str)
def test_a_binary_linear_model_is_attacked_exactly(threat: Threat) -> None:
    """The loss after the step is that at the margin less eps times the dual norm of w."""
    oracle = LinearOracle.random((2, 3, 4), 2, seed=1)
    batch = oracle.batch(8, seed=1)
    points = FGSM(threat, loss="margin").perturb(oracle, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
    weight = oracle.layers[1].weight.detach()
    with torch.no_grad():
        before, after = oracle(batch.images), oracle(points)
    sign = 1.0 - 2.0 * batch.labels
    expected = sign * (before[:, 0] - before[:, 1]) - threat.eps * threat.dual_norm((weight[0] - weight[1])[None])
    torch.testing.assert_close(sign * (after[:, 0] - after[:, 1]), expected, atol=1e-5, rtol=1e-5)


def test_the_divergence_is_refused() -> None:
    with pytest.raises(ValueError, match="zero at the clean image"):
        FGSM(Linf(0.1), loss="kl")
