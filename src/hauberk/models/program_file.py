"""A model that a file holds together with its computation: TorchScript, torch.export or ONNX.

The content of the file is the model's only buffer, so its hash names the model, and a copy of it in another process is
made from the same bytes.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from hauberk.capabilities import Baked, Traits
from hauberk.errors import HauberkError, reason

Call = Callable[[Tensor], Any]


class ProgramFile(Baked, nn.Module):
    """The model of a file; a subclass defines how the file is loaded.

    Args:
        content: bytes of the file.
        name: of the file, for messages.
    """

    content: Tensor

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__()
        self.register_buffer("content", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self._name = name
        self.eval()

    def loaded(self) -> tuple[Call, tuple[int | None, ...]]:
        """The module in the file, and the shape of images that the file declares; empty where it declares none."""
        raise NotImplementedError

    @cached_property
    def _loaded(self) -> tuple[int, Call, tuple[int | None, ...]]:
        return (os.getpid(), *self.loaded())

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Rows, channels, height and width of the images that the file takes; None where any number is accepted."""
        return self._called()[1]

    def _called(self) -> tuple[Call, tuple[int | None, ...]]:
        """The program, loaded anew in a fork: threads of a session do not come along."""
        if self._loaded[0] != os.getpid():
            del self._loaded
        return self._loaded[1:]

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, K); a file of a fixed number of rows is called as often as needed."""
        call, shape = self._called()
        rows, where = (shape[0] if shape else None), images.device
        held = images.to("cpu")
        if rows is None or rows == len(held):
            return cast("Tensor", _one(call(held), where))
        found = []
        for part in torch.split(held, rows):
            more = part[-1:].expand(rows - len(part), *part.shape[1:])
            whole = torch.cat([part, more])
            found.append(_one(call(whole), where)[: len(part)])
        return torch.cat(found)

    def __getstate__(self) -> dict[str, Any]:
        """All but the loaded program."""
        return {key: value for key, value in self.__dict__.items() if key != "_loaded"}

    def _refused(self, error: Exception) -> HauberkError:
        hint = f"save it again with torch {torch.__version__}"
        return HauberkError(f"{self._name} cannot be loaded: {reason(error)}", hint)


def _fixed(module: Any) -> Call:
    """The module with parameters that need no gradient."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return cast("Call", module)


def _one(answer: Any, where: torch.device) -> Any:
    return answer.to(where) if isinstance(answer, Tensor) else answer


class TorchScriptFile(ProgramFile):
    """A model that ``torch.jit.save`` wrote."""

    traits = Traits(declared=False)

    def loaded(self) -> tuple[Call, tuple[int | None, ...]]:
        """The module in eval mode, as far as it has modes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch.jit is deprecated is no news to who has a file of it
            load: Any = torch.jit.load
            try:
                module: Any = load(io.BytesIO(self.content.cpu().numpy().tobytes()), map_location="cpu")
            except (RuntimeError, ValueError) as error:
                raise self._refused(error) from error
        return _fixed(module.eval()), ()


class ExportedFile(ProgramFile):
    """A model that ``torch.export.save`` wrote."""

    traits = Traits(declared=False)

    def loaded(self) -> tuple[Call, tuple[int | None, ...]]:
        """The program's module, and the shape of its only input."""
        try:
            load: Any = torch.export.load
            program = load(io.BytesIO(self.content.cpu().numpy().tobytes()))
        except Exception as error:  # whatever a damaged archive raises
            raise self._refused(error) from error
        names = set(program.graph_signature.user_inputs)
        inputs = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
        if len(inputs) != 1:
            raise HauberkError(f"{self._name} takes {len(inputs)} inputs", "export a model that takes only images")
        size = inputs[0].meta["val"].shape
        return _fixed(program.module()), tuple(n if isinstance(n, int) else None for n in size)
