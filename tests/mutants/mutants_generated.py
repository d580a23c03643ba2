"""Wrong versions of generated data: labels, filters, copies, what a generator has learnt from, and what it draws."""

from __future__ import annotations

from mutant import Mutant, group

GENERATION = "tests/data/test_generation.py"
FILES = "tests/data/test_generated.py"
GAUSSIAN = "tests/data/test_gaussian_generator.py"

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
]
