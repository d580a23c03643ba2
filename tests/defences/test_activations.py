"""What modules give on the way: computed again module by module, and the base is left as it was."""

import pytest
import torch
from torch import nn

from hauberk.defences.activations import activations_of
from hauberk.errors import HauberkError


def base() -> nn.Sequential:
    torch.manual_seed(0)
    relu = nn.ReLU(inplace=True)  # works on what the module before it gave
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), relu, nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).eval()


@pytest.mark.parametrize("layers", [("1", "3"), ("3", "1"), ("4", "1", "5"), ("3", "3"), ()])
def test_they_come_in_the_order_asked_for_as_each_module_gave_them(layers: tuple[str, ...]) -> None:
    net, x = base(), torch.rand(5, 3, 2, 2)
    logits, found = activations_of(net, layers, x)
    given, there = {}, x
    for name, module in net.named_children():
        there = module(there.clone())
        given[name] = there.detach().clone()
    assert torch.equal(logits, there)
    assert len(found) == len(layers)
    for layer, values in zip(layers, found, strict=True):
        assert torch.equal(values, given[layer])
    assert layers == () or bool((given["1"] < 0).any())


def test_gradients_reach_the_images_through_them() -> None:
    net, x = base(), torch.rand(5, 3, 2, 2, requires_grad=True)
    _, (inner,) = activations_of(net, ("1",), x)
    (gradient,) = torch.autograd.grad(inner.sum(), x)
    expected = net[1].weight.sum(0).reshape(1, 3, 2, 2).expand(5, -1, -1, -1)
    torch.testing.assert_close(gradient, expected)


def test_the_base_is_left_as_it_was_also_after_an_error() -> None:
    net, x = base(), torch.rand(5, 3, 2, 2)
    activations_of(net, ("1", "4"), x)
    with pytest.raises(RuntimeError):
        activations_of(net, ("1", "4"), torch.rand(5, 3, 2, 1))
    assert not any(module._forward_hooks for module in net.modules())


def test_a_module_that_is_not_there_or_does_not_run_once_is_named() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.used(self.used(images.flatten(1)))

    with pytest.raises(HauberkError, match="no module 'usd'"):
        activations_of(Twice(), ("usd",), torch.rand(2, 1, 2, 2))
    for layer, times in (("used", 2), ("idle", 0)):
        with pytest.raises(HauberkError, match=f"ran {times} times"):
            activations_of(Twice(), (layer,), torch.rand(2, 1, 2, 2))
