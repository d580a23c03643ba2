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
        ("replace(context, shared={} if context.shared is None else context.shared)", "context"),
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
    *group(
        "regularisers", "objectives/triplet.py", "tests/objectives/test_triplet.py",
        ("return cosines.abs() if absolute else cosines", "return cosines"),
        ("functional.normalize(others, dim=1)", "others"),
        ("masked_fill(own, -torch.inf)", "masked_fill(own, 0.0)"),
        ("own = labels[:, None] == labels[None]", "own = torch.eye(len(labels), dtype=torch.bool)"),
        ("(to_negative - to_positive + self.margin)", "(to_positive - to_negative + self.margin)"),
        ("(to_negative - to_positive + self.margin)", "(to_negative - to_positive - self.margin)"),
        (".relu() * negative.there", ".relu()"),
        ("* mate.there", ""),
        ("& ~torch.eye(rows, dtype=torch.bool, device=labels.device)", ""),
        ("[self._length(anchors), self._length(clean), ", "[self._length(anchors), "),
        ("features.square().mean(1)", "features.square().sum(1)"),
        ("self._length(clean[negative.place]) * negative.there", "self._length(clean[negative.place])"),
        ("self.norm_weight * length", "length"),
    ),
    *group(
        "regularisers", "defences/activations.py", "tests/objectives/test_triplet.py",
        ("reversed(list(model.modules()))", "model.modules()"),
        ("if len(seen) != 1:", "if not seen:"),
    ),
    *group(
        "regularisers", "objectives/mart.py", "tests/objectives/test_mart.py",
        ("log_p.scatter(1, labels[:, None], -torch.inf).argmax(1)", "log_p.argmax(1)"),
        ("[:, 0] - others", "[:, 0]"),
        ("(1.0 - sure) * divergence", "divergence"),
        ("(1.0 - sure) * divergence", "(1.0 - sure.detach()) * divergence"),
        ('divergence("kl", clean, attacked)', 'divergence("kl", attacked, clean)'),
    ),
    *group(
        "regularisers", "objectives/distillation.py", "tests/objectives/test_distillation.py",
        ('divergence("kl", wanted / self.temperature, logits / self.temperature)',
         'divergence("kl", logits / self.temperature, wanted / self.temperature)'),
        ("self.temperature**2", "self.temperature"),
        ("self._taught(points)", "self._taught(batch.images)"),
        ("return run_hash(self.teacher)", 'return ""'),
        ("run_model(self.teacher, self.weights)", "run_model(self.teacher)"),
    ),
    *group(
        "regularisers", "objectives/cutmix.py", "tests/objectives/test_cutmix.py",
        ("kept * own.total + (1.0 - kept) * others.total", "own.total"),
        ("1.0 - box.pixels / (height * width)", "1.0 - (box.pixels / (height * width)) ** 0.5"),
        ("context.whole(images)[partners]", "context.whole(images)"),
        ("(batch.labels, labels[partners])", "(batch.labels, batch.labels)"),
        ("None if context.augment is None else lambda: mixed(context.view())", "context.augment"),
        ("state={}, shared={})", "state={})"),
        ("if sharing.state:", "if False:"),
        ("max(top, 0)", "top"),
        ("min(left + wide, width)", "left + wide"),
        ("int(height * area**0.5)", "int(height * area)"),
    ),
    *group(
        "regularisers", "objectives/terms.py", "tests/objectives/test_cutmix.py",
        ("shared={} if context.shared is None else context.shared", "shared={}"),
    ),
    *group(
        "regularisers", "data/augment.py", "tests/data/test_augment.py",
        ("first = centre - side // 2", "first = centre - side"),
        ("(rows[:, :, None] & columns[:, None])", "(rows[:, :, None] | columns[:, None])"),
        ("progress >= self.cutout_from", "progress > 0"),
    ),
    *group(
        "regularisers", "training/loop.py", "tests/training/test_loop.py::test_squares_are_cut_late_in_training",
        ("self.context.generator, self.context.progress)", "self.context.generator)"),
    ),
    *group(
        "regularisers", "evaluation/hessian.py", "tests/evaluation/test_hessian.py",
        ('reduction="sum"', 'reduction="mean"'),
        ("torch.where(left[:, None], rest, _apart(start.roll(step + 1, 1), known))", "rest"),
        ("ascending.flip(1)", "ascending"),
        ("known * (known * vectors[:, :, None]).sum(1, keepdim=True)", "0.0 * known"),
        ("most)[:, :number]", "most)[:, -number:]"),
    ),
    *group(
        "regularisers", "evaluation/metrics.py", "tests/evaluation/test_metrics.py",
        ("return _share(c & ~s)", "return _share(~s)"),
    ),
]  # fmt: skip
