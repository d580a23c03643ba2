"""Sweeps: a table of recipes with predicted cost, of which every cell is a run that can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError
from torch import nn

from hauberk import reading, recipes, registry
from hauberk.attacks import Attack
from hauberk.batch import Batch
from hauberk.certificates import Certificate
from hauberk.certificates.voted import VoteCertificate
from hauberk.classifier import TILE
from hauberk.data import Dataset, load
from hauberk.data.source import Source
from hauberk.devices import Device
from hauberk.errors import HauberkError
from hauberk.evaluation import diagnostics
from hauberk.evaluation.cost import glance
from hauberk.evaluation.preflight import Speed, measure, passes
from hauberk.evaluation.work import Report
from hauberk.objectives.base import Context
from hauberk.recipes import Frozen, Name, Recipe
from hauberk.report import markdown as tables
from hauberk.report.collect import load as load_runs
from hauberk.report.collect import subjects
from hauberk.runs import Run, environment
from hauberk.statistics import Interval
from hauberk.storage import atomic_write
from hauberk.threats import epsilon
from hauberk.training.precision import Bfloat16
from hauberk.training.progress import Progress
from hauberk.verbs.evaluate import DIAGNOSED, follow
from hauberk.verbs.samples import evaluation_samples, probe_batch
from hauberk.verbs.train import build_model, completed, train

PROBE_STEPS = 3
LONG = 1.0  # seconds of a call that is not repeated to be timed


class Row(Frozen):
    """One line of the table.

    Args:
        recipe: file or name.
        label: of the line; by default the recipe's name.
        set: settings that replace the recipe's, ``{training.epochs: 5}``.
    """

    recipe: str
    label: Name | None = None
    set: dict[str, Any] = Field(default_factory=dict)


class Table(Frozen):
    """A table of runs.

    Args:
        name: of the table.
        summary: one sentence.
        seeds: every row is trained once with each.
        rows: the lines.
        set: settings for all rows.
    """

    name: Name
    summary: str = ""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    set: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One recipe with one seed, and the folder of its run."""

    label: str
    seed: int
    recipe: Recipe
    path: Path

    @property
    def done(self) -> bool:
        """Whether it is trained, and evaluated as its recipe says by now, with all its records still there."""
        run = Run(self.path)
        kept = run.info.get("hashes", {}).get("records", {})
        there = all((run.records / name).exists() for name in kept)
        return there and run.info.get("evaluated") == self.plan

    @property
    def plan(self) -> dict[str, Any]:
        """What its evaluation consists of."""
        return self.recipe.evaluation.model_dump(mode="json")


@dataclass(frozen=True)
class Cost:
    """Predicted minutes of one cell, on this machine with its present threads."""

    train: float
    evaluate: float

    @property
    def total(self) -> float:
        """Minutes in all."""
        return self.train + self.evaluate


def read(path: Path) -> Table:
    """Read a table.

    Raises:
        HauberkError: if the file is missing or not a table.
    """
    try:
        return Table.model_validate(reading.yaml_file(path))
    except OSError as error:
        raise HauberkError(f"there is no table {path}", "for example recipes/tables/small_cifar10.yaml") from error
    except ValidationError as error:
        raise HauberkError(f"{path} is not a table: {recipes.problems(error)}", "see docs/recipes.md") from error


def cells(table: Table, out: Path) -> list[Cell]:
    """The cells of a table, rows first, then seeds.

    Raises:
        HauberkError: if a row sets the seed, two have one folder, or a folder holds a run of another recipe, which the
            table would show.
    """
    found = []
    for row in table.rows:
        if "seed" in table.set | row.set:
            raise HauberkError(f"{table.name}: the seed is in set", "give it to the table: seeds: [0, 1, 2]")
        settings = [f"{key}={json.dumps(value)}" for key, value in (table.set | row.set).items()]
        for seed in table.seeds:
            recipe = recipes.read(row.recipe, [*settings, f"seed={seed}"])
            label = row.label or recipe.name
            found.append(Cell(label, seed, recipe, out / f"{label.replace(' ', '_')}-seed{seed}"))
    paths = [cell.path for cell in found]
    twice = next((cell for cell in found if paths.count(cell.path) > 1), None)
    if twice is not None:
        raise HauberkError(
            f"{table.name}: two lines have the label {twice.label!r} and seed {twice.seed}",
            "give each a label of its own",
        )
    for cell in found:
        Run(cell.path).check(cell.recipe.plain(), completed)
    return found


# --- what it will cost --------------------------------------------------------------------------------------------


def foretold(cells: Sequence[Cell]) -> dict[Path, Cost]:
    """The cost of each cell by its path; cells that differ in nothing but the seed are timed once."""
    known: dict[tuple[str, bool], Cost] = {}
    found = {}
    for cell in cells:
        trained = Run(cell.path).has_model
        key = (cell.label, trained)
        if key not in known:
            try:
                known[key] = predict(cell.recipe, trained)
            except HauberkError as error:
                raise HauberkError(f"{cell.label}: {error.message}", error.hint) from error
        found[cell.path] = known[key]
    return found


def predict(recipe: Recipe, trained: bool = False) -> Cost:
    """Minutes of training (none if trained already) and evaluation, from a few timed steps of each on this machine.

    Raises:
        HauberkError: if the recipe asks for more batches of an epoch, or images of a split, than there are.
    """
    dataset = load(recipe.data)
    model = build_model(recipe, dataset)
    wrapped = model if recipe.wrap is None else registry.build(recipe.wrap, "defence", base=model)
    evaluation = _evaluation_seconds(recipe, wrapped.eval(), dataset) / 60.0
    if trained:
        return Cost(0.0, evaluation)
    step = _train_step_seconds(recipe, model, dataset)
    config = recipe.training
    own = config.batch_size - sum(round(other.share * config.batch_size) for other in recipe.extra)
    steps = config.epochs * len(Source(dataset, (), own, recipe.seed, config.steps_per_epoch).batches(0))
    validation = 0.0
    if config.validation_attack is not None and config.validate_every:
        images = min(config.validation_images or len(dataset.val), len(dataset.val))
        speed = measure(model.eval(), probe_batch(dataset, TILE).images)
        seconds = _attack_seconds(config.validation_attack, speed, dataset.num_classes, _standing(recipe)) * images
        validation = seconds * config.epochs / config.validate_every
    return Cost((step * steps + validation) / 60.0, evaluation)


def _train_step_seconds(recipe: Recipe, model: nn.Module, dataset: Dataset) -> float:
    objective = registry.build(recipe.objective, "objective")
    model.train()
    if recipe.training.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    view = Bfloat16(model) if recipe.training.precision == "bfloat16" else model
    batch = dataset.train.batch(slice(0, recipe.training.batch_size))
    if recipe.training.channels_last:
        batch = Batch(batch.images.contiguous(memory_format=torch.channels_last), batch.labels, batch.ids)
    context = Context(torch.Generator().manual_seed(0), augment=lambda: batch.images)

    def step() -> None:
        objective(view, batch, context).total.backward()
        model.zero_grad(set_to_none=True)

    return int(objective.replays) * _median_seconds(step)


def _median_seconds(action: Callable[[], object]) -> float:
    """Median time of a few calls, after one that warms up; that one itself where it takes long."""
    started = time.perf_counter()
    action()
    first = time.perf_counter() - started
    if first > LONG:
        return first
    taken = []
    for _ in range(PROBE_STEPS):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[PROBE_STEPS // 2]


def _attack_seconds(attack: Attack, speed: Speed, num_classes: int, standing: float) -> float:
    """Seconds an image: the passes of one that stands to the end, times the share that is expected to stand.

    An attack that goes on after an error spends them on every image.
    """
    forwards, backwards = passes(attack, num_classes)
    whole = speed.seconds(forwards, backwards)
    return whole * standing if attack.early_stop else whole


def _certificate_seconds(certificate: Certificate, model: nn.Module, dataset: Dataset) -> float:
    """Seconds an image; votes from a small number of votes."""
    if isinstance(certificate, VoteCertificate):
        votes = certificate.n0 + certificate.n
        few = certificate.with_votes(64, max(64, min(512, certificate.n)))
        batch, poll = probe_batch(dataset, 1), few.poll(model)
        return _median_seconds(lambda: poll.all(batch, 0, TILE)) * votes / (few.n0 + few.n)
    batch = probe_batch(dataset, TILE)
    return _median_seconds(lambda: certificate(model, batch)) / len(batch)


def _standing(recipe: Recipe) -> float:
    """Share of images expected to withstand an attack: the upper end of what the recipe expects, else a half."""
    return recipe.expected.robust[1] if recipe.expected.robust is not None else 0.5


def _evaluation_seconds(recipe: Recipe, model: nn.Module, dataset: Dataset) -> float:
    plan = recipe.evaluation
    images = len(evaluation_samples(dataset, plan.split, plan.images).ids)
    attacks = [registry.build(spec, "attack") for spec in plan.attacks]
    certificates = [registry.build(spec, "certificate") for spec in plan.certificates]
    each = sum(_certificate_seconds(c, model, dataset) for c in certificates)
    if not attacks and not plan.diagnoses:
        return each * images
    speed = glance(model, probe_batch(dataset, TILE).images)
    standing = _standing(recipe)
    each += sum(_attack_seconds(a, speed, dataset.num_classes, standing) for a in attacks)
    judged = len(plan.diagnoses) * min(DIAGNOSED, images) * diagnostics.cost()
    return each * images + judged * 0.5 * speed.gradient


# --- doing it -----------------------------------------------------------------------------------------------------


def tidy(done: Sequence[Cell]) -> None:
    """Remove what a killed process left in finished cells."""
    for cell in done:
        Run(cell.path).sweep()


def run_cell(
    cell: Cell, training: Callable[[Progress], None] | None = None, report: Report | None = None,
    device: Device = "auto",
) -> Run:  # fmt: skip
    """Train and evaluate one cell; a finished one returns at once."""
    run = follow(train(cell.recipe, cell.path, training, device), report, device)
    run.update(evaluated=cell.plan)
    return run


def results(done: Sequence[Cell]) -> list[dict[str, Any]]:
    """The lines of the table from the records of finished cells.

    Several seeds are averaged; the interval then reaches from the lowest lower end to the highest upper end of the
    seeds' own 95 % intervals, so that it covers both the images' and the seeds' spread.
    """
    lines = []
    for label in dict.fromkeys(cell.label for cell in done):
        own = [cell for cell in done if cell.label == label]
        columns: dict[str, list[Interval]] = {}
        for cell in own:
            for name, value in _measured(cell.path).items():
                columns.setdefault(name, []).append(value)
        minutes = [Run(cell.path).info["timings"]["train_seconds"] / 60.0 for cell in own]
        lines.append({
            "label": label,
            "seeds": [cell.seed for cell in own],
            "train_minutes": round(sum(minutes) / len(minutes), 2),
            "columns": {name: _over_seeds(values) for name, values in columns.items()},
        })
    return lines


def _measured(path: Path) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    known = subjects(part for facts in load_runs([path]) for part in facts.parts)
    own = str(Run(path).info.get("predictor", ""))
    # a line is about one function: the run's own, or where that was not measured the first, as its smoothed version
    for subject in sorted(known, key=lambda s: s.predictor != own)[:1]:
        found["clean"] = subject.clean
        for attacked in subject.attacked:
            found[f"attacked {attacked.norm} {epsilon(attacked.eps)}"] = attacked.accuracy
        for curve in subject.certified:
            for level in curve.levels:
                if level.eps > 0 and level.accuracy.value > 0:
                    found[f"certified {curve.norm} {epsilon(level.eps)}"] = level.accuracy
            found[f"mean radius {curve.norm}"] = curve.mean_radius
    return found


def _over_seeds(values: Sequence[Interval]) -> dict[str, float]:
    return {
        "value": sum(v.value for v in values) / len(values),
        "low": min(v.low for v in values),
        "high": max(v.high for v in values),
        "images": values[0].n,
    }


def markdown(table: Table, lines: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown: percentages with 95 % intervals."""
    columns = list(dict.fromkeys(name for line in lines for name in line["columns"]))
    rows = [
        [line["label"], ", ".join(map(str, line["seeds"])), str(line["train_minutes"]),
         *(_shown(name, line["columns"].get(name)) for name in columns)]
        for line in lines
    ]  # fmt: skip
    return f"# {table.name}\n\n{table.summary}\n\n" + tables.table(("run", "seeds", "min", *columns), rows)


def _shown(name: str, value: dict[str, float] | None) -> str:
    if value is None:
        return ""
    scale, digits = (1.0, 3) if name.startswith("mean radius") else (100.0, 1)
    shown = (f"{scale * value[key]:.{digits}f}" for key in ("value", "low", "high"))
    return "{} [{}, {}]".format(*shown)


def save(table: Table, lines: Sequence[dict[str, Any]], out: Path) -> Path:
    """Write ``table.json`` and ``table.md`` and return the latter."""
    content = {"table": table.model_dump(mode="json"), "environment": environment(), "lines": list(lines)}
    atomic_write(out / "table.json", json.dumps(content, indent=2).encode())
    atomic_write(out / "table.md", markdown(table, lines).encode())
    return out / "table.md"
