"""Splitting noise: its splits drawn one by one, uniform noise behind a map, and a half-space that reaches the bound."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates import SmoothingCertificate
from hauberk.conformance import check_noise
from hauberk.defences.smoothed import SmoothedClassifier, smoothed_name
from hauberk.noises import Splitting, Uniform
from hauberk.objectives.gaussian_augmentation import GaussianAugmentation
from hauberk.objectives.noisy_copies import NoisyCopies
from hauberk.objectives.stability import Stability
from hauberk.randomness import Consecutive, stream

ROOT = 3.0**0.5


def test_the_contract() -> None:
    check_noise(Splitting(0.25))
    assert Splitting.norm == "l1" and Splitting(0.3).radius(0.9) == Uniform(0.3).radius(0.9)
    assert smoothed_name("net", Splitting(0.3)) == "smoothed(splitting sigma=0.3, net)"


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.4])
@pytest.mark.parametrize("value", [0.0, 0.3, 0.95])
def test_the_base_sees_the_middle_between_two_splits(sigma: float, value: float) -> None:
    """Against splits that are drawn as the paper says: a uniform start, then every 2 lambda."""
    width = 2 * ROOT * sigma
    starts = np.random.default_rng(1).uniform(0, width, 20_000)
    low = value - (value - starts) % width
    middle = (np.maximum(low, 0) + np.minimum(low + width, 1)) / 2
    image = torch.full((1, 1, 1), value)
    seen = Splitting(sigma).noisy(image, Consecutive(stream(0, 0, "test"), 20_000)).flatten().numpy()
    assert seen.min() >= 0 and seen.max() <= 1
    # of what lies at one point, such as the middle of an interval that holds [0, 1], the share; of the rest, the law
    for at in np.unique(np.concatenate([[0.0], np.quantile(middle, np.linspace(0.01, 0.99, 30))])):
        for shift in (-1e-4, 1e-4):
            one, two = float((middle <= at + shift).mean()), float((seen <= at + shift).mean())
            assert one == pytest.approx(two, abs=0.025)


class Half(nn.Module):
    """Class 1 where the first value is above a threshold; the others do not matter."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        lead = images.flatten(1)[:, 0] - self.threshold
        return torch.stack([-lead, lead], 1)


def test_the_radius_is_at_most_the_true_one_and_comes_near_it() -> None:
    """A threshold on one value: the vote flips where as many intervals lie above as below, by counting intervals."""
    noise, value, threshold = Splitting(0.4), 0.9, 0.5
    width = 2 * ROOT * 0.4

    def share(at: float) -> float:  # of starts whose interval around a value has its middle above the threshold
        low = at - np.linspace(0, width, 200_001)[:-1]
        return float(((np.maximum(low, 0) + np.minimum(low + width, 1)) / 2 > threshold).mean())

    flips = next(d for d in np.linspace(0, 0.9, 1801) if share(value - d) <= 0.5)
    images = Batch(torch.full((3, 1, 1, 2), value), torch.zeros(3).long(), torch.arange(3))
    model = SmoothedClassifier(Half(threshold).eval(), noise, 2, 50, 0.01).eval()
    found = SmoothingCertificate(noise, n0=50, n=40_000, alpha=0.001)(model, images, tile=4096)
    assert found.prediction.tolist() == [1, 1, 1] and found.norm == "l1"
    assert bool((found.radius <= flips + 1e-3).all())
    assert float(found.radius.max()) > noise.radius(share(value)) - 0.03


def test_it_is_uniform_noise_behind_a_map_in_every_place() -> None:
    """Votes, the attacker's view and training all see the middle; unlike uniform noise it stays inside the box."""

    class Range(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert float(images.detach().min()) >= 0.0 and float(images.detach().max()) <= 1.0
            return torch.stack([images.flatten(1).sum(1), images.flatten(1)[:, 0]], 1)

    noise, images = Splitting(0.5), torch.rand(3, 1, 2, 2, requires_grad=True)
    batch = Batch(images, torch.tensor([0, 1, 0]), torch.arange(3))

    class Context:
        def randomness(self, rows: int) -> Consecutive:
            return Consecutive(stream(0, 0, "context"), rows)

    context = Context()
    for loss in (GaussianAugmentation(noise), Stability(noise)):
        loss(Range(), batch, context).total.backward()  # type: ignore[arg-type]
    copies = NoisyCopies.drawn(Range(), images, noise, 5, context)  # type: ignore[arg-type]
    assert copies.logits(images).shape == (3, 5, 2)
    SmoothedClassifier(Range(), noise, 4, 10, 0.01)(images).sum().backward()
    with pytest.raises(AssertionError):
        SmoothedClassifier(Range(), Uniform(0.5), 4, 10, 0.01)(images)
    assert images.grad is not None and bool((images.grad != 0).any())
