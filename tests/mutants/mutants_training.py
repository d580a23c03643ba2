"""Wrong versions of the training loop, its sources of batches and its companions."""

from __future__ import annotations

from mutant import Mutant, group

AGREE = "tests/training/test_distributed.py::test_processes_agree_where_their_content_is_the_same"
VIEW = "tests/training/test_loop.py::test_another_view_is_a_fresh_augmentation_of_the_same_images"

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
        "training", "training/loop.py", VIEW,
        ("self.context.augment = augment", "self.context.augment = lambda: batch.images[own]"),
    ),
    *group(
        "training", "training/loop.py", "tests/objectives/test_free_adversarial.py",
        ("range(self._done, self._done + self.objective.replays)", "range(self._done, self._done + 1)"),
        ("len(source.batches(0)) * objective.replays", "len(source.batches(0))"),
        ("self.position.step * self.objective.replays", "self.position.step"),
    ),
    *group(
        "training", "training/loop.py", "tests/training/test_loop.py",
        ("if not self.world.agree(content.getvalue(), self.device):", "if False:"),
    ),
    *group(
        "training", "training/distributed.py", AGREE,
        ("(total != own * self.size)", "(total == own * self.size)"),
        ("own * self.size).long())) == 0", "own * self.size).long())) >= 0"),
    ),
    *group(
        "training", "objectives/base.py", "tests/objectives/test_free_adversarial.py",
        ("return self.add(rows)", "return values"),
        ("rows[self.offset : self.offset + len(values)] = values", "rows[: len(values)] = values"),
    ),
    *group(
        "training", "objectives/free_adversarial.py", "tests/objectives/test_free_adversarial.py",
        ("batch.images + kept[own]", "batch.images + 0.0 * kept[own]"),
        ("batch.images + kept[own]", "batch.images + kept[: len(batch)]"),
        ("context.whole(moved - batch.images)", "moved - batch.images"),
        ("ascend(points.detach(), gradient, size)", "ascend(points.detach(), -gradient, size)"),
    ),
    *group(
        "training", "objectives/consistency.py", "tests/objectives/test_consistency.py",
        ("views = [batch.images, context.view()]", "views = [batch.images, batch.images]"),
        ("(logits / self.temperature)", "(logits * self.temperature)"),
        ("- math.log(2.0)", ""),
        ("0.5 * (p.exp() * (p - mean) + q.exp() * (q - mean))", "p.exp() * (p - mean)"),
    ),
    *group(
        "training", "objectives/ard.py", "tests/objectives/test_ard.py",
        ('divergence("kl", wanted / self.temperature, logits / self.temperature)',
         'divergence("kl", logits / self.temperature, wanted / self.temperature)'),
        ("self.temperature**2", "self.temperature"),
        ("return run_hash(self.teacher)", 'return ""'),
        ("run_model(self.teacher, self.weights)", "run_model(self.teacher)"),
    ),
    *group(
        "training", "models/of_run.py", "tests/objectives/test_ard.py::test_the_contract",
        ("with fenced():", "if True:"),
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
        ("if steps > most > 0:", "if steps > most + 1 > 0:"),
        ("self.own < 1 or 0 in self.counts", "self.own < 1"),
        ("self.own < 1 or 0 in self.counts", "0 in self.counts"),
        ('.permuted(np.concatenate(columns, 1), axis=1)', '.permuted(np.concatenate(columns, 1), axis=0)'),
        ("stream(self.seed, epoch, f\"rows", "stream(self.seed, 0, f\"rows"),
        ("lowest - 1 - torch.arange(first, end)", "torch.arange(first, end)"),
        ("min([0, *train.ids.tolist()])", "0"),
        ("order = torch.cat(rows).argsort()", "order = torch.cat(rows)"),
        ("for split in (dataset.val, dataset.test)", "for split in (dataset.val,)"),
        ("for split in (dataset.val, dataset.test)", "for split in (dataset.test,)"),
        ("if other.classes not in {dataset.classes, numbers}:", "if len(other.classes) != len(dataset.classes):"),
    ),
    *group(
        "smoothing training", "objectives/macer.py", "tests/objectives/test_smoothing_objectives.py",
        ("0.5 * self.noise.sigma * (self.gamma", "0.25 * self.noise.sigma**2 * (self.gamma"),
        ("kept = right & (gap <= self.gamma)", "kept = gap <= self.gamma"),
        ("& (gap <= self.gamma)", ""),
        ("log_mean_softmax(self.temperature * logits)", "log_mean_softmax(logits)"),
        ("functional.nll_loss(log_mean_softmax(logits), batch.labels)",
         "functional.cross_entropy(logits.flatten(0, 1), batch.labels.repeat_interleave(self.copies))"),
    ),
    *group(
        "smoothing training", "objectives/smoothed_consistency.py", "tests/objectives/test_smoothing_objectives.py",
        ("(mean[:, None] - logits.log_softmax(2))).sum(2)", "(mean[:, None] - logits.log_softmax(2))).mean(2)"),
        ("mean.exp()[:, None] * (", "logits.softmax(2) * ("),
    ),
    *group(
        "smoothing training", "objectives/smooth_adv.py", "tests/objectives/test_smoothing_objectives.py",
        ("self.attack.perturb(copies,", "self.attack.perturb(model,"),
        ("min(1.0, context.progress / self.warm_up) if", "1.0 if"),
    ),
    *group(
        "smoothing training", "objectives/stability.py", "tests/objectives/test_smoothing_objectives.py",
        ("clean.softmax(1) * noisy.log_softmax(1)", "noisy.softmax(1) * clean.log_softmax(1)"),
    ),
    *group(
        "smoothing training", "objectives/noisy_copies.py", "tests/objectives/test_smoothing_objectives.py",
        ("logits.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])", "logits.mean(1).log_softmax(1)"),
    ),
]  # fmt: skip
