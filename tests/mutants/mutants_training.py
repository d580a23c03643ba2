"""Wrong versions of the training loop, its sources of batches and its companions."""

from __future__ import annotations

from mutant import Mutant, group

TRAINING: list[Mutant] = [
    *group(
        "work", "training/loop.py", "tests/training/test_loop.py",
        ("self.source.batches(self.position.epoch)\n        for", "self.source.batches(0)\n        for"),
        ("done / (self.steps_per_epoch * self.config.epochs)", "done / self.config.epochs"),
        ("done, self.steps_per_epoch * config.epochs, config.warmup", "done, config.epochs, config.warmup"),
    ),
    *group(
        "training", "training/loop.py", "tests/training/test_swa.py",
        ("hook.load_state_dict(content[hook.name])", "pass"),
        ("map(self.source.batch, self.source.batches(self.position.epoch))", "iter(())"),
        ("if (found := hook.candidate()) is not None", "if (found := None) is not None"),
    ),
    *group(
        "training", "training/swa.py", "tests/training/test_swa.py",
        ("average.lerp_(value, 1.0 / self.epochs)", "average.lerp_(value, 0.5)"),
        ("if progress <= self.start:", "if progress < self.start:"),
        ("for own, live in pairs if live.training]", "for own, live in pairs]"),
        ("norm.reset_running_stats()", "pass"),
        ("norm.momentum = None", "pass"),
        ("norm.momentum = momentum", "pass"),
        ('"epochs": self.epochs}', '"epochs": 1}'),
    ),
    *group("training", "training/config.py", "tests/training/test_swa.py", ("if self.ema and self.swa:", "if False:")),
    *group(
        "training", "training/checkpoints.py", "tests/training/test_checkpoints.py",
        ("in {**wanted, **found}:", "in wanted:"),
        ('"data": str(source),', ""),
    ),
    *group(
        "training", "data/source.py", "tests/data/test_source.py",
        ("[: self.steps or None]", ""),
        ("self.own < 1 or 0 in self.counts", "self.own < 1"),
        ("self.own < 1 or 0 in self.counts", "0 in self.counts"),
        ('.permuted(np.concatenate(columns, 1), axis=1)', '.permuted(np.concatenate(columns, 1), axis=0)'),
        ("stream(self.seed, epoch, f\"rows", "stream(self.seed, 0, f\"rows"),
        ("len(train) - 1 - torch.arange(first, end)", "torch.arange(first, end)"),
        ("order = torch.cat(rows).argsort()", "order = torch.cat(rows)"),
        ("for split in (dataset.val, dataset.test)", "for split in (dataset.val,)"),
        ("for split in (dataset.val, dataset.test)", "for split in (dataset.test,)"),
        ("if other.classes not in {dataset.classes, numbers}:", "if len(other.classes) != len(dataset.classes):"),
    ),
]  # fmt: skip
