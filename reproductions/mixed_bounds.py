"""How far three bounds certify a mix over a smoothed model, from its votes on record; no model is run.

    python reproductions/mixed_bounds.py RECORDS --alpha 0.79 [--out results/mixed_bounds.json]

RECORDS holds smoothing certificates.  The certificate of a mix does not depend on its accurate model, so votes and
labels are enough: for every weight alpha, certified accuracy at a grid of radii and average certified radius of the
exact bound, of Theorem A.1 and of Theorem 3.5 (Bai et al. 2024), all with the same confidence bounds.  The paper used
frequencies as if they were exact.  The ratio of two average radii has an interval over pairs of radii of the same
image: those c that Student's t of exact - c * other does not tell from 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from hauberk import registry
from hauberk.certificates.evidence import OfMix
from hauberk.certificates.mixed import Bound, MixedCertificate
from hauberk.evaluation.metrics import Floats, average_certified_radius, certified_accuracy
from hauberk.records import Part, group, read_all
from hauberk.runs import environment
from hauberk.statistics import Interval

ALPHAS = (0.55, 0.6, 0.67, 0.71, 0.76, 0.79, 0.84, 0.9, 0.95, 0.99, 1.0)
BOUNDS: tuple[Bound, ...] = ("exact", "theorem_a1", "theorem_3_5")
RADII = 13


def radii(part: Part, alpha: float) -> dict[Bound, Floats]:
    """Radius of every image by every bound, 0 where the mix's class is wrong or it abstains; (N,) each."""
    base = registry.build(part.unit["method"], "certificate")
    shared = part.facts["shared"] | {"base": "smoothing", "mix_alpha": alpha}
    rows = [(OfMix.read(json.loads(r["evidence"]), shared), r["label"]) for r in part.table.to_pylist()]
    found: dict[Bound, Floats] = {}
    for bound in BOUNDS:
        mix = MixedCertificate(base, bound)
        found[bound] = np.array([mix.radius(seen) * (mix.decision(seen) == label) for seen, label in rows])
    return found


def ratio(first: Floats, second: Floats) -> Interval:
    """Ratio of two means over the same images, with the interval of all ratios that the pairs do not rule out.

    Student's t of first - c * second, whose ends cross 0 at the roots of a square in c (Fieller 1954).
    """
    n, mean = len(first), float(second.mean())
    t = float(stats.t.ppf(0.975, n - 1)) if n > 1 else np.inf
    (a, b), (_, d) = np.cov(first, second) * t * t / n
    curve = np.array([mean * mean - d, -2.0 * (first.mean() * mean - b), first.mean() ** 2 - a])
    if not curve[0] > 0.0:  # the second mean is not told from 0, so any ratio is possible
        return Interval(float("nan"), float("nan"), float("nan"), n)
    low, high = sorted(np.roots(curve).real)
    return Interval(float(first.mean()) / mean, float(low), float(high), n)


def measured(part: Part, alpha: float, grid: Floats) -> dict[str, Any]:
    """Curves, average radii and ratios of one alpha."""
    found = radii(part, alpha)
    right = {bound: values > 0.0 for bound, values in found.items()}
    row: dict[str, Any] = {"alpha": alpha}
    for bound, values in found.items():
        row[bound] = {
            "average certified radius": ends(average_certified_radius(right[bound], values)),
            "certified accuracy": [ends(certified_accuracy(right[bound], values, eps)) for eps in grid],
            "largest radius": round(float(values.max()), 6),
        }
    for other in BOUNDS[1:]:
        kept = found[other] > 0.0
        single = found["exact"][kept] / found[other][kept]
        row[f"exact / {other}"] = {
            "average certified radius": ends(ratio(found["exact"], found[other])),
            "largest of an image": round(float(single.max()), 4) if kept.any() else None,
        }
    return row


def ends(interval: Interval) -> list[float | None]:
    """Value, lower and upper end, for a table; none where there is no number."""
    values = (interval.value, interval.low, interval.high)
    return [round(v, 6) if np.isfinite(v) else None for v in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    parser.add_argument("--alpha", type=float, default=0.79, help="the weight that is reported first")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for part in group(read_all(options.records, "certificate")):
        if part.unit["method"]["name"] != "smoothing":
            continue
        sigma = float(part.facts["shared"]["sigma"])
        grid = np.linspace(0.0, 3.0 * sigma, RADII)
        alphas = [options.alpha, *(a for a in ALPHAS if a != options.alpha)]
        rows = [measured(part, alpha, grid) for alpha in alphas]
        results.append({
            "predictor": part.unit["predictor"], "dataset": part.facts["dataset"], "split": part.facts["split"],
            "images": part.table.num_rows, "votes": part.facts["shared"], "radii": grid.round(6).tolist(),
            "rows": rows,
        })  # fmt: skip
        for row in rows:
            radius = "  ".join(f"{b} {row[b]['average certified radius'][0]:.4f}" for b in BOUNDS)
            against = row["exact / theorem_a1"]
            print(f"alpha {row['alpha']:<5} {radius}  exact / A.1 {against['average certified radius']} "
                  f"(an image: {against['largest of an image']})")  # fmt: skip
    if not results:
        parser.error(f"{options.records} holds no smoothing certificates")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        setting = {"records": "/".join(options.records.resolve().parts[-3:]), "alpha": options.alpha}
        text = json.dumps({"setting": setting, "environment": environment(), "results": results}, indent=2)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
