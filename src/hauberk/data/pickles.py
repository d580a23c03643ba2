"""Reading the pickles of CIFAR without running what is in them.

A pickle is a program: it may import any function and call it.  The published batch files need three names, all for
putting an array together again; every other name is refused before it is imported.
"""

from __future__ import annotations

import io
import pickle  # the reader below admits three harmless names only
from pathlib import Path
from typing import Any

import numpy as np

from hauberk.errors import HauberkError, reason

# the function that numpy's own pickles call, under whatever name this numpy keeps it
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise HauberkError(
                f"the pickle holds code: it uses {module}.{name}, but only numpy arrays are allowed",
                "do not open this file; fetch the published one from its source",
            )
        return _ADMITTED[module, name]


def read_arrays(content: bytes, path: Path) -> dict[str, Any]:
    """The dictionary in a pickle of plain values and numpy arrays.

    Args:
        content: the pickle.
        path: where it came from, for messages.

    Returns:
        the dictionary; keys that Python 2 wrote as bytes are given as text.

    Raises:
        HauberkError: if it holds code, is damaged, or is not a dictionary.
    """
    try:
        value = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except HauberkError as error:
        raise HauberkError(f"{path}: {error.message}", error.hint) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise HauberkError(f"{path} is damaged or not a pickle: {reason(error)}", "fetch it again") from error
    if not isinstance(value, dict):
        raise HauberkError(f"{path}: expected a dictionary, got {type(value).__name__}", "fetch the published file")
    if not all(isinstance(key, str | bytes) for key in value):
        raise HauberkError(f"{path}: expected keys of text", "fetch the published file")
    return {text(key): item for key, item in value.items()}


def text(value: bytes | str) -> str:
    """Text that Python 2 may have written as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
