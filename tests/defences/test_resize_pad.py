"""Random resizing and padding: torch's own interpolation as the witness, uniform places, gradients, votes."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.gradients import draws
from hauberk.classifier import traits
from hauberk.conformance import check_classifier
from hauberk.defences import smoothed
from hauberk.defences.polled import polled
from hauberk.defences.resize_pad import Placed, ResizePad, resize_pad
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.noises import Gaussian
from hauberk.randomness import Key


def key(rows, number=0):
    return Key(0, number, tuple(range(rows)), "test")


def net():
    torch.manual_seed(0)
    return small_cnn((3, 12, 12), 3, (0.5,) * 3, (0.2,) * 3, widths=(4,), strides=(1,)).eval()


@pytest.mark.parametrize(("low", "high", "size"), [(13, 16, 18), (12, 12, 12), (7, 20, 20)])
def test_it_is_torchs_nearest_neighbour_put_into_a_black_square(low, high, size):
    x = torch.rand(9, 3, 12, 12)
    step = ResizePad(low, high, size).draw(key(9))
    for row, r, a, b, found in zip(x, *(v.tolist() for v in step.places(x)), step(x), strict=True):
        small = functional.interpolate(row[None], size=(r, r), mode="nearest")
        wanted = functional.pad(small, (b, size - r - b, a, size - r - a))[0]
        assert low <= r <= high
        assert found.shape == (3, size, size)
        assert torch.equal(found, wanted)


def test_an_image_that_is_not_square_becomes_one():
    x = torch.rand(1, 1, 3, 6)
    found = Placed(6, 6, 6, key(1))(x)
    assert torch.equal(found, functional.interpolate(x, size=(6, 6), mode="nearest"))


def test_sizes_are_uniform_and_places_uniform_for_each_size():
    n = 4000
    x = torch.zeros(n, 1, 2, 2)
    r, a, b = (v.numpy() for v in Placed(33, 36, 37, key(n)).places(x))
    _, counts = stats.contingency.crosstab(r)
    assert len(counts) == 4 and stats.chisquare(counts).pvalue > 1e-3
    for side in range(33, 37):
        own = r == side
        assert set(a[own]) == set(b[own]) == set(range(37 - side + 1))
        counts = stats.contingency.crosstab(a[own], b[own]).count
        assert stats.chisquare(counts.reshape(-1)).pvalue > 1e-3


def test_the_gradient_at_a_fixed_draw_is_that_of_finite_differences():
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(ResizePad(5, 7, 9).draw(key(2)), x)


def test_the_contract_the_spec_and_what_is_declared():
    model = resize_pad(net(), 13, 16, 18)
    check_classifier(model, (3, 12, 12))
    assert registry.spec(registry.build(registry.spec(model))) == registry.spec(model)
    assert traits(model).stochastic and traits(model).gradient == "exact" and traits(model).declared
    assert draws(model, torch.rand(2, 3, 12, 12)) == 20
    assert draws(polled(model, "mean", 30), torch.rand(2, 3, 12, 12)) == 30


def test_the_gradient_by_draws_has_a_variance_of_one_over_n():
    """The mean of n independent draws: its variance, over disjoint groups, is the single one's divided by n."""
    model, x = resize_pad(net(), 13, 16, 18), torch.rand(1, 3, 12, 12).expand(2000, 3, 12, 12)
    leaf = x.clone().requires_grad_(True)
    step = model.purifier.draw(key(2000))
    (gradient,) = torch.autograd.grad(model.base(step(leaf)).logsumexp(1).sum(), leaf)
    single = gradient.var(0).sum()
    for n in (5, 20):
        mean = gradient.reshape(-1, n, 3, 12, 12).mean(1)
        assert float(mean.var(0).sum() / single) == pytest.approx(1 / n, rel=0.2)


def test_sizes_out_of_order_and_a_base_that_votes_are_refused():
    for wrong in ((0, 3, 4), (5, 4, 6), (4, 7, 6)):
        with pytest.raises(HauberkError, match="expected 1 <= low <= high <= size"):
            resize_pad(net(), *wrong)
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        resize_pad(smoothed(net(), Gaussian(0.25)), 13, 16, 18)
