"""Train a recipe's model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hauberk import registry
from hauberk.boundary import answer, check_classes, check_output
from hauberk.capabilities import Generates
from hauberk.classifier import evaluating
from hauberk.data import Dataset, load
from hauberk.data.source import Part, parts_of
from hauberk.devices import Device, Precision, arithmetic, place, said
from hauberk.errors import HauberkError
from hauberk.evaluation.sense import check_sense
from hauberk.randomness import fenced
from hauberk.recipes import Recipe, parse
from hauberk.runs import Run, environment
from hauberk.training.distributed import is_main
from hauberk.training.loop import fit
from hauberk.training.progress import Progress


def train(
    recipe: Recipe, out: Path | None = None, report: Callable[[Progress], None] | None = None,
    device: Device = "auto", precision: Precision = "float32",
) -> Run:  # fmt: skip
    """Train a recipe's model; the same call resumes an interrupted run and returns a finished one at once.

    Args:
        recipe: what to train.
        out: the run directory; by default ``runs/<name>``.
        report: called with the progress.
        device: where to train; initial weights are drawn on the CPU, so they are the same everywhere.
        precision: of the products on a GPU.

    Returns:
        the run, with its model saved.
    """
    run, plain_recipe = Run(out or Path("runs") / recipe.name), recipe.plain()
    new = run.check(plain_recipe, completed) is None
    if run.has_model:
        return Run.create(run.path, plain_recipe, completed)
    dataset = load(recipe.data)
    extra = parts_of(dataset, [(load(other.data), other.share) for other in recipe.extra])
    torch.manual_seed(recipe.seed)  # the initial weights; every other draw has a generator of its own
    model = build_model(recipe, dataset)
    objective = registry.build(recipe.objective, "objective")
    check_sense(objective, recipe.training, shape=dataset.input_shape)
    check_start(model, dataset, recipe.training.validate_every)
    check_wrap(model, recipe)
    said(device, precision)  # whether it is there
    started = time.monotonic()
    run = Run.create(run.path, plain_recipe, completed)
    try:
        place(model, device)
        with arithmetic(precision):
            trained = fit(model, objective, dataset, recipe.training, run, recipe.seed, report, extra)
        place(trained, "cpu")
    except HauberkError:
        if new and is_main():
            run.abandon()
        raise
    if recipe.wrap is not None:
        trained = registry.build(recipe.wrap, "defence", base=trained)
    if not is_main():
        return run
    seconds = time.monotonic() - started
    run.save_model(
        trained.eval(),
        {"dataset": recipe.data, "classes": list(dataset.classes)},
        seed=recipe.seed,
        timings=run.info.get("timings", {}) | {"train_seconds": round(seconds, 1)},
        environment=environment(),
        **({"extra": [str(part) for part in extra]} if extra else {}),
        **_provenance(dataset, extra),
    )
    return run


def _provenance(dataset: Dataset, extra: Sequence[Part]) -> dict[str, Any]:
    """Where generated images come from, as plain values and as the sentences that a report shows."""
    sources = [(dataset.name, dataset.provenance), *((part.name, part.provenance) for part in extra)]
    known = [(name, told) for name, told in sources if told is not None]
    if not known:
        return {}
    shares = {part.name: part.share for part in extra}
    return {
        "generated": [{"name": name, "share": shares.get(name, 1.0), **told.plain()} for name, told in known],
        "notes": [sentence for name, told in known for sentence in told.sentences(name)],
    }


def check_start(model: nn.Module, dataset: Dataset, validate_every: int = 1) -> None:
    """Raise unless an untrained model takes the images of its data and has a logit for each class.

    A diffusion model has none, so that it cannot be validated by accuracy.
    """
    if not len(dataset.train):
        raise HauberkError(
            f"{dataset.name} has no training images",
            "such data are only for evaluation: use hauberk evaluate or hauberk attack",
        )
    if isinstance(model, Generates):
        if validate_every:
            raise HauberkError("a diffusion model has no accuracy to validate", "set training: {validate_every: 0}")
        return
    few = dataset.train.select(slice(0, 2)).batch()
    with torch.random.fork_rng(devices=[]), evaluating(model):
        logits = answer(model, few.images)
    check_output(logits, len(few))
    check_classes(logits.shape[1], dataset.num_classes)


def check_wrap(model: nn.Module, recipe: Recipe) -> None:
    """Raise, before training is paid for, where the recipe's defence does not fit; the model stays as it is."""
    if recipe.wrap is None:
        return
    wanted = [p.requires_grad for p in model.parameters()]
    with fenced(), evaluating(model):
        registry.build(recipe.wrap, "defence", base=model)
    for parameter, own in zip(model.parameters(), wanted, strict=True):
        parameter.requires_grad_(own)


def completed(known: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of a run with the settings that are younger than it, which had their defaults then."""
    try:
        return parse(known).plain()
    except HauberkError:
        return known


def build_model(recipe: Recipe, dataset: Dataset) -> nn.Module:
    """The untrained model of a recipe: a network, or a defence around models that are there already."""
    kind = registry.entry(str(recipe.model["name"])).kind
    context = model_context(dataset)
    for key, value in context.items():
        given = recipe.model.get(key, value)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise HauberkError(f"the model's {key} is {given}, that of the data {value}", f"leave {key} out of it")
    model: nn.Module = registry.build(recipe.model, "defence" if kind == "defence" else "model", **context)
    return model


def model_context(dataset: Dataset) -> dict[str, Any]:
    """The properties of the data for a model's builder: shape, classes, and the training split's statistics."""
    return {
        "input_shape": dataset.input_shape,
        "num_classes": dataset.num_classes,
        "mean": dataset.mean,
        "std": dataset.std,
    }
