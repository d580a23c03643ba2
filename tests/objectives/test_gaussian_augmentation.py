import torch
from torch import nn
from torch.nn import functional

from hauberk import registry
from hauberk.batch import Batch
from hauberk.noises import Gaussian
from hauberk.objectives.base import Context
from hauberk.objectives.gaussian_augmentation import GaussianAugmentation


class Spy(nn.Module):
    """Remembers its input and answers with constant logits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return images.flatten(1)[:, :4]


def test_without_noise_it_is_cross_entropy(network, batch, context):
    expected = functional.cross_entropy(network(batch.images), batch.labels)
    assert torch.allclose(GaussianAugmentation(Gaussian(1e-9))(network, batch, context).total, expected)


def test_noise_has_the_deviation_asked_for_and_is_not_clipped(context):
    images = torch.full((200, 3, 16, 16), 0.9)
    spy = Spy()
    batch = Batch(images, torch.zeros(200, dtype=torch.int64), torch.arange(200))
    GaussianAugmentation(Gaussian(0.5))(spy, batch, context)
    noise = spy.seen - images
    count = noise.numel()
    assert abs(float(noise.mean())) < 5 * 0.5 / count**0.5
    assert abs(float(noise.std()) - 0.5) < 5 * 0.5 / (2 * count) ** 0.5
    assert float(spy.seen.max()) > 1.5 and float(spy.seen.min()) < 0.0


def test_noise_comes_from_the_context(network, batch):
    first, second, other = (
        GaussianAugmentation(Gaussian(0.5))(network, batch, Context(torch.Generator().manual_seed(seed))).total
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_it_is_its_spec():
    objective = GaussianAugmentation(Gaussian(0.25))
    assert registry.build(registry.spec(objective), kind="objective") == objective
