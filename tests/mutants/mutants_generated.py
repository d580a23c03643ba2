"""Wrong versions of generated data: labels, filters, copies, what a generator has learnt from, and what it draws."""

from __future__ import annotations

from mutant import Mutant, group

GENERATION = "tests/data/test_generation.py"
FILES = "tests/data/test_generated.py"
GAUSSIAN = "tests/data/test_gaussian_generator.py"
SAMPLER = "tests/models/test_diffusion.py"
VERB = "tests/verbs/test_generate.py"

GENERATED: list[Mutant] = [
    *group(
        "generated", "data/generation.py", GENERATION,
        ("    _check_unseen(of, seen)\n", ""),
        ("for split in (of.val, of.test):", "for split in (of.test,):"),
        ("if agreement is None or agreement < check.least:", "if False:"),
        ("-1 - torch.arange(len(images))", "torch.arange(len(images))"),
        ("descending=True, stable=True", "stable=True"),
        ("held = {key for part in (of.val, of.test)", "held = {key for part in (of.val,)"),
        ("    if copies:\n", "    if False:\n"),
        ("lengths - 2.0 * own @ others.T", "lengths - own @ others.T"),
        ("<= limit).sum()", "< 0).sum()"),
        ("torch.cat([in_memory(of.val.images), in_memory(of.test.images)])", "in_memory(of.test.images)"),
        ("torch.cat([p.argmax(1) for p", "torch.cat([p.argmin(1) for p"),
        ("self.labeller if self.judge is None else self.judge", "self.judge"),
        ("if self.keep < 1.0 and self.chooser is None:", "if False:"),
        ("not 0 <= int(given.min()) <= int(given.max()) < of.num_classes", "False"),
    ),
    *group(
        "generated", "data/provenance.py", GENERATION,
        ("if self.trained_on not in LEARNT:", "if False:"),
    ),
    *group(
        "generated", "data/source.py", GENERATION,
        ('f", content {self.provenance.content}"', '""'),
    ),
    *group(
        "generated", "data/generated.py", FILES,
        ("handle.seek(sum(lengths), 1)", "handle.seek(lengths[0], 1)"),
        ('dtype, "c", handle.tell()', 'dtype, "r+", handle.tell()'),
        ('"F" if fortran else "C"', '"C"'),
        ("if told.get(key, value) != value", "if False"),
        ("if len(found) != count:", "if False:"),
        (', small.get("seen"),', ","),
    ),
    *group(
        "generated", "data/gaussian_generator.py", GAUSSIAN,
        ("np.sqrt(len(points) - 1)", "np.sqrt(len(points) + 99)"),
        ("(size - components, size - 1)", "(0, components - 1)"),
        ("np.sqrt(variances.clip(0.0))", "variances.clip(0.0)"),
        ("pixels[of.train.labels == k]", "pixels"),
        ("stream(seed, k,", "stream(0, k,"),
        ("found[k :: of.num_classes] =", "found[of.num_classes - 1 - k :: of.num_classes] ="),
    ),
    *group(
        "generated", "verbs/train.py", "tests/verbs/test_train.py",
        ("        **_provenance(dataset, extra),\n", ""),
    ),
    *group(
        "diffusion", "models/diffusion.py", SAMPLER,
        ("FIRST, LAST = 1000, 1e-4, 0.02", "FIRST, LAST = 1000, 1e-4, 0.01"),
        ("(points - math.sqrt(1.0 - now) * found) / math.sqrt(now)", "points - math.sqrt(1.0 - now) * found"),
        ("math.sqrt(now)).clamp(-1.0, 1.0)", "math.sqrt(now))"),
        ("(1.0 - now / before))", "(1.0 - now))"),
        ("max(0.0, 1.0 - before - sigma**2)", "max(0.0, 1.0 - before)"),
        ("table[times[place - 1]] if place else 1.0", "table[times[place - 1]] if place else now"),
        ("points + sigma * noise(t)", "points + noise(t)"),
        ("(i + 1) * of // steps - 1", "i * of // steps"),
        ("(points + 1.0) / 2.0", "points"),
        ("        if steps is None:\n", "        if False:\n"),
        ('{"class_labels": labels} if self.conditional else {}', "{}"),
    ),
    *group(
        "diffusion", "models/diffusion_mlp.py", SAMPLER,
        ("nn.init.zeros_(self.last.weight)", "pass"),
        ("            told = told + self.label(class_labels)\n", "            pass\n"),
        ("torch.cat([angles.sin(), angles.cos()], 1)", "torch.cat([angles.sin(), angles.cos()], 1) * 0"),
        ("math.prod(input_shape) > 1024", "False"),
    ),
    *group(
        "diffusion", "objectives/diffusion.py", "tests/objectives/test_diffusion.py",
        ("kept.sqrt() * (2.0 * batch.images - 1.0)", "kept * (2.0 * batch.images - 1.0)"),
        ("(2.0 * batch.images - 1.0)", "batch.images"),
        ("(1.0 - kept).sqrt() * noise", "(1.0 - kept) * noise"),
        ("(rows.uniform() * count)", "(rows.uniform() * count / 2)"),
        ("batch.labels) - noise)", "batch.labels) + noise)"),
        ("model(noisy, steps, batch.labels)", "model(noisy, steps, 0 * batch.labels)"),
    ),
    *group(
        "diffusion", "verbs/generate.py", VERB,
        ("range(first, first + TILE)", "range(first, min(images, first + TILE) + 1)"),
        ("torch.tensor(ids, device=where) % model.num_classes", "torch.tensor(ids, device=where) * 0"),
        ('PerSample(sampler.seed, ids, "ddim start")', 'PerSample(0, ids, "ddim start")'),
        ('f"ddim {step}"', '"ddim start"'),
        ("seen = [of.train, *", "seen = [of.val, *"),
        (', *(load(other["data"]).train for other in run.recipe.get("extra", ()))', ""),
        ("if not isinstance(model, Generates):", "if False:"),
    ),
    *group(
        "diffusion", "verbs/train.py", VERB,
        ("        if validate_every:\n", "        if False:\n"),
    ),
]
