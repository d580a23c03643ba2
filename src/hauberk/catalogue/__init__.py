"""The methods that Hauberk brings along, one file for each kind; nothing here imports a method."""

from hauberk.catalogue import (
    attacks,
    bounds,
    certificates,
    datasets,
    defences,
    executors,
    layers,
    losses,
    metrics,
    models,
    noises,
    objectives,
    threats,
)
from hauberk.catalogue.entry import Entry
from hauberk.catalogue.entry import Kind as Kind

__all__ = ["ALL", "Entry"]

_FILES = (
    threats, noises, losses, attacks, certificates, objectives, defences, models, datasets, layers, metrics, bounds,
    executors,
)  # fmt: skip
ALL: tuple[Entry, ...] = tuple(entry for file in _FILES for entry in file.FAMILY.entries)
