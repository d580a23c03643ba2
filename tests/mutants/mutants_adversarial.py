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
]  # fmt: skip
