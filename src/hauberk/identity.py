"""What a model's answers depend on, as far as it can be known: structure, settings, values and source.

A registered model is its spec and its weights.  Any other is walked: classes and functions with the files they stand
in and those that these import, plain attributes, closures, defaults, the globals that code reads, arrays, hooks, and
modules that hide in lists.  Nothing of the user's is called.  No address, path or order of a set enters, so the answer
is the same in every process.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import os
import random
import re
import sys
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hauberk import sources
from hauberk.sources import SourceFile

MADE = "_made"  # where a network keeps the digest of what its builder left
# torch's bookkeeping, which no answer depends on
PASSING = frozenset({
    MADE, "training", "_non_persistent_buffers_set", "_compiled_call_impl", "_is_full_backward_hook",
    "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
})  # fmt: skip
MEANING = (torch.dtype, torch.layout, torch.memory_format, PurePath, range, slice, type(Ellipsis), type(NotImplemented))
# what only says where work is done, or changes with every call
OPAQUE = (
    torch.device, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random, weakref.ref,
    logging.Logger, logging.Handler, io.IOBase, threading.Thread, type(threading.Lock()), type(threading.RLock()),
)  # fmt: skip
PLAIN = (type(None), bool, int, float, complex, str)
# what Python keeps in every class, and dataclasses in theirs
PYTHONS = frozenset({
    "__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__annotations__", "__annotate__",
    "__static_attributes__", "__firstlineno__", "__orig_bases__", "__parameters__", "__type_params__", "__slots__",
    "__abstractmethods__", "__match_args__", "__dataclass_fields__", "__dataclass_params__", "__hash__",
})  # fmt: skip
# what compiled code names by addresses and by numbers of this process
PASSING_NAMES = re.compile(r"___torch_mangle_\d+\.| object at 0x[0-9a-f]+")
Node = tuple[str, list[Any]]


def structure(model: nn.Module) -> str:
    """The hash of ``architecture``: 16 hexadecimal digits."""
    return hashlib.sha256(architecture(model).encode()).hexdigest()[:16]


def architecture(model: nn.Module) -> str:
    """All that a model's answers depend on, beside its parameters and persistent buffers.

    Returns:
        the spec of a registered network as JSON, unless an attribute, a class or a function was changed afterwards;
        else the digest of a walk over all that can be reached.
    """
    return _spec(model) or _Walk(model).digest


def _spec(model: nn.Module) -> str:
    """A registered network's spec, or empty where the model is not as its builder left it."""
    made, spec = vars(model).get(MADE), getattr(model, "spec", None)
    if not isinstance(spec, dict) or not made:
        return ""
    found = _Walk(model)
    return "" if found.foreign or found.digest != made else json.dumps(spec, sort_keys=True)


def remember_as_built(model: nn.Module) -> None:
    """Keep what a builder made, so that ``architecture`` can tell whether it was changed afterwards."""
    vars(model)[MADE] = ""
    vars(model)[MADE] = _Walk(model).digest


def altered(model: nn.Module) -> bool:
    """Whether the outermost module is not one of this package's as it was made: another class, a hook, a patch."""
    cls = type(model)
    shadowed = any(callable(value) and hasattr(cls, name) for name, value in vars(model).items())
    hooked = any(vars(model).get(name) for name in ("_forward_hooks", "_forward_pre_hooks"))
    return shadowed or hooked or not cls.__module__.startswith("hauberk.") or _Walk(cls).foreign


def foreign_code(thing: object) -> str:
    """The hash of a method's code where it is not this package's, else empty."""
    found = _Walk(type(thing))
    return found.digest if found.foreign else ""


def bytes_of(tensor: Tensor) -> bytes:
    """The content of a tensor of any layout and type."""
    value = tensor.detach()
    if value.is_quantized:
        value = value.int_repr()
    if value.layout is not torch.strided:
        value = value.to_dense()
    value = value.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return bytes(value.view(torch.uint8).numpy().tobytes())


class _Walk:
    """One pass over all that can be reached from a value, depth first; each node is a word and its children.

    Args:
        root: where it starts; the state of a module, which ``weights_hash`` covers, enters by its names alone.
    """

    def __init__(self, root: object) -> None:
        self.foreign = False  # whether code was met that is not this package's or its libraries'
        self._root, self._state = root, _state_names(root)
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []  # an id belongs to its object only while that lives
        self._files: set[str] = set()
        digest = hashlib.sha256()
        waiting: list[Any] = [root, *_global_patches()] if isinstance(root, nn.Module) else [root]
        while waiting:
            word, children = self._described(waiting.pop())
            digest.update(f"{len(word)}:{word}|{len(children)};".encode("utf-8", "surrogatepass"))
            waiting.extend(reversed(children))
        self.digest = digest.hexdigest()[:16]

    def _described(self, value: Any) -> Node:
        if type(value) in PLAIN:
            return f"{type(value).__name__} {value!r}", []
        if type(value) is tuple:  # equal ones may be one object or two
            return "tuple", list(value)
        if isinstance(value, SourceFile):
            return self._file(value)
        if id(value) in self._numbers:
            return f"again {self._numbers[id(value)]}", []
        self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)
        exact = _EXACT.get(type(value))
        if exact is not None:
            return exact(value)
        for kinds, describe in _KINDS:
            if isinstance(value, kinds):
                return describe(self, value)
        return self._object(value)

    # --- code ---------------------------------------------------------------------------------------------------

    def _file(self, file: SourceFile) -> Node:
        if file.path in self._files:
            return "file again", []
        self._files.add(file.path)
        self.foreign = True
        inner = file.imports() if sources.origin(file.path) == "own" else []
        return f"file {hashlib.sha256(file.text.encode()).hexdigest()}", list(inner)

    def _module(self, module: ModuleType) -> Node:
        file = sources.file_of(module)
        return (f"module {module.__name__}", []) if sources.origin_of(module) == "library" else ("module", [file])

    def _function(self, function: FunctionType) -> Node:
        values: list[Any] = [function.__defaults__, function.__kwdefaults__]
        values.append(tuple(_content(cell) for cell in function.__closure__ or ()))
        values += [part for pair in sorted(vars(function).items()) for part in pair]
        code, owner = function.__code__, function.__module__ or ""
        if sources.origin(code.co_filename, owner) == "library":
            return f"function {owner}.{function.__qualname__}", values
        self.foreign = True
        file = None if owner not in sys.modules else sources.file_of(sys.modules[owner])
        # the file speaks for its code, unless it was edited since or something replaced the code
        text = file if file is not None and sources.says(file, code) else code
        return f"function {function.__qualname__}", [text, *values, *_globals(function)]

    def _code(self, code: CodeType) -> Node:
        names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags)
        return f"code {code.co_code.hex()}", [names, *code.co_consts]

    def _builtin(self, function: BuiltinFunctionType) -> Node:
        bound = function.__self__
        own = [] if bound is None or isinstance(bound, ModuleType | type) else [bound]
        return f"builtin {function.__module__}.{function.__qualname__}", own

    def _class(self, cls: type) -> Node:
        where = sources.origin_of(cls)
        content = _class_content(cls)
        if where == "library":  # only what was put into it afterwards
            content = [(name, value) for name, value in content if sources.is_own(value)]
            return f"class {cls.__module__}.{cls.__qualname__}", [*content, *cls.__bases__]
        self.foreign = True
        if where == "installed":  # its file speaks for its methods, if nobody replaced one
            content = [(name, value) for name, value in content if sources.is_own(value) or type(value) in PLAIN]
        module = sys.modules.get(cls.__module__)
        file = None if module is None else sources.file_of(module)
        above = [] if sources.origin_of(type(cls)) == "library" else [type(cls)]
        return f"class {cls.__qualname__}", [file, *content, *above, *cls.__bases__]

    # --- values -------------------------------------------------------------------------------------------------

    def _tensor(self, value: Tensor) -> Node:
        if id(value) in self._state:
            return f"state {self._state[id(value)][0]}", []
        return f"tensor {value.dtype} {tuple(value.shape)} {hashlib.sha256(bytes_of(value)).hexdigest()}", []

    def _network(self, module: nn.Module) -> Node:
        if module is not self._root and (known := _spec(module)):
            return f"registered {known}", list(module.state_dict(keep_vars=True).items())
        children: list[Any] = [type(module)]
        for name, value in sorted(vars(module).items()):
            if name in PASSING or (name.endswith("_hooks") and not value) or (name == "spec" and MADE in vars(module)):
                continue
            if not _is_cached(type(module), name):
                children += [name, list(value.values()) if name.endswith("_hooks") else value]
        spec = getattr(module, "spec", None)
        if isinstance(spec, dict) and spec.get("name") == "own":
            children.append(_factory(str(spec.get("source"))))
        if isinstance(module, torch.jit.ScriptModule):
            children += _compiled(module)
        return "network", children

    def _object(self, value: Any) -> Node:
        """Its class and what it holds: attributes, slots, items, or what pickling would say of it."""
        cls = type(value)
        held = dict(vars(value)) if hasattr(value, "__dict__") else {}
        for name in _slots(cls):
            held.setdefault(name, getattr(value, name, None))
        names = sorted(str(name) for name in held if not _is_cached(cls, str(name)))
        children: list[Any] = [cls, *(part for name in names for part in (name, held[name]))]
        children += [taken(value) for kind, taken in _ITEMS.items() if isinstance(value, kind)]
        if len(children) == 1 and sources.origin_of(cls) == "library":
            children.append(_reduced(value))
        return "object", children


def _array(value: np.ndarray[Any, Any] | np.generic) -> Node:
    if value.dtype.hasobject:
        return f"array {value.shape}", np.asarray(value).reshape(-1).tolist()
    content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return f"array {value.dtype.str} {value.shape} {content}", []


def _mapping(value: Mapping[Any, Any]) -> Node:
    return "dict", [part for pair in value.items() for part in pair]


def _set(value: Iterable[Any]) -> Node:
    return f"set {' '.join(sorted(_Walk(item).digest for item in value))}", []


def _bytes(value: bytes) -> Node:
    return f"bytes {hashlib.sha256(value).hexdigest()}", []


def _compiled(module: torch.jit.ScriptModule) -> list[Any]:
    """The code of a compiled module, with its constants, and the attributes that it can change."""
    code, constants = getattr(module, "code_with_constants", ("", None))
    attributes = module._c.dump_to_str(False, True, False)
    return [PASSING_NAMES.sub("", code), getattr(constants, "const_mapping", {}), PASSING_NAMES.sub("", attributes)]


def _property(value: property) -> Node:
    return "property", [value.fget, value.fset, value.fdel]


_EXACT: dict[type, Callable[[Any], Node]] = {
    list: lambda value: ("list", list(value)), deque: lambda value: ("list", list(value)),
    dict: _mapping, OrderedDict: _mapping, MappingProxyType: _mapping,
    defaultdict: lambda value: ("defaultdict", [value.default_factory, dict(value)]),
    set: _set, frozenset: _set, bytes: _bytes, bytearray: _bytes, property: _property,
    memoryview: lambda value: _bytes(value.tobytes()),
    ContextVar: lambda value: ("variable", [value.name, value.get(None)]),
    torch.Generator: lambda value: (f"generator {value.initial_seed()}", []),  # its state changes with every call
    staticmethod: lambda value: ("static", [value.__func__]), classmethod: lambda value: ("class", [value.__func__]),
    functools.cached_property: lambda value: ("cached", [value.func]),
    functools.partial: lambda value: ("partial", [value.func, value.args, value.keywords]),
    MethodType: lambda value: ("method", [value.__func__, value.__self__]),
}  # fmt: skip
_KINDS: list[tuple[Any, Callable[[_Walk, Any], Node]]] = [
    (Tensor, _Walk._tensor), (nn.Module, _Walk._network), (type, _Walk._class), (FunctionType, _Walk._function),
    (BuiltinFunctionType, _Walk._builtin), (CodeType, _Walk._code), (ModuleType, _Walk._module),
    (np.ndarray | np.generic, lambda _, value: _array(value)),
    (MEANING, lambda _, value: (f"{type(value).__name__} {value!s}", [])),
    (OPAQUE, lambda _, value: (f"some {type(value).__name__}", [])),
]  # fmt: skip
_ITEMS: dict[type, Callable[[Any], Any]] = {
    int: int.__repr__, float: float.__repr__, complex: complex.__repr__, str: str.__str__, tuple: tuple,
    list: lambda value: list.copy(value), dict: lambda value: list(dict.items(value)), set: frozenset,
    frozenset: frozenset, bytes: bytes,
}  # fmt: skip


def _state_names(root: object) -> dict[int, tuple[str, Tensor]]:
    """The name of each tensor that the weights' hash covers; the tensors are kept, so that their ids stay theirs."""
    if not isinstance(root, nn.Module):
        return {}
    found: dict[int, tuple[str, Tensor]] = {}
    for name, value in root.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            found.setdefault(id(value), (name, value))
    return found


def _global_patches() -> Iterator[Any]:
    """What was put into torch's own namespaces, and hooks on every module."""
    yield from sources.replaced_in_torch()
    for name in ("_global_forward_hooks", "_global_forward_pre_hooks"):
        yield from getattr(torch.nn.modules.module, name).values()


def _class_content(cls: type) -> list[tuple[str, Any]]:
    """Methods and attributes of a class, without what Python keeps in every class."""
    passing = ("_abc_", "__pydantic")
    return [item for item in sorted(vars(cls).items()) if item[0] not in PYTHONS and not item[0].startswith(passing)]


def _globals(function: FunctionType) -> Iterator[Any]:
    """The globals that a function's code names, what it names inside modules among them, and its environment."""
    names, space = sorted(_names(function.__code__)), function.__globals__
    modules = {n: m for n in names if (m := sys.modules.get(n)) is not None and sources.origin_of(m) != "library"}
    known = modules | space
    waiting = [(name, known[name]) for name in reversed(names) if name in known]
    seen: set[int] = set()
    if {"environ", "getenv"} & set(names):
        yield {name: os.environ[name] for name in names if name in os.environ}
    while waiting:
        name, value = waiting.pop()
        yield from (name, value)
        if isinstance(value, ModuleType) and id(value) not in seen:
            seen.add(id(value))
            library = sources.origin_of(value) == "library"
            inside = [(name, vars(value)[name]) for name in reversed(names) if name in vars(value)]
            waiting += [(n, v) for n, v in inside if not library or sources.is_own(v)]


def _names(code: CodeType) -> set[str]:
    """All names that code uses, and texts in it that may be one: for ``getattr``, ``globals`` and ``import_module``."""
    found, waiting = set[str](), [code]
    while waiting:
        each = waiting.pop()
        found.update(each.co_names)
        found.update(c for c in each.co_consts if isinstance(c, str) and c.replace(".", "_").isidentifier())
        waiting += [c for c in each.co_consts if isinstance(c, CodeType)]
    return found


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _factory(source: str) -> Any:
    """The function that made a model of the user's own, if its module is there."""
    module, _, path = source.partition(":")
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return source if found is None else found


def _is_cached(cls: type, name: str) -> bool:
    """Whether an attribute is a value that the class works out when first asked."""
    return any(isinstance(vars(each).get(name), functools.cached_property) for each in cls.__mro__)


def _slots(cls: type) -> list[str]:
    found: list[str] = []
    for each in cls.__mro__:
        slots = vars(each).get("__slots__", ())
        names = [slots] if isinstance(slots, str) else list(slots)
        private = f"_{each.__name__.lstrip('_')}"
        found += [private + name if name.startswith("__") and not name.endswith("__") else name for name in names]
    return [name for name in found if name not in ("__dict__", "__weakref__")]


def _reduced(value: Any) -> Any:
    """What pickling says of an object of a library that shows no attributes."""
    if isinstance(value, torch.jit.ScriptFunction):
        return str(value.code)
    try:
        found = value.__reduce_ex__(2)
    except Exception:  # it cannot be pickled, so only its class is known
        return None
    return tuple(part for part in found if not isinstance(part, Iterator)) if isinstance(found, tuple) else found
