"""Wrong versions of the regularisers and of the sum that they stand in."""

from __future__ import annotations

from mutant import Mutant, group

CURVATURE = "tests/objectives/test_curvature.py"
TERMS = "tests/objectives/test_terms.py"

REGULARISERS: list[Mutant] = [
    *group(
        "regularisers", "objectives/curvature.py", CURVATURE,
        ("losses(leaf).sum()", "losses(leaf).mean()"),
        (".square().sum(1)", ".norm(dim=1)"),
        ("way = way.sign()", "pass"),
        ("here = slopes(losses, images)", "here = slopes(losses, images).detach()"),
        ("images + h * directions", "images + h * h * directions"),
        ("value.clone() for name", "value for name"),
        ("with evaluating(model):", "with torch.enable_grad():"),
    ),
    *group(
        "regularisers", "objectives/terms.py", TERMS,
        ("self.weight * base.total", "base.total"),
        ("total = total + regulariser.total", "total = regulariser.total"),
        ("replace(context, shared={})", "context"),
        ('f"{name}_{number}" if name in terms else name', "name"),
        ("return self.base.replays", "return 1"),
    ),
    *group(
        "regularisers", "objectives/base.py", TERMS,
        ("if key not in self.shared:", "if True:"),
        ("(attack, id(batch.images), id(labels))", "(id(batch.images), id(labels))"),
        ("(id(model), id(images), model.training)", "(id(model), model.training)"),
    ),
    *group(
        "regularisers", "objectives/attacked_divergence.py", TERMS,
        ("self.weight * moved", "moved"),
        ("clean.detach() if self.detach_target else clean", "clean"),
    ),
    *group(
        "regularisers", "objectives/view_divergence.py", TERMS,
        ("views = [batch.images, context.view()]", "views = [batch.images, batch.images]"),
        ("/ self.temperature", "* self.temperature"),
    ),
]  # fmt: skip
