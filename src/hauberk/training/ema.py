"""The exponential moving average of a model's weights, which improves robust accuracy at almost no cost."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hauberk.training.hook import Hook


class EMA(Hook):
    r"""A shadow model with :math:`\bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta` after every optimiser step.

    The decay warms up, :math:`d_t = \min(d, (1 + t)/(10 + t))` at the t-th update (from 0), so that the average leaves
    the initial weights soon.  Floating-point buffers (batch norm's running statistics) are averaged in the same way,
    integer buffers are copied.

    Args:
        model: the model to shadow; its present weights are where the average starts.
        decay: d in (0, 1), for each optimiser step.
    """

    name: ClassVar[str] = "ema"

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @property
    def current_decay(self) -> float:
        """The decay of the next update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Take in the weights of the model after an optimiser step."""
        averages, values = _tensors(self.model), _tensors(model)
        pairs = list(zip(averages, values, strict=True))
        floats = [(a, v) for a, v in pairs if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [v for _, v in floats], 1.0 - self.current_decay)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
        self.updates += 1

    def candidate(self) -> nn.Module:
        """The average."""
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*(p.detach() for p in model.parameters()), *model.buffers()]
