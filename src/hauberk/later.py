"""Modules that are imported when they are needed: help, versions and lists do without torch and pydantic."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class Later(ModuleType):
    """Stands for a module, and imports it when something of it is asked for.

    Args:
        name: the module's full name.
    """

    def __getattr__(self, name: str) -> Any:
        """What the module has under that name."""
        return getattr(importlib.import_module(self.__name__), name)
