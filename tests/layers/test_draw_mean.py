"""The mean over fixed public draws: a function of its input, the mean of its draws, and bounded like one."""

import copy

import pytest
import torch
from tests.random_nets import RandomMask, net
from torch import nn

from hauberk.classifier import traits
from hauberk.conformance import check_classifier, check_lipschitz_layer
from hauberk.draws import drawn, draws_by_key
from hauberk.errors import HauberkError
from hauberk.layers import AOLLinear, ConvexResidual, DrawMean, MaxMin, NoiseInjection
from hauberk.layers.freezing import materialised
from hauberk.layers.lipschitz import walk
from hauberk.noises import Gaussian
from hauberk.randomness import Key, PublicDraw

IMAGES = torch.rand(6, 1, 2, 4, generator=torch.Generator().manual_seed(3))


def test_a_public_draw_is_one_row_for_all_rows_and_follows_from_seed_number_and_name() -> None:
    draw = PublicDraw(1, 2)
    rows = draw.rows(torch.zeros(5, 3)).normal(4)
    assert rows.shape == (5, 4)
    assert torch.equal(rows, draw.shared(torch.zeros(2, 3)).normal(4).expand(5, 4))
    others = [PublicDraw(2, 2), PublicDraw(1, 3), draw.child("a"), draw.child("b"), draw.child("a").child("b")]
    found = [d.rows(torch.zeros(1, 3)).normal(4).tolist() for d in [draw, *others]]
    assert len({str(row) for row in found}) == 6
    assert draw.rows(torch.zeros(2, 1)).bits(3).dtype == torch.int64
    assert float(draw.rows(torch.zeros(2, 1)).uniform(3).max()) < 1.0


@pytest.mark.parametrize("draws", [1, 3])
def test_it_is_the_mean_of_its_draws_whatever_the_batch(draws: int) -> None:
    model, layer = net(), DrawMean(net(), draws, seed=5)
    by_hand = torch.stack([drawn(model, PublicDraw(5, k))(IMAGES) for k in range(draws)]).mean(0)
    torch.testing.assert_close(layer(IMAGES), by_hand)
    assert torch.equal(layer(IMAGES), layer(IMAGES))
    assert torch.equal(layer(IMAGES), layer.eval()(IMAGES.clone()))
    for row in range(6):
        torch.testing.assert_close(layer(IMAGES[row : row + 1])[0], layer(IMAGES)[row])
    assert not torch.allclose(layer(IMAGES), DrawMean(model, draws, seed=6)(IMAGES), atol=1e-3)


def test_a_body_that_works_in_place_changes_nothing_outside() -> None:
    layer, values = DrawMean(nn.Sequential(nn.ReLU(inplace=True), RandomMask()), 2), IMAGES - 0.5
    expected = DrawMean(nn.Sequential(nn.ReLU(), RandomMask()), 2)(values.clone())
    torch.testing.assert_close(layer(values), expected)
    assert torch.equal(values, IMAGES - 0.5)


def test_nobody_looks_inside_for_noise_and_a_gradient_that_is_blocked_inside_is_seen() -> None:
    layer = DrawMean(net(), 2).eval()
    assert not draws_by_key(layer)
    assert not traits(layer).stochastic
    assert traits(layer).declared is traits(net()).declared
    assert drawn(layer, Key(0, 0, (1, 2), "test")) is layer
    both = nn.Sequential(layer, NoiseInjection(Gaussian(0.1)))
    assert draws_by_key(both)
    assert traits(both).stochastic
    check_classifier(layer, (1, 2, 4))


def test_weights_are_there_once() -> None:
    model, layer = net(), DrawMean(net(), 7)
    assert len(layer.state_dict()) == len(model.state_dict())
    assert {id(p) for body in layer.bodies() for p in body.parameters()} == {id(p) for p in layer.parameters()}


def test_the_contract_of_bounds() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 8), RandomMask(), nn.ReLU(), NoiseInjection(Gaussian(0.5)), nn.Linear(8, 4))
    for draws in (1, 3):
        check_lipschitz_layer(DrawMean(body, draws), (6,))


def test_the_bound_is_that_of_every_draw() -> None:
    layer = DrawMean(nn.Sequential(nn.Linear(3, 3), NoiseInjection(Gaussian(1.0))), 3).eval()
    one = walk(nn.Sequential(layer.body[0]).eval(), (3,)).total().value
    found = layer.lipschitz_bound((3,))
    assert found.value == one
    assert [DrawMean(layer.body[0], k).eval().lipschitz_bound((3,)).exact for k in (1, 3)] == [True, False]
    steps = walk(nn.Sequential(layer, nn.Linear(3, 2)).eval(), (3,)).steps
    assert [step.kind for step in steps] == ["DrawMean", "Linear"]


def test_derived_numbers_are_held_also_where_a_draw_calls_a_copy_of_their_layer() -> None:
    """A frozen copy computes with the numbers of the model's own dtype, as it does without randomness."""
    inside = nn.Sequential(NoiseInjection(Gaussian(0.1)), AOLLinear(8, 8), MaxMin())
    model = nn.Sequential(nn.Flatten(), DrawMean(nn.Sequential(ConvexResidual(inside, 0.3)), 2), nn.Linear(8, 3)).eval()
    frozen = materialised(model, (1, 2, 4))
    kept = frozen[1].body[0].numbers(())["alpha"]
    assert kept.dtype == torch.float64
    assert float(kept) == float(model[1].body[0].alpha.detach())  # as rounded to float32
    torch.testing.assert_close(frozen(IMAGES.double()), model(IMAGES).double(), rtol=1e-5, atol=1e-6)


def test_a_copy_keeps_its_draws_and_no_draw_is_refused() -> None:
    layer = DrawMean(net(), 2, seed=4).eval()
    assert torch.equal(copy.deepcopy(layer)(IMAGES), layer(IMAGES))
    for draws, seed in ((0, 0), (1, -1)):
        with pytest.raises(HauberkError, match="at least one draw"):
            DrawMean(net(), draws, seed)
