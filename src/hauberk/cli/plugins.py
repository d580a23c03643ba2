"""Methods from other packages."""

from __future__ import annotations

import importlib.metadata
import sys

from hauberk.cli import is_current_folder


def load_plugins() -> None:
    """Import the modules that installed packages offer in the entry point group ``hauberk``; they call ``register``.

    A package in the current folder does not count as installed.
    """
    places = [place for place in sys.path if not is_current_folder(place)]
    installed = [*importlib.metadata.distributions(path=places)]
    if not any(found.entry_points.select(group="hauberk") for found in installed):
        return  # reading the name of every package takes a quarter of a second
    first = {str(found.name): found for found in reversed(installed)}  # the version that Python finds
    for found in first.values():
        for point in found.entry_points.select(group="hauberk"):
            point.load()
