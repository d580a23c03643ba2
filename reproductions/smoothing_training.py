"""Four ways to train for a certified radius, from bundles: results/smoothing/training.json and tradeoff.md.

All saw the same number of noisy images.  A radius counts where the certified class is right, and is 0 where the vote
abstains or is wrong.  Of each method it is the mean over seeds, image by image; the interval resamples images.
Differences to Gaussian augmentation are taken image by image first.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hauberk.records import group, read_all
from hauberk.report import markdown
from hauberk.report.outcomes import correct
from hauberk.statistics import Interval, mean_interval

FOLDER = Path(__file__).resolve().parents[1] / "results" / "smoothing"
BASE, RADII = "gaussian", (0.0, 0.25, 0.5, 0.75, 1.0)
NAMES = {BASE: "Gaussian augmentation", "consistency": "consistency", "smooth_adv": "SmoothAdv", "macer": "MACER"}
Floats = NDArray[np.float64]


def radii(run: Path) -> tuple[list[int], Floats]:
    """Ids and radii of a bundle, 0 where the class is not certified right."""
    (part,) = group(read_all(run / "records", "certificate"))
    return part.column("id").tolist(), np.where(correct(part), part.column("radius"), 0.0)


def cells(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The bundles of each method and sigma, by seed."""
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*-seed*")):
        method, _, sigma = path.name.rpartition("-seed")[0].rpartition("_")
        found[sigma, method].append(path)
    return dict(found)


def measured(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """A line for each method and sigma."""
    known = {key: [radii(path) for path in paths] for key, paths in cells(folder).items()}
    lines = []
    for (sigma, method), runs in known.items():
        if len({tuple(ids) for ids, _ in runs}) != 1:
            raise SystemExit(f"{method} {sigma}: the seeds were certified on other images")
        own = np.stack([values for _, values in runs])
        line: dict[str, Any] = {
            "sigma": float(sigma), "method": method, "seeds": len(runs),
            "mean_radius": asdict(mean_interval(own.mean(0))),
            "each_seed": own.mean(1).round(4).tolist(),
            "certified": {str(r): asdict(mean_interval(((own >= r) & (own > 0.0)).mean(0)))
                          for r in RADII if r < 4 * float(sigma)},
            "votes_for_the_class": {str(q): round(float(np.quantile(ndtr(own / float(sigma)), q)), 4)
                                    for q in (0.25, 0.5, 0.75, 0.9)},
        }  # fmt: skip
        base = np.stack([values for _, values in known[sigma, BASE]])
        if method != BASE:
            line["above_gaussian"] = asdict(mean_interval(own.mean(0) - base.mean(0)))
            line["above_gaussian_each_seed"] = (own.mean(1) - base.mean(1)).round(4).tolist()
        lines.append(line)
    return sorted(lines, key=lambda line: (line["sigma"], list(NAMES).index(line["method"])))


def page(lines: list[dict[str, Any]]) -> str:
    """The table of tradeoff.md."""
    shown = [r for r in RADII if all(str(r) in line["certified"] for line in lines)]
    columns = ("sigma", "Training", "Mean radius", "above Gaussian", *(f"certified at {r:g}" for r in shown))
    rows = []
    for line in lines:
        above = Interval(**line["above_gaussian"]) if "above_gaussian" in line else None
        rows.append([
            f"{line['sigma']:g}", NAMES[line["method"]], _number(Interval(**line["mean_radius"])),
            "" if above is None else f"{above.value:+.3f} ({above.low:+.3f} to {above.high:+.3f})",
            *(f"{100 * line['certified'][str(r)]['value']:.1f} %" for r in shown),
        ])  # fmt: skip
    seeds, images = lines[0]["seeds"], lines[0]["mean_radius"]["n"]
    return (
        f"Mean certified L2 radius over {images} test images, {seeds} seeds each, with 95 % intervals over images.\n\n"
        + markdown.table(columns, rows)
    )


def _number(value: Interval) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


if __name__ == "__main__":
    found = measured()
    (FOLDER / "training.json").write_text(json.dumps(found, indent=1) + "\n")
    (FOLDER / "tradeoff.md").write_text(page(found))
