"""Training a denoiser: both terms by hand, and a classifier that stays as it is."""

import numpy as np
import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.defences.denoised import DenoisedClassifier
from hauberk.errors import HauberkError
from hauberk.models.dncnn import dncnn
from hauberk.objectives.base import Context
from hauberk.objectives.denoising import Denoising

SIGMA = 0.3


def fresh() -> Context:
    return Context(torch.Generator().manual_seed(7))


@pytest.fixture
def model(network: nn.Module) -> DenoisedClassifier:
    torch.manual_seed(3)
    denoiser = dncnn(3, 4, 3)
    nn.init.normal_(denoiser.residual[-1].weight, std=0.1)
    return DenoisedClassifier(network, denoiser, SIGMA).train()


@pytest.mark.parametrize("objective", [Denoising(), Denoising(0.0, 1.0), Denoising(2.0, 0.5)])
def test_the_contract(objective) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(60, 3))
    check_objective(objective, DenoisedClassifier(net, dncnn(3, 4, 3), SIGMA))


@pytest.mark.parametrize(("mse", "stability"), [(1.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
def test_it_is_what_numpy_says(model: DenoisedClassifier, batch: Batch, mse: float, stability: float) -> None:
    noise = fresh().randomness(len(batch)).normal(3, 2, 2).numpy() * SIGMA
    found = Denoising(mse, stability)(model, batch, fresh())
    with torch.no_grad():
        clean = model.denoiser(torch.from_numpy(batch.images.numpy() + noise))
        error = float(np.mean((clean.numpy() - batch.images.numpy()) ** 2))
        wanted = model.base(batch.images).numpy().argmax(1)
        z = model.base(clean).double().numpy()
    apart = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), wanted]
    assert float(found.total.detach()) == pytest.approx(mse * error + stability * apart.mean(), rel=1e-5)
    assert float(found.terms["mse"]) == pytest.approx(error, rel=1e-5)
    if stability:
        assert float(found.terms["agreement"]) == pytest.approx((z.argmax(1) == wanted).mean())
        other = Batch(batch.images, (batch.labels + 1) % 4, batch.ids)  # labels are not read
        assert torch.equal(Denoising(mse, stability)(model, other, fresh()).total, found.total)


def test_only_the_denoiser_has_gradients_and_the_classifier_s_statistics_stay(model, batch) -> None:
    before = {name: value.clone() for name, value in model.base.state_dict().items()}
    Denoising(1.0, 1.0)(model, batch, fresh()).total.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.base.state_dict().items())
    assert all(p.grad is None for p in model.base.parameters())
    assert all(p.grad is not None for p in model.denoiser.parameters())


def test_another_model_and_no_term_at_all_are_refused(network: nn.Module, batch: Batch) -> None:
    with pytest.raises(HauberkError, match="expected a classifier with a denoiser, got Sequential"):
        Denoising()(network, batch, fresh())
    with pytest.raises(ValueError, match="one of mse and stability"):
        Denoising(0.0, 0.0)
