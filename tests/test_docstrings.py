"""The examples of docstrings show what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import hauberk

ROOT = Path(hauberk.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if ">>>" in path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples(path: Path) -> None:
    name = ".".join(("hauberk", *path.relative_to(ROOT).with_suffix("").parts))
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed


def test_there_are_examples() -> None:
    assert len(FILES) > 25
