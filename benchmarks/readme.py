"""Write the generated tables of README.md, results/README.md, docs/methods.md and docs/recipes.md, or check them.

Every number of the results tables is computed from the records of a run under ``results/``: the files are compared with
the hashes that the run keeps, and every certificate is derived again from its evidence.  A number without a record, a
record that changed and a table that somebody edited by hand all fail the check.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import inspect
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from torch import nn

from hauberk import layers, registry
from hauberk.catalogue.entry import TITLES
from hauberk.comparison import compare, tables
from hauberk.recipes import Evaluation, Expectation, Extra
from hauberk.report import collect, markdown, words
from hauberk.report.subject import Attacked, Curve, Subject
from hauberk.statistics import wilson
from hauberk.threats import Linf
from hauberk.training.config import Training
from hauberk.verify import verify_once

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
Usual: TypeAlias = Counter[tuple[str, str, float]]  # how many rows were attacked at (data, norm, budget)
COLUMNS = (
    "Run", "Model", "Data", "Clean", "Threat", "Survives attack", "Certified", "Images",
    "Seed", "Minutes", "Machine",
)  # fmt: skip
# the rows of README.md: what a reader sees, the run, whether its smoothed version, and the norm
CHOSEN = (
    ("Standard training", "cifar10/standard_cifar10_small-seed0", False, "linf"),
    ("Adversarial training (PGD)", "cifar10/pgd_cifar10_small-seed0", False, "linf"),
    ("The same for an hour (N-FGSM)", "cifar10/best_cifar10_small-seed0", False, "linf"),
    ("The PGD net, smoothed", "cifar10/pgd_cifar10_small-seed0", True, "l2"),
    ("Trained for a Lipschitz certificate (EMMA)", "cifar10/emma_cifar10_small-seed0", False, "l2"),
    ("Mix of the standard and the PGD net", "cifar10/mix_standard_pgd", False, "linf"),
)
NOTE = (
    "Accuracy in percent with its 95 % Wilson interval, on the first images of the test split. An attack gives an "
    "upper bound,\na certificate a lower bound."
)


class Row(NamedTuple):
    """One run, predictor and norm of the results.

    Args:
        run: its place under ``results/``.
        smoothed: whether the predictor is a smoothed version of the run's own.
        norm: of the threat.
        cells: what ``COLUMNS`` name, without the run.
    """

    run: str
    smoothed: bool
    norm: str
    cells: list[str]


# --- results ----------------------------------------------------------------------------------------------------


def result_rows(results: Path) -> list[Row]:
    """One row for each run, predictor and norm, in percent with 95 % Wilson intervals."""
    # a folder of mixes has a table of its own
    shown = [path for path in run_directories(results) if not (path.parent / "tradeoff.md").exists()]
    runs = {path.relative_to(results).as_posix(): collect.load([path])[0] for path in shown}
    found = [(name, run, subject) for name, run in runs.items() for subject in collect.subjects(run.parts)]
    usual = Counter((s.dataset, a.norm, a.eps) for _, _, s in found for a in s.attacked)
    return [row for name, run, subject in found for row in subject_rows(name, run, subject, usual)]


def results_table(rows: Sequence[Row]) -> str:
    """All rows, for ``results/README.md``."""
    if not rows:
        return "No results are recorded yet.\n"
    cells = [[f"[{Path(row.run).name}]({row.run})", *row.cells] for row in rows]
    return markdown.table(COLUMNS, cells) + f"\n{NOTE} Minutes are training + evaluation.\n"


def chosen_table(rows: Sequence[Row]) -> str:
    """The rows that ``CHOSEN`` names, for ``README.md``."""
    columns = ("Net on CIFAR-10", "Clean", "Threat", "Correct under attack, at most", "Certified, at least", "Images")
    cells = []
    for said, run, smoothed, norm in CHOSEN:
        for row in (row for row in rows if (row.run, row.smoothed, row.norm) == (run, smoothed, norm)):
            _, _, *numbers, images, _, _, _ = row.cells
            cells.append([f"[{said}](results/{run})", *numbers, images])
    return markdown.table(columns, cells) + f"\n{NOTE}\n" if cells else "No results are recorded yet.\n"


def run_directories(results: Path) -> list[Path]:
    """The runs that have records, at any depth (a sweep keeps its runs in a folder of its own)."""
    return sorted(p.parent for p in results.rglob("run.json") if any((p.parent / "records").glob("*.parquet")))


def subject_rows(name: str, run: collect.RunFacts, subject: Subject, usual: Usual) -> list[Row]:
    """A row for each norm; the run is called by its place under ``results/``."""
    smoothed = subject.predictor.startswith("smoothed(") and not run.recipe.get("wrap")
    who = model_name(run.recipe) + (", smoothed" if smoothed else "")
    rows = []
    for norm in subject.norms:
        attacked, curve = headline(subject, norm, usual), subject.curve(norm)
        eps = attacked.eps if attacked else middle_budget(curve)
        images = attacked.accuracy.n if attacked else subject.clean.n
        cells = [
            who, subject.dataset, words.share(subject.clean), f"{norm} {budget(eps)}", survives(attacked),
            certified(curve, eps, images), f"{images:,}", str(run.info.get("seed", "")), minutes(run.info),
            machine(run.info),
        ]  # fmt: skip
        rows.append(Row(name, smoothed, norm, cells))
    return rows


def model_name(recipe: Mapping[str, Any]) -> str:
    """Model, wrapper and objective of a recipe."""
    model = recipe["model"].get("name", recipe["model"].get("factory", ""))
    wrapped = f"{recipe['wrap']['name']} {model}" if recipe.get("wrap") else model
    bases = recipe.get("bases")
    if bases:
        return f"{model} {recipe['model']['alpha']:g} of {bases['robust']} with {bases['accurate']}"
    objective = recipe.get("objective", {}).get("name")
    return f"{wrapped}, {objective}" if objective else str(wrapped)


def headline(subject: Subject, norm: str, usual: Usual) -> Attacked | None:
    """The budget that most rows share; among equals the one attacked by most methods, then the middle one."""
    own = [a for a in subject.attacked if a.norm == norm]
    if not own:
        return None
    weights = [(usual[subject.dataset, norm, a.eps], len(a.methods), a.accuracy.n) for a in own]
    equals = [a for a, weight in zip(own, weights, strict=True) if weight == max(weights)]
    return equals[(len(equals) - 1) // 2]


def middle_budget(curve: Curve | None) -> float:
    """A round radius in the middle of a certified curve, for a norm that was not attacked."""
    return curve.levels[len(curve.levels) // 2].eps if curve else 0.0


def budget(eps: float) -> str:
    """A budget as the field writes it: short decimals as they are, others in 255ths where that is exact."""
    short, steps = f"{eps:.4g}", eps * 255
    return f"{round(steps)}/255" if float(short) != eps and abs(steps - round(steps)) < 1e-6 else short


def survives(attacked: Attacked | None) -> str:
    """Accuracy under the worst case over attacks, and their names."""
    if attacked is None:
        return "not attacked"
    return f"{words.share(attacked.accuracy, 'up')}, {', '.join(sorted({m.name for m in attacked.methods}))}"


def certified(curve: Curve | None, eps: float, images: int) -> str:
    """Certified accuracy at that radius, what kind of proof it is, and its images where they are not the attack's."""
    if curve is None:
        return "no certificate"
    level = next(level for level in curve.levels if level.eps == eps)
    chance = f", wrong with probability {curve.failure_probability:g} an image" if curve.failure_probability else ""
    other = f", {level.accuracy.n:,} images" if level.accuracy.n != images else ""
    return f"{words.share(level.accuracy, 'down')}, {curve.method} ({curve.proof}{chance}{other})"


def minutes(info: Mapping[str, Any]) -> str:
    """Training + evaluation."""
    timings = info.get("timings", {})
    rest = sum(seconds for name, seconds in timings.items() if name != "train_seconds")
    return f"{timings.get('train_seconds', 0.0) / 60:.1f} + {rest / 60:.1f}"


def machine(info: Mapping[str, Any]) -> str:
    """The accelerator, or the processor and its cores."""
    found = info.get("environment", {})
    if found.get("accelerator", "none") != "none":
        return str(found["accelerator"])
    return f"{found.get('cores', '?')} cores, {found.get('cpu', 'unknown')}"


def unproven(results: Path) -> list[str]:
    """Whatever in the records does not follow from its evidence or has changed since it was written."""
    problems = []
    for run in run_directories(results):
        for verdict in verify_once(run):
            problems += [f"{run.relative_to(results.parent)}: {problem}" for problem in verdict.problems]
    return problems


# --- numbers in prose -------------------------------------------------------------------------------------------

# what results/README.md says that is no result: goals, weights, radii and factors, and one count of equal verdicts
STATED = {"0.2", "0.5", "0.85", "0.9", "0.95", "0.999", "1.05", "1.15", "1.5", "4.5", "29.3", "96.3", "99.9"}
DECIMAL = re.compile(r"(?<![\w./])[+-]?(\d+\.\d+)(?!\d|\.\d|e-)")


def untraced(results: Path) -> list[str]:
    """The decimal numbers of ``results/README.md`` that no file gives which the same item of the page names.

    A number is given by a file that holds it, or a share, interval or ratio of what it holds, rounded as it is shown.
    """
    problems: list[str] = []
    sources: set[Path] = set()
    page = (results / "README.md").read_text()
    if "<!-- begin results -->" in page:  # its table is held by ``stale``
        page = replace_block(page, "results", "")
    for block in page.split("\n\n"):
        if block.startswith(("#", "**")):
            sources = set()
        for name in re.findall(r"[`(]([\w./*-]+)[`)]", block):
            sources |= {path for base in (results, results.parent) for path in base.glob(name.strip("/"))
                        if results in path.parents}  # fmt: skip
        told = STATED.union(*map(shown, sources))
        missing = [found for found in DECIMAL.findall(block) if found not in told]
        problems += [f"results/README.md: no file gives {number} in: {block[:60]!r}" for number in missing]
    return problems


@functools.cache
def shown(path: Path) -> frozenset[str]:
    """How the values of a file may be written: as they are or in percent, rounded to nearest, down or up."""
    found = set()
    for value in values(path):
        for size in (abs(value), 100.0 * abs(value)):
            for digits in (1, 2, 3, 4):
                near, step = round(size, digits), 10.0**-digits
                found |= {f"{near + k * step:.{digits}f}" for k in (-1, 0, 1) if abs(near + k * step - size) < step}
    return frozenset(found)


def values(path: Path) -> frozenset[float]:
    """The numbers of a file, of the files of a folder, or else of its bundles; and what follows from them."""
    if path.is_dir():
        files = sorted({*path.rglob("*.json"), *path.rglob("*.md")} - {*path.rglob("run.json")})
        kept = [values(file) for file in files]
        return frozenset().union(*kept) if kept else frozenset(_measured(path))
    if path.suffix == ".json":
        return frozenset(_plain(json.loads(path.read_text())))
    return frozenset(float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", path.read_text()))


def _plain(value: Any) -> Iterator[float]:
    """Numbers in JSON; of a table of seconds the ratios, of verdicts the share and its interval."""
    verdicts = value if isinstance(value, list | str) and len(value) > 50 else ()
    if verdicts and {str(v) for v in verdicts} <= {"0", "1"}:
        share = wilson(sum(str(v) == "1" for v in verdicts), len(verdicts))
        yield from (share.value, share.low, share.high)
    elif isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, list | dict):
        held = list(value.values()) if isinstance(value, dict) else value
        yield from (number for item in held for number in _plain(item))
        seconds = value.get("seconds") if isinstance(value, dict) else None
        if isinstance(seconds, dict):
            times = [statistics.median(t) if isinstance(t, list) else t for t in seconds.values()]
            yield from (a / b for a in times for b in times)


def _measured(folder: Path) -> Iterator[float]:
    """The accuracies in the records of a folder's bundles, and their means over the bundles."""
    shares: dict[tuple[str, float], list[float]] = {}
    for run in run_directories(folder):
        for subject in collect.subjects(collect.load([run])[0].parts):
            shares.setdefault(("clean", 0.0), []).append(subject.clean.value)
            for level in (level for curve in subject.certified for level in curve.levels):
                shares.setdefault(("certified", level.eps), []).append(level.accuracy.value)
            for attacked in subject.attacked:
                yield from (attacked.accuracy.value, attacked.accuracy.low, attacked.accuracy.high)
    yield from (share for found in shares.values() for share in [*found, sum(found) / len(found)])


# --- methods ----------------------------------------------------------------------------------------------------


def methods_tables() -> str:
    """A table for each family of registered methods."""
    blocks = []
    for kind, heading in TITLES.items():
        if kind == "layer":  # its table has bounds beside the names, see below
            continue
        found = registry.entries(kind)
        facts = list(dict.fromkeys(name for entry in found for name in entry.facts))
        rows = [[f"`{e.name}`", e.summary, e.reference, *(e.facts.get(f, "") for f in facts)] for e in found]
        columns = ("Name", "What it does", "Source", *map(str.capitalize, facts))
        blocks.append(f"## {heading}\n\n" + markdown.table(columns, rows))
    return "\n".join([*blocks, layers_table()])


def layers_table() -> str:
    """The modules of ``hauberk.layers`` that know their Lipschitz constant, with what their docstrings say first."""
    known = [getattr(layers, name) for name in layers.__all__]
    classes = [c for c in known if isinstance(c, type) and issubclass(c, nn.Module) and hasattr(c, "lipschitz_bound")]
    rows = []
    for block in classes:
        text = inspect.cleandoc(block.__doc__ or "")
        first = " ".join(text.partition("\n\n")[0].split()).replace("``", "`").rstrip(".")
        source = " ".join(text.partition("Source: ")[2].partition("\n\n")[0].split()).replace("``", "`").rstrip(".")
        rows.append([f"`{block.__name__}`", re.sub(r":math:`([^`]*)`", r"$\1$", first), source])
    return "## Layers with a Lipschitz constant\n\n" + markdown.table(("Name", "What it does", "Source"), rows)


# --- recipes ----------------------------------------------------------------------------------------------------


def settings_table(name: str, block: type) -> str:
    """The settings of a recipe's block, from its docstring and its fields."""
    told = {key: text for kind in reversed(block.__mro__) for key, text in arguments(kind).items()}
    left_out = {key for key, field in getattr(block, "model_fields", {}).items() if field.exclude}
    rows = [[f"`{k}`", default(block, k), text.replace("``", "`")] for k, text in told.items() if k not in left_out]
    return f"### `{name}`\n\n" + markdown.table(("Key", "Default", "Meaning"), rows)


def arguments(block: type) -> dict[str, str]:
    """What the ``Args:`` section of a Google docstring says about each argument."""
    _, _, section = inspect.cleandoc(block.__doc__ or "").partition("Args:\n")
    found: dict[str, str] = {}
    for line in section.splitlines():
        if not line.strip():
            break
        name, separator, text = line.strip().partition(": ")
        if separator and not line.startswith(" " * 5):
            found[name] = text
        else:
            found[list(found)[-1]] += " " + line.strip()
    return {key: text.rstrip(".").replace("  ", " ") for key, text in found.items()}


def default(block: type, name: str) -> str:
    """A field's default as a recipe writes it; nothing and empty are ``none``."""
    value = next(p.default for p in inspect.signature(block).parameters.values() if p.name == name)
    if value is inspect.Parameter.empty:
        return "required"
    plain = registry.describe(value)
    if plain is None or plain in ([], ""):
        return "none"
    if isinstance(plain, dict):
        return ", ".join(f"{key}: {json.dumps(item)}" for key, item in plain.items())
    return json.dumps(plain).strip('"')


# --- files ------------------------------------------------------------------------------------------------------


def replace_block(text: str, name: str, content: str) -> str:
    """The text with what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` replaced."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"error: the markers of {name!r} are missing")
    return f"{before}{begin}{content}{end}{after}"


def pages(root: Path, results: Path) -> dict[Path, str]:
    """Every generated page as it should be."""
    readme, methods, recipe = root / "README.md", root / "docs" / "methods.md", root / "docs" / "recipes.md"
    everything, rows = results / "README.md", result_rows(results)
    settings = recipe.read_text()
    blocks = {"training": Training, "evaluation": Evaluation, "expected": Expectation, "extra": Extra}
    for name, block in blocks.items():
        settings = replace_block(settings, name, settings_table(name, block))
    return {
        readme: replace_block(readme.read_text(), "results", chosen_table(rows)),
        everything: replace_block(everything.read_text(), "results", results_table(rows)),
        methods: replace_block(methods.read_text(), "methods", methods_tables()),
        recipe: settings,
        **comparisons(results),
    }


def comparisons(results: Path) -> dict[Path, str]:
    """The tables of ``hauberk compare`` that are kept: mixes against the line between their nets."""
    folder, nets = results / "adaptive_smoothing", results / "cifar10"
    if not (folder / "tradeoff.md").exists():
        return {}
    ends = nets / "standard_cifar10_small-seed0", nets / "pgd_cifar10_small-seed0"
    found = compare(sorted(folder.glob("mix_*")), [Linf(8 / 255)], ends, unlike=True)
    return {folder / "tradeoff.md": tables.page(found)}


def stale(root: Path, results: Path) -> list[str]:
    """A unified diff for each page that is not as it should be."""
    problems = []
    for path, wanted in pages(root, results).items():
        found = path.read_text()
        if found != wanted:
            lines, names = (found.splitlines(), wanted.splitlines()), (path.name, f"{path.name} from its sources")
            problems.append("\n".join(difflib.unified_diff(*lines, *names, n=0, lineterm="")))
    return problems


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail when something is stale or unproven")
    if parser.parse_args().check:
        problems = unproven(RESULTS) + untraced(RESULTS) + stale(ROOT, RESULTS)
        for problem in problems:
            sys.stderr.write(problem + "\n")
        if problems:
            sys.stderr.write("error: a generated table is stale, or a number has no record\n  run: make readme\n")
        return bool(problems)
    for path, text in pages(ROOT, RESULTS).items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
