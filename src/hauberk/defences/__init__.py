"""Defences: classifiers that wrap other classifiers."""

from hauberk.defences.mixed import MixedClassifier, mixed
from hauberk.defences.smoothed import SmoothedClassifier, smoothed

__all__ = ["MixedClassifier", "SmoothedClassifier", "mixed", "smoothed"]
