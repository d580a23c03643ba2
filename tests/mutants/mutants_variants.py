"""Wrong versions of attacks with another goal: whole levels, a chosen class, the nearest error; and of what is kept."""

from __future__ import annotations

from mutant import Mutant, group

GRID = "tests/attacks/test_on_grid.py"
CLASS = "tests/attacks/test_towards.py"
ASKED = "tests/verbs/test_variants.py"

VARIANTS: list[Mutant] = [
    *group(
        "variants", "attacks/on_grid.py", GRID,
        ("< snap, near, change.trunc())", "< snap, near, near)"),
        ("< snap, near, change.trunc())", "< 0.0, near, change.trunc())"),
        ("torch.where(over[:, None, None, None], shorter, snapped)", "snapped"),
        ("if isinstance(self.inner, Wrapping):", "if False:"),
        (".abs() > OFF).any()):", ".abs() > 1.0).any()):"),
        ('self.columns["success"][rows] |= done', 'self.columns["success"][rows] |= margin < torch.inf'),
    ),
    *group(
        "variants", "attacks/towards.py", CLASS,
        ("success = ~own & ((clean", "success = ((clean"),
        ("torch.where(own | refuted, torch.inf", "torch.where(own, torch.inf"),
        ("if self.target >= logits.shape[1]:\n            raise", "if False:\n            raise"),
    ),
    *group("variants", "attacks/wrapping.py", GRID, ("if self.inner.threat != self.threat:", "if False:")),
    *group("variants", "evaluation/minimum.py", "tests/evaluation/test_minimum.py",
           ("np.asarray(np.minimum.reduce(found))", "found[0]")),
    *group("variants", "report/variants.py", ASKED, ("if label != aim:", "if True:")),
    *group("variants", "report/outcomes.py", ASKED,
           ("return target(part) is None and white(part) is None", "return True")),
    *group("variants", "verbs/export.py", ASKED,
           ("        if len(known) > 1:", "        if False:"),
           ("        if (abs(row[\"image\"].astype(np.float64) * 255 - original) > OFF).any():", "        if False:")),
    *group("variants", "records.py", ASKED, ("_kept(item) <= _kept(known):", "True:"),
           ("return _same(one, other)\n", "return True\n")),
    *group("variants", "evaluation/work.py", ASKED, (" and self._task.whole(known):", ":")),
    *group(
        "variants", "verify/wrapped.py", ASKED,
        ("if aim is not None and not 0 <= aim", "if False and not 0 <= aim"),
        ('if method["threat"] != part.unit["threat"]:', "if False:"),
        ("if (abs(values - values.round()) > OFF).any():", "if False:"),
        ("if abs(steps - round(steps)) > OFF:", "if False:"),
        ("if levels not in WHITES:", "if False:"),
    ),
    *group("variants", "verify/attacks.py", ASKED,
           ("(decided == self.target) & (self.label != self.target)", "decided != self.label")),
    *group("variants", "cli/options.py", ASKED,
           ("if \":\" in other and other.partition(\":\")[0].lower() != norm.lower():", "if False:")),
]  # fmt: skip
