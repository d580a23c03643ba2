"""Wrong versions of what a page says first: boards, verdicts, classes and pairs."""

from __future__ import annotations

from mutant import Mutant, group

BOARD = "tests/report/test_board.py"

REPORT: list[Mutant] = [
    *group(
        "page", "report/board.py", BOARD,
        ('all(j.verdict != "broken" for j', "all(True for j"),
        ("self.judgement.eps == self.eps else None", "True else None"),
        ("if a.norm == norm and a.eps <= eps]", "if a.norm == norm]"),
        ("return not line.here, -upper", "return not line.here, upper"),
    ),
    *group(
        "page", "report/verdict.py", BOARD,
        ("    if _hopeless(best):\n", "    if False:\n"),
        ("        if proved and proved[0].certified and proved[0].certified.value > guess:", "        if proved:"),
        ("    if missed is not None:\n", "    if False:\n"),
        ("missed = None if sound else next", "missed = next"),
        ('best.judged is not None and best.judged.verdict == "sound"', "best.judged is not None"),
        (" and not any(lacks(line, x) for x in tried)]", "]"),
        ("if beyond and all(beyond) else", "if beyond else"),
        ("to be wrong\" if chance else", "to be wrong\" if False else"),
        ("    if even:\n", "    if False:\n"),
        ("if difference is None:", "if False:"),
    ),
    *group(
        "page", "report/outcomes.py", "tests/report/test_outcomes.py",
        ("first = broken & (after[at] == UNKNOWN)", "first = broken"),
        ("    survived &= nearest > eps\n", ""),
        ("both: metrics.Bools = self.right & self.survived", "both: metrics.Bools = self.survived"),
    ),
    *group(
        "page", "report/pairs.py", BOARD,
        ('correct(best) & (best.column("radius") >= eps)', '(best.column("radius") >= eps)'),
        ("cells = (one & other, one & ~other, ~one & other", "cells = (one & other, ~one & other, one & ~other"),
    ),
    *group(
        "page", "report/page.py", BOARD,
        ("theirs[1].used - mine[1].met)", "mine[1].used - theirs[1].met)"),
        ("board.eps, common=True)", "board.eps)"),
    ),
    *group(
        "page", "report/subject.py", "tests/report/test_page.py::test_a_curve_is_exact_at_every_radius",
        ("for step in self.steps if step.eps < eps]", "for step in self.steps if step.eps <= eps]"),
    ),
    *group(
        "page", "report/charts.py", "tests/report/test_page.py",
        ("steps[end].accuracy) for k, end in zip(kept, last", "steps[k].accuracy) for k, end in zip(kept, last"),
        ("same = [a for a in attacked if a.images == curve.images]", "same = list(attacked)"),
    ),
    *group(
        "balanced", "evaluation/by_class.py", "tests/evaluation/test_by_class.py",
        ("held[labels == k].sum()", "held[labels >= k].sum()"),
        ("int((labels == k).sum())) for", "len(labels)) for"),
        ("return 2 * max(sizes) > 3 * min(sizes)", "return max(sizes) > min(sizes)"),
    ),
    *group(
        "balanced", "report/collect.py", "tests/report/test_classes.py",
        ('"label"), right & (radius >= eps))', '"label"), right & (radius > 0))'),
        ('balanced(part.column("label"), right & (radius >= eps))', 'balanced(part.column("label"), radius >= eps)'),
    ),
    *group(
        "balanced", "cli/results.py", "tests/report/test_classes.py",
        ("uneven = own is not None and own.uneven", "uneven = own is not None"),
    ),
    *group(
        "page", "evaluation/by_class.py", "tests/evaluation/test_by_class.py",
        ("confidence=1 - 0.05 / len(shares)", "confidence=0.95"),
        ("worst = min(shares", "worst = max(shares"),
        ("decided = np.unique(said[said >= 0])", "decided = np.unique(said)"),
        ("len(decided) == 1 and len(y) > 1", "len(decided) == 1"),
        ("below = math.sqrt(sum((s.value - s.low) ** 2 for s in shares)) / count", "below = 0.0"),
    ),
]  # fmt: skip
