"""What is judged: a model with its data and the run that keeps its records."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from hauberk import registry
from hauberk.data import Dataset, load
from hauberk.data.given import PATHS, Takes, completed, described, placed
from hauberk.errors import HauberkError
from hauberk.models.source import Source, check_named, is_file, open_source
from hauberk.models.takes import sizes, tried
from hauberk.records import content_hash
from hauberk.runs import Run
from hauberk.trust import require, trusted


@dataclass(frozen=True)
class Subject:
    """A model with the data it is judged on and the run that keeps its records.

    Args:
        run: where the records go; of a model of one's own the folder is made with the first of them.
        model: a classifier in eval mode.
        dataset: what it is judged on.
        planned: the recipe of a run that is not there yet; None where it is.
        remarks: what there is to know of the model, in sentences.
    """

    run: Run
    model: nn.Module
    dataset: Dataset
    planned: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of model and data before believing a number, in sentences."""
        return (*self.remarks, *self.dataset.notes)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe of the run, whether it is there yet or not."""
        return self.run.recipe if self.planned is None else self.planned

    def begin(self) -> Run:
        """The run, made now if it is not there yet.

        A verb calls this when it has a result to keep, so that a command that fails before leaves nothing behind.
        """
        return self.run if self.planned is None else Run.create(self.run.path, self.planned)


def subject(
    source: str | Path, out: Path | None = None, data: str | registry.Spec | None = None, model: str | None = None,
    arch: str | None = None,
) -> Subject:  # fmt: skip
    """Open what is to be judged: a run directory, or a model of one's own with the data's name or description.

    Nothing is written.

    Args:
        source: of the model: a run directory, ``module:factory`` or a file, see ``hauberk.models.source``.
        out: where the records of a model of one's own go.
        data: its data set.
        model: of a run that keeps records of a model of one's own, the ``module:factory`` or the file of it.
        arch: for a checkpoint, the ``module:factory`` of the network that it fills.

    Raises:
        HauberkError: if it is neither, or a run is to be judged elsewhere or on other data: its records belong to it.
    """
    if Path(source).is_dir():
        return _of_run(Path(source), out, data, model, arch)
    text = str(source)
    check_named(text, arch)
    if data is None:
        raise HauberkError(
            "a model of your own needs --data",
            "give a folder of class folders, an .npz file or a name, for example --data cifar10",
        )
    opened = open_source(text, arch)
    description, chosen = completed(_description(data), Takes(partial(tried, opened.model), sizes(opened.model)))
    recipe = {"name": Path(text).name if is_file(text) else text, "data": description, "model": opened.named}
    run = Run(out or home(text, description, opened.named))
    run.check(recipe)
    return Subject(run, opened.model, load(description), recipe, (*opened.remarks, *chosen))


def _of_run(
    path: Path, out: Path | None, data: str | registry.Spec | None, model: str | None, arch: str | None
) -> Subject:
    if out is not None and out.resolve() != path.resolve():
        raise HauberkError(f"the records of a run stay in {path}, not in {out}", "leave -o out")
    run = Run.open(path)
    run.sweep()
    check_kept(run)
    known = run.recipe["data"]
    if data is not None and not _same(_description(data), known):
        raise HauberkError(f"{path} belongs to the data {known['name']!r} of its recipe", "leave --data out")
    named = {} if run.has_model else {k: str(v) for k, v in run.recipe.get("model", {}).items() if k in _NAMED}
    if not named:
        if model is not None or arch is not None:
            raise HauberkError(f"{path} already contains its model", "leave --model and --arch out")
        return Subject(run, run.load_model(), load(known))
    found = _source_of(path, named, model, arch)
    return Subject(run, found.model, load(known), remarks=found.remarks)


def check_kept(run: Run) -> None:
    """Raise if a run keeps the records of a model and of images in memory, which no file holds.

    Raises:
        HauberkError: saying how to go on.
    """
    named = run.recipe.get("model", {})
    if "class" in named and not run.has_model:
        raise HauberkError(
            f"{run.path} keeps the records of a {named['class']} and images that were in memory, but neither the model "
            "nor the images",
            f"make the same call in Python again: hauberk.evaluate(model, images, labels, ..., out={str(run.path)!r}); "
            "report, compare and gate need only the records",
        )


_NAMED = ("factory", "file", "sha256")  # what a run says of a model that it does not hold


def _source_of(path: Path, named: Mapping[str, str], model: str | None, arch: str | None) -> Source:
    """The model that the records of a run are about: as the user names it now, else as the run does, if trusted."""
    text, code = named.get("file") or named["factory"], named.get("factory") if "file" in named else None
    if model is None and not trusted(code or text):
        again = shlex.join([text, "--arch", code] if code else [text])
        raise HauberkError(
            f"{path} keeps the records of {text}, but not the model",
            f"name the model itself: {again} --data ... -o {shlex.quote(str(path))}, or for verify --model {again}",
        )
    if code is not None and arch is None and (model is None or is_file(model)):
        require(code)  # the run alone names it
    found = open_source(model or text, arch or (code if model is None or is_file(model) else None))
    kept, mine = named.get("sha256"), found.named.get("sha256")
    if kept is not None and mine != kept:
        raise HauberkError(
            f"{path} keeps the records of {text} with SHA-256 {kept[:16]}, but {model or text} has {str(mine)[:16]}",
            "give the file that was evaluated, or evaluate this file in another run",
        )
    return found


def judged_on(found: Subject, data: registry.Spec) -> Subject:
    """The model of a run on other data, for a run that is yet to be made and will name them.

    Args:
        found: the run's.
        data: the description of the data.

    Raises:
        HauberkError: if their images or classes are not those of the run.
    """
    description, chosen = completed(dict(data), Takes(partial(tried, found.model), sizes(found.model)))
    dataset, own = load(description), found.dataset
    if (dataset.input_shape, dataset.classes) != (own.input_shape, own.classes):
        shape = "x".join(map(str, own.input_shape))
        raise HauberkError(
            f"{found.run.path} is for {own.num_classes} classes of {shape} images, but the data differ from that",
            "leave --data out, or name data of the same images and classes",
        )
    planned = dict(found.recipe) | {"data": description}
    return replace(found, dataset=dataset, planned=planned, remarks=(*found.remarks, *chosen))


def _description(data: str | registry.Spec) -> registry.Spec:
    return described(data) if isinstance(data, str) else dict(data)


def _same(given: registry.Spec, known: registry.Spec) -> bool:
    """Whether a description says nothing else than the one on record, which its model may have completed."""
    return all(
        key in known and (_same(value, known[key]) if key == "of" else known[key] == value)
        for key, value in placed(given).items()
    )


def home(source: str, data: registry.Spec, named: Mapping[str, Any] | None = None) -> Path:
    """The folder of a model of one's own: another one for another model, another content and other data.

    Args:
        source: ``module:factory`` or a file.
        data: the description of the data.
        named: what the run will say of the model.
    """
    module, _, factory = source.partition(":")
    about = {key: value for key, value in data.items() if key != "name"}
    about |= named if named and "file" in named else {}
    mark = f"-{content_hash(about)[:8]}" if about else ""
    name = Path(source).stem if is_file(source) else f"{module.rpartition('.')[2]}-{factory}"
    place = data.get(PATHS.get(str(data["name"]), ""))
    return Path("runs") / f"{name}-{Path(str(place)).stem if place else data['name']}{mark}"
