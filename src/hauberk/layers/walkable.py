"""Whether modules compute what their types define, so that a walk over them is a proof about them.

A model that passes has the following properties: every module on the way is of a class of torch, of Hauberk, or of a
class of the user's own that gives its own bound; the code of the first two is the code in their files, and torch's
functions are those that it came with; no hook, no mode, no method or class replaced on an object, no property and no
subclass changes what the class computes.  Torch's own hooks that make a weight (old weight and spectral norm, pruning)
are the one exception, see ``weight_hooks``.

Not seen are changed constants and default arguments of a module, compiled code of torch, and what is changed after the
look.  Whoever can change these can change this file too.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

import numpy as np
import torch
import torch.utils._contextlib
from torch import Tensor, nn
from torch.nn.modules import module as everywhere
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from hauberk.classifier import check_eval
from hauberk.errors import HauberkError
from hauberk.layers.weight_hooks import hooked, is_weight_hook
from hauberk.sources import replaced_in_torch

# what a subclass may define without changing what its parents compute
HARMLESS = {
    "__init__", "__doc__", "__module__", "__qualname__", "__annotations__", "__annotate__", "__dict__", "__weakref__",
    "__repr__", "__static_attributes__", "__firstlineno__", "__orig_bases__", "__parameters__", "__constants__",
    "__abstractmethods__", "_abc_impl", "__type_params__", "__slotnames__", "extra_repr", "reset_parameters",
    "T_destination",
}  # fmt: skip
_OWN = HARMLESS | {"forward", "state_dict", "load_state_dict", "_load_from_state_dict", "_save_to_state_dict"}
_DEPLOYED = ("hauberk.layers", "hauberk.defences", "hauberk.models", "hauberk.classifier", "hauberk.noises",
             "hauberk.capabilities", "hauberk.draws",
             "hauberk.randomness", "torch.nn.functional")  # fmt: skip
_TRUSTED = {"hauberk", "torch", "numpy", "scipy", "pydantic", *sys.stdlib_module_names}
_CALLED = {"typing", "collections", "types", "torch", "numpy", "scipy"}
_WRAPPERS = {
    ("context_decorator.<locals>.decorate_context", torch.utils._contextlib.__file__),
    ("contextmanager.<locals>.helper", contextlib.__file__),
}
_ALIASES = {(nn.Module, "__call__"), (nn.Module, "forward")}


def check_walkable(model: nn.Module) -> None:
    """Raise unless every module of the model computes what its type says, in eval mode.

    Raises:
        HauberkError: naming the module and what is wrong with it.
    """
    check_eval(model)
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        raise HauberkError("forward hooks are set on all modules", "remove them: their effect cannot be bounded")
    seen: set[type] = set()
    for name, module in model.named_modules():
        check_module(module, name or "model")
        seen.update(type(module).__mro__)
    for cls in seen:
        check_class(cls)


def check_module(module: nn.Module, name: str) -> None:
    """Raise if a hook, a replaced method or a tensor of a type of its own changes what one module computes."""
    fault, hint = _fault(module)
    if fault:
        raise HauberkError(f"layer {name!r} ({type(module).__name__}) {fault}", hint)


def _fault(module: nn.Module) -> tuple[str, str]:
    own = vars(module)
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if any(not is_weight_hook(module, hook) for hook in hooks):
        return "has a forward hook", "remove it: its effect cannot be bounded (use torch.nn.utils.parametrize)"
    replaced = [key for key, value in own.items() if callable(value) and hasattr(type(module), key)]
    if replaced or "__deepcopy__" in own:
        return f"has a replaced method ({', '.join(replaced) or '__deepcopy__'})", "remove it from the object"
    shadows = (own.keys() & {*module._parameters, *module._buffers, *module._modules}) - hooked(module)
    if shadows:
        return f"has an attribute that hides its {', '.join(sorted(shadows))}", "remove it from the object"
    if parametrize.is_parametrized(module) and not made_by_parametrize(type(module)):
        return "changes how modules work: torch made another class for its parametrisations", "do not change its class"
    tensors = [*module._parameters.values(), *module._buffers.values()]
    if any(t is not None and type(t) not in {Tensor, nn.Parameter} for t in tensors):
        return "has a weight of a tensor class of its own", "a proof needs plain tensors"
    return "", ""


# --- classes ----------------------------------------------------------------------------------------------------


def check_class(cls: type) -> None:
    """Raise if a class of torch or Hauberk is not as written, or another one changes how modules work."""
    if cls.__module__ in {"builtins", "typing", "abc"}:
        return
    name = f"{cls.__module__}.{cls.__qualname__}"
    if made_by_parametrize(cls):
        return
    if is_house(cls):
        changed = [key for key, value in vars(cls).items() if not _method_as_written(cls, key, value)]
        if changed:
            raise HauberkError(
                f"{name} has replaced methods: {', '.join(changed)}", "remove the patch: its effect cannot be bounded"
            )
        return
    bent = [key for key in vars(cls) if key not in _OWN and (hasattr(nn.Module, key) or key in _COPYING)]
    if bent:
        raise HauberkError(
            f"{name} changes how modules work: {', '.join(sorted(bent))}", "let a layer of your own define forward only"
        )


_COPYING = {"__deepcopy__", "__copy__", "__getattribute__"}


def is_house(cls: type) -> bool:
    """Whether a class is torch's or Hauberk's: it is found under its own name in a module of theirs."""
    if cls.__module__.partition(".")[0] not in {"torch", "hauberk"}:
        return False
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def made_by_parametrize(cls: type) -> bool:
    """Whether it is the class that torch makes for a parametrised module, and nothing was added to it."""
    if cls.__module__ != parametrize.__name__ or len(cls.__bases__) != 1:
        return False
    makers = ("_inject_new_class.<locals>.", "_inject_property.<locals>.")
    for key, value in vars(cls).items():
        if key in HARMLESS:
            continue
        codes = [f.__code__ for f in _functions(value) or [] if isinstance(f, FunctionType)]
        ours = all(c.co_filename == parametrize.__file__ and c.co_qualname.startswith(makers) for c in codes)
        if not codes or not ours or not (isinstance(value, property) or key in {"__getstate__", "__deepcopy__"}):
            return False
    return True


def plain_type(module: nn.Module) -> type[nn.Module]:
    """The class of a module, without what torch puts around it for its parametrisations."""
    cls = type(module)
    return cls.__bases__[0] if made_by_parametrize(cls) else cls


def _functions(value: object) -> list[Any] | None:
    """The functions inside a class attribute; None of a descriptor of another kind."""
    if isinstance(value, classmethod | staticmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [f for f in (value.fget, value.fset, value.fdel) if f is not None]
    if isinstance(value, FunctionType):
        return [value]
    plain = isinstance(value, type | MemberDescriptorType) or not (callable(value) or hasattr(type(value), "__get__"))
    return [] if plain else None


def _method_as_written(cls: type, key: str, value: object) -> bool:
    functions = _functions(value)
    if functions is None:
        return key in HARMLESS
    file = getattr(sys.modules[cls.__module__], "__file__", None)
    for function in functions:
        code = _code(function)
        if code is None or code.co_filename == typing_extensions_file():
            return key in {"__new__", "__init_subclass__"}  # of what torch calls deprecated
        named = code.co_qualname == f"{cls.__qualname__}.{key}" or (cls, key) in _ALIASES
        if code.co_filename != file or not named:
            return False
    return True


@functools.lru_cache(1)
def typing_extensions_file() -> str | None:
    """The file of typing_extensions, whose decorator torch puts on deprecated classes."""
    return getattr(sys.modules.get("typing_extensions"), "__file__", None)


def _code(function: object) -> CodeType | None:
    """The code of a function, or of the one inside torch's and contextlib's own decorators."""
    while isinstance(function, FunctionType):
        code = function.__code__
        if (code.co_qualname, code.co_filename) not in _WRAPPERS:
            return code
        function = (function.__closure__ or ())[code.co_freevars.index("func")].cell_contents
    return None


# --- modules ----------------------------------------------------------------------------------------------------


def check_as_written() -> None:
    """Raise if a function or class that computes answers was replaced by another one, or a mode of torch is active."""
    modes = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]  # type: ignore[no-untyped-call]
    active = [type(mode).__name__ for mode in modes if type(mode) is not DeviceContext]
    if active:
        raise HauberkError(
            f"a torch mode is active that may change what functions compute: {', '.join(active)}",
            "certify outside of it",
        )
    of_torch = [f"{space}.{name}" for space, name, _ in replaced_in_torch()]
    if of_torch:
        raise HauberkError(
            f"torch has replaced functions: {', '.join(of_torch)}", "remove the patch: its effect is not proved"
        )
    for name, module in list(sys.modules.items()):
        if not name.startswith(_DEPLOYED) or not isinstance(module, ModuleType):
            continue
        replaced = [key for key, value in list(vars(module).items()) if not _name_as_written(key, value)]
        if replaced:
            raise HauberkError(
                f"{name} has replaced functions: {', '.join(replaced)}", "remove the patch: its effect is not proved"
            )


def _name_as_written(key: str, value: object) -> bool:
    if isinstance(value, FunctionType):
        home = sys.modules.get(value.__module__)
        if home is None or value.__module__.partition(".")[0] not in _TRUSTED:
            return False
        if value.__module__.startswith("torch"):  # it makes functions by functions
            return True
        code = _code(value)
        return code is not None and code.co_filename == home.__file__ and code.co_qualname == key
    if isinstance(value, BuiltinFunctionType | type):
        origin = value.__module__ or "builtins"
        named = not origin.startswith("hauberk") or value.__name__ == key
        return named and origin.partition(".")[0] in _TRUSTED
    if isinstance(value, functools._lru_cache_wrapper):
        return _name_as_written(key, value.__wrapped__)
    # what is neither but can be called: type aliases, and functions of torch, numpy and scipy
    return not callable(value) or type(value).__module__.partition(".")[0] in _CALLED


# --- subclasses -------------------------------------------------------------------------------------------------


def bent(layer: nn.Module, owner: type) -> list[str]:
    """The names used by a class that its subclasses define anew; torch's and Hauberk's own subclasses may."""
    names = {*vars(layer), *layer._parameters, *layer._buffers, *layer._modules, *_reads(owner)}
    mro = type(layer).__mro__
    found = set()
    for cls in mro[: mro.index(owner)]:
        if made_by_parametrize(cls) or (is_house(cls) and issubclass(cls, owner)):
            continue
        found |= {key for key in vars(cls) if key not in HARMLESS and (hasattr(owner, key) or key in names)}
    return sorted(found)


@functools.lru_cache(None)
def _reads(cls: type) -> frozenset[str]:
    """All names of attributes that a class's code reads, and those that it announces."""
    found: set[str] = set()
    for parent in cls.__mro__:
        found.update(vars(parent).get("__annotations__", ()))
        codes = [_code(f) for value in vars(parent).values() for f in _functions(value) or []]
        for code in codes:
            found.update(_names(code) if code is not None else ())
    return frozenset(found)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


# --- parametrisations -------------------------------------------------------------------------------------------


def check_parametrisations(model: nn.Module) -> None:
    """Raise if a parametrisation draws random numbers or gives other weights the next time.

    Those of torch and Hauberk are known; any other one is computed three times.
    """
    for name, module in model.named_modules():
        for key, chain in getattr(module, "parametrizations", nn.ModuleDict()).items():
            known = type(chain) is ParametrizationList and all(map(_is_known, chain))
            if not known and _varies(chain):
                raise HauberkError(
                    f"layer {name or 'model'!r} has a random or changing {key}",
                    "a proof needs weights that do not change",
                )


def _is_known(module: nn.Module) -> bool:
    cls = type(module)
    return is_house(cls) and (cls.__module__.startswith("hauberk.") or cls.__module__ == parametrizations.__name__)


@torch.no_grad()
def _varies(chain: nn.Module) -> bool:
    """Whether a parametrisation, without any cache, is random or changes."""
    before = random_state()
    first = chain()
    return not same_state(before, random_state()) or not all(torch.equal(first, chain()) for _ in range(2))


def random_state() -> tuple[Any, ...]:
    """The state of every global random generator on this machine's CPU."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=True)  # noqa: NPY002


def same_state(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    """Whether no number was drawn from a global generator in between."""
    ours, theirs = first[2], second[2]
    return (
        torch.equal(first[0], second[0]) and first[1] == second[1]
        and bool((ours[1] == theirs[1]).all()) and ours[2:] == theirs[2:]
    )  # fmt: skip
