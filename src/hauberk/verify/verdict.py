"""What verification says of one evaluation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """The outcome for one evaluation.

    Args:
        predictor: whose certificates they are.
        method: the certificate's name.
        rows: how many were derived again.
        problems: one sentence for each that does not follow from its evidence.
    """

    predictor: str
    method: str
    rows: int
    problems: tuple[str, ...]
