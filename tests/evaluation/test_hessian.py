"""Eigenvalues of the input Hessian: closed forms, dense Hessians, and Ritz values that stay below."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.evaluation.hessian import hessian_eigenvalues, lanczos


def batch(rows: int = 5, shape: tuple[int, ...] = (2, 2, 3), classes: int = 3) -> Batch:
    images = torch.rand(rows, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Batch(images, torch.arange(rows) % classes, 10 + torch.arange(rows))


def smooth() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 3)).double().eval()


def dense(model: nn.Module, samples: Batch) -> torch.Tensor:
    """All eigenvalues of each image by the whole Hessian, descending."""
    found = []
    for image, label in zip(samples.images, samples.labels, strict=True):
        def loss(x: torch.Tensor, label: torch.Tensor = label) -> torch.Tensor:
            return functional.cross_entropy(model(x.reshape(1, *samples.image_shape)), label[None])

        found.append(torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, image.flatten())).flip(0))
    return torch.stack(found)


def test_two_classes_of_a_linear_model_in_closed_form():
    """CE of the logits (0, w.x) has the Hessian s(1 - s) w w'."""
    w = torch.randn(12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False)).double().eval()
    model[1].weight.data = torch.stack([torch.zeros(12).double(), w])
    samples = batch(classes=2)
    s = (samples.images.flatten(1) @ w).sigmoid()
    found = hessian_eigenvalues(model, samples, number=3)
    torch.testing.assert_close(found[:, 0], s * (1 - s) * w.square().sum())
    torch.testing.assert_close(found[:, 1:], torch.zeros(5, 2).double(), atol=1e-10, rtol=0)


def test_all_eigenvalues_are_those_of_the_dense_hessian():
    model, samples = smooth(), batch()
    wanted = dense(model, samples)
    assert float(wanted.min()) < -1e-3 < 1e-3 < float(wanted.max())  # neither definite
    torch.testing.assert_close(hessian_eigenvalues(model, samples, 12, steps=50), wanted, rtol=1e-8, atol=1e-10)


def test_a_few_steps_stay_below_and_grow():
    model, samples = smooth(), batch()
    wanted = dense(model, samples)[:, 0]
    before = torch.full_like(wanted, -torch.inf)
    for steps in (1, 2, 4, 8):
        now = hessian_eigenvalues(model, samples, steps=steps)[:, 0]
        assert bool((now <= wanted + 1e-10).all()) and bool((now >= before - 1e-10).all())
        before = now
    torch.testing.assert_close(before, wanted, rtol=1e-3, atol=0)


def test_a_relu_net_has_as_many_as_classes_less_one_and_none_below_zero():
    torch.manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)).double().eval()
    found = hessian_eigenvalues(model, batch(), 12)
    assert bool((found[:, :2] > 1e-6).all())
    torch.testing.assert_close(found[:, 2:], torch.zeros(5, 10).double(), atol=1e-10, rtol=0)


def test_an_exhausted_space_goes_on_from_another_vector():
    """Minus the identity: every vector is an eigenvector, and no value may be 0."""
    start = torch.randn(2, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(lanczos(lambda v: -v, start, 6), -torch.ones(2, 6).double())
    values = torch.tensor([3.0, 3.0, 3.0, -1.0, -1.0, -2.0]).double()
    found = lanczos(lambda v: v * values, start, 6)
    torch.testing.assert_close(found, values.expand(2, 6).sort(descending=True).values)


def test_it_does_not_depend_on_the_other_images():
    model, samples = smooth(), batch()
    whole = hessian_eigenvalues(model, samples, steps=3)
    parts = [hessian_eigenvalues(model, samples.select(slice(k, k + 1)), steps=3) for k in range(5)]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert not torch.equal(whole, hessian_eigenvalues(model, samples, steps=3, seed=1))


def test_float32_models_keep_their_dtype_and_parameters():
    model, samples = smooth().float(), batch()
    samples = Batch(samples.images.float(), samples.labels, samples.ids)
    found = hessian_eigenvalues(model, samples, 2)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, dense(smooth(), batch())[:, :2], rtol=1e-3, atol=1e-4)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_constant_loss_has_none_and_misuse_is_told():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double().eval()
    model[1].weight.data.zero_()
    assert torch.equal(hessian_eigenvalues(model, batch(), 2), torch.zeros(5, 2).double())
    with pytest.raises(HauberkError, match="1 to 4 eigenvalues"):
        hessian_eigenvalues(model, batch(), number=5, steps=4)
    with pytest.raises(HauberkError, match="eval"):
        hessian_eigenvalues(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 3)).double().train(), batch())
    with pytest.raises(HauberkError, match="not finite"):
        lanczos(lambda v: v / 0.0, torch.ones(1, 3).double(), 2)
