"""Certificates: the claims of each row and of each file must follow from the evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from hauberk.records import Part
from hauberk.verify.derive import DERIVE, elements_of, noise_of, norm_of, split_problems
from hauberk.verify.derive.splits import NORMS as SPLIT_NORMS
from hauberk.verify.verdict import Verdict, guarded

# A recorded radius may be smaller than the derived one by its own rounding, and never larger.
SLACK = 1e-9


# for draws: each setting that was asked for, and its name in the evidence
_DRAWN = {"n0": "draws0", "n": "draws", "alpha": "alpha", "clamp": "clamp", "interval": "interval"}


def verify_part(part: Part) -> Verdict:
    """Derive the class and radius of every row again and compare."""
    problems = tuple(guarded(proof_problems, part))
    return Verdict(str(part.unit["predictor"]), str(part.unit["method"]["name"]), part.table.num_rows, problems)


def proof_problems(part: Part) -> Iterator[str]:
    """All claims in the certificates of one part that do not follow from their evidence."""
    method = str(part.unit["method"]["name"])
    derive = DERIVE.get(method)
    if derive is None:
        yield f"no independent derivation is known for {method!r}"
        return
    shared = part.facts["shared"] | {"bound": part.unit["method"].get("bound", "exact")}
    shared |= {name: part.unit["method"][name] for name in ("k", "sets") if name in part.unit["method"]}
    yield from statement_problems(part)
    for row in part.table.to_pylist():
        evidence = json.loads(row["evidence"])
        yield from evidence_problems(row["id"], evidence, len(part.facts["classes"]))
        top, radius = derive(evidence, shared)
        yield from _row_problems(row, top, radius)


def evidence_problems(sample: int, evidence: Mapping[str, Any], classes: int) -> Iterator[str]:
    """Whether there is one logit, number of votes or probability for each class."""
    for name in ("logits", "counts0", "counts", "clean", "first", "gaps", "variances"):
        values = evidence.get(name)
        if values is not None and len(values) != classes:
            yield f"sample {sample}: {len(values)} {name} for {classes} classes"
        elif values is not None and name.startswith("counts") and any(not isinstance(v, int) or v < 0 for v in values):
            yield f"sample {sample}: a number of votes is none"


def statement_problems(part: Part) -> list[str]:
    """Whether the claims of the file about all rows follow from the shared evidence."""
    found = []
    shared, claimed = part.facts["shared"], float(part.facts["failure_probability"])
    rows = [json.loads(row) for row in part.table.column("evidence").to_pylist()]
    probabilistic = any("counts0" in row for row in rows)
    asked = _innermost(part.unit["method"])
    drawn = "draws" in shared
    estimated = asked["name"] == "local_lipschitz"
    # votes prove radii in the norm of their noise, Lipschitz constants in their own norm (L2 in older records)
    norm = asked["threat"]["name"] if estimated else shared.get("norm", "l2")
    if probabilistic:
        norm = norm_of(shared)
        found += _noise_problems(shared, asked, part.facts)
    elif asked["name"] == "derandomised_splitting":
        norm = SPLIT_NORMS.get(shared["attacker"], "")
        found += split_problems(shared, asked, rows, part.facts["shape"])
    if part.facts["norm"] != norm or asked.get("norm", norm) != norm:
        found.append(f"claims radii in {part.facts['norm']}, its evidence proves them in {norm}")
    if estimated and shared["eps"] != asked["threat"]["eps"]:
        found.append(f"was asked for eps = {asked['threat']['eps']}, its evidence says {shared['eps']}")
    told = {"n0": "n0", "n": "n", "alpha": "alpha"} if probabilistic else _DRAWN if drawn else {}
    found += [
        f"was asked for {name} = {asked[name]}, its evidence says {shared[kept]}"
        for name, kept in told.items()
        if name in asked and shared[kept] != asked[name]
    ]
    found += [
        f"was asked for another {name} than its evidence has"
        for name, usual in (("rule", "fixed"), ("rival", "rest"), ("draws", "own"))
        if probabilistic and shared.get(name, usual) != asked.get(name, usual)
    ]
    if probabilistic and asked.get("looks") and shared.get("looks") != list(asked["looks"]):
        found.append(f"was asked for looks at {asked['looks']}, its evidence says {shared.get('looks')}")
    estimated = estimated or "exploratory" in part.facts  # concluded outside the plan of the votes
    if claimed != (1.0 if estimated else float(asked["alpha"]) if probabilistic or drawn else 0.0):
        found.append(f"claims failure probability {claimed}, its evidence says otherwise")
    usual = "probabilistic" if probabilistic or drawn else "deterministic"
    if part.facts["proof"] != ("estimate" if estimated else usual):
        found.append(f"claims to be {part.facts['proof']}, its evidence says otherwise")
    if "base" in shared and shared["base"] != asked["name"]:
        found.append(f"was asked for {asked['name']}, its evidence is of {shared['base']}")
    # a mix whose weight depends on the image is proved for the least weight, the first of its range
    names = [f"alpha={shared['mix_alpha']!r}{end}" for end in (",", "..")] if "base" in shared else []
    if names and not any(name in str(part.unit["predictor"]) for name in names):
        found.append("the alpha of its evidence is not that of its predictor")
    return [*found, *_constant_problems(shared, len(part.facts["classes"]))]


def _noise_problems(shared: Mapping[str, Any], asked: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    told, wanted = noise_of(shared), noise_of(asked)
    found = [] if told == wanted else [f"was asked for {wanted}, its evidence says {told}"]
    if "pixels" in told and told["pixels"] < prod(facts["shape"]):
        found.append(f"its noise is for {told['pixels']} values, its images have more")
    return found if told["name"] != "ablation" else [*found, *_modality_problems(told, facts["shape"])]


def _modality_problems(noise: Mapping[str, Any], shape: Sequence[int]) -> list[str]:
    """Whether the modalities are parts of the images, each with at least as many elements as are kept."""
    whole = dict(zip(("channels", "rows", "columns"), shape, strict=True))
    fits = sum(noise["parts"]) == whole.get(noise["axis"]) and noise["size"] == list(shape[1:])
    fits = fits and len(noise["kept"]) == len(noise["parts"])
    fits = fits and all(0 < k <= n for k, n in zip(noise["kept"], elements_of(noise), strict=True))
    return [] if fits else [f"its modalities are not those of images of {'x'.join(map(str, shape))}"]


def _constant_problems(shared: Mapping[str, Any], classes: int) -> list[str]:
    """Whether pairwise Lipschitz constants, if there are any, can be constants of these classes."""
    if "pairwise" not in shared:
        return []
    found, speeds = [], np.asarray(shared["pairwise"], dtype=np.float64)
    if speeds.shape != (classes,) * 2:
        found.append("the pairwise Lipschitz constants are not those of its classes")
    if not ((speeds >= 0.0) & np.isfinite(speeds)).all():
        found.append("a pairwise Lipschitz constant is negative or not finite")
    return found


def _innermost(method: Mapping[str, Any]) -> Mapping[str, Any]:
    """The description of the certificate of the images; a mix's certificate rests on the certificate of its base."""
    return _innermost(method["base"]) if "base" in method else method


def _row_problems(row: Mapping[str, Any], top: int, radius: float) -> list[str]:
    recorded = float("nan") if row["radius"] is None else float(row["radius"])
    if not np.isfinite(recorded) or recorded < 0.0:
        return [f"sample {row['id']}: radius {recorded} is not a number >= 0"]
    if row["prediction"] == -1:
        return [] if recorded == 0.0 else [f"sample {row['id']}: abstains with radius {recorded}"]
    found = []
    if row["prediction"] != top:
        found.append(f"sample {row['id']}: predicts {row['prediction']}, the evidence says {top}")
    if recorded > radius * (1.0 + SLACK):
        found.append(f"sample {row['id']}: radius {recorded:.9g} is larger than the evidence allows ({radius:.9g})")
    if recorded < radius * (1.0 - 1e-6) - SLACK:
        found.append(f"sample {row['id']}: radius {recorded:.9g} does not follow from the evidence ({radius:.9g})")
    return found
