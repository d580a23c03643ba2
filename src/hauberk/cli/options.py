"""Options that several verbs share, and the functions that turn their text into objects."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from hauberk import reading, registry, trust
from hauberk.catalogue.model_files import KNOWN
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    import pydantic

    from hauberk import devices, recipes, subjects
    from hauberk import threats as threat
    from hauberk.data import given
else:
    pydantic, recipes, subjects = (Later(name) for name in ("pydantic", "hauberk.recipes", "hauberk.subjects"))
    devices, given = Later("hauberk.devices"), Later("hauberk.data.given")

MOST_THREADS = 256
SLOW = 2.0  # times as long in bfloat16 as in float32
ALL = "all"
MOST_KEPT = 100_000  # images that records keep


def _folder(path: Path | None) -> Path | None:
    if path is not None and not str(path).strip("./ "):
        raise HauberkError(f"--out expects a folder or file of its own, got {str(path)!r}", "for example --out runs/a")
    return None if path is None else Path(_from_home(str(path)))


def _from_home(path: str) -> str:
    """The path with ``~`` expanded, which a shell leaves unchanged in ``--out=~/x`` and ``folder=~/x``."""
    return os.path.expanduser(path)  # noqa: PTH111 - pathlib fails where the user is unknown


def threads_option(count: int | None) -> int | None:
    """The number of threads, after a check."""
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if count is not None and not 1 <= count <= most:
        raise HauberkError(f"--threads expects 1 to {most}, got {count}", f"this machine has {os.cpu_count()} cores")
    return count


MODELS = f"{KNOWN[0].upper()}{KNOWN[1:]}."
Out = Annotated[Path | None, typer.Option("--out", "-o", callback=_folder, help="Where the result goes.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Images = Annotated[
    str | None, typer.Option(help="How many images of the split, or all; by default as the recipe says, else all.")
]
First = Annotated[
    bool, typer.Option("--first", help="Take the first images of the split, not a sample in proportion to the classes.")
]
Split = Annotated[str | None, typer.Option(help="test for results, val for calibration; by default the recipe's.")]
Seed = Annotated[
    int | None, typer.Option(help="With each sample's id, the source of all randomness; by default the recipe's.")
]
Tile = Annotated[int | None, typer.Option(help="Rows of every model call; by default the recipe's, else 64.")]
Shard = Annotated[str, typer.Option(help="i/n: do every n-th unit, from the i-th (counted from 0).")]
Executor = Annotated[
    str, typer.Option(help="Where units are done: inline, processes,workers=4 or ray; see: hauberk explain processes.")
]
Device = Annotated[str, typer.Option(help="auto (the best there is), cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="float32, or on a GPU tf32: products of rounded numbers, for attacks.")]
Data = Annotated[
    str | None,
    typer.Option(help="For a model of your own: a folder of class folders, an .npz or YAML file, or a name: cifar10."),
]
Arch = Annotated[
    str | None, typer.Option(help="Of a checkpoint: module:factory of the network that its weights fill; it is run.")
]
CalibrateOn = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="With --data: choose on this many test images, picked by hash, and report the others; for models from "
        "elsewhere, which may have learnt the validation images.",
    ),
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run the code outside Hauberk that the run or recipe names.")
]
Threads = Annotated[
    int | None, typer.Option(callback=threads_option, help="Torch threads; all cores by default.")
]


_SOURCE = re.compile(r"(?<![\w./-])[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def trust_code(everything: bool, *typed: str | None) -> bool:
    """Trust the code that the user named, until the command ends: each ``module:factory`` that was typed.

    Args:
        everything: whether all code that a run or recipe names is trusted, as with ``--trust-code``.
        typed: arguments of this command.

    Returns:
        whether anything is trusted.
    """
    sources = {source for text in typed if text for source in _SOURCE.findall(text)}
    if everything or sources:
        sys.path.append(os.path.realpath("."))  # after everything installed: the user named a module that may be here
        trust.trust(*sources, everything=everything)
    return everything or bool(sources)


def shard(text: str) -> tuple[int, int]:
    """``1/4`` as (1, 4)."""
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError as error:
        raise HauberkError(f"--shard expects i/n, got {text!r}", "for example --shard 0/2") from error
    if not 0 <= index < count:
        raise HauberkError(f"--shard {text}: i must be in 0..n-1", "for example --shard 0/2 and --shard 1/2")
    return index, count


def method(text: str, kind: registry.Kind, **extra: Any) -> Any:
    """Build ``apgd,steps=50`` with further settings, such as the threat.

    Raises:
        HauberkError: if the text gives one of these settings another value.
    """
    spec = described(text)
    for key, value in extra.items():
        own = registry.build(spec[key]) if key in spec else value
        if own != value:
            raise HauberkError(f"{spec['name']} has the {key} {own}, --{key} says {value}", "give one of the two")
    return registry.build(spec | extra, kind)


def data(text: str | None) -> dict[str, Any] | None:
    """The description of a data set: ``cifar10``, ``image_folder,folder=x,size=28``, or a path, ``xrays,size=28``."""
    if text is None:
        return None
    spec = {"name": text} if os.path.exists(text) else described(text)  # noqa: PTH110 - a path may hold a comma
    spec = given.described(_from_home(str(spec.pop("name")))) | spec
    return {key: _from_home(value) if isinstance(value, str) else value for key, value in spec.items()}


def log(text: str) -> dict[str, Any]:
    """The description of a certification log: a path, ``sigma_0.25,n=100000,alpha=0.001``."""
    spec = {"name": text} if os.path.exists(text) else described(text)  # noqa: PTH110 - a path may hold a comma
    return spec | {"name": _from_home(str(spec["name"]))}


def calibrated(data: dict[str, Any] | None, images: int | None) -> dict[str, Any] | None:
    """The description of the data with some of its test images set aside for choices.

    Raises:
        HauberkError: if the description of the data is missing, since a run has a calibration split of its own.
    """
    if images is None:
        return data
    if data is None:
        raise HauberkError(
            "--calibrate-on needs --data", "leave it out: without --data the calibration split of the run is used"
        )
    return {"name": "calibrated", "of": data, "images": images}


def described(text: str) -> dict[str, Any]:
    """The description that ``apgd,steps=50`` stands for."""
    name, *settings = _parts(text)
    spec: dict[str, Any] = {"name": name.strip()}
    for setting in settings:
        key, separator, value = setting.partition("=")
        key = key.strip()
        if not separator or not key:
            raise HauberkError(f"expected name,key=value, got {text!r}", "for example apgd,steps=50")
        if key in spec:
            raise HauberkError(f"{text!r} gives {key} twice", "give each setting once")
        spec[key] = reading.yaml_value(value, text)
    if spec.get("loss") in [e.name for e in registry.entries("loss")]:
        spec["loss"] = {"name": spec["loss"]}
    return spec


def _parts(text: str) -> list[str]:
    """The text, split at commas outside brackets and outside values that begin with a double quote."""
    found, depth, quoted = [""], 0, False
    for letter in text:
        if letter == '"' and (quoted or found[-1].endswith("=")):
            quoted ^= not quoted or _even(found[-1])
        depth += 0 if quoted else (letter in "[{") - (letter in "]}")
        if letter == "," and depth <= 0 and not quoted:
            found.append("")
        else:
            found[-1] += letter
    return found


def _even(text: str) -> bool:
    """Whether the number of backslashes at the end is even, so that none of them escapes the next character."""
    return (len(text) - len(text.rstrip("\\"))) % 2 == 0


def choice(option: str, value: str, known: Sequence[str]) -> str:
    """The value, if it is one of the known values."""
    if value not in known:
        hint = registry.suggestion(value, list(known)) or f"for example {option} {known[0]}"
        raise HauberkError(f"{option} expects {_either(known)}, got {value!r}", hint)
    return value


def _either(known: Sequence[str]) -> str:
    return f"{', '.join(known[:-1])} or {known[-1]}"


def amount(option: str, value: float | None, least: float, most: float = math.inf) -> float | None:
    """The number, if it is finite and between the two ends."""
    if value is not None and not (math.isfinite(value) and least <= value <= most):
        ends = f"from {least:g} to {most:g}" if math.isfinite(most) else f"of at least {least:g}"
        raise HauberkError(f"{option} expects a number {ends}, got {value:g}", f"correct it, or leave {option} out")
    return value


def duration(option: str, text: str | None) -> float | None:
    """``90s``, ``10m`` or ``1.5h`` in seconds."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smh])\s*", text)
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not 0.0 < seconds < math.inf:
        raise HauberkError(f"{option} expects seconds, minutes or hours, got {text!r}", f"for example {option} 10m")
    return seconds


def share(option: str, text: str) -> float:
    """``0.93`` or ``93%`` as a number in (0, 1]."""
    percent = text.strip().endswith("%")
    value = registry.number(text.strip().removesuffix("%")) / (100.0 if percent else 1.0)
    if not 0.0 < value <= 1.0:
        near = f"did you mean {value:g}%?" if 1.0 < value <= 100.0 else f"for example {option} 80%"
        raise HauberkError(f"{option} expects a share in (0, 1], got {text}", near)
    return value


def threads(count: int | None) -> None:
    """Set torch's threads."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def device(name: str, precision: str = "float32") -> tuple[devices.Device, devices.Precision, str]:
    """The checked device and precision, and the line that names them."""
    choice("--device", name, get_args(devices.Device))
    choice("--precision", precision, get_args(devices.Precision))
    where = cast("tuple[devices.Device, devices.Precision]", (name, precision))
    return *where, devices.said(*where)


def check_speed(precision: str, where: devices.Device) -> None:
    """Write a note if a recipe trains in bfloat16 and bfloat16 is much slower than float32 on this machine."""
    if precision != "bfloat16":
        return
    from hauberk.cli.console import notes
    from hauberk.training.precision import bfloat16_over_float32

    times = bfloat16_over_float32(devices.resolved(where))
    if times > SLOW:
        notes([f"bfloat16 takes {times:.0f} times as long as float32 on this machine; training.precision=float32 is "
               "faster here, and gives other weights"])  # fmt: skip


def plan(recipe: Mapping[str, Any], images: str | None, **given: Any) -> recipes.Evaluation:
    """The settings of an evaluation: the recipe's evaluation block, with the given values in place of its own.

    Args:
        recipe: recipe of the run; for a user's own model it has no such block, and the defaults apply.
        images: a number, or ``all``.
        given: split, seed, tile, device, precision, gallery and first; None keeps the recipe's value.
    """
    given["choice"] = "first" if given.pop("first", None) else None
    if images is not None:
        given["images"] = count("--images", images)
    changed = {key: value for key, value in given.items() if value is not None or (key == "images" and images == ALL)}
    try:
        return recipes.Evaluation.model_validate(dict(recipe.get("evaluation", {})) | changed)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        hint = f"got {problem['input']!r}; see: hauberk attack --help"
        raise HauberkError(f"--{problem['loc'][0]}: {problem['msg']}", hint) from error


def threats(text: str) -> tuple[threat.Threat, ...]:
    """``linf:1/255,2/255`` as budgets of one norm, the smallest first, each once.

    Raises:
        HauberkError: if a budget has another norm.
    """
    first, *others = (part.strip() for part in text.split(","))
    norm = first.partition(":")[0]
    for other in others:
        if ":" in other and other.partition(":")[0].lower() != norm.lower():
            raise HauberkError(f"--threat {text}: all budgets must have one norm", "run one command for each norm")
    texts = [first, *(other if ":" in other else f"{norm}:{other}" for other in others)]
    found = {registry.build(one, "threat") for one in texts}
    return tuple(sorted(found, key=lambda t: t.eps))


def kept(text: str | None) -> int | None:
    """How many images the records keep; None keeps the recipe's number."""
    if text == "0":
        return 0
    return None if text is None else count("--keep", text) or MOST_KEPT


def count(option: str, text: str) -> int | None:
    """A number of images, at least 1; None for all of them."""
    if text == ALL:
        return None
    try:
        number = int(text)
    except ValueError as error:
        raise HauberkError(f"{option} expects a number or {ALL}, got {text!r}", f"for example {option} 1000") from error
    if number < 1:
        raise HauberkError(f"{option} expects at least 1, got {number}", f"for all of them: {option} {ALL}")
    return number


def called(subject: subjects.Subject, shard: str) -> str:
    """The name of an evaluation in progress lines, which distinguishes the lines of several processes."""
    return subject.run.path.name + (f" {shard}" if shard != "0/1" else "")


def again(subject: subjects.Subject, source: str, trusted: bool = False) -> str:
    """The words for this subject in the next command, quoted for a shell: a run's folder, else the model as given."""
    if subject.planned is None:
        return shlex.quote(str(subject.run.path)) + (" --trust-code" if trusted else "")
    data = subject.planned["data"]
    settings = "".join(f",{key}={_text(value)}" for key, value in data.items() if key != "name")
    model = subject.planned["model"]
    arch = ["--arch", model["factory"]] if "file" in model and "factory" in model else []
    words = [source, *arch, "--data", f"{data['name']}{settings}", *(["--trust-code"] if trusted else [])]
    if subject.run.path != subjects.home(source, data, model):
        words += ["-o", str(subject.run.path)]
    return shlex.join(words)


def _text(value: Any) -> str:
    """A setting in the form that ``described`` reads."""
    written = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return written
    try:
        return value if described(f"x,key={value},b=[1,2]") == {"name": "x", "key": value, "b": [1, 2]} else written
    except HauberkError:
        return written
