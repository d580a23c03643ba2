"""The 1-Lipschitz network: its bound holds, and it learns something worth certifying."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers import MaxMin, layer_bounds, pairwise_bounds
from hauberk.models import lip_convnet


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7)])
def test_bound_holds_against_gradient_ascent(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = lip_convnet(shape, 4, (0.5,) * shape[0], (0.1,) * shape[0], widths=(4, 6), hidden=8).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    pairwise = pairwise_bounds(model, shape)
    assert float(pairwise.max()) <= 2.0
    first = torch.rand(8, *shape, dtype=torch.float64, requires_grad=True)
    second = torch.rand(8, *shape, dtype=torch.float64, requires_grad=True)
    optimiser, best = torch.optim.Adam([first, second], 0.02), torch.zeros(4, 4, dtype=torch.float64)
    for _ in range(80):
        change = model(first) - model(second)
        distance = torch.linalg.vector_norm((first - second).flatten(1), dim=1)
        ratio = (change[:, :, None] - change[:, None, :]).abs() / distance[:, None, None]
        best = torch.maximum(best, ratio.detach().amax(0))
        optimiser.zero_grad()
        (-ratio.sum()).backward()
        optimiser.step()
    assert bool((best <= pairwise).all())
    assert float((best / pairwise.clamp_min(1e-9)).max()) > 0.15


def test_every_layer_but_the_last_is_at_most_one() -> None:
    model = lip_convnet((3, 32, 32), 10, (0.5, 0.4, 0.3), (0.2, 0.3, 0.1), widths=(8, 16, 16)).eval()
    items = layer_bounds(model, (3, 32, 32))
    assert all(i.bound.value <= 1.0 for i in items[:-1])
    assert items[-1].kind == "UnitRowLinear"


def test_signal_and_gradient_survive_depth() -> None:
    # at the start a stage is an isometry piece by piece: lengths are kept, and the gradient of half the square of the
    # output's length is the centred image
    torch.manual_seed(0)
    model = lip_convnet((3, 8, 8), 10, (0.5, 0.4, 0.3), (0.2,) * 3, widths=(8,), depth=12, hidden=8).eval()
    body = nn.Sequential(*list(model)[: 1 + 2 * 12])
    images = torch.rand(16, 3, 8, 8, requires_grad=True)
    body(images).square().sum().div(2).backward()
    centred = images.detach() - torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    assert torch.allclose(body(images).flatten(1).norm(dim=1), centred.flatten(1).norm(dim=1), rtol=1e-3)
    assert torch.allclose(images.grad, centred, atol=1e-3)


def radii(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Certified radius of each image, -1 where it is misclassified."""
    with torch.no_grad():
        logits = model(images).double()
    predicted = logits.argmax(1)
    gaps = (logits.gather(1, predicted[:, None]) - logits) / pairwise_bounds(model, tuple(images.shape[1:]))[predicted]
    least = gaps.scatter(1, predicted[:, None], torch.inf).amin(1)
    return torch.where(predicted == labels, least, -1.0)


def test_learns_digits_with_useful_radii() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    train, test = order[:1400], order[1400:]
    mean = (float(images[train].mean()),)
    model = lip_convnet((1, 8, 8), 10, mean, (1.0,), widths=(16, 32), depth=1, hidden=64)
    optimiser = torch.optim.SGD(model.parameters(), 0.3, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.3, total_steps=8 * 22)
    for _ in range(8):
        for chosen in train[torch.randperm(1400)].split(64):
            loss = 0.25 * nn.functional.cross_entropy(model(images[chosen]) / 0.25, labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    found = radii(model.eval(), images[test], labels[test])
    assert float((found >= 0).float().mean()) > 0.9
    assert float((found >= 0.25).float().mean()) > 0.7
    assert float((found >= 0.5).float().mean()) > 0.4


@pytest.mark.parametrize("change", [{"widths": (3,)}, {"hidden": 5}, {"depth": 0}, {"widths": ()}])
def test_refusals(change: dict[str, object]) -> None:
    with pytest.raises(HauberkError, match="expected even widths"):
        lip_convnet((1, 8, 8), 10, (0.5,), (1.0,), **change)  # type: ignore[arg-type]


def test_pairs_channels_after_every_convolution() -> None:
    model = lip_convnet((1, 8, 8), 10, (0.5,), (1.0,), widths=(4, 6), depth=3, hidden=8)
    assert sum(isinstance(m, MaxMin) for m in model.modules()) == 2 * 3 + 1
