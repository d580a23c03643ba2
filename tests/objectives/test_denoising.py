"""Training a denoiser: both terms by hand, a classifier that stays as it is, and digits that it helps to certify."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk import recipes
from hauberk.batch import Batch
from hauberk.certificates import SmoothingCertificate
from hauberk.conformance import check_objective
from hauberk.data import load
from hauberk.defences.denoised import DenoisedClassifier
from hauberk.errors import HauberkError
from hauberk.models.dncnn import dncnn
from hauberk.noises import Gaussian
from hauberk.objectives.base import Context
from hauberk.objectives.denoising import Denoising
from hauberk.verbs.samples import evaluation_batch
from hauberk.verbs.train import train

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


def test_on_digits_it_denoises_and_the_standard_net_certifies_more(tmp_path: Path) -> None:
    recipe = {
        "name": "digits", "data": {"name": "digits"}, "objective": {"name": "standard"},
        "model": {"name": "small_cnn", "widths": [16, 16], "strides": [1, 2]},
        "training": {"epochs": 6, "batch_size": 64, "lr": 0.1, "validate_every": 0, "threads": 1},
    }  # fmt: skip
    base = {"name": "run", "path": str(train(recipes.parse(recipe), tmp_path / "base").path)}
    denoiser = {"name": "dncnn", "channels": 1, "width": 16, "depth": 3}
    behind = {
        "model": {"name": "denoised", "base": base, "denoiser": denoiser, "sigma": 0.4},
        "objective": {"name": "denoising", "stability": 0.1},
        "training": recipe["training"] | {"epochs": 3, "optimizer": "adamw", "lr": 0.02, "weight_decay": 0.0},
    }  # fmt: skip
    model = train(recipes.parse(recipe | behind), tmp_path / "denoised").load_model()
    batch = evaluation_batch(load({"name": "digits"}), "test", 24, "hashed")
    noisy = batch.images + 0.4 * torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = float(functional.mse_loss(model.denoiser(noisy), batch.images))
    assert error < 0.5 * float(functional.mse_loss(noisy, batch.images))  # of the identity
    votes = SmoothingCertificate(Gaussian(0.4), n0=20, n=60, alpha=0.01)
    alone, helped = (int((votes(m, batch).prediction == batch.labels).sum()) for m in (model.base, model))
    assert helped >= alone + 5
