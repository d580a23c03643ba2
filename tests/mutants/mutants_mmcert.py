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
        "mmcert", "noises/ablation.py", "tests/noises/test_ablation.py",
        ("topk(kept, dim=1, largest=False)", "topk(kept + 1, dim=1, largest=False)"),
        ("if tuple(image.shape[-3:]) != (channels, *self.size):", "if False:"),
        ("part * (width if", "part * (height if"),
        ("if not self.parts or len(self.parts) != len(self.kept):", "if not self.parts:"),
        ("if not self.parts or len(self.parts) != len(self.kept):", "if len(self.parts) != len(self.kept):"),
        ("sum(self.parts) != self.size[self._place - 1]:", "False:"),
        ("if any(k > n for k, n in zip(self.kept, self.elements, strict=True)):", "if False:"),
    ),
    *group(
        "mmcert", "certificates/multimodal.py", "tests/certificates/test_multimodal.py",
        ("Modality(n, k, edits)", "Modality(n, k, 0)"),
        ("math.floor(radius)", "math.ceil(radius)"),
        ("max(0, most_edits(", "(1 + most_edits("),
        ("self.modalities(), Fraction(margin))", "self.modalities())"),
        ("if least_margin(*self.shares(seen), self.modalities()) > 0 else ABSTAIN", ""),
        ("Fraction(low) * (1 - ROUNDING)", "Fraction(low) * (1 + 10**9 * ROUNDING)"),
        ("min(1 - lower, Fraction(high) * (1 + ROUNDING))", "1 - lower"),
    ),
    *group(
        "mmcert", "certificates/mixed.py", "tests/certificates/test_multimodal.py",
        ("if isinstance(self.base, MMCert | DerandomisedSplitting):", "if False:"),
    ),
    *group(
        "mmcert", "conformance/certificate.py", "tests/certificates/test_multimodal.py",
        ('if not (found.norm == "l1" or found.norm == "l2" or found.norm == "linf"):', "if False:"),
    ),
    *group(
        "mmcert", "verify/derive/edits.py", "tests/certificates/test_multimodal.py",
        ("lead - 2 * met", "lead - met"),
        ("-(-every * Fraction(low) * ROUNDED // 1)", "every"),
        ("many), few), math.perm(n, few)", "many), few), math.perm(n, many)"),
        ("(middle, high_r) if lead - 2 * met > asked", "(middle, high_r) if lead - 2 * met > 0"),
        ("    if max(counts, default=MOST + 1) > MOST:", "    if False:"),
    ),
    *group(
        "mmcert", "verify/proofs.py", "tests/certificates/test_multimodal.py",
        ('return found if told["name"] != "ablation" else', "return found if True else"),
    ),
    *group(
        "mmcert", "report/collect.py", "tests/certificates/test_multimodal.py",
        ('if part.facts["norm"] in ("elements", "levels"):', "if False:"),
    ),
    *group(
        "mmcert", "report/charts.py", "tests/certificates/test_multimodal.py",
        ('for row in rows["measured"])]) or 1.0', 'for row in rows["measured"])])'),
    ),
    *group(
        "mmcert", "verify/polls.py", "tests/certificates/test_multimodal.py",
        (' or "MMCert" in revisions:', ":"),
    ),
    *group(
        "mmcert", "statistics.py", "tests/certificates/test_segmentation.py",
        ("largest = max(largest, min(1.0, (len(p) - rank) * p[i]))", "largest = min(1.0, (len(p) - rank) * p[i])"),
    ),
]  # fmt: skip
