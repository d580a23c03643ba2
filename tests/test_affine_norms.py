import pytest
import torch
from torch import nn

from hauberk.classifier import affine_norms


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.BatchNorm2d(8, affine=False), nn.Flatten(), nn.BatchNorm1d(128),
    )  # fmt: skip
    for norm in (made[1], made[3], made[5]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 3.0)
    nn.init.normal_(made[1].weight)
    nn.init.normal_(made[1].bias)
    return made.eval().requires_grad_(False).double()


def output_and_gradient(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = images.clone().requires_grad_(True)
    output = model(leaf)
    return output.detach(), torch.autograd.grad(output.square().sum(), leaf)[0]


def test_outputs_and_input_gradients_are_those_of_batch_norm(model):
    images = torch.rand(4, 3, 6, 6, dtype=torch.float64)
    plain = output_and_gradient(model, images)
    with affine_norms(model):
        affine = output_and_gradient(model, images)
    for one, other in zip(plain, affine, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_model_is_as_before_also_after_an_error(model):
    images = torch.rand(4, 3, 6, 6, dtype=torch.float64)
    before = model(images)
    with pytest.raises(RuntimeError), affine_norms(model):
        model(torch.rand(1))
    assert "forward" not in vars(model[1])
    assert torch.equal(model(images), before)


def test_norms_of_batch_statistics_are_left_alone():
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    with affine_norms(norm):
        images = torch.rand(4, 3, 2, 2)
        assert float(norm(images).detach().mean().abs()) < 1e-6
