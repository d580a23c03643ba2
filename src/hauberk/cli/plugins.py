"""Methods that other packages bring."""

from __future__ import annotations

import importlib.metadata
import sys

from hauberk.cli import is_current_folder


def load_plugins() -> None:
    """Import what installed packages offer under the entry point group ``hauberk``: modules that call ``register``.

    What lies in the current folder is not installed, whatever it calls itself.
    """
    places = [place for place in sys.path if not is_current_folder(place)]
    installed = [*importlib.metadata.distributions(path=places)]
    if not any(found.entry_points.select(group="hauberk") for found in installed):
        return  # reading the name of every package takes a quarter of a second
    first = {str(found.name): found for found in reversed(installed)}  # of two versions the one that Python finds
    for found in first.values():
        for point in found.entry_points.select(group="hauberk"):
            point.load()
