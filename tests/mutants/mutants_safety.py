"""Guards against files that would run code or eat the machine, each taken away."""

from __future__ import annotations

from mutant import Mutant, group

SAFETY: list[Mutant] = [
    *group(
        "trust", "registry.py", "tests/test_trust.py tests/test_specs.py",
        ("    if found.path in CODE:\n", "    if False:\n"),
        ("    plan = plan.fitted()\n", ""),
        ("    specs.check_plain(description, \"a spec\")\n", ""),
    ),
    *group(
        "trust", "trust.py", "tests/test_trust.py",
        ("return bool({source, _EVERYTHING} & _TRUSTED.get())", "return bool(_TRUSTED.get())"),
        ("        _TRUSTED.reset(token)\n", "        pass\n"),
    ),
    *group(
        "trust", "specs.py", "tests/test_specs.py",
        ("        if seen > VALUES:", "        if False:"),
        ("not -LARGEST <= value <= LARGEST:", "False:"),
        ("len(value) > TEXT:", "False:"),
        ("            if not admits(self.target, key, part.target):\n", "            if False:\n"),
    ),
    *group(
        "trust", "runs.py", "tests/test_trust.py",
        ("        registry.check(config[\"spec\"])  # as data", "        # as data"),
        ("        if state_hash(weights) != config[\"weights\"]:", "        if False:"),
        ("        if \"run\" in _names(config[\"spec\"]):", "        if False:"),
    ),
    *group(
        "trust", "cli/options.py", "tests/test_trust.py",
        ("    if everything or sources:", "    if True:\n        everything = True"),
    ),
    *group(
        "start-up", "cli/plugins.py", "tests/cli/test_startup.py",
        (" if not is_current_folder(place)]", "]"),
    ),
    *group(
        "start-up", "cli/__init__.py", "tests/cli/test_startup.py",
        ("if i > first or not is_current_folder(p)]", "]"),
        ("os.path.realpath(place or \".\") == os.path.realpath(\".\")", "place in (\"\", \".\")"),
    ),
    *group(
        "reading", "reading.py", "tests/test_reading.py",
        ("    if not stat.S_ISREG(mode):\n", "    if False:\n"),
        ("    if path.is_symlink() and not links:\n", "    if False:\n"),
        ("        if path.is_symlink():\n", "        if False:\n"),
        ("    if size > limit or len(found) > limit:\n", "    if False:\n"),
        ("        if self.depth > DEPTH:\n", "        if False:\n"),
        ("        if found[0] > 2 * NODES:\n", "        if False:\n"),
        ("        if found[1] > DEPTH:\n", "        if False:\n"),
        ("            if not known[id(node)][0]:\n", "            if False:\n"),
        ("        if node.tag not in self.PLAIN:\n", "        if False:\n"),
        ("            if key.value in seen:\n", "            if False:\n"),
        ("    if len(source) > YAML_BYTES:\n", "    if False:\n"),
        ("    if len(found) != len(pairs):\n", "    if False:\n"),
        ("    if count > CLASSES:\n", "    if False:\n"),
        (" or name != name.strip()", ""),
        (' & set(\'/\\\\:*?"<>|\')', " & set()"),
        ("    if len(name.encode()) > 100:\n", "    if False:\n"),
    ),
    *group(
        "reading", "unpacking.py", "tests/test_unpacking.py",
        ("    if unpacked > allowed:\n", "    if False:\n"),
        ("    if len(members) > MEMBERS:\n", "    if False:\n"),
        ("        check_unpacked(path, size, _claimed(path, member))\n", "        pass\n"),
        ("    if head.num_rows > ROWS:\n", "    if False:\n"),
        ("    if head > min(HEADER_BYTES, size):\n", "    if False:\n"),
        ("    if unpacked > len(packed):\n", "    if False:\n"),
        ("sum(map(_unpacked, table.column(name).chunks))", "0"),
        ("sum(8 * max(0, chunk.num_values) + chunk.total_uncompressed_size for chunk in chunks)", "0"),
    ),
    *group(
        "reading", "storage.py", "tests/test_strangers.py",
        ("    if not stat.S_ISREG(mode):\n", "    if False:\n"),
    ),
    *group(
        "reading", "cli/console.py", "tests/cli/test_console.py",
        (' if mark else f"{clean(text)}', ' if mark else f"{text}'),
        ('("Cc", "Cf", "Cs", "Zl", "Zp")', '("Cc",)'),
    ),
    *group(
        "reading", "cli/__init__.py", "tests/cli/test_console.py",
        ("        refuse_controls(sys.argv)\n", ""),
    ),
    *group(
        "reading", "weights.py", "tests/test_weights.py",
        ("if numbers > NUMBERS or tensors > TENSORS:", "if tensors > TENSORS:"),
        ("if numbers > NUMBERS or tensors > TENSORS:", "if numbers > NUMBERS:"),
    ),
    *group(
        "reading", "specs.py", "tests/test_weights.py",
        ("Depth = Annotated[int, Field(le=1_000)]", "Depth = int"),
        ("    if kind not in (\"model\", \"defence\"):\n", "    if True:\n"),
    ),
    *group(
        "reading", "data/image_file.py", "tests/data/test_hostile.py",
        ("BytesIO(content), formats=_FORMATS)", "BytesIO(content))"),
        ("    if math.prod(opened.size) > reading.PIXELS:\n", "    if False:\n"),
    ),
    *group(
        "reading", "recipes.py", "tests/test_recipes.py::test_a_setting_that_has_no_place_in_a_list",
        ("    if name.isdecimal() and int(name) < len(block):\n", "    if True:\n"),
    ),
    *group(
        "reading", "data/pickles.py", "tests/data/test_cifar.py",
        ("        if (module, name) not in _ADMITTED:\n", "        if False:\n"),
    ),
]
