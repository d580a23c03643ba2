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
        ("if not {source, _EVERYTHING} & _TRUSTED.get():", "if not _TRUSTED.get():"),
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
]
