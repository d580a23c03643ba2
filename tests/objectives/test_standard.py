import math

import pytest
import torch
from torch.nn import functional

from hauberk import registry
from hauberk.errors import HauberkError
from hauberk.objectives.standard import Standard


def test_defaults_are_plain_cross_entropy(network, batch, context):
    loss = Standard()(network, batch, context)
    assert torch.equal(loss.total, functional.cross_entropy(network(batch.images), batch.labels))
    assert torch.equal(loss.terms["ce"], loss.total.detach())


def test_offset_and_temperature_by_hand(linear, inner_batch, context):
    u, temperature = 1.5, 0.25
    f = inner_batch.images.flatten(1) @ linear.weight + linear.bias
    signed = torch.where(inner_batch.labels == 1, f, -f)
    # two classes: T * CE = T * softplus(-(y f - u) / T)
    expected = temperature * functional.softplus(-(signed - u) / temperature).mean()
    found = Standard(temperature=temperature, offset=u)(linear, inner_batch, context).total
    torch.testing.assert_close(found, expected)


def test_a_small_temperature_is_the_hinge_at_the_offset(linear, inner_batch, context):
    u = 1.0
    f = inner_batch.images.flatten(1) @ linear.weight + linear.bias
    signed = torch.where(inner_batch.labels == 1, f, -f)
    found = Standard(temperature=1e-3, offset=u)(linear, inner_batch, context).total
    assert abs(float(found.detach()) - float((u - signed).clamp_min(0).mean().detach())) < 1e-3


def test_label_smoothing_mixes_in_the_uniform_target(network, batch, context):
    log_p = network(batch.images).log_softmax(1)
    own = -log_p.gather(1, batch.labels[:, None]).mean()
    expected = 0.7 * own + 0.3 * -log_p.mean()
    torch.testing.assert_close(Standard(label_smoothing=0.3)(network, batch, context).total, expected)


def test_accuracy_is_the_share_of_right_answers(linear, inner_batch, context):
    right = (linear(inner_batch.images).argmax(1) == inner_batch.labels).double().mean()
    assert math.isclose(float(Standard(offset=3.0)(linear, inner_batch, context).terms["accuracy"]), float(right))


def test_it_is_its_spec():
    objective = Standard(label_smoothing=0.1, temperature=0.25, offset=1.4)
    assert registry.build(registry.spec(objective), kind="objective") == objective


def test_a_bad_temperature_is_refused():
    with pytest.raises(HauberkError, match="temperature"):
        registry.build({"name": "standard", "temperature": 0})
