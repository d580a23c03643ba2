"""Reading files that anybody may have written: regular files only, within limits, and as plain data.

Every limit on what a file may ask of the machine stands here.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hauberk.errors import HauberkError

MIB = 1 << 20
YAML_BYTES = 64 * 1024  # of a recipe or table
JSON_BYTES = 64 * MIB  # of run.json, config.json, a log
DEPTH = 24  # blocks within blocks
NODES = 5_000  # values of a YAML file, each alias counted as what it stands for
PICKLE_BYTES = 256 * MIB  # of a pickle of arrays
DATA_BYTES = 1 << 32  # of a file of a data set that is read at once
CHECKPOINT_BYTES = 1 << 36  # of a training checkpoint
RECORD_BYTES = 512 * MIB  # of a file of records
ROWS = 10_000_000  # of a file of records
HEADER_BYTES = 16 * MIB  # of a safetensors file's head
UNPACKED, UNPACKED_RECORDS, RATIO = 256 * MIB, 64 * MIB, 100  # what compressed data may always grow to, and how often
MEMBERS = 1000  # arrays of one .npz file
PIXELS = 1 << 26  # of one image
CLASSES = 100_000  # of one data set


def content(path: Path, limit: int = JSON_BYTES, links: bool = True) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file; a pipe, socket, device or folder is refused before it is read.
        limit: most bytes.
        links: whether a symbolic link is followed; inside a run directory none is.

    Raises:
        HauberkError: naming what is wrong.
        OSError: if it is missing or cannot be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if path.is_symlink() and not links:
        raise _link(path)
    check_regular(path)
    with os.fdopen(os.open(path, flags | (0 if links else os.O_NOFOLLOW)), "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        # room is made for what is read: for its size, not for the limit; a file that has grown since gives a bit more
        found = b"" if size > limit else handle.read(size) + handle.read(MIB)
    if size > limit or len(found) > limit:
        raise HauberkError(
            f"{path} has {size:,} bytes, expected at most {limit:,}", "check that it is the intended file"
        )
    return found


def check_regular(path: Path) -> None:
    """Raise if the path is there and is no regular file: reading a pipe or a device may never end.

    Raises:
        HauberkError: saying what it is.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise HauberkError(f"{path} is {kind_of(mode)}, expected a file", "give a regular file")


def kind_of(mode: int) -> str:
    """What a file mode is the mode of."""
    kinds = {
        stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link",
        stat.S_IFREG: "a file",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "a device")


def inside(folder: Path, *parts: str) -> Path:
    """A path inside a run directory.

    Raises:
        HauberkError: if a part of it is a symbolic link: it may lead out of the directory.
    """
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise _link(path)
    return path


def _link(path: Path) -> HauberkError:
    return HauberkError(
        f"{path} is a link, and links inside a run are not followed", "replace the link by the file itself"
    )


def text(path: Path, limit: int = JSON_BYTES, links: bool = True) -> str:
    """The UTF-8 text of a regular file; arguments and errors as ``content``."""
    try:
        return content(path, limit, links).decode("utf-8")
    except UnicodeDecodeError as error:
        raise HauberkError(f"{path} is not UTF-8 text: {error.reason}", "restore it") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a record of a run."""
    return hashlib.sha256(content(path, RECORD_BYTES, links=False)).hexdigest()


# --- names ----------------------------------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """A name that becomes that of a file or folder: one part of a path, of printable characters.

    Raises:
        ValueError: saying what it must not be.
    """
    if not name.strip(" .") or name != name.strip() or name.startswith("-"):
        raise ValueError(
            f"{name!r} cannot be a folder name: it must begin with a letter or digit and not end in a blank"
        )
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name) or set(name) & set('/\\:*?"<>|'):
        raise ValueError(f"the name {name!r} has characters that are not allowed: use letters, digits, '.', '-', '_'")
    if len(name.encode()) > 100:
        raise ValueError(f"a name has at most 100 bytes, got {len(name.encode())}")
    return name


# --- YAML and JSON --------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Plain values only: no tags of types, no dates, no key twice, no alias of more than a recipe holds."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as yaml has it
        first: [(tag, how) for tag, how in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    PLAIN = frozenset(f"tag:yaml.org,2002:{t}" for t in ("null", "bool", "int", "float", "str", "seq", "map", "merge"))

    depth = count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As it was, but it stops at the limits: what comes after is not read."""
        self.depth, self.count = self.depth + 1, self.count + 1
        if self.depth > DEPTH:
            raise yaml.YAMLError(f"more than {DEPTH} blocks within each other")
        if self.count > 2 * NODES:  # keys are nodes too
            raise yaml.YAMLError(f"more than {NODES:,} values")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def plain(self) -> Any:
        """The value of the only document."""
        node = self.get_single_node()
        if node is None:
            return None
        self._check(node, {})
        return self.construct_document(node)

    def _check(self, node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
        """How many values a node holds, and how many blocks within each other, aliases written out."""
        if id(node) in known:
            if not known[id(node)][0]:
                raise yaml.YAMLError("an alias stands for a block that it is in")
            return known[id(node)]
        if node.tag not in self.PLAIN:
            raise yaml.YAMLError(f"the tag {node.tag!r} is not that of a plain value")
        known[id(node)] = 0, 0
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
            self._check_keys(node)
        sizes, depths = zip(*(self._check(part, known) for part in inner), strict=True) if inner else ((), (0,))
        found = 1 + sum(sizes), 1 + max(depths)
        if found[0] > 2 * NODES:
            raise yaml.YAMLError(f"more than {NODES:,} values")
        if found[1] > DEPTH:
            raise yaml.YAMLError(f"more than {DEPTH} blocks within each other")
        known[id(node)] = found
        return found

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key is not text, line {key.start_mark.line + 1}")
            if key.value in seen:
                raise yaml.YAMLError(f"the key {key.value!r} is given twice, line {key.start_mark.line + 1}")
            seen.add(key.value)


def yaml_value(source: str, where: str) -> Any:
    """The plain value that YAML text stands for.

    Args:
        source: the text.
        where: where it came from, for messages.

    Raises:
        HauberkError: if it is not YAML, holds anything but plain values, a key twice, or more than the limits allow.
    """
    if len(source) > YAML_BYTES:
        raise HauberkError(f"{where}: expected at most {YAML_BYTES:,} characters, got {len(source):,}", "shorten it")
    try:
        loader = _Loader(source)
        try:
            return loader.plain()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, OverflowError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise HauberkError(f"{where} is not valid YAML: {reason}", "check indentation, colons and keys") from error


def yaml_file(path: Path, links: bool = True) -> Any:
    """The value of a YAML file; errors as ``text`` and ``yaml_value``."""
    return yaml_value(text(path, YAML_BYTES, links), str(path))


def json_value(source: str | bytes, where: str) -> Any:
    """The value of JSON text.

    Raises:
        HauberkError: if it is not JSON, deeper than the limit, or holds a key twice.
    """
    try:
        found = json.loads(source, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        raise HauberkError(f"{where} is not valid JSON: {str(error)[:200]}", "restore it, or make it again") from error
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(DEPTH + 8):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, dict | list)]
        if not level:
            return found
    raise HauberkError(f"{where}: more than {DEPTH + 8} blocks within each other", "restore it, or make it again")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file in a run directory.

    Raises:
        HauberkError: if it is a link, not JSON, or not an object.
    """
    found = json_value(text(path, links=False), str(path))
    if not isinstance(found, dict):
        raise HauberkError(f"{path}: expected a JSON object, got {type(found).__name__}", "restore the file")
    return found


def check_json(value: Any, keys: Mapping[str, type], where: object) -> None:
    """Raise unless a plain value is an object that has these keys with values of these types."""
    if not isinstance(value, Mapping):
        raise HauberkError(f"{where}: expected keys with values, got {type(value).__name__}", "restore the file")
    for key, kind in keys.items():
        if not isinstance(value.get(key), kind):
            raise HauberkError(f"{where}: expected {key!r}, a {kind.__name__}", "restore it, or make it again")


def check_classes(count: int, where: object) -> int:
    """The number of classes, if a data set can have it.

    Raises:
        HauberkError: if not.
    """
    if count > CLASSES:
        raise HauberkError(
            f"{where}: the labels need {count:,} classes", f"check the labels: at most {CLASSES:,} classes are allowed"
        )
    return count


def check_plan(plan: Any, where: object) -> None:
    """Raise unless what a recipe plans to measure are lists of descriptions."""
    check_json(plan, {}, where)
    for kind in ("attacks", "certificates", "diagnoses"):
        found = plan.get(kind, [])
        named = isinstance(found, list) and all(isinstance(s, dict) and isinstance(s.get("name"), str) for s in found)
        if not named:
            raise HauberkError(f"{where}: expected a list of {kind}, each with a name", "restore the file")
