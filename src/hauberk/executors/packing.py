"""A job as bytes, for a process that does not share this one's memory."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from typing import Any, cast

from torch import nn
from torch.nn.utils import parametrize

from hauberk import __version__
from hauberk.errors import HauberkError, first_line
from hauberk.executors.base import Job


def packed(job: Job, pickler: type[pickle.Pickler] = pickle.Pickler) -> bytes:
    """Pickle a job, including models with parametrised layers, which torch does not pickle.

    Args:
        job: the job with its model.
        pickler: another pickler may be able to pickle more, such as classes that are defined in a notebook.

    Raises:
        HauberkError: if a part of the job cannot be pickled.
    """

    class Packer(pickler):  # type: ignore[misc, valid-type]
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, nn.Module) and parametrize.is_parametrized(value):
                kind = parametrize.type_before_parametrizations(value)
                return _blank, (kind,), vars(value), None, None, _parametrised
            other = getattr(super(), "reducer_override", None)
            return NotImplemented if other is None else other(value)

    stream = io.BytesIO()
    try:
        Packer(stream, protocol=pickle.HIGHEST_PROTOCOL).dump(job)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError) as error:
        raise HauberkError(
            f"the model cannot be sent to other processes: {first_line(error)}",
            "define its classes in a module and use no lambdas, or use --executor inline",
        ) from error
    return pickle.dumps((__version__, [str(Path(folder).absolute()) for folder in sys.path], stream.getvalue()))


def unpacked(content: bytes) -> Job:
    """The job in another process, after a check that it does the same there.

    Modules are searched for in the driver's folders, after all folders of the worker itself.

    Raises:
        HauberkError: if its code is missing or different there.
    """
    version, folders, inside = pickle.loads(content)  # noqa: S301 - from our own driver
    if version != __version__:
        raise HauberkError(
            f"a worker has Hauberk {__version__}, the driver has {version}", "install the same version everywhere"
        )
    sys.path += [folder for folder in folders if folder not in sys.path]
    try:
        job = pickle.loads(inside)  # noqa: S301
    except (ImportError, AttributeError) as error:
        raise HauberkError(
            f"a worker cannot load the code of the model: {first_line(error)}",
            "install the same packages for the workers, and put your own modules where they can be imported",
        ) from error
    found = cast(Job, job)
    found.arrived()
    return found


def _blank(kind: type[nn.Module]) -> nn.Module:
    return object.__new__(kind)


def _parametrised(module: nn.Module, state: dict[str, Any]) -> None:
    """Give a blank module its content, and its parametrised tensors as torch does."""
    vars(module).update(state)
    parametrize._inject_new_class(module)
    for name in cast(nn.ModuleDict, module.parametrizations):
        parametrize._inject_property(module, name)
