"""Layers that compute numbers from their parameters in the forward pass, and how those numbers are frozen.

A parametrised weight (``torch.nn.utils.parametrize``) is computed from another one; so are the matrices of a block
reflector at each frequency, or the exponential of a scale.  Computed in another precision they are other numbers, and
may make another function.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError

Module = TypeVar("Module", bound=nn.Module)


class Numbers(nn.Module):
    """Derived numbers of a layer, computed once.

    Args:
        values: by name.
        input_shape: for which inputs they were computed, without the batch axis; None if they serve for all.
    """

    def __init__(self, values: Mapping[str, Tensor], input_shape: Sequence[int] | None) -> None:
        super().__init__()
        self.input_shape = None if input_shape is None else tuple(input_shape)
        for name, value in values.items():
            self.register_buffer(name, value.detach().clone())

    def of(self, input_shape: Sequence[int]) -> dict[str, Tensor]:
        """The numbers, for inputs of that shape.

        Raises:
            HauberkError: if they were computed for another shape.
        """
        if self.input_shape not in (None, tuple(input_shape)):
            raise HauberkError(
                f"the layer was frozen for inputs of shape {self.input_shape}, got {tuple(input_shape)}",
                "freeze the model for images of this size",
            )
        return dict(self.named_buffers())


class Derived(nn.Module):
    """A layer whose forward pass and bound use numbers derived from its parameters, only through ``numbers``."""

    by_shape: ClassVar[bool] = False  # whether the numbers depend on the shape of the input

    def derive(self, input_shape: Sequence[int]) -> dict[str, Tensor]:
        """The numbers, by name, for inputs of that shape (without the batch axis), in the dtype of the parameters."""
        raise NotImplementedError

    def numbers(self, input_shape: Sequence[int]) -> dict[str, Tensor]:
        """The numbers to compute with: those that are held, or else derived now."""
        held = self._modules.get("derived")
        return held.of(input_shape) if isinstance(held, Numbers) else self.derive(input_shape)

    def hold(self, input_shape: Sequence[int]) -> None:
        """Freeze the numbers: from now on compute with those of the present parameters."""
        if "derived" not in self._modules:
            numbers = Numbers(self.derive(input_shape), input_shape if self.by_shape else None)
            self.derived = numbers.train(self.training)


def stripped(layer: Module) -> Module:
    """The layer without its parametrisations, its tensors plain; it takes over the rest of the layer, now unusable."""
    kind = parametrize.type_before_parametrizations(layer)
    plain = cast(Module, object.__new__(kind))
    plain.__dict__.update(vars(layer))
    lists = plain._modules.pop("parametrizations")
    assert isinstance(lists, nn.ModuleDict)  # noqa: S101 - torch made it
    for name, chain in lists.items():
        value = chain().detach().clone()  # and not the attribute, which may be cached
        if isinstance(chain.original if hasattr(chain, "original") else chain.original0, nn.Parameter):
            plain.register_parameter(name, nn.Parameter(value, requires_grad=False))
        else:
            plain.register_buffer(name, value)
    return plain


def without_parametrisation(layer: Module) -> Module:
    """A copy of a layer whose parametrised tensors are plain ones, of the values that they have now."""
    # removing a parametrisation from a deep copy would remove it from the original too: both share one class
    return stripped(copy.deepcopy(layer))
