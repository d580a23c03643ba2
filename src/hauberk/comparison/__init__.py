"""Comparisons of runs on the same images: paired differences, and the straight line between two models."""

from hauberk.comparison.compare import Comparison, Judged, compare
from hauberk.comparison.contestant import Contestant, Outcome, Quantity
from hauberk.comparison.effects import Effect, difference, height
from hauberk.comparison.line import above

__all__ = [
    "Comparison", "Contestant", "Effect", "Judged", "Outcome", "Quantity", "above", "compare", "difference", "height",
]  # fmt: skip
