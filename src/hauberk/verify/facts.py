"""The facts of a record, compared with its predictor, its method, the recipe, run.json and config.json."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hauberk.records import Part
from hauberk.verify.calibrations import CALIBRATED, calibration_problems
from hauberk.verify.derive import noise_of

SPLITS = ("train", "val", "test")
NAME = 2000  # letters of a predictor's name, which holds the names of its parts
NORMS = ("l1", "l2", "linf")
DEVICES, PRECISIONS = ("cuda", "mps"), ("tf32",)  # beside the CPU and float32
DTYPES = ("float32", "float64", "float16", "bfloat16")
# data sets with names of their own; others are named after their file or folder, which only the data show
PUBLISHED = ("digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "medmnist")
# settings of a mix that a recipe leaves out have these values
SETTINGS = {"accurate_scale": 1.0, "robust_scale": 1.0}


def facts_problems(
    part: Part, recipe: Mapping[str, Any], info: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    """The contradictions between the facts and unit of one part and the other files of its run.

    Args:
        part: the record.
        recipe: the content of recipe.yaml.
        info: the content of run.json.
        config: the content of config.json; empty if the bundle has none.
    """
    yield from form_problems(part)
    yield from _data_problems(part, recipe, config)
    yield from calibration_problems(part, recipe)
    yield from _model_problems(part, info, config)
    yield from _setting_problems(part, recipe)
    if part.kind == "mix":
        yield from _mix_problems(part)
    yield from _name_problems(part, recipe)


def form_problems(part: Part) -> Iterator[str]:
    """Whether unit and facts have the form of their kind."""
    unit, facts = part.unit, part.facts
    if not isinstance(unit["method"]["name"], str) or not 0 < len(str(unit["predictor"])) <= NAME:
        yield f"it names no method, or no predictor in at most {NAME} letters"
    if facts["split"] not in SPLITS:
        yield f"its split is {facts['split']!r}, none of {', '.join(SPLITS)}"
    classes, shape = facts["classes"], facts["shape"]
    if not isinstance(classes, list) or len(classes) < 2 or len(set(map(str, classes))) < len(classes):
        yield "its classes are not two or more different names"
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        yield f"its shape {shape} is not (C, H, W)"
    if not isinstance(unit["seed"], int) or not isinstance(unit["tile"], int) or unit["tile"] < 1:
        yield "its seed or tile is no number"
    if unit["dtype"] not in DTYPES:
        yield f"its dtype is {unit['dtype']!r}, none of {', '.join(DTYPES)}"
    yield from _device_problems(part)
    if part.kind in ("attack", "diagnosis"):
        yield from _threat_problems(unit)
    if any(not isinstance(facts.get(name, False), bool) for name in ("stochastic", "decides")):
        yield "whether its model is random, or decides in a way of its own, is neither true nor false"
    stage = unit.get("stage", 0)
    if ("stage" in unit) != ("suite" in unit) or type(stage) is not int or stage < 0:
        yield "it is a stage of no suite, or its stage has no number"


def _device_problems(part: Part) -> Iterator[str]:
    """Device and precision, which records from the CPU do not name; bounds on rounding hold on the CPU alone."""
    told = {name: part.unit[name] for name in ("device", "precision") if name in part.unit}
    if told.get("device", "cuda") not in DEVICES or told.get("precision", "tf32") not in PRECISIONS:
        yield f"it was made on {told}, which is no device and precision"
    elif told and part.facts.get("proof") == "deterministic":
        yield f"its proof was made on {told}: bounds on rounding hold on the CPU"
    elif "precision" in told and part.kind == "certificate":
        yield "its numbers were rounded to 10 bits, and nothing is certified so"


def _threat_problems(unit: Mapping[str, Any]) -> Iterator[str]:
    threat = unit["threat"]
    eps = threat["eps"]
    if threat["name"] not in NORMS or isinstance(eps, bool) or not isinstance(eps, int | float):
        yield f"its threat is {threat}"
    elif not math.isfinite(eps) or eps < 0.0:
        yield f"its budget is {eps}"
    asked = unit["method"]["attack"] if unit["method"]["name"] == "diagnosis" else unit["method"]
    for where in (asked, unit.get("suite", asked)):
        if where["threat"] != threat:
            yield f"its method is in the threat {where['threat']}, its rows are in {threat}"


def _data_problems(part: Part, recipe: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    asked, name = recipe.get("data", {}), str(part.facts["dataset"])
    asked = {"name": asked} if isinstance(asked, str) else asked
    asked = asked.get("of", {}) if asked.get("name") == CALIBRATED else asked
    known = [str(v) for v in asked.values() if isinstance(v, str)] if asked.get("name") in PUBLISHED else []
    # a published set is named after its loader or its flag; a set with fewer labels or other sizes has a suffix
    if known and not any(name == k or name.startswith((f"{k}_", f"{k}-")) for k in known):
        yield f"it is about {name}, the recipe about {asked.get('name')}"
    told = config.get("facts", {})
    if "classes" in told and list(told["classes"]) != list(part.facts["classes"]):
        yield "its classes are not those of config.json"
    if "dataset" in told and recipe.get("data") is not None and told["dataset"] != recipe["data"]:
        yield "config.json and recipe.yaml name different data"


def _model_problems(part: Part, info: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    predictor, known = str(part.unit["predictor"]), info.get("predictor")
    if known and predictor not in _names(part, str(known)):
        yield f"it is about {predictor}, run.json about {known}"
    kept = {
        "run.json": info.get("hashes", {}).get("weights"),
        "config.json": config.get("weights"),
    }
    for where, weights in kept.items():
        if known and weights is not None and part.unit["weights"] != weights:
            yield f"its weights are {part.unit['weights']}, those of {where} are {weights}"


def _names(part: Part, model: str) -> set[str]:
    """The names that records may give a model: its own, or that of the classifier that a certificate makes of it."""
    found = {model}
    if part.kind != "certificate":
        return found
    method = part.unit["method"]
    base = method.get("base")
    if method["name"] in ("smoothing", "mmcert"):
        found = {f"smoothed({_noise(method)}, {voter})" for voter in (model, f"draws of {model}")}
        if model.startswith("smoothed("):
            found = {model}
    elif method["name"] == "derandomised_splitting":
        found = {model if model.startswith("derandomised(") else f"derandomised({_splits(method)}, {model})"}
    elif method["name"] == "random_vote":
        found = {f"random_vote({model})"}
    elif method["name"] in ("top_k", "affinity"):
        found = {f"{method['name']}({_sets(method)}, {model})"}
    elif method["name"] == "expected_logits":
        found = {f"expected_logits(clamp={float(method['clamp'])!r}, {model})"}
    elif base is not None and base["name"] == "smoothing":
        halves = re.fullmatch(r"[a-z_]+\(.*, ([^,]+)\)", model)  # a mix names its robust model last
        robust = halves[1] if halves else ""
        found = {f"{model} with exact votes of smoothed({_noise(base)}, {robust})"}
        if robust.startswith("smoothed(") or "smoothed(" in model:
            found = {str(part.unit["predictor"])} if str(part.unit["predictor"]).startswith(f"{model} with ") else set()
    return found


def _sets(method: Mapping[str, Any]) -> str:
    return f"k={method['k']!r}" if "k" in method else f"sets={[list(members) for members in method['sets']]!r}"


def _splits(method: Mapping[str, Any]) -> str:
    return f"splits={method['splits']!r}, seed={method.get('seed', 0)!r}"


def _noise(method: Mapping[str, Any]) -> str:
    """The noise in the form of a predictor's name."""
    noise = noise_of(method)
    if noise["name"] == "ablation":
        return "ablation " + ", ".join(f"{k}={v!r}" for k, v in noise.items() if k != "name")
    return f"{'' if noise['name'] == 'gaussian' else noise['name'] + ' '}" + ", ".join(
        f"{k}={v!r}" for k, v in noise.items() if k != "name"
    )


def _setting_problems(part: Part, recipe: Mapping[str, Any]) -> Iterator[str]:
    """Contradictions in split, seed, tile and choice of images, if the recipe plans this method."""
    plan = recipe.get("evaluation") or {}
    if not planned(part, recipe):
        return
    found = {"split": part.facts["split"], "seed": part.unit["seed"], "tile": part.unit["tile"]}
    found |= {"choice": part.facts.get("choice", "first")}
    for name, value in found.items():
        if name in plan and plan[name] != value:
            yield f"its {name} is {value}, the recipe plans {plan[name]}"


def planned(part: Part, recipe: Mapping[str, Any]) -> bool:
    """Whether the recipe's evaluation asks for this method."""
    plan = recipe.get("evaluation") or {}
    key = {"attack": "attacks", "certificate": "certificates", "diagnosis": "diagnoses"}.get(part.kind)
    if key is None:
        return False
    method = part.unit.get("suite", part.unit["method"])
    asked = method["attack"] if part.kind == "diagnosis" else method
    return any(asks(spec, asked) for spec in plan.get(key) or ())


def asks(short: Any, full: Any) -> bool:
    """Whether a description with defaults left out is the same as a full one."""
    if isinstance(full, Mapping) and isinstance(short, Mapping) and ("noise" in full) != ("noise" in short):
        short, full = ({k: v for k, v in d.items() if k != "sigma"} | _with_noise(d) for d in (short, full))
    if isinstance(full, Mapping) and set(full) == {"name", "sigma"}:
        return noise_of({"noise": short}) == noise_of({"noise": full})
    if isinstance(full, Mapping):
        if isinstance(short, str):
            name, colon, budget = short.partition(":")
            short = {"name": name, "eps": budget} if colon else {"name": name}
        return isinstance(short, Mapping) and all(k in full and asks(v, full[k]) for k, v in short.items())
    if isinstance(full, list | tuple):
        return isinstance(short, list | tuple) and len(short) == len(full) and all(map(asks, short, full))
    if isinstance(full, float) and isinstance(short, str | int | float) and not isinstance(short, bool):
        over, _, under = str(short).partition("/")  # not a fraction of whole numbers, which would write 1e999999999 out
        return math.isclose(float(over) / float(under or 1.0), full, rel_tol=1e-12)
    return bool(short == full)


def _with_noise(method: Mapping[str, Any]) -> dict[str, Any]:
    """The noise that a short form ``sigma`` stands for."""
    return {"noise": noise_of(method)} if {"noise", "sigma"} & set(method) else {}


def _mix_problems(part: Part) -> Iterator[str]:
    """Contradictions between a mix's weight, models, norm and radii and its predictor and method."""
    facts, unit = part.facts, part.unit
    head = re.fullmatch(r"mixed\(alpha=[^,]+(, scales=[^,]+/[^,]+)?, .*\)", str(unit["predictor"]))
    scales = (head[1] or "") if head else ""
    named = f"mixed(alpha={float(facts['alpha'])!r}{scales}, {facts['accurate']}, {facts['robust']})"
    if named != unit["predictor"]:
        yield "its alpha or its models are not those of its predictor"
    if list(facts["eps"]) != list(unit["radii"]):
        yield "its radii are not those that were asked for"
    if list(facts["eps"]) != sorted(set(facts["eps"])) or any(e < 0.0 for e in facts["eps"]):
        yield "its radii do not rise from 0"
    proved = "base" in unit["method"]
    norm = facts["shared"].get("norm", unit["method"]["base"].get("norm", "l2")) if proved else ""
    asked = unit["method"]["base"].get("norm", norm) if proved else ""
    if (facts["norm"], asked) != (norm, norm) or facts["proof"] != ("deterministic" if proved else "none"):
        yield f"claims {facts['proof']} radii in {facts['norm']!r}, its evidence is of {norm!r}"
    if proved and float(facts["shared"]["mix_alpha"]) != float(facts["alpha"]):
        yield "the alpha of its evidence is not its own"
    if proved and facts["shared"]["base"] != unit["method"]["base"]["name"]:
        yield f"was asked for {unit['method']['base']['name']}, its evidence is of {facts['shared']['base']}"


def _name_problems(part: Part, recipe: Mapping[str, Any]) -> Iterator[str]:
    """Contradictions between the settings in a mix's name and the recipe's model."""
    model, name = recipe.get("model") or {}, str(part.unit["predictor"])
    if not isinstance(model, Mapping) or not name.startswith(f"{model.get('name')}("):
        return
    told = dict(re.findall(r"([a-z_]+)=([^,()]+)", name.split("[")[0]))
    spec = SETTINGS | dict(model)
    first, dots, last = told.get("alpha", "").partition("..")
    low, _, high = told.get("scales", "1.0/1.0").partition("/")
    pairs = {"alpha_min" if dots else "alpha": first, "alpha_max": last, "accurate_scale": low, "robust_scale": high}
    pairs |= {k: told[k] for k in ("scale", "shift", "power") if k in told}
    for key, value in pairs.items():
        if value and key in spec and not math.isclose(float(spec[key]), float(value), rel_tol=1e-12):
            yield f"its predictor has {key} = {value}, the recipe {spec[key]}"


def config_problems(recipe: Mapping[str, Any], info: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """Contradictions between config.json and recipe.yaml or run.json."""
    weights = info.get("hashes", {}).get("weights")
    if "weights" in config and weights is not None and config["weights"] != weights:
        yield f"config.json names weights {config['weights']}, run.json {weights}"
    model, spec = recipe.get("model") or {}, config.get("spec") or {}
    while recipe.get("wrap") and isinstance(spec.get("base"), Mapping) and spec.get("name") != model.get("name"):
        spec = spec["base"]
    changed = [k for k, v in model.items() if k in spec and not asks(v, _plain(spec[k]))]
    if changed:
        yield f"config.json builds another model than recipe.yaml asks for: {', '.join(changed)}"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
