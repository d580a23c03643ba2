"""Figures 6 and 7: how far mixes over smoothed nets are certified, against smoothed nets of equal clean accuracy.

The votes of every image are kept, so that everything else is computed again from the file alone.  The certificate of a
mix does not depend on its accurate net; clean accuracy does, with the paper's hardmax of that net.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hauberk import registry
from hauberk.batch import Batch
from hauberk.certificates.evidence import OfMix
from hauberk.certificates.mixed import Bound, MixedCertificate
from hauberk.certificates.smoothing import SmoothingCertificate
from hauberk.classifier import TILE
from hauberk.defences import SmoothedClassifier
from hauberk.evaluation.metrics import Bools, Floats
from hauberk.noises import Gaussian
from hauberk.statistics import mean_interval
from mixing_curves_draw import Axes, Line, draw
from mixing_curves_nets import Curve, images, net, predicted
from store import less, percent, plain, points, share, table

NETS = {0.12: "smoothed_0.12", 0.25: "smoothed_0.25", 0.5: "smoothed_0.5", 1.0: "smoothed_1"}
SIGMAS = (0.25, 0.5, 1.0)
ALPHAS = (0.5, 0.67, 0.71, 0.79, 0.9, 1.0)
GRID = tuple(round(0.5 + 0.01 * k, 2) for k in range(51))
# the paper's comparisons: baseline, then (alpha, sigma) of the mixes
PAPER = ((0.5, ((0.79, 1.0),)), (0.25, ((0.79, 0.5), (0.71, 1.0))))
BOUNDS: dict[str, tuple[Bound, ...]] = {"figure_6": ("theorem_3_5",), "figure_7": ("theorem_a1", "exact")}
NAMES: dict[Bound, str] = {"theorem_3_5": "Theorem 3.5", "theorem_a1": "Theorem A.1", "exact": "exact bound"}
RADII = np.round(np.arange(0.0, 4.01, 0.05), 2)
SHOWN = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
NOTES = {
    "figure_6": (
        "The constant of Theorem 3.5 is the sharp one, 1 / (sigma sqrt(2 pi)); the paper's, sqrt(2 / pi) / sigma, "
        "halves every radius of this page, so its comparisons are these at half the radii. Theorem 3.5 gives a "
        "smoothed net alone at most sigma sqrt(pi / 2) = 1.25 sigma, however many votes there are: beyond that only "
        "mixes over larger sigmas are certified, and this is how the frontier extends along the radius."
    ),
    "figure_7": (
        "Theorem A.1 is computed with a lower confidence bound p of the vote's probability and 1 - p for the rival, "
        "where it is sigma Phi^-1(alpha p); the paper used 10,000 votes as if their frequencies were exact. The exact "
        "bound is sigma (Phi^-1(p) - Phi^-1(1 / (2 alpha))). With 1,000 votes a smoothed net alone certifies nothing "
        "beyond 2.46 sigma, however sure its votes: where a baseline stands at zero for want of votes, a difference "
        "says less than it seems."
    ),
}
N0, N, VAL_IMAGES, VAL_N, FAILURE = 64, 1000, 200, 250, 0.001
Combination = tuple[float, float]  # alpha, sigma


# --- votes ----------------------------------------------------------------------------------------------------


def measure(result: Curve, count: int) -> None:
    """Votes of every smoothed net on test and validation images, 50 images a cell; the accurate net's classes."""
    store, val_count, n, val_n = _votes_of(result), min(VAL_IMAGES, count), N, VAL_N
    store.begin(
        "votes of smoothed nets for certificates of mixes", ["standard", *NETS.values()],
        f"the first {count} of the test split; validation: the first {val_count} of the validation split",
        n0=N0, n=n, n_validation=val_n, failure=FAILURE, seed=0, tile=TILE,
    )  # fmt: skip
    batches = {"test": images("test", count), "val": images("val", val_count)}
    store.data["labels"] = {split: digits(batch.labels) for split, batch in batches.items()}
    for split, batch in batches.items():
        accurate = functools.partial(_classes, batch)
        store.cell(f"standard {split}", accurate)
    bases = {sigma: _base(name) for sigma, name in NETS.items()}
    for split, batch in reversed(batches.items()):
        for start in range(0, len(batch), 50):
            part = batch.select(slice(start, start + 50))
            for sigma, base in bases.items():
                votes = n if split == "test" else val_n
                certificate = SmoothingCertificate(Gaussian(sigma), n0=N0, n=votes, alpha=FAILURE)
                store.cell(f"{sigma} {split} {start}", functools.partial(_votes, certificate, base, part))


def _votes_of(result: Curve) -> Curve:
    """Figure 7 uses the votes in the file of Figure 6."""
    return result if result.name == "figure_6" else Curve("figure_6", result.smoke)


def digits(values: torch.Tensor) -> str:
    """Classes as a string, one character each."""
    return "".join(str(v) for v in values.tolist())


def _base(name: str) -> torch.nn.Module:
    smoothed = net(name)
    assert isinstance(smoothed, SmoothedClassifier)
    return smoothed.base.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _classes(batch: Batch) -> dict[str, Any]:
    return {"classes": digits(predicted(net("standard"), batch.images, batch))}


@torch.no_grad()
def _votes(certificate: SmoothingCertificate, base: torch.nn.Module, batch: Batch) -> dict[str, Any]:
    rows = [seen.row() for seen in certificate.gather(base, batch, seed=0, tile=TILE)]
    return {key: [row[key] for row in rows] for key in ("counts0", "counts")}


class Votes:
    """The votes of one split, and what follows from them.

    Validation images have fewer votes, which are multiplied up to the same number: choices are made on them, no more.
    """

    def __init__(self, store: Curve, split: str) -> None:
        cells, setting = store.data["cells"], store.data["setting"]
        self.n, self.times = setting["n"], setting["n"] // setting["n_validation"] if split == "val" else 1
        self.n0, self.failure = setting["n0"], setting["failure"]
        kept = {s: [c for k, c in cells.items() if k.startswith(f"{s} {split} ")] for s in NETS}
        found = {sigma: self._rows(list(mine)) for sigma, mine in kept.items()}
        count = min(len(store.data["labels"][split]), *(len(rows) for rows in found.values()))
        self.rows = {sigma: rows[:count] for sigma, rows in found.items()}
        self.labels = np.array([int(c) for c in store.data["labels"][split][:count]])
        self.accurate = np.array([int(c) for c in cells[f"standard {split}"]["classes"][:count]])

    def _rows(self, cells: Sequence[dict[str, Any]]) -> list[dict[str, list[int]]]:
        pairs = [pair for cell in cells for pair in zip(cell["counts0"], cell["counts"], strict=True)]
        return [{"counts0": first, "counts": [self.times * v for v in second]} for first, second in pairs]

    def shares(self, sigma: float) -> Floats:
        """Of each class among all votes of an image, (N, K)."""
        total = np.array([np.add(row["counts0"], row["counts"]) for row in self.rows[sigma]], dtype=np.float64)
        found: Floats = total / (self.n0 + self.n)
        return found

    def clean(self, alpha: float, sigma: float) -> Bools:
        """Whether the mix with the accurate net's hardmax is right without an attack, (N,)."""
        mixed = alpha * self.shares(sigma)
        mixed[np.arange(len(mixed)), self.accurate] += 1.0 - alpha
        own = mixed[np.arange(len(mixed)), self.labels]
        mixed[np.arange(len(mixed)), self.labels] = -1.0
        right: Bools = own > mixed.max(1) + 1e-12
        return right

    @functools.cache  # noqa: B019 - two objects, alive until the end
    def radii(self, alpha: float, sigma: float, bound: Bound) -> Floats:
        """Certified radius of every image, -1 where nothing is proved or the class is wrong, (N,)."""
        base = SmoothingCertificate(Gaussian(sigma), n0=self.n0, n=self.n, alpha=self.failure)
        certificate = MixedCertificate(base, bound)
        shared = {"sigma": sigma, "n0": self.n0, "n": self.n, "alpha": self.failure,
                  "base": registry.spec(base)["name"], "mix_alpha": alpha}  # fmt: skip
        found = []
        for row, label in zip(self.rows[sigma], self.labels.tolist(), strict=True):
            seen = OfMix.read(row, shared)
            found.append(certificate.radius(seen) if certificate.decision(seen) == label else -1.0)
        return np.array(found)


# --- equal clean accuracy ---------------------------------------------------------------------------------------


def matched(votes: Votes, baseline: float, sigma: float) -> float | None:
    """The largest alpha, on validation images, at which the mix is at least as accurate as the baseline."""
    wanted = votes.clean(1.0, baseline).mean()
    fitting = [a for a in GRID if votes.clean(a, sigma).mean() >= wanted]
    return max(fitting) if fitting else None


def comparisons(votes: Votes) -> list[tuple[float, list[Combination]]]:
    """For every baseline but the largest sigma: the mixes over larger sigmas of equal validation accuracy."""
    found = []
    for baseline in sorted(NETS)[:-1]:
        larger = [(matched(votes, baseline, s), s) for s in SIGMAS if s > baseline]
        found.append((baseline, [(a, s) for a, s in larger if a is not None]))
    return found


def frontier(val: Votes, test: Votes, combinations: Sequence[Combination], bound: Bound) -> Floats:
    """Certified test accuracy at each radius of the combination that certifies most validation images there."""
    known = np.array([certified(val.radii(a, s, bound)) for a, s in combinations])
    new = np.array([certified(test.radii(a, s, bound)) for a, s in combinations])
    height: Floats = new[known.argmax(0), np.arange(len(RADII))]
    return height


def certified(radii: Floats) -> Floats:
    """Certified accuracy at every radius of the grid."""
    found: Floats = (radii[:, None] >= np.maximum(RADII, 1e-9)).mean(0)
    return found


# --- summary, table and chart -----------------------------------------------------------------------------------


def summarise(store: Curve) -> None:
    """Clean and certified accuracy of the grid, and the mixes beside the baselines of equal clean accuracy."""
    votes = _votes_of(store)
    if votes is not store:
        store.data |= {k: v for k, v in votes.data.items() if k not in ("cells", "summary", "labels")}
        store.data["setting"] = votes.data["setting"] | {"votes": "the cells of figure_6"}
    test, val = Votes(votes, "test"), Votes(votes, "val")
    store.data["images"] = (
        f"the first {len(test.labels)} of the test split; "
        f"validation: the first {len(val.labels)} of the validation split"
    )
    bounds = BOUNDS[store.name]
    grid = [
        _row(test, alpha, sigma, bounds) for sigma in sorted(NETS) for alpha in ALPHAS if sigma in SIGMAS or alpha == 1
    ]
    pairs = []
    for chosen, listed in (("validation", comparisons(val)), ("paper", list(PAPER))):
        for baseline, mixes in listed:
            for alpha, sigma in mixes:
                pairs.append({"alpha chosen": chosen} | _pair(test, baseline, alpha, sigma, bounds))
    fronts = {
        bound: {str(baseline): frontier(val, test, [(1.0, baseline), *mixes], bound).round(4).tolist()
                for baseline, mixes in comparisons(val)}
        for bound in bounds
    }  # fmt: skip
    store.data["summary"] = {"grid": grid, "pairs": pairs, "radii": RADII.tolist(), "frontier": fronts}


def _row(votes: Votes, alpha: float, sigma: float, bounds: Sequence[Bound]) -> dict[str, Any]:
    row: dict[str, Any] = {"alpha": alpha, "sigma": sigma, "clean": plain(share(votes.clean(alpha, sigma)))}
    for bound in bounds:
        radii = votes.radii(alpha, sigma, bound)
        row[bound] = {"average radius": plain(mean_interval(np.maximum(radii, 0.0))),
                      "certified": {str(r): plain(share(radii >= r)) for r in SHOWN}}  # fmt: skip
    return row


def _pair(votes: Votes, baseline: float, alpha: float, sigma: float, bounds: Sequence[Bound]) -> dict[str, Any]:
    ours, theirs = votes.clean(alpha, sigma), votes.clean(1.0, baseline)
    row: dict[str, Any] = {
        "baseline": baseline, "alpha": alpha, "sigma": sigma, "clean": plain(share(ours)),
        "baseline clean": plain(share(theirs)), "clean difference": plain(less(ours, theirs)),
    }  # fmt: skip
    for bound in bounds:
        mix, alone = votes.radii(alpha, sigma, bound), votes.radii(1.0, baseline, bound)
        row[bound] = {
            "average radius": plain(mean_interval(np.maximum(mix, 0.0))),
            "baseline average radius": plain(mean_interval(np.maximum(alone, 0.0))),
            "average radius difference": plain(less(np.maximum(mix, 0.0), np.maximum(alone, 0.0))),
            "largest radius": round(float(mix.max()), 4), "baseline largest radius": round(float(alone.max()), 4),
            "certified difference": {str(r): plain(less(mix >= r, alone >= r)) for r in SHOWN},
        }  # fmt: skip
    return row


def page(store: Curve) -> list[str]:
    """The Markdown page."""
    setting, summary, figure = store.data["setting"], store.data["summary"], store.name
    bounds = BOUNDS[figure]
    lines = [
        f"# {figure.replace('_', ' ').capitalize()}: certified accuracy of mixes over smoothed nets, "
        + " and ".join(NAMES[b] for b in bounds), "",
        f"The accurate net is the small standard one, as hardmax; test images: {store.data['images']}. Votes: "
        f"{setting['n0']} choose the class, {setting['n']} bound its probability (failure {setting['failure']}). "
        "L2 radii; percent, 95 % intervals.", "",
        *table(["sigma", "alpha", "Clean", *(f"ACR, {NAMES[b]}" for b in bounds),
                *(f"at {r}, {NAMES[b]}" for b in bounds for r in (0.25, 0.5, 1.0))],
               [[str(r["sigma"]), str(r["alpha"]), percent(r["clean"]),
                 *(number(r[b]["average radius"]) for b in bounds),
                 *(percent(r[b]["certified"][str(x)]) for b in bounds for x in (0.25, 0.5, 1.0))]
                for r in summary["grid"]]), "",
        "## Against a smoothed net of equal clean accuracy", "",
        "Differences are mix less baseline, paired over images. *Validation*: alpha is the largest at which the mix is "
        "at least as accurate as the baseline on validation images; *paper*: the paper's pairs of numbers.", "",
    ]  # fmt: skip
    for bound in bounds:
        rows = [
            [r["alpha chosen"], f"{r['alpha']}, {r['sigma']}", str(r["baseline"]), percent(r["clean"]),
             percent(r["baseline clean"]), points(r["clean difference"]), number(r[bound]["average radius"]),
             number(r[bound]["baseline average radius"]),
             *(points(r[bound]["certified difference"][str(x)]) for x in SHOWN)]
            for r in summary["pairs"]
        ]  # fmt: skip
        lines += [f"**{NAMES[bound]}**", "",
                  *table(["alpha chosen", "mix: alpha, sigma", "baseline sigma", "mix clean", "baseline clean",
                          "difference", "mix ACR", "baseline ACR", *(f"at {x}" for x in SHOWN)], rows), "",
                  *_verdicts(summary, bound)]  # fmt: skip
    return [*lines, NOTES[figure]]


def _verdicts(summary: dict[str, Any], bound: Bound) -> list[str]:
    """In plain sentences: where the mix of equal validation accuracy is above or below the baseline beyond doubt."""
    mine = [row for row in summary["pairs"] if row["alpha chosen"] == "validation"]
    average = [row[bound]["average radius difference"] for row in mine]
    fewer = sum(v[2] < 0 for v in average)
    more = sum(v[1] > 0 for v in average)
    lines = [
        f"{NAMES[bound]}, alpha by validation: of {len(mine)} mixes {more} have a larger average certified radius than "
        f"the baseline beyond doubt, {fewer} a smaller one."
    ]
    gains = [any(v[1] > 0 for v in row[bound]["certified difference"].values()) for row in mine]
    if any(gains):
        lines[0] += (
            f" {sum(gains)} of {len(mine)} certify more images at some larger radius and no more or fewer "
            "at a small one, as the paper says."
        )
    else:
        lines[0] += " At no radius shown does one certify more: with this bound mixing buys nothing at this size."
    for row in mine:
        differences = row[bound]["certified difference"]
        better = [r for r, v in differences.items() if v[1] > 0]
        worse = [r for r, v in differences.items() if v[2] < 0]
        lines.append(
            f"- alpha {row['alpha']} over sigma {row['sigma']} against sigma {row['baseline']}: more certified at "
            f"{_listed(better)}, fewer at {_listed(worse)}."
        )
    return [*lines, ""]


def _listed(radii: Sequence[str]) -> str:
    return f"radius {', '.join(radii)}" if radii else "no radius shown"


def number(values: Sequence[float]) -> str:
    """An interval of radii as text."""
    return "{:.3f} ({:.3f} to {:.3f})".format(*values)


def chart(store: Curve) -> str:
    """A panel a baseline: the mixes of equal clean accuracy, the baseline and the frontier."""
    votes, summary, figure = _votes_of(store), store.data["summary"], store.name
    test, val = Votes(votes, "test"), Votes(votes, "val")
    lines, ends = [], 0.0
    for baseline, mixes in comparisons(val):
        clean = 100 * test.clean(1.0, baseline).mean()
        for bound in BOUNDS[figure]:
            panel = f"baseline sigma {baseline} ({clean:.0f} % clean), {NAMES[bound]}"
            for alpha, sigma in [(1.0, baseline), *mixes]:
                name = "smoothed net alone" if alpha == 1.0 else f"mix over sigma {sigma}"
                height = certified(test.radii(alpha, sigma, bound))
                ends = max(ends, float(RADII[height > 0].max(initial=0.0)))
                lines.append(Line(name, RADII.tolist(), height.tolist(), dots=False, panel=panel))
            front = summary["frontier"][bound][str(baseline)]
            lines.append(Line("frontier", RADII.tolist(), front, dots=False, dashed=True, panel=panel))
    cut: NDArray[np.bool_] = ends + 0.1 >= RADII
    lines = [Line(v.name, RADII[cut].tolist(), list(np.array(v.y)[cut]), dots=False, dashed=v.dashed, panel=v.panel)
             for v in lines]  # fmt: skip
    axes = Axes(
        "L2 radius", "certified accuracy", y_end=0.8, width=300, height=240, columns=3 if figure == "figure_6" else 2
    )
    return draw(lines, axes, figure)
