"""Figures 1 and 8: robust against clean accuracy for the four choices of R in Eq. 4, on logits and on probabilities.

A mix whose weights depend on gradients is attacked with the gradient through R, and with points found on both base nets
and on the mixes with R = 1 of like clean accuracy: of a net of ReLUs the gradient jumps, so its own may mislead.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hauberk.attacks import PGD
from hauberk.classifier import TILE
from hauberk.defences.locally_biased import GradientMixed, Scale, ThreatNorm, Trust
from hauberk.threats import L2, Linf, Threat
from mixing_curves_draw import Axes, Line, draw
from mixing_curves_nets import Curve, has, images, lift, net, right
from store import bits, percent, plain, points, share, table, unbits

TRUSTS: dict[Trust, str] = {"constant": "R = 1", "gradient": "R = ‖∇g_i‖", "top_gradient": "R = ‖∇max g‖",
                            "gradient_ratio": "R = ‖∇g_i‖ / ‖∇h_i‖"}  # fmt: skip
SCALES: tuple[Scale, ...] = ("probabilities", "logits")
PLACES = (0.1, 0.25, 0.4, 0.55, 0.75)  # share of the way from h's clean accuracy to g's, on validation images


def written(threat: Threat) -> str:
    """A threat as the committed results write it, with a decimal budget."""
    return f"{threat.norm}:{threat.eps:.6g}"


WORDS = {"pgd": "h adversarially trained", "trades_6": "h by TRADES, beta 6", "pgd_l2": "h adversarially trained in L2",
         written(Linf(8 / 255)): "Linf 8/255", written(L2(0.5)): "L2 0.5"}  # fmt: skip
JACOBIAN: tuple[Trust, ...] = ("gradient", "gradient_ratio")  # a backward pass a class: fewer images
FEWER = 2


@dataclass(frozen=True)
class Part:
    """One pair of nets and a threat.

    Args:
        name: of the cells and panels.
        robust: the robust net; the accurate one is the small standard net.
        threat: of the attack.
        norm: of the dual length of gradients.
        steps: of PGD, each of 2.5 budgets over the number of steps.
    """

    name: str
    robust: str
    threat: Threat
    norm: ThreatNorm
    steps: int

    @property
    def attack(self) -> PGD:
        """PGD that goes on to its last step, since its points are tried on other mixes too."""
        return PGD(self.threat, steps=self.steps, early_stop=False)


PARTS = {
    "figure_1": (Part("a", "pgd", Linf(8 / 255), "linf", 10),),
    "figure_8": (Part("a", "trades_6", Linf(8 / 255), "linf", 10), Part("b", "pgd_l2", L2(0.5), "l2", 10)),
}


class Bench:
    """The nets of a part, the images, and the points that are tried on every mix."""

    def __init__(self, part: Part, count: int) -> None:
        self.part, self.batch = part, images("test", count)
        self.accurate, self.robust = net("standard"), net(part.robust)
        self.validation = images("val", count)

    def build(self, trust: Trust, on: Scale, gamma: float) -> nn.Module:
        """The mix."""
        return GradientMixed(self.accurate, self.robust, gamma, trust, on, self.part.norm).eval()

    @functools.cache  # noqa: B019 - one object a part, alive until the end
    def gammas(self, trust: Trust, on: Scale) -> tuple[float, ...]:
        """The gamma of each place: where validation accuracy is nearest to that share of the way from h to g."""
        model, pieces = self.build(trust, on, 1.0), []
        assert isinstance(model, GradientMixed)
        for tile, used in self.validation.tiles(TILE):
            leaf = tile.images.clone().requires_grad_(True)
            accurate, robust = model._values(self.accurate, leaf), model._values(self.robust, leaf)
            trusted = torch.zeros(len(leaf), 1)
            if trust != "constant":
                trusted = model._log_trust(leaf, accurate, robust, differentiable=False)
            wide = trusted.expand(len(leaf), accurate.shape[1])
            pieces.append([v.detach()[:used] for v in (accurate, robust, wide)])
        accurate, robust, trusted = (torch.cat(column) for column in zip(*pieces, strict=True))
        low, high = (float(-trusted.quantile(q)) for q in (0.99, 0.01))
        grid = torch.linspace(low - 6.0, high + 6.0, 241).tolist()
        labels = self.validation.labels
        found = np.array([_accuracy(model._mix(accurate, robust, v + trusted), labels) for v in grid])
        ends = _accuracy(robust, labels), _accuracy(accurate, labels)
        wanted = [ends[0] + place * (ends[1] - ends[0]) for place in PLACES]
        return tuple(math.exp(grid[int(np.abs(found - w).argmin())]) for w in wanted)

    @functools.cache  # noqa: B019
    def found(self, source: str, place: int) -> tuple[Tensor, Tensor]:
        """Points of highest loss and whether the source stands: ``g``, ``h``, or the mix with R = 1 at a place."""
        model = {"g": self.accurate, "h": self.robust}.get(source)
        if model is None:
            scale: Scale = "logits" if source == "logits" else "probabilities"
            model = self.build("constant", scale, self.gammas("constant", scale)[place])
        result = self.part.attack(model, self.batch)
        return result.best_loss_point, ~result.success

    def cell(self, trust: Trust, on: Scale, place: int) -> dict[str, Any]:
        """Verdicts of one mix: clean, under its own gradient, and at the points of the others too."""
        gamma = self.gammas(trust, on)[place]
        model = self.build(trust, on, gamma)
        batch = self.batch.select(slice(0, len(self.batch) // FEWER)) if trust in JACOBIAN else self.batch
        clean = right(model, batch.images, batch)
        if trust == "constant":
            stands = self.found(on, place)[1]
        else:
            stands = ~PGD(self.part.threat, steps=self.part.steps)(model, batch).success
        worst = stands.clone()
        for source in ("g", "h", *SCALES):
            if trust != "constant" or source != on:
                worst &= right(model, self.found(source, 0 if source in "gh" else place)[0][: len(batch)], batch)
        return {"gamma": float(f"{gamma:.6g}"), "clean": bits(clean), "pgd": bits(stands), "worst": bits(worst)}

    def base(self, source: str) -> dict[str, Any]:
        """Verdicts of a base net."""
        model = self.accurate if source == "g" else self.robust
        stands = bits(self.found(source, 0)[1])
        clean = bits(right(model, self.batch.images, self.batch))
        return {"gamma": 0.0 if source == "g" else None, "clean": clean, "pgd": stands, "worst": stands}


def _accuracy(values: Tensor, labels: Tensor) -> float:
    return float((values.argmax(1) == labels).double().mean())


def measure(store: Curve, count: int) -> None:
    """Every option at every place; those of R = 1 first, since the others are tried at their points."""
    parts = [part for part in PARTS[store.name] if has(part.robust)]
    store.begin(
        "mixes weighted by gradient lengths, Eq. 4", ["standard", *(part.robust for part in parts)],
        f"the first {count} of the test split, the first {count // FEWER} for ‖∇g_i‖ and the ratio; gamma is "
        f"chosen on the first {count} of the validation split", places=PLACES,
        parts={p.name: {"robust": p.robust, "threat": written(p.threat), "steps": p.steps} for p in parts},
    )  # fmt: skip
    for part in parts:
        bench = Bench(part, count)
        for source in "gh":
            store.cell(f"{part.name} {source}", functools.partial(bench.base, source))
        order: tuple[Trust, ...] = ("constant", "top_gradient", "gradient", "gradient_ratio")
        for trust in order:
            for on in SCALES:
                for place in range(len(PLACES)):
                    made = functools.partial(bench.cell, trust, on, place)
                    store.cell(f"{part.name} {trust} {on} {place}", made)


# --- summary, table and chart -----------------------------------------------------------------------------------


def summarise(store: Curve) -> None:
    """Accuracies, and how far each option lies above R = 1 on probabilities at equal clean accuracy, paired."""
    cells, summary = store.data["cells"], {}
    for part in store.data["setting"]["parts"]:
        mine = {k.split(" ", 1)[1]: c for k, c in cells.items() if k.startswith(f"{part} ")}
        rows: dict[str, Any] = {}
        for key, cell in mine.items():
            rows[key] = {k: plain(share(cell[k])) for k in ("clean", "pgd", "worst")} | {"gamma": cell["gamma"]}
        lifts = {}
        reference = [mine["g"], mine["h"], *(c for k, c in mine.items() if k.startswith("constant probabilities"))]
        for trust in TRUSTS:
            for on in SCALES:
                own = [c for k, c in mine.items() if k.startswith(f"{trust} {on} ")]
                if own and (trust, on) != ("constant", "probabilities"):
                    n = len(own[0]["clean"])
                    curve = [(unbits(c["clean"])[:n], unbits(c["worst"])[:n]) for c in reference]
                    lifts[f"{trust} {on}"] = {
                        kind: plain(lift([(unbits(c["clean"]), unbits(c[kind])) for c in own], curve))
                        for kind in ("worst", "pgd")
                    } | {"images": n}
        summary[part] = {"cells": rows, "above R = 1 on probabilities": lifts}
    store.data["summary"] = summary


def page(store: Curve) -> list[str]:
    """The Markdown page."""
    lines = [
        f"# {store.name.replace('_', ' ').capitalize()}: robust against clean accuracy for the four R of Eq. 4", "",
        f"g is the small standard net; images: {store.data['images']}. Gamma is chosen so that the mix lies 10, 25, "
        "40, 55 and 75 % of the way from h's to g's clean accuracy on validation images. *PGD*: with the gradient "
        "through R; *worst*: at points found on g, on h and on both mixes with R = 1 at the same place too. "
        "Where *worst* is far below *PGD* the gradient through R misleads the attack: read *worst*. Percent, 95 % "
        "intervals.", "",
    ]  # fmt: skip
    for part, content in store.data["summary"].items():
        setting = store.data["setting"]["parts"][part]
        title = f"{WORDS[setting['robust']]}, {WORDS[setting['threat']]}, PGD-{setting['steps']}"
        rows = [[_title(key), "" if r["gamma"] is None else f"{r['gamma']:.4g}",
                 *(percent(r[k]) for k in ("clean", "pgd", "worst"))]
                for key, r in content["cells"].items()]  # fmt: skip
        lifts = content["above R = 1 on probabilities"]
        beaten = [_title(key) for key, v in lifts.items() if v["worst"][2] < 0]
        better = [_title(key) for key, v in lifts.items() if v["worst"][1] > 0]
        rest = [_title(key) for key in lifts if _title(key) not in [*beaten, *better]]
        lines += [
            f"## {title}", "",
            "Mean over the five gammas of the robust accuracy (worst) beyond that of R = 1 on probabilities at the "
            "same clean accuracy, in points, paired over images:", "",
            *table(["Option", "Images", "Above R = 1 on probabilities", "by PGD alone"],
                   [[_title(k), str(v["images"]), points(v["worst"]), points(v["pgd"])] for k, v in lifts.items()]), "",
            f"Below R = 1 on probabilities beyond doubt: {'; '.join(beaten) or 'none'}. Not told apart: "
            f"{'; '.join(rest) or 'none'}. Above: {'; '.join(better) or 'none'}.", "",
            "The paper's claim that R = 1 on probabilities is best "
            + ("holds" if not better and not rest else "is not refuted" if not better else "does not hold")
            + " at this size.", "",
            *table(["Mix", "gamma", "Clean", "PGD", "worst"], rows), "",
        ]  # fmt: skip
    missing = [part for part in PARTS[store.name] if part.name not in store.data["summary"]]
    return lines + [f"Not run: {WORDS[part.robust]}, {WORDS[written(part.threat)]}." for part in missing]


def _title(key: str) -> str:
    if key in ("g", "h"):
        return key
    trust, on = key.split()[:2]
    return f"{dict(TRUSTS)[trust]}, {on}"  # type: ignore[index]


def chart(store: Curve) -> str:
    """A panel a pair of nets and scale; a line an option."""
    lines = []
    for part, content in store.data["summary"].items():
        cells = content["cells"]
        for on in SCALES:
            setting = store.data["setting"]["parts"][part]
            panel = f"{on}; {WORDS[setting['robust']]}, {WORDS[setting['threat']]}"
            for trust, name in TRUSTS.items():
                keys = ["h", *(k for k in cells if k.startswith(f"{trust} {on} ")), "g"]
                if len(keys) > 2:
                    clean, worst = (np.array([cells[k][axis] for k in keys]).T for axis in ("clean", "worst"))
                    ends = [list(v) for v in (clean[0], worst[0], worst[1], worst[2])]
                    lines.append(Line(name, ends[0], ends[1], ends[2], ends[3], panel=panel))
    return draw(lines, Axes("clean accuracy", "attacked accuracy", x_percent=True, width=360), store.name)
