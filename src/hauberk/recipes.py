"""Recipes: a frozen, typed file that says how to train and evaluate one model, and what result is expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hauberk import reading, registry
from hauberk.data.choice import Choice
from hauberk.devices import Device, Precision
from hauberk.errors import HauberkError
from hauberk.evaluation.sense import check_sense
from hauberk.training.config import Training

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, AfterValidator(reading.check_name)]
TASK = ("input_shape", "num_classes", "mean", "std")  # what a model is told about its data
SAME = {"name", "summary", "seed", "expected", "training.threads", "training.checkpoint_minutes"}  # leave the result
BLOCKS = {"training": "epochs=5", "evaluation": "images=500"}  # whose values are set one by one
FOLDERS = (Path(__file__).parent / "_recipes", Path(__file__).parents[2] / "recipes")


class Frozen(BaseModel):
    """A block of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Plan(Frozen):
    """What an evaluation takes, and where: all that a verb asks beside the model and the methods.

    Args:
        split: ``test`` for results, ``val`` for calibration.
        images: how many of the split; None for all.
        choice: which: ``hashed``, by hashes of the ids and in proportion to the classes, a larger number holding every
            smaller one; or ``first``.
        seed: of attacks and certificates.
        tile: rows of every model call.
        gallery: how many images the records keep for pictures.
        device: where the model, its images and random numbers are, see ``hauberk.devices``; not part of a recipe that
            is kept, since another machine has other devices.
        precision: of the products on a GPU; certificates take ``float32`` always.
    """

    split: Literal["test", "val"] = "test"
    images: Annotated[int, Field(ge=1, le=10**9)] | None = None
    choice: Choice = "hashed"
    seed: Seed = 0
    tile: Annotated[int, Field(ge=1, le=65_536)] = 64
    gallery: Annotated[int, Field(ge=0, le=100_000)] = 12
    device: Device = Field("auto", exclude=True)
    precision: Precision = Field("float32", exclude=True)


class Evaluation(Plan):
    """How a recipe's model is evaluated: a plan, and the methods.

    Args:
        attacks: specs of attacks.
        certificates: specs of certificates.
        diagnoses: specs of attacks that are judged on 64 of the images: can their failures be believed?
    """

    attacks: tuple[dict[str, Any], ...] = ()
    certificates: tuple[dict[str, Any], ...] = ()
    diagnoses: tuple[dict[str, Any], ...] = ()


class Expectation(Frozen):
    """What a full run of the recipe is expected to give, and at what cost.

    Args:
        clean: [least, most] clean accuracy.
        robust: [least, most] accuracy under the recipe's attacks.
        certified: [least, most] certified accuracy, with ``radius``.
        radius: where ``certified`` is read.
        minutes: training time on ``machine``.
        machine: what it was measured on.
    """

    clean: tuple[float, float] | None = None
    robust: tuple[float, float] | None = None
    certified: tuple[float, float] | None = None
    radius: float | None = None
    minutes: float | None = None
    machine: str | None = None


class Extra(Frozen):
    """Another data set whose training images are learnt too: generated images, for example.

    Args:
        data: spec of a dataset of the same classes; its training split alone is used.
        share: of every batch; the rows are drawn uniformly, and an epoch stays one pass over the recipe's own data.
    """

    data: dict[str, Any]
    share: Annotated[float, Field(gt=0, lt=1)]


class Recipe(Frozen):
    """How to train and evaluate one model.

    Args:
        name: its name, also of the default run directory.
        summary: one sentence.
        data: spec of a dataset.
        extra: other data sets that have a share of every training batch.
        model: spec of a model; ``input_shape``, ``num_classes`` and the data's statistics are filled in.
        wrap: spec of a defence around the trained model, without its ``base``.
        objective: spec of an objective.
        training: optimiser, schedule and stabilisers.
        evaluation: attacks and certificates.
        expected: the result to expect.
        seed: of training.
    """

    name: Name
    summary: str = ""
    data: dict[str, Any]
    extra: tuple[Extra, ...] = ()
    model: dict[str, Any]
    wrap: dict[str, Any] | None = None
    objective: dict[str, Any]
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    expected: Expectation = Expectation()
    seed: Seed = 0

    def plain(self) -> dict[str, Any]:
        """The recipe as plain values for YAML and JSON."""
        fields = self.model_dump(mode="json", exclude={"training"}, exclude_none=True)
        return fields | {"training": registry.describe(self.training)}


def read(source: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a file, or by the name of one that Hauberk brings along.

    A setting that changes what is trained or measured makes another recipe of it, of which ``expected`` says nothing
    any more: the block is left out then, but for what the settings themselves say of it.

    Args:
        source: path of a YAML file or a recipe's name.
        settings: ``training.epochs=5``; each replaces one value.

    Raises:
        HauberkError: on a missing file, bad YAML, an unknown key (naming the nearest valid one) or an invalid value.
    """
    path = find(source)
    content = reading.yaml_file(path)
    if not isinstance(content, dict):
        raise HauberkError(f"{path} is not a recipe", "a recipe begins with: name: ...")
    keys = [setting.partition("=")[0] for setting in settings]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise HauberkError(f"--set {twice} is given twice", "give each setting once")
    if not all(key in SAME or key.startswith("expected.") for key in keys):
        content.pop("expected", None)
    for setting in settings:
        _replace(content, setting)
    return parse(content, str(path))


def parse(content: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate plain values and check that every part can be built.

    Raises:
        HauberkError: as ``read``.
    """
    try:
        recipe = Recipe.model_validate(dict(content))
    except ValidationError as error:
        raise HauberkError(f"{where}: {problems(error)}", _nearest(error)) from error
    if (recipe.evaluation.device, recipe.evaluation.precision) != ("auto", "float32"):
        raise HauberkError(
            f"{where}: a recipe must not name a device or a precision", "give them to the command, for example --device"
        )
    for data in (recipe.data, *(other.data for other in recipe.extra)):
        registry.check(data, "dataset")
    name = str(recipe.model.get("name"))  # a defence may hold models that are trained already
    registry.check(recipe.model, "defence" if name in {e.name for e in registry.entries("defence")} else "model", TASK)
    if recipe.wrap is not None:
        registry.check(recipe.wrap, "defence", ("base",))
    plan = recipe.evaluation
    methods = [registry.build(recipe.objective, "objective")]
    methods += [registry.build(spec, "attack") for spec in (*plan.attacks, *plan.diagnoses)]
    methods += [registry.build(spec, "certificate") for spec in plan.certificates]
    check_sense(*methods, recipe.training)
    return recipe


def find(source: str | Path) -> Path:
    """The path of a recipe given by path or by name.

    Raises:
        HauberkError: if there is none, naming the nearest.
    """
    path = Path(source)
    if path.is_file():
        return path
    known = {p.stem: p for p in available()}
    if str(source) in known:
        return known[str(source)]
    raise HauberkError(
        f"there is no recipe {str(source)!r}",
        registry.suggestion(str(source), list(known)) or "see: hauberk list recipes",
    )


def available() -> list[Path]:
    """The recipes that Hauberk brings along."""
    return sorted(p for folder in FOLDERS if folder.is_dir() for p in folder.glob("*.yaml"))


def _replace(content: dict[str, Any], setting: str) -> None:
    key, separator, value = setting.partition("=")
    if not separator or not all(key.split(".")):
        raise HauberkError(f"--set expects key=value, got {setting!r}", "for example --set training.epochs=5")
    *parents, last = key.split(".")
    if key in BLOCKS:
        raise HauberkError(
            f"--set {key} would replace the whole block: what it does not name would get its default",
            f"give single values, for example --set {key}.{BLOCKS[key]}",
        )
    block: Any = content
    for name in parents:
        block = block[_place(block, name, key)] if isinstance(block, list) else block.setdefault(name, {})
        if not isinstance(block, dict | list):
            raise HauberkError(f"--set {key}: {name} is not a block", "check the recipe's structure")
    block[_place(block, last, key) if isinstance(block, list) else last] = reading.yaml_value(value, f"--set {key}")


def _place(block: list[Any], name: str, key: str) -> int:
    """The place in a list that part of a key stands for."""
    if name.isdecimal() and int(name) < len(block):
        return int(name)
    raise HauberkError(
        f"--set {key}: expected a place in a list of {len(block)}, got {name!r}", "places are counted from 0"
    )


def problems(error: ValidationError) -> str:
    """What is wrong, each value by its place."""
    found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return "; ".join(found)


def _nearest(error: ValidationError) -> str:
    """Name the nearest valid key for the first unknown one."""
    blocks: dict[str, list[str]] = {
        "": list(Recipe.model_fields),
        "evaluation": list(Evaluation.model_fields),
        "expected": list(Expectation.model_fields),
        "extra": list(Extra.model_fields),
        "training": list(Training.__dataclass_fields__),
    }
    for problem in error.errors():
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            *parents, key = map(str, problem["loc"])
            block = next((name for name in reversed(parents) if not name.isdigit()), "")
            if block not in blocks:
                continue
            return registry.suggestion(key, blocks[block]) or f"valid keys: {', '.join(blocks[block])}"
    return "see: hauberk list recipes, and docs/recipes.md"
