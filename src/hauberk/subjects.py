"""What is judged: a model with its data and the run that keeps its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hauberk import registry
from hauberk.data import Dataset, load
from hauberk.errors import HauberkError
from hauberk.models.own import own
from hauberk.records import content_hash
from hauberk.runs import Run
from hauberk.trust import trusted


@dataclass(frozen=True)
class Subject:
    """A model with the data it is judged on and the run that keeps its records.

    Args:
        run: where the records go; of a model of one's own the folder is made with the first of them.
        model: a classifier in eval mode.
        dataset: what it is judged on.
        planned: the recipe of a run that is not there yet; None where it is.
    """

    run: Run
    model: nn.Module
    dataset: Dataset
    planned: Mapping[str, Any] | None = None

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
    source: str | Path, out: Path | None = None, data: str | registry.Spec | None = None, model: str | None = None
) -> Subject:
    """Open what is to be judged: a run directory, or ``module:factory`` with the data's name or description.

    Nothing is written.

    Args:
        source: of the model.
        out: where the records of ``module:factory`` go.
        data: its data set.
        model: of a run that keeps records of a model of one's own, the ``module:factory`` that makes it.

    Raises:
        HauberkError: if it is neither, or a run is to be judged elsewhere or on other data: its records belong to it.
    """
    if Path(source).is_dir():
        return _of_run(Path(source), out, data, model)
    module, separator, factory = str(source).partition(":")
    if not separator:
        raise HauberkError(
            f"there is no run directory {source}", "train one with: hauberk train RECIPE, or give module:factory"
        )
    if data is None:
        raise HauberkError("a model of your own needs --data", "for example --data cifar10")
    description = _description(data)
    recipe = {"name": f"{module}:{factory}", "data": description, "model": {"factory": str(source)}}
    run = Run(out or home(str(source), description))
    run.check(recipe)
    dataset = load(description)
    return Subject(run, own(str(source)), dataset, recipe)


def _of_run(path: Path, out: Path | None, data: str | registry.Spec | None, model: str | None) -> Subject:
    if out is not None and out.resolve() != path.resolve():
        raise HauberkError(f"the records of a run stay with it: {path} cannot be judged into {out}", "leave -o out")
    run = Run.open(path)
    run.sweep()
    known = run.recipe["data"]
    if data is not None and _description(data) != known:
        raise HauberkError(f"{path} belongs to the data {known['name']!r} of its recipe", "leave --data out")
    source = None if run.has_model else run.recipe.get("model", {}).get("factory")
    if source is None and model is not None:
        raise HauberkError(f"{path} has a model of its own", "leave --model out")
    if source is not None and (model is not None or trusted(source)):
        return Subject(run, own(model or source), load(known))
    if source is not None:
        raise HauberkError(
            f"{path} keeps the records of {source}, and no model",
            f"name the model itself: {source} --data {known['name']} -o {path}, or for verify --model {source}",
        )
    return Subject(run, run.load_model(), load(known))


def _description(data: str | registry.Spec) -> registry.Spec:
    return {"name": data} if isinstance(data, str) else dict(data)


def home(source: str, data: registry.Spec) -> Path:
    """The folder of a model of one's own: another one for another model and for other data."""
    module, _, factory = source.partition(":")
    settings = {key: value for key, value in data.items() if key != "name"}
    mark = f"-{content_hash(settings)[:8]}" if settings else ""
    return Path("runs") / f"{module.rpartition('.')[2]}-{factory}-{data['name']}{mark}"
