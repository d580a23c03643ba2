"""Mixes of two published nets beside the robust one: results/published/mixes.json and tradeoff.md, from bundles.

Clean error cut and robust share kept are ratios over the same images, with percentile bootstrap intervals that draw
images, both models of each together; differences have Tango's paired intervals.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hauberk.records import Part, group, read_all
from hauberk.report import markdown
from hauberk.report.outcomes import worst_case
from hauberk.statistics import Interval, paired_difference, wilson

FOLDER = Path(__file__).resolve().parents[1] / "results" / "published"
EPS, ROBUST, DRAWS = 2 / 255, "resnet4b", 2_000
NAMES = {"resnet20": "ResNet-20, accurate", ROBUST: "ResNet-4B, robust", "mix_nuts": "MixedNUTS",
         "mix_network": "mixing network", "mix_alpha": "one weight"}  # fmt: skip
Outcomes = dict[int, bool]


@dataclass(frozen=True)
class Known:
    """What the records of a run say: right without an attack, and right under all attacks at the budget; by id."""

    clean: Outcomes
    robust: Outcomes
    attacks: tuple[str, ...]


def known(run: Path) -> Known:
    """The outcomes of a bundle."""
    parts = group(read_all(run / "records", "attack"))
    clean: Outcomes = {}
    for part in parts:
        right = part.column("clean_prediction") == part.column("label")
        clean |= dict(zip(part.column("id").tolist(), right.tolist(), strict=True))
    for path in group(read_all(run / "records", "mix")):  # of one weight the path says where it is right
        alpha = float(path.facts["alpha"])
        right = (path.column("alpha_low") < alpha) & (alpha < path.column("alpha_high"))
        clean |= dict(zip(path.column("id").tolist(), right.tolist(), strict=True))
    own = [p for p in parts if abs(float(p.unit["threat"]["eps"]) - EPS) < 1e-9]
    ids, right, survived = worst_case(own)
    robust = dict(zip(ids.tolist(), (right & survived).tolist(), strict=True))
    return Known(clean, robust, tuple(sorted({named(p) for p in own})))


def named(part: Part) -> str:
    """An attack as the table calls it: the suite that it is a stage of, or its own name and part."""
    suite, method = part.unit.get("suite"), part.unit["method"]
    if suite:
        return f"AutoAttack {suite['version']}"
    if method["name"] == "part":
        return f"on its {method['part']} part"
    targets = f", {method['targets']} targets" if method.get("targets") else ""
    return f"{method['name'].upper()} {method['steps']} steps{targets}"


def ratio(one: NDArray[np.bool_], other: NDArray[np.bool_], seed: int = 0) -> Interval:
    """The first share over the second on the same images, with a percentile bootstrap interval over images."""
    generator, n = np.random.default_rng(seed), len(one)
    rows = generator.multinomial(n, np.full(n, 1.0 / n), size=DRAWS)
    drawn = (rows @ one) / np.maximum(1, rows @ other)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(one.sum() / other.sum()), float(low), float(high), n)


def paired(one: Outcomes, other: Outcomes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both outcomes on the images that both have."""
    ids = sorted(one.keys() & other.keys())
    first, second = (np.array([outcomes[i] for i in ids]) for outcomes in (one, other))
    return first, second


def shares(run: Known) -> dict[str, Interval]:
    """Clean and robust accuracy."""
    return {name: wilson(sum(o.values()), len(o)) for name, o in (("clean", run.clean), ("robust", run.robust))}


def beside(mix: Known, base: Known) -> dict[str, Interval]:
    """A mix beside the robust net, on shared images."""
    right, was = paired(mix.clean, base.clean)
    still, stood = paired(mix.robust, base.robust)
    left = ratio(~right, ~was)
    return {
        "clean_error_cut": Interval(1.0 - left.value, 1.0 - left.high, 1.0 - left.low, left.n),
        "robust_share_kept": ratio(still, stood),
        "clean_difference": paired_difference(right, was)[0],
        "robust_difference": paired_difference(still, stood)[0],
        "robust_mix": wilson(int(still.sum()), len(still)),
        "robust_net": wilson(int(stood.sum()), len(stood)),
    }


def percent(value: Interval) -> str:
    """In percent with its interval and the number of images."""
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f}), {value.n:,}"


def measured(folder: Path = FOLDER) -> dict[str, dict[str, dict[str, Any]]]:
    """All numbers, by run."""
    runs = {name: known(folder / name) for name in NAMES if (folder / name / "records").is_dir()}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, run in runs.items():
        numbers = shares(run) | (beside(run, runs[ROBUST]) if name.startswith("mix") else {})
        found[name] = {key: asdict(value) for key, value in numbers.items()}
        found[name]["attacks"] = {"names": list(run.attacks)}
    return found


def page(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The table of tradeoff.md."""
    columns = ("Model", "Clean", "Robust at Linf 2/255", "Clean error cut", "Robust share kept",
               "Robust, same images: mix, net, difference", "Attacks")  # fmt: skip
    rows = []
    for name, numbers in found.items():
        told = {k: percent(Interval(**v)) for k, v in numbers.items() if k != "attacks"}
        same = "; ".join(told[k] for k in ("robust_mix", "robust_net", "robust_difference") if k in told)
        names = ", ".join(numbers["attacks"]["names"])
        rows.append([NAMES[name], told["clean"], told["robust"], told.get("clean_error_cut", ""),
                     told.get("robust_share_kept", ""), same, names])  # fmt: skip
    return "Percent with 95 % intervals, then the number of images.\n\n" + markdown.table(columns, rows)


if __name__ == "__main__":
    numbers = measured()
    (FOLDER / "mixes.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (FOLDER / "tradeoff.md").write_text(page(numbers))
