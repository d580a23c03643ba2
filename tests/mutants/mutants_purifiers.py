"""Wrong versions of the steps before a classifier that are meant to wash an attack out of an image."""

from __future__ import annotations

from mutant import Mutant, group

PURIFIERS: list[Mutant] = [
    *group(
        "purifiers", "defences/purified.py",
        "tests/defences/test_purified.py::test_it_is_the_classifier_at_the_purified_images",
        ("self.base(self.purifier(images))", "self.base(images)"),
        ("if isinstance(base, Decides):", "if False:"),
        ('{"undefended": self.base}', '{"undefended": self}'),
    ),
    *group(
        "purifiers", "defences/total_variation.py", "tests/defences/test_total_variation.py",
        ("known = kept * images", "known = images"),
        ("kept.sum((2, 3), keepdim=True).clamp_min(1.0)", "kept.sum((2, 3), keepdim=True)"),
        ("torch.where(kept > 0, images, mean)", "images"),
        ("shrink = 1.0 / (1.0 + PRIMAL * kept)", "shrink = 0.5"),
        ("down + DUAL * ahead.diff(dim=2)", "down - DUAL * ahead.diff(dim=2)"),
        ("(found + PRIMAL * divergence) * shrink + known", "found + PRIMAL * divergence"),
        ("ahead = 2.0 * found - last", "ahead = last"),
        ("self.kind == \"l1\"", "True"),
        ("self.kind == \"l1\"", "False"),
        ("squares.clamp_min(self.weight**2).rsqrt()", "squares.clamp_min(self.weight).rsqrt()"),
        ("squares.clamp_min(self.weight**2).rsqrt()", "squares.rsqrt().clamp_max(1.0 / self.weight)"),
        ("return 0.5 * (kept *", "return (kept *"),
        ("isotropic = self.kind", "isotropic = not self.kind"),
        (">= self.drop).to(images)", "< self.drop).to(images)"),
        ("self.key.rows(images).uniform", "self.key.shared(images).uniform"),
        ("uniform(*images.shape[1:])", "uniform(1, *images.shape[2:])"),
        ("self.traits = Traits(gradient=\"exact\" if backward == \"exact\" else \"none\")", "self.traits = Traits()"),
        ("Traits(stochastic=True, gradient", "Traits(gradient"),
        ("if not (0.0 <= drop < 1.0 and 0.0 < weight < math.inf):", "if not 0.0 <= drop < 1.0:"),
        ("if not (0.0 <= drop < 1.0 and 0.0 < weight < math.inf):", "if not 0.0 < weight < math.inf:"),
        ("if drop > 0 else", "if True else"),
    ),
    *group(
        "purifiers", "defences/resize_pad.py", "tests/defences/test_resize_pad.py",
        ("if not 1 <= low <= high <= size:", "if not low <= high <= size:"),
        ("if not 1 <= low <= high <= size:", "if not 1 <= low <= high:"),
        ("% (self.high - self.low + 1)", "% (self.high - self.low or 1)"),
        ("free = self.size - sides + 1", "free = (self.size - sides).clamp_min(1)"),
        ("bits[:, 1] % free, bits[:, 2] % free", "bits[:, 1] % free, bits[:, 1] % free"),
        ("self.key.rows(images)", "self.key.shared(images)"),
        ("(steps >= 0) & (steps < sides[:, None])", "(steps >= 0)"),
        ("(steps >= 0) & (steps < sides[:, None])", "(steps < sides[:, None])"),
        ("steps * length // sides[:, None]", "steps * length // size"),
        ("((2, top), (3, left))", "((2, left), (3, top))"),
    ),
]  # fmt: skip
