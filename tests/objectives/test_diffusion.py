"""The loss of a diffusion model: its expectation for a linear network, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.errors import HauberkError
from hauberk.models.diffusion import DiffusionModel, linear_schedule
from hauberk.objectives.base import Context
from hauberk.objectives.diffusion import Diffusion

TABLE = linear_schedule()


class Linear(nn.Module):
    """A network that answers with a multiple of its input, and with a shift for each class."""

    def __init__(self, slope: float, shift: float = 0.0) -> None:
        super().__init__()
        self.slope, self.shift = nn.Parameter(torch.tensor(slope)), shift
        self.asked: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None, return_dict: bool = True):
        self.asked.append((sample.detach(), timestep, class_labels))
        told = 0.0 if class_labels is None else self.shift * class_labels[:, None, None, None]
        found = self.slope * sample + told
        return SimpleNamespace(sample=found) if return_dict else (found,)


def model(slope: float, shift: float = 0.0, shape=(3, 5, 4)) -> DiffusionModel:
    return DiffusionModel(Linear(slope, shift), shape, 3, conditional=shift != 0.0)


def loss(of: nn.Module, images: Tensor, labels: Tensor, seed: int = 0):
    batch = Batch(images, labels, torch.arange(len(images)))
    return Diffusion()(of, batch, Context(torch.Generator().manual_seed(seed)))


def test_the_contract():
    check_objective(Diffusion(), model(0.5))
    check_objective(Diffusion(), model(0.5, 0.1))


@pytest.mark.parametrize("slope", [0.0, 0.7, 1.0])
def test_the_expectation_of_a_linear_network(slope):
    r"""With :math:`\epsilon_\theta = w x_t`: :math:`E = w^2 \bar a\,E u^2 + E_t (w \sqrt{1-a_t} - 1)^2`."""
    images = torch.rand(20_000, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    labels = torch.zeros(20_000, dtype=torch.int64)
    found = loss(model(slope, shape=(1, 2, 2)), images, labels)
    squares = float((2 * images - 1).square().mean())
    expected = slope**2 * float(TABLE.mean()) * squares + float((slope * (1 - TABLE).sqrt() - 1).square().mean())
    assert float(found.total.detach()) == pytest.approx(expected, abs=0.02)
    assert float(found.terms["mse"]) == float(found.total.detach())


def test_the_gradient_is_that_of_the_error():
    images, labels = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    of = model(0.3, shape=(1, 2, 2))
    (gradient,) = torch.autograd.grad(loss(of, images, labels).total, [of.unet.slope])
    up, down = (float(loss(model(0.3 + h, shape=(1, 2, 2)), images, labels).total.detach()) for h in (1e-2, -1e-2))
    assert float(gradient) == pytest.approx((up - down) / 2e-2, rel=1e-3)


def test_steps_are_uniform_and_noisy_images_have_their_level():
    images = torch.full((20_000, 1, 2, 2), 0.75)
    of = model(0.0, shape=(1, 2, 2))
    loss(of, images, torch.zeros(20_000, dtype=torch.int64))
    noisy, steps, _ = of.unet.asked[0]
    assert (int(steps.min()), int(steps.max())) == (0, 999)
    counts = torch.bincount(steps // 100, minlength=10).double()
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 27.9  # chi-square, 9 degrees of freedom, 0.1 %
    kept = TABLE[steps].to(noisy)[:, None, None, None]
    noise = (noisy - 0.5 * kept.sqrt()) / (1 - kept).sqrt()
    assert float(noise[steps > 50].mean()) == pytest.approx(0.0, abs=0.02)
    assert float(noise[steps > 50].std()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("shift", "told"), [(0.1, True), (0.0, False)])
def test_a_conditional_model_is_told_the_label_and_another_is_not(shift, told):
    of, labels = model(0.2, shift), torch.tensor([2, 0, 1])
    loss(of, torch.rand(3, 3, 5, 4), labels)
    known = of.unet.asked[0][2]
    assert torch.equal(known, labels) if told else known is None


def test_a_classifier_is_refused():
    with pytest.raises(HauberkError, match="expected a diffusion model"):
        loss(nn.Flatten(), torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64))
