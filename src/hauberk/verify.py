"""Derive every certificate again from its evidence, with numpy and scipy alone.

This file shares no code with the code that made the certificates: an assessor reads these few functions and the
records, and needs no model.  It imports ``records`` only to open the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from hauberk.records import Part, group, read_all

# A recorded radius may be smaller than the derived one by the rounding it was given, never larger.
SLACK = 1e-9
# Recorded logits are float32: this close to an end of an interval, or to a tie, they decide nothing.
NEAR, FLAT = 1e-4, 1e-6


@dataclass(frozen=True)
class Verdict:
    """The outcome for one evaluation.

    Args:
        predictor: whose certificates they are.
        method: the certificate's name.
        rows: how many were derived again.
        problems: one sentence for each that does not follow from its evidence.
    """

    predictor: str
    method: str
    rows: int
    problems: tuple[str, ...]


def lipschitz(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    r"""Class and radius from logits z, what rounding may have moved their differences by, and pairwise constants K.

    The radius is the largest r with :math:`d_j - K_{yj} r \ge 0` for all rivals, d less the rounding, and, for a
    margin m > 0,
    :math:`\frac{1 - e^{-\min_j (d_j - K_{yj} r)}}{1 + \sum_j e^{-(d_j - K_{yj} r)}} > m`.
    """
    logits = np.asarray(row["logits"], dtype=np.float64)
    constants = np.asarray(shared["pairwise"], dtype=np.float64)
    lost = float(row.get("rounding", 0.0))
    if not np.isfinite(logits).all() or not np.isfinite(constants).all() or not lost >= 0.0:
        return -1, 0.0
    top = int(np.argmax(logits))
    if row.get("deployed", top) != top:  # the model in its own precision decides otherwise
        return -1, 0.0
    others = np.delete(np.arange(len(logits)), top)
    gaps, speeds = logits[top] - logits[others] - lost, constants[top, others]
    if not gaps.min() > 0.0 or not (speeds > 0.0).any():
        return top, 0.0
    with np.errstate(divide="ignore"):
        largest = float((gaps / speeds).min())

    def kept(radius: float) -> float:
        left = gaps - speeds * radius
        return float((1.0 - np.exp(-left.min())) / (1.0 + np.exp(-left).sum()))

    if margin <= 0.0:
        return top, largest
    if kept(0.0) <= margin:
        return top, 0.0
    if kept(largest) > margin:  # a margin so small that rounding decides
        return top, largest
    return top, float(optimize.brentq(lambda r: kept(r) - margin, 0.0, largest, xtol=1e-14, rtol=1e-14))


def kept_margin(row: Mapping[str, Any], shared: Mapping[str, Any], radius: float) -> tuple[int, float]:
    r"""Class, and the probability margin that Lipschitz logits keep at a radius; -1 where the class may change."""
    top, largest = lipschitz(row, shared)
    if top < 0 or radius > largest:
        return top, -1.0
    logits, constants = np.asarray(row["logits"], dtype=np.float64), np.asarray(shared["pairwise"])[top]
    others = np.delete(np.arange(len(logits)), top)
    left = logits[top] - logits[others] - row.get("rounding", 0.0) - constants[others] * radius
    return top, float((1.0 - np.exp(-left.min())) / (1.0 + np.exp(-left).sum()))


def smoothing(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    r"""Class and radius from vote counts: :math:`\sigma(\Phi^{-1}(\underline p) - \Phi^{-1}((1+m)/2))`.

    The bound is the p at which seeing at least this many votes has probability alpha: the root of the binomial's
    upper tail, not the Beta quantile that the certificate uses.
    """
    first, second = np.asarray(row["counts0"]), np.asarray(row["counts"])
    if first.sum() > shared["n0"] or second.sum() > shared["n"]:  # a copy with a tie or NaN votes for no class
        return -1, 0.0
    top = int(np.argmax(first))
    votes, total, alpha = int(second[top]), int(shared["n"]), float(shared["alpha"])
    if votes == 0:
        return -1, 0.0
    bound = float(optimize.brentq(lambda p: stats.binom.sf(votes - 1, total, p) - alpha, 0.0, 1.0, xtol=1e-15))
    least = (1.0 + margin) / 2.0
    if bound <= least:
        return (top if bound > 0.5 else -1), 0.0
    return top, float(shared["sigma"]) * float(stats.norm.ppf(bound) - stats.norm.ppf(least))


def local_lipschitz(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    """Class, and the whole budget if no point on record brings a rival nearer than the margin; an estimate."""
    clean = np.asarray(row["clean"], dtype=np.float64)
    table = np.vstack([clean, np.asarray(row["points"], dtype=np.float64)])
    if not np.isfinite(table).all():
        return -1, 0.0
    top = int(np.argmax(clean))
    ahead = table[:, [top]] - table
    ahead[:, top] = np.inf
    return top, float(shared["eps"]) if (ahead > margin).all() else 0.0


def mixed_margin(row: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[int, float]:
    r"""Class and radius of the mix: the base's radius at margin :math:`(1-\alpha)/\alpha`, for alpha >= 1/2.

    ``shared["bound"]`` may name a theorem instead: A.1 as it is printed, with p and 1 - p for the two classes, or 3.5,
    whose radius is where the straight lines :math:`\alpha(p_y - p_i - (L_y + L_i) r)` come down to
    :math:`1 - \alpha`.
    """
    alpha, base = float(shared["mix_alpha"]), str(shared["base"])
    if alpha < 0.5:
        return -1, 0.0
    derive = {"lipschitz": lipschitz, "smoothing": smoothing, "local_lipschitz": local_lipschitz}[base]
    bound = shared.get("bound", "exact")
    if bound == "exact":
        least = (1.0 - alpha) / alpha
        top, radius = derive(row, shared, least)
        # an estimate fails at its one budget alone: the class stands where the image itself has the margin
        stands = base == "local_lipschitz" and derive({**row, "points": [row["clean"]]}, shared, least)[1] > 0.0
        return (top, radius) if radius > 0.0 or stands else (-1, 0.0)
    top, radius = derive(row, shared, -np.inf if base == "local_lipschitz" else 0.0)
    if top < 0 or not radius > 0.0:
        return -1, 0.0
    if bound == "theorem_a1" and base == "smoothing":
        p = stats.norm.cdf(radius / shared["sigma"])
        ahead = stats.norm.ppf(alpha * p) - stats.norm.ppf(alpha * (1.0 - p) + 1.0 - alpha)
        found = 0.5 * float(shared["sigma"]) * float(ahead)
        return (top, found) if found > 0.0 else (-1, 0.0)
    levels, slopes = _lines(row, shared, top, radius)
    left = alpha * levels - (1.0 - alpha)
    if not (left > 0.0).all():
        return -1, 0.0
    if base == "local_lipschitz":
        return top, radius if (left - alpha * slopes * radius > 0.0).all() else 0.0
    far = 2.0 * float(left.max() / (alpha * slopes.min()))
    return top, float(
        optimize.brentq(lambda r: float((left - alpha * slopes * r).min()), 0.0, far, xtol=1e-14, rtol=1e-14)
    )


def _lines(
    row: Mapping[str, Any], shared: Mapping[str, Any], top: int, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    r"""For every rival of a class, :math:`p_y - p_i` of the robust model at the image and :math:`L_y + L_i`.

    The steepest rise of a probability is the density of the logistic law at 0 times the largest :math:`K_{ij}`, or of
    the normal law at 0 over sigma; of recorded points, the largest change over the budget.
    """
    if shared["base"] == "smoothing":
        p = float(stats.norm.cdf(radius / shared["sigma"]))
        return np.array([p - (1.0 - p)]), np.array([2.0 * stats.norm.pdf(0.0, scale=shared["sigma"])])
    if shared["base"] == "local_lipschitz":
        probabilities = np.asarray(row["clean"], dtype=np.float64)
        change = np.vstack([probabilities, np.asarray(row["points"], dtype=np.float64)]) - probabilities
        speeds = change.max(0) / radius
        speeds[top] = -change.min(0)[top] / radius
    else:
        logits = np.array(row["logits"], dtype=np.float64)
        logits[top] -= row.get("rounding", 0.0)
        probabilities = special.softmax(logits)
        speeds = stats.logistic.pdf(0.0) * np.asarray(shared["pairwise"], dtype=np.float64).max(1)
    others = np.arange(len(probabilities)) != top
    return (probabilities[top] - probabilities)[others], (speeds[top] + speeds)[others]


_DERIVE = {
    "lipschitz": lipschitz,
    "smoothing": smoothing,
    "local_lipschitz": local_lipschitz,
    "mixed_margin": mixed_margin,
}


def verify_part(part: Part) -> Verdict:
    """Derive the class and radius of every row again and compare."""
    method = str(part.unit["method"]["name"])
    problems: list[str] = []
    derive = _DERIVE.get(method)
    if derive is None:
        problems.append(f"no independent derivation is known for {method!r}")
    else:
        shared = part.facts["shared"] | {"bound": part.unit["method"].get("bound", "exact")}
        problems += _statement_problems(part)
        for row in part.table.to_pylist():
            top, radius = derive(json.loads(row["evidence"]), shared)
            problems += _row_problems(row, top, radius)
    return Verdict(str(part.unit["predictor"]), method, part.table.num_rows, tuple(problems))


def _statement_problems(part: Part) -> list[str]:
    """Whether what the file claims about all rows follows from the shared evidence."""
    found = []
    shared, claimed = part.facts["shared"], float(part.facts["failure_probability"])
    probabilistic = any("counts0" in json.loads(row) for row in part.table.column("evidence").to_pylist())
    asked = _innermost(part.unit["method"])
    estimated = asked["name"] == "local_lipschitz"
    # smoothing proves L2; Lipschitz constants are for the norm of their walk (L2 before there were others)
    norm = asked["threat"]["name"] if estimated else shared.get("norm", "l2")
    if part.facts["norm"] != norm or asked.get("norm", norm) != norm:
        found.append(f"claims radii in {part.facts['norm']}, its evidence proves them in {norm}")
    if estimated and shared["eps"] != asked["threat"]["eps"]:
        found.append(f"was asked for eps = {asked['threat']['eps']}, its evidence says {shared['eps']}")
    found += [
        f"was asked for {name} = {asked[name]}, its evidence says {shared[name]}"
        for name in ("sigma", "n0", "n", "alpha")
        if probabilistic and shared[name] != asked[name]
    ]
    if claimed != (1.0 if estimated else float(asked["alpha"]) if probabilistic else 0.0):
        found.append(f"claims failure probability {claimed}, its evidence says otherwise")
    if part.facts["proof"] != ("estimate" if estimated else "probabilistic" if probabilistic else "deterministic"):
        found.append(f"claims to be {part.facts['proof']}, its evidence says otherwise")
    if "base" in shared and shared["base"] != asked["name"]:
        found.append(f"was asked for {asked['name']}, its evidence is of {shared['base']}")
    # a mix whose weight depends on the image is proved for the least one, the first of its range
    names = [f"alpha={shared['mix_alpha']!r}{end}" for end in (",", "..")] if "base" in shared else []
    if names and not any(name in str(part.unit["predictor"]) for name in names):
        found.append("the alpha of its evidence is not that of its predictor")
    if "pairwise" in shared:
        speeds = np.asarray(shared["pairwise"], dtype=np.float64)
        if not ((speeds >= 0.0) & np.isfinite(speeds)).all():
            found.append("a pairwise Lipschitz constant is negative or not finite")
    return found


def _innermost(method: Mapping[str, Any]) -> Mapping[str, Any]:
    """The description of the certificate that looked at images; a mix's certificate rests on that of its base."""
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


def verify_mix(mix: Part, certificates: list[Part]) -> Verdict:
    """Derive the alpha path of a mix again, and compare it with the certificates made at its chosen alpha."""
    problems: list[str] = []
    shared = mix.facts["shared"]
    for row in mix.table.to_pylist():
        problems += _path_problems(row)
        if not mix.facts["eps"]:
            continue
        evidence = json.loads(row["evidence"])
        for eps, recorded in zip(mix.facts["eps"], row["certified_alpha"], strict=True):
            top, kept = kept_margin(evidence, shared, float(eps))
            derived = 1.0 / (1.0 + kept) if top == row["label"] and kept > 0.0 else None
            if recorded is not None and (derived is None or recorded < derived * (1.0 - SLACK)):
                problems.append(f"sample {row['id']}: certified at {eps} from alpha {recorded}, not {derived}")
    # other bounds are smaller, estimates prove nothing, and another norm is another question
    matching = [
        c for c in certificates
        if (c.unit["predictor"], c.facts["norm"]) == (mix.unit["predictor"], mix.facts["norm"])
        and c.facts["proof"] != "estimate" and c.unit["method"].get("bound", "exact") == "exact"
    ]
    for part in matching:
        known = {r["id"]: r for r in part.table.to_pylist()}
        for row in mix.table.to_pylist():
            other = known.get(row["id"])
            if other is None:
                continue
            for eps, alpha in zip(mix.facts["eps"], row["certified_alpha"], strict=True):
                says = alpha is not None and alpha < mix.facts["alpha"] * (1 - SLACK)
                proved = other["radius"] * (1.0 + SLACK) >= eps and other["prediction"] == row["label"]
                if says and not proved:
                    problems.append(f"sample {row['id']}: the alpha path claims radius {eps}, the certificate does not")
    return Verdict(str(mix.unit["predictor"]), "alpha path", mix.table.num_rows, tuple(problems))


def _path_problems(row: Mapping[str, Any]) -> list[str]:
    """Whether the mix of the recorded logits is right just inside the recorded interval and wrong just outside."""
    accurate, robust = (special.softmax(np.asarray(row[f"{n}_logits"], dtype=float)) for n in ("accurate", "robust"))
    low, high = (np.nan if row[f"alpha_{end}"] is None else float(row[f"alpha_{end}"]) for end in ("low", "high"))
    found = []
    ends = [end + side * NEAR for end in (low, high) for side in (-1.0, 1.0)]
    for alpha in (a for a in (0.0, 0.5, 1.0, *ends) if 0.0 <= a <= 1.0):
        mixed = (1.0 - alpha) * accurate + alpha * robust
        lead = mixed[row["label"]] - np.delete(mixed, row["label"]).max()
        if abs(lead) > FLAT and (lead > 0.0) != bool(low < alpha < high):
            found.append(f"sample {row['id']}: at alpha {alpha:.6f} its logits contradict the recorded interval")
    return found


def verify_hashes(run: Path) -> Verdict:
    """Compare the SHA-256 of every record with the one kept in ``run.json``."""
    info = json.loads((run / "run.json").read_text())
    kept = info.get("hashes", {}).get("records", {})
    files = {p.name: p for p in sorted((run / "records").glob("*.parquet"))}
    problems = [f"{name} is missing" for name in kept if name not in files]
    problems += [f"{name} is not listed in run.json" for name in files if name not in kept]
    problems += [
        f"{name} has changed since it was written"
        for name, path in files.items()
        if name in kept and hashlib.sha256(path.read_bytes()).hexdigest() != kept[name]
    ]
    return Verdict(str(info.get("predictor", "")), "hashes", len(files), tuple(problems))


def verify_folder(records: Path) -> list[Verdict]:
    """Derive every certificate of a folder again; reading also checks each part's key against its content."""
    certificates = group(read_all(records, "certificate"))
    mixes = group(read_all(records, "mix"))
    return [verify_part(p) for p in certificates] + [verify_mix(m, certificates) for m in mixes]
