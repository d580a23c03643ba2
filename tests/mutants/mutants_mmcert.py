"""Wrong versions of MMCert: the worst case over sub-samples, ties, and Holm over pixels."""

from __future__ import annotations

from mutant import Mutant, group

TESTS = "tests/certificates/test_mmcert.py"

MMCERT: list[Mutant] = [
    *group(
        "mmcert", "certificates/mmcert.py", TESTS,
        ("Fraction(max(0, own - before + both) -", "Fraction(own - before + both -"),
        ("- min(rival, both) - after", "- rival - after"),
        ("min(rival, both) - after + both", "min(rival, both) - before + both"),
        ("max(0, own - before + both)", "max(0, own - after + both)"),
        ("max(self.elements, self.after) - self.edits", "self.elements - self.edits"),
        ('"add": self.edits,', '"add": 0,'),
        ("own = math.ceil(before * lower)", "own = math.floor(before * lower)"),
        ("math.floor(before * upper)", "math.ceil(before * upper)"),
        ("    if not after:\n        return HOPELESS\n", ""),
        ("for m in modalities]) > margin", "for m in modalities]) >= margin"),
        ("(2 * before - 2 * both + after) // 2 + 1", "(2 * before - 2 * both + after + 1) // 2"),
        ("(2 * before - 2 * both + after) // 2 + 1", "(2 * before - both) // 2 + 1"),
        ("if not 1 <= self.kept <= self.elements:", "if False:"),
        ("if self.edits < 0:", "if False:"),
    ),
    *group(
        "mmcert", "certificates/segmentation.py", "tests/certificates/test_segmentation.py",
        ("np.asarray(holm(values.tolist()))", "values"),
        ("chosen] - 1, n, share)", "chosen], n, share)"),
        ("chosen = first.argmax(1)", "chosen = second.argmax(1)"),
        ("min(1.0, math.nextafter(float(least_share(modalities)), math.inf))", "0.5"),
        ("if not (fits and whole and (second.sum(1) <= n).all()):", "if not (fits and whole):"),
        ("if not (fits and whole and (second.sum(1) <= n).all()):", "if not (whole and (second.sum(1) <= n).all()):"),
        ("if not (fits and whole and (second.sum(1) <= n).all()):", "if not (fits and (second.sum(1) <= n).all()):"),
    ),
    *group(
        "mmcert", "statistics.py", "tests/certificates/test_segmentation.py",
        ("largest = max(largest, min(1.0, (len(p) - rank) * p[i]))", "largest = min(1.0, (len(p) - rank) * p[i])"),
    ),
]  # fmt: skip
