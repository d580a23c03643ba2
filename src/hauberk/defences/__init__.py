"""Defences: classifiers made of classifiers; they wrap, nothing is overridden."""

from hauberk.defences.mixed import MixedClassifier, mixed
from hauberk.defences.smoothed import SmoothedClassifier, smoothed

__all__ = ["MixedClassifier", "SmoothedClassifier", "mixed", "smoothed"]
