import torch
from torch import nn

from hauberk.training.precision import Bfloat16


def test_inside_is_bfloat16_and_outside_is_float32():
    inner = nn.Linear(4, 3)
    seen = []
    inner.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    images = torch.rand(2, 4, requires_grad=True)
    logits = Bfloat16(inner)(images)
    logits.sum().backward()
    assert seen == [torch.bfloat16]
    assert logits.dtype == inner.weight.dtype == inner.weight.grad.dtype == images.grad.dtype == torch.float32


def test_it_shares_the_weights_and_the_mode():
    inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    view = Bfloat16(inner)
    view.eval()
    assert not inner.training
    assert next(view.parameters()) is next(inner.parameters())
