"""Wrong versions of how runs are compared."""

from __future__ import annotations

from mutant import Mutant, group

COMPARE = "tests/comparison/test_compare.py"
COMPARISON: list[Mutant] = [
    *group(
        "comparison", "comparison/line.py", "tests/comparison/test_line.py",
        (" + slope * influence", ""),
        ("key=lambda model: float(model[0].mean())", "key=lambda model: float(model[1].mean())"),
        ("    if place in (0, len(curve)):\n        return curve[max(0, place - 1)][1]\n", ""),
    ),
    *group(
        "comparison", "comparison/effects.py", COMPARE,
        ("    if more and fewer and not unlike:", "    if False:"),
        ("any(mine.used - their.met for their in theirs.values())", "False"),
        ("    if not len(ids):", "    if False:"),
        ("        if (first.dataset, first.split) != (other.dataset, other.split):", "        if False:"),
        ("        check_labels(first.labels, other.labels, first.name, other.name)\n", ""),
        ("    if gap.low <= 0.0 <= gap.high:", "    if False:"),
        ("max(p, p_seeds)", "p"),
    ),
    *group(
        "comparison", "comparison/compare.py", COMPARE,
        ("corrected = holm([effect.p for effect in effects])", "corrected = [effect.p for effect in effects]"),
        ("    if effect.fewer if up else effect.more:", "    if False:"),
    ),
    *group(
        "comparison", "comparison/contestant.py", COMPARE,
        ("(best.column(\"radius\") >= eps)", "(best.column(\"radius\") > 0.0)"),
        ("        if differ:", "        if False:"),
        ("        if this.weights & other.weights:", "        if False:"),
        ("    if twice is not None:", "    if False:"),
    ),
    *group("comparison", "report/outcomes.py", COMPARE, (' and p.facts["proof"] != "estimate"', "")),
    *group(
        "comparison", "report/tried.py", COMPARE,
        ('        added = spec.pop("losses", None) or ()', "        added = ()"),
        ('("name", "threat", "early_stop")', '("name", "threat")'),
    ),
]  # fmt: skip
