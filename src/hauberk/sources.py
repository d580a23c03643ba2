"""Where code comes from: this package and the libraries below it, an installed package, or the user's own files.

Also what stands in torch's namespaces in the place of torch's own functions.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Literal

import torch
from torch import nn

Origin = Literal["library", "installed", "own"]

LIBRARIES = ("hauberk", "torch", "numpy", "scipy", "pydantic", "pydantic_core")
INSTALLED = ("site-packages", "dist-packages")
SPACES: tuple[Any, ...] = (torch, torch.nn.functional, torch.Tensor, torch.special, torch.linalg, torch.fft)
# what computes no answer, and is replaced for other ends, by users and by torch itself
SPEECHLESS = {"load", "save", "compile", "manual_seed", "__repr__", "__str__", "__format__"}
_AS_IMPORTED = {space: dict(vars(space)) for space in SPACES}


@dataclass(frozen=True)
class SourceFile:
    """One file of Python.

    Args:
        path: absolute.
        package: of its module, for relative imports; empty at the top.
    """

    path: str
    package: str = ""

    @property
    def text(self) -> str:
        """Its content, with line ends as on any system; empty where it cannot be read."""
        try:
            return Path(self.path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def imports(self) -> list[SourceFile]:
        """The user's own files that it imports anywhere, also inside functions; nothing is imported to find out."""
        try:
            tree = ast.parse(self.text)
        except (SyntaxError, ValueError):
            return []
        found = {file.path: file for name in sorted(set(self._names(tree))) for file in _files(name)}
        return [file for path, file in sorted(found.items()) if path != self.path and origin(path) == "own"]

    def _names(self, tree: ast.AST) -> Iterator[str]:
        """Absolute names of modules that the file may import."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = self.package.split(".")
                    base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
                yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def _files(name: str) -> Iterator[SourceFile]:
    """The files of a module and of the packages that it lies in, imported already or not."""
    parts, where = name.split("."), None
    for depth in range(1, len(parts) + 1):
        full = ".".join(parts[:depth])
        module = sys.modules.get(full)
        if module is not None:
            found, where = file_of(module), list(getattr(module, "__path__", []))
        else:
            found, where = _not_imported(full, where, depth)
        if found is not None:
            yield found
        if not where:
            return


def _not_imported(full: str, where: list[str] | None, depth: int) -> tuple[SourceFile | None, list[str]]:
    if depth > 1 and not where:
        return None, []
    spec = importlib.machinery.PathFinder.find_spec(full, where)
    if spec is None:
        return None, []
    below = list(spec.submodule_search_locations or [])
    package = full if below else full.rpartition(".")[0]
    return (SourceFile(spec.origin, package) if spec.origin and spec.origin.endswith(".py") else None), below


def file_of(module: ModuleType) -> SourceFile | None:
    """The source file of a module; None if it has none."""
    path = getattr(module, "__file__", None)
    if not isinstance(path, str) or not path.endswith(".py"):
        return None
    return SourceFile(str(Path(path).resolve()), getattr(module, "__package__", None) or "")


@lru_cache(maxsize=4096)
def origin(path: str, module: str = "") -> Origin:
    """Where a file of code belongs.

    Args:
        path: of the file, or a name in angle brackets where the code was made from text.
        module: the name of the module that the code says it belongs to; read where there is no file.
    """
    if path.startswith("<"):
        top = module.partition(".")[0]
        return "library" if top in LIBRARIES or top in sys.stdlib_module_names - {"__main__"} else "own"
    full = Path(path).resolve()
    parts = full.parts
    inside = [parts[i + 1] for i, part in enumerate(parts[:-1]) if part in INSTALLED]
    if inside:
        return "library" if inside[-1].removesuffix(".py") in LIBRARIES else "installed"
    roots = (Path(__file__).parent, *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")))
    return "library" if any(full.is_relative_to(root.resolve()) for root in roots) else "own"


def origin_of(thing: object) -> Origin:
    """Where a class or a module belongs."""
    name = thing.__name__ if isinstance(thing, ModuleType) else str(getattr(thing, "__module__", ""))
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if not isinstance(path, str):
        return origin("<none>", name if name in sys.modules else f"{name}?")
    return origin(path, name)


def says(file: SourceFile, code: CodeType) -> bool:
    """Whether the text of the file compiles to this code; not so after an edit, or where code was replaced."""
    return code in _compiled(file.path, file.text)


@lru_cache(maxsize=256)
def _compiled(path: str, text: str) -> frozenset[CodeType]:
    try:
        waiting = [compile(text, path, "exec", dont_inherit=True)]
    except (SyntaxError, ValueError):
        return frozenset()
    found = set()
    while waiting:
        code = waiting.pop()
        found.add(code)
        waiting += [c for c in code.co_consts if isinstance(c, CodeType)]
    return frozenset(found)


def is_own(value: object) -> bool:
    """Whether something found in a class or a module of a library is code of the user's."""
    inner = getattr(value, "__func__", None) or (value.fget if isinstance(value, property) else value)
    if not isinstance(inner, FunctionType):
        return isinstance(inner, functools.partial | nn.Module)
    return origin(inner.__code__.co_filename, inner.__module__ or "") == "own"


def replaced_in_torch() -> Iterator[tuple[str, str, Any]]:
    """Namespace, name and value of what is in the place of a function of torch's: the user's or another one of torch's.

    A namespace is compared with what it held when this package was imported; what was replaced before is seen if it is
    code of the user's.
    """
    for space in SPACES:
        before = _AS_IMPORTED[space]
        if space is torch.Tensor:  # most methods are those of its parent, and a patch stands before them
            before = vars(torch._C.TensorBase) | before
        for name, value in list(vars(space).items()):
            if name in before and name not in SPEECHLESS and (is_own(value) or _differs(before[name], value)):
                yield space.__name__, name, value


def _differs(before: object, value: object) -> bool:
    return value is not before and (callable(before) or callable(value) or isinstance(value, property))
