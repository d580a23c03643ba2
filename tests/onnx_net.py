"""A linear classifier as an ONNX file, written field by field, so that tests need no package to write one."""

from collections.abc import Sequence

import numpy as np
from torch import nn

FLOAT, VARINT, BYTES = 1, 0, 2
Fields = Sequence[tuple[int, "int | bytes | str | Fields"]]


def _number(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def message(*fields: tuple[int, object]) -> bytes:
    """Protocol buffer of numbered fields: integers, texts, bytes."""
    found = b""
    for number, value in fields:
        if isinstance(value, int):
            found += _number(number << 3 | VARINT) + _number(value)
        else:
            held = value.encode() if isinstance(value, str) else value
            assert isinstance(held, bytes)
            found += _number(number << 3 | BYTES) + _number(len(held)) + held
    return found


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = [(1, message((1 if isinstance(n, int) else 2, n))) for n in shape]
    return message((1, name), (2, message((1, message((1, FLOAT), (2, message(*sizes)))))))


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    return message(*[(1, name) for name in inputs], *[(2, name) for name in outputs], (4, kind))


def linear(
    layer: nn.Linear, shape: Sequence[int | str], softmax: bool = False, outputs: Sequence[str] = ("out",)
) -> bytes:  # fmt: skip
    """Flatten, a dense layer, and on request a softmax.

    Args:
        layer: of torch, whose numbers the file has.
        shape: of the images; a text is a size that may be any.
        softmax: whether probabilities come out.
        outputs: names of the outputs; the first is the answer, others are copies.
    """
    numbers = {"w": layer.weight.detach().numpy().T.copy(), "b": layer.bias.detach().numpy()}
    kept = [
        (5, message(*[(1, n) for n in v.shape], (2, FLOAT), (8, name), (9, np.ascontiguousarray(v).tobytes())))
        for name, v in numbers.items()
    ]
    last, *others = outputs
    steps = [_node("Flatten", ["images"], ["flat"]), _node("MatMul", ["flat", "w"], ["sum"])]
    steps += [_node("Add", ["sum", "b"], ["z" if softmax else last])]
    steps += [_node("Softmax", ["z"], [last])] if softmax else []
    steps += [_node("Identity", [last], [name]) for name in others]
    graph = message(
        *[(1, step) for step in steps], (2, "net"), *kept, (11, _value("images", shape)),
        *[(12, _value(name, [shape[0], layer.out_features])) for name in outputs],
    )  # fmt: skip
    return message((1, 8), (7, graph), (8, message((2, 13))))
