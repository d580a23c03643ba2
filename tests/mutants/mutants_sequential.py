"""Wrong versions of the rules that bound a vote's probability: randomised, by looks, and what stops early."""

from __future__ import annotations

from mutant import Mutant, group

SEQUENTIAL: list[Mutant] = [
    *group(
        "sequential", "confidence.py", "tests/test_confidence.py",
        ("(1.0 - u) * more + u *", "u * more + (1.0 - u) *"),
        ("return 0.0 if u >= alpha else", "return 0.0 if u >= 0.0 else"),
        ("if u > 2.0 * alpha else 0.5", "if u > alpha else 1.0"),
        ("alpha / u if u", "alpha if u"),
        ("if not 0.0 <= u <= 1.0:", "if False:"),
    ),
]  # fmt: skip
