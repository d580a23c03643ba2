"""Wrong versions of the adversarial training family: weight perturbation, and the methods beside PGD training."""

from __future__ import annotations

from mutant import Mutant, group

AWP = "tests/training/test_awp.py"

ADVERSARIAL: list[Mutant] = [
    *group(
        "adversarial", "training/awp.py", AWP,
        ("self.gamma * weight.norm() / length", "self.gamma / length"),
        ("weight.add_(gradient", "weight.sub_(gradient"),
        ("if p.dim() > 1 and p.grad", "if p.grad"),
        ("context.epoch < self.start", "context.epoch <= self.start"),
        ("weight.copy_(before)", "weight.add_(0.0)"),
        ("buffer.copy_(before)", "buffer.add_(0)"),
        ("context.state = state\n", ""),
        ("        back()\n", ""),
        ("        tape.rewind()\n", ""),
        ("self.model.zero_grad(set_to_none=True)", "pass"),
    ),
    *group(
        "adversarial", "attacks/tape.py", AWP,
        ("bookmark(randomness.generator) if isinstance(randomness, Shared) else lambda: None", "lambda: None"),
        ("self._next += 1", "self._next += 0"),
    ),
    *group(
        "adversarial", "randomness.py", AWP,
        ("for g in (generator, _global_generator(generator.device))", "for g in (generator,)"),
    ),
    *group(
        "adversarial", "training/checkpoints.py", AWP,
        ('"awp": ("awp", "awp_start")', '"awp": ("awp",)'),
    ),
    *group(
        "adversarial", "objectives/friendly_adversarial.py", "tests/objectives/test_friendly_adversarial.py",
        ("progress >= moment", "progress > moment"),
        ("min(attack.steps, attack.tau + sum(", "min(attack.steps, sum("),
        ("min(attack.steps, attack.tau + sum(progress >= moment for moment in self.raises))",
         "attack.tau + sum(progress >= moment for moment in self.raises)"),
        ("replace(changed.attack, tau=tau)", "changed.attack"),
        ("later <= earlier", "later < earlier"),
        ("None if m.training else", "None if not m.training else"),
    ),
    *group(
        "adversarial", "training/validation.py", "tests/training/test_validation.py",
        ("- robust > drop and one_step", "- robust > drop or one_step"),
        ('best["score"][0] - robust > drop', 'best["score"][1] - robust > drop'),
        ("self.training - self.robust", "self.robust - self.training"),
        ("held_out(train, config.gap_images, seed)", "held_out(val, config.gap_images, seed)"),
        ("FGSM(self.attack.threat)", "self.attack"),
    ),
    *group(
        "adversarial", "training/loop.py", "tests/training/test_loop.py",
        ("stop = stop or (score is not None and score.collapsed)", "pass"),
    ),
    *group(
        "adversarial", "report/training.py", "tests/report/test_training.py",
        ("else one - other", "else other - one"),
        ("else best - last", "else last - best"),
        ('self.line("training_robust_accuracy") or self.line("adversarial_accuracy")',
         'self.line("adversarial_accuracy")'),
        ("return (float(row[ROBUST]), clean)", "return (clean, float(row[ROBUST]))"),
        ("return {*epochs[::every], *always}", "return {*epochs[::every]}"),
        ("len(rows) < 2", "len(rows) < 1"),
    ),
    *group(
        "adversarial", "attacks/ddn.py", "tests/objectives/test_friendly_adversarial.py",
        ("closer = query.wrong & (distance < nearest)", "closer = query.wrong"),
        ("1.0 - self.gamma, 1.0 + self.gamma)", "1.0 + self.gamma, 1.0 - self.gamma)"),
    ),
    *group(
        "adversarial", "objectives/customised_adversarial.py", "tests/objectives/test_customised_adversarial.py",
        ("batch.labels), tried, fooled)", "batch.labels), before, tried)"),  # the released code's rule
        ("(before - eta).clamp_min(0.0) if self.falls else before", "(before - eta).clamp_min(0.0)"),
        ("(before - eta).clamp_min(0.0) if self.falls", "before - eta if self.falls"),
        ("(before + eta).clamp_max(largest)", "(before + eta)"),
        ("randomness, tried)", "randomness, before)"),
        ("softness * budgets, direction", "softness * tried, direction"),
        ("0.005 / USUAL * largest", "0.005"),
        ("10.0 * USUAL / largest", "8.0 * USUAL / largest"),
        ("(budgets * (self.kappa", "(tried * (self.kappa"),
        ("context.whole(batch.ids).tolist()", "batch.ids.tolist()"),
        ("torch.log1p(-randomness", "torch.log1p(randomness"),
        (".sum(1)\n    gamma = gamma", ".mean(1)\n    gamma = gamma.square()"),
    ),
    *group(
        "adversarial", "objectives/epochwise_adversarial.py", "tests/objectives/test_epochwise_adversarial.py",
        ("context.epoch // self.every", "context.epoch"),
        ("first.load_state_dict(memory[\"model\"])", "pass"),
        ("self.clean_fraction / (1.0 - self.clean_fraction)", "self.clean_fraction"),
        ("1.0 + self.share * ratio", "1.0 + ratio"),
        (".random() < self.share", ".random() > self.share"),
        ("stream(nth, sample, MEMORY)", "stream(0, sample, MEMORY)"),
        (".select(rows)", ""),
        ("context.whole(points)[new]", "points"),
        ("if self.every > 1:", "if self.every > 2:"),
    ),
    *group(
        "adversarial", "randomness.py", "tests/objectives/test_epochwise_adversarial.py",
        ("device=rows.device)[self._own][rows]", "device=rows.device)[rows]"),
    ),
]  # fmt: skip
