"""Table 1, Figures 2 and 4: attacked nets and attacked mixes with one weight."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.classifier import TILE, logits_of
from hauberk.defences.mixed import MixedClassifier
from hauberk.evaluation.metrics import Floats
from hauberk.records import group, read_all
from hauberk.statistics import mean_interval, median_interval
from mixing_curves_draw import Axes, Line, draw
from mixing_curves_nets import PGD20, Curve, images, net, right
from store import bits, less, percent, plain, points, share, table, unbits

PAIR = {"g": "standard", "h": "pgd"}
RECORDS = Path("results/cifar10")
ODDS = (-3.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.5, 4.0, 6.0)  # logits of alpha
WEIGHTS = (0.0, *(round(1.0 / (1.0 + math.exp(-v)), 5) for v in ODDS), 1.0)
EPS = 8 / 255
SPEC = "PGD-20, Linf 8/255, step 0.0027, cross-entropy, random start"


# --- Table 1: gaps ----------------------------------------------------------------------------------------------


def gaps(store: Curve, count: int) -> None:
    """Signed gap between the two likeliest classes of both nets: clean, under PGD-20, under AutoAttack on record."""
    store.begin("gaps between the two likeliest classes", list(PAIR.values()),
                   f"the first {count} of the test split", attack=SPEC + ", the point of highest loss",
                   autoattack="stages of the committed records of results/cifar10")  # fmt: skip
    batch = images("test", count)
    for name in PAIR.values():
        model = net(name)
        store.cell(f"{name} clean", functools.partial(_signed, model, batch, batch.images))
        store.cell(f"{name} pgd", functools.partial(_attacked, model, batch))
        store.cell(f"{name} autoattack", functools.partial(_on_record, name, count))


def _attacked(model: nn.Module, batch: Batch) -> dict[str, Any]:
    return _signed(model, batch, PGD20(model, batch).best_loss_point)


@torch.no_grad()
def _signed(model: nn.Module, batch: Batch, there: Tensor) -> dict[str, Any]:
    logits = logits_of(model, Batch(there, batch.labels, batch.ids), TILE)
    top = logits.double().softmax(1).topk(2, dim=1).values
    sign = torch.where(logits.argmax(1) == batch.labels, 1.0, -1.0)
    return {"gap": [round(v, 4) for v in (sign * (top[:, 0] - top[:, 1])).tolist()]}


def _on_record(name: str, count: int) -> dict[str, Any]:
    """Smallest margin over the stages; of a fooled image, that of the first misclassified point."""
    least: dict[int, float] = {}
    wanted = {"name": "linf", "eps": EPS}
    for part in group(read_all(RECORDS / f"{name}_cifar10_small-seed0" / "records", "attack")):
        if part.unit["threat"] == wanted:
            for row in part.table.select(["id", "probability_margin"]).to_pylist():
                least[row["id"]] = min(least.get(row["id"], 1.0), row["probability_margin"])
    ids = images("test", count).ids.tolist()
    return {"gap": [round(least[i], 4) for i in ids]}


def gaps_summary(store: Curve) -> None:
    summary: dict[str, Any] = {}
    for key, cell in store.data["cells"].items():
        gap = np.array(cell["gap"])
        row: dict[str, Any] = {"accuracy": plain(share(gap > 0))}
        for side, values in (("right", gap[gap > 0]), ("wrong", -gap[gap <= 0])):
            row[side] = None
            if len(values):
                row[side] = {"n": len(values), "mean": plain(mean_interval(values)),
                             "median": plain(median_interval(values))}  # fmt: skip
        summary[key] = row
    store.data["summary"] = summary


def gaps_page(store: Curve) -> list[str]:
    rows = []
    titles = {"clean": "clean", "pgd": "PGD-20", "autoattack": "AutoAttack (records)"}
    for key, row in store.data["summary"].items():
        name, attack = key.split()
        cells = []
        for side in ("right", "wrong"):
            for what in ("mean", "median"):
                cells.append("-" if row[side] is None else "{:.3f} ({:.3f} to {:.3f})".format(*row[side][what]))
        rows.append([{v: k for k, v in PAIR.items()}[name], titles[attack], percent(row["accuracy"]), *cells])
    head = ["Net", "Points", "Accuracy, %", "right: mean gap", "right: median", "wrong: mean gap", "wrong: median"]
    return [
        "# Table 1: gaps between the two likeliest classes", "",
        f"g is the small standard net, h the small adversarially trained one; images: {store.data['images']} (the "
        "paper: validation data). 95 % intervals. PGD-20 is read at the point of highest loss. AutoAttack stops at "
        "the first misclassified point of an image, so its gaps where the net is wrong are smaller than the "
        "paper's, which are the largest found; where the net is right they are the smallest seen by any stage.", "",
        *table(head, rows), "",
        "The paper (ResNet-18): g clean 0.982 right, 0.698 wrong; h clean 0.854 right, 0.434 wrong; h under PGD-20 "
        "0.768 right (median 0.933), 0.635 wrong; h under AutoAttack 0.774 right (median 0.933), 0.553 wrong.", "",
        *_gaps_verdict(store.data["summary"]),
    ]  # fmt: skip


def _gaps_verdict(summary: Mapping[str, Any]) -> list[str]:
    kept, doubt = summary["pgd pgd"]["right"], summary["pgd clean"]["wrong"]
    holds = kept["mean"][1] > doubt["mean"][2]
    sense = "holds" if holds else "does not hold"
    ours, theirs = (f"{v['mean'][0]:.3f} on average, median {v['median'][0]:.3f}" for v in (kept, doubt))
    return [
        "The paper's claim that h is surer where it is right under attack than where it is wrong on clean images "
        f"{sense} at this size: {ours}, against {theirs} (the paper: 0.768, median 0.933, against 0.434, median 0.378)."
    ]


# --- Figures 2 and 4: attacks on mixes --------------------------------------------------------------------------


def mix(accurate: nn.Module, robust: nn.Module, alpha: float) -> nn.Module:
    """A mix with one weight, in eval mode."""
    return MixedClassifier(accurate, robust, alpha, 1.0, 1.0).eval()


def targets(store: Curve, count: int) -> None:
    """PGD-20 on the mix at every weight: who is right at its points, and was the mix broken on the way."""
    store.begin("PGD-20 on mixes with one weight", list(PAIR.values()), f"the first {count} of the test split",
                   attack=SPEC, points="of highest loss", weights=WEIGHTS)  # fmt: skip
    batch, accurate, robust = images("test", count), net("standard"), net("pgd")
    for alpha in WEIGHTS:
        store.cell(f"{alpha}", functools.partial(_target, batch, accurate, robust, alpha))


def _target(batch: Batch, accurate: nn.Module, robust: nn.Module, alpha: float) -> dict[str, Any]:
    model = mix(accurate, robust, alpha)
    found = PGD20(model, batch)
    there = found.best_loss_point
    cell: dict[str, Any] = {
        "g": bits(right(accurate, there, batch)), "h": bits(right(robust, there, batch)),
        "mix": bits(right(model, there, batch)), "mix clean": bits(found.clean_prediction == batch.labels),
        "mix standing": bits(~found.success),
    }  # fmt: skip
    if alpha in (0.0, 1.0):  # the STD and ROB attacks: their points on every mix
        mixes = {str(a): mix(accurate, robust, a) for a in WEIGHTS}
        cell["on mixes"] = {a: bits(right(m, there, batch)) for a, m in mixes.items()}
    return cell


def targets_summary(store: Curve) -> None:
    cells, summary = store.data["cells"], {}
    for alpha in WEIGHTS:
        cell = cells[str(alpha)]
        row: dict[str, Any] = {key: plain(share(cell[key])) for key in ("g", "h", "mix", "mix clean", "mix standing")}
        row["g less h"] = plain(less(unbits(cell["g"]), unbits(cell["h"])))
        summary[str(alpha)] = row
    store.data["summary"] = summary


def targets_page(store: Curve) -> list[str]:
    summary = store.data["summary"]
    rows = [[f"{float(a):.4g}", _odds(float(a)), *(percent(r[k]) for k in ("g", "h", "mix")), points(r["g less h"])]
            for a, r in summary.items()]  # fmt: skip
    turn = [float(a) for a, r in summary.items() if r["g less h"][1] > 0]
    level = [float(a) for a, r in summary.items() if r["g less h"][2] < 0]
    return [
        "# Figure 2: accuracy of both nets at points that attack the mix of weight alpha_t", "",
        f"g is the small standard net, h the small adversarially trained one; {store.data['setting']['attack']}, "
        f"the point of highest loss; images: {store.data['images']}. Percent, 95 % intervals; the difference is "
        "paired over images.",
        "",
        *table(["alpha_t", "logit", "g", "h", "the mix of alpha_t", "g less h"], rows), "",
        _turning(turn, level),
    ]  # fmt: skip


def _turning(turn: Sequence[float], level: Sequence[float]) -> str:
    if not turn:
        return ("At no weight is g beyond doubt the better net on points that attack the mix, so the paper's turn "
                "(its g is better above alpha_t = 0.9967) is not seen at this size.")  # fmt: skip
    return ("As in the paper, the better net turns from h to g as alpha_t grows: h is better beyond doubt up to "
            f"{max(level, default=0.0):.4g}, g from {min(turn):.4g} on (the paper: the turn is at "
            "0.9967).")  # fmt: skip


def _odds(alpha: float) -> str:
    return {0.0: "-inf", 1.0: "inf"}.get(alpha) or f"{math.log(alpha / (1.0 - alpha)):.1f}"


def _place(alpha: float) -> float:
    """Where a weight stands on the axis of logits; 0 and 1 beside the ends."""
    return {0.0: min(ODDS) - 1.0, 1.0: max(ODDS) + 1.0}.get(alpha) or math.log(alpha / (1.0 - alpha))


def targets_chart(store: Curve) -> str:
    summary, lines = store.data["summary"], []
    for key, name in (("g", "g, standard"), ("h", "h, adversarially trained"), ("mix", "the mix that is attacked")):
        values = np.array([summary[str(a)][key] for a in WEIGHTS])
        lines.append(_line(name, [_place(a) for a in WEIGHTS], values))
    title = "logit of alpha_t (left end: alpha_t = 0, right end: 1)"
    return draw(lines, Axes(title, "accuracy at the attacked points"), "Figure 2")


def _line(name: str, x: Sequence[float], values: Floats) -> Line:
    y, low, high = (list(v) for v in values.T)
    return Line(name, list(x), y, low, high)


def kinds(store: Curve, count: int) -> None:
    """Figure 4 is another view of the attacks of Figure 2."""
    source = Curve("figure_2", store.smoke)
    if len(source.data["cells"]) < len(WEIGHTS):
        targets(source, count)
    store.data |= {k: v for k, v in source.data.items() if k not in ("cells", "summary")}
    store.data["setting"] = source.data["setting"] | {"verdicts": "the cells of figure_2"}


def kinds_summary(store: Curve) -> None:
    cells = Curve("figure_2", store.smoke).data["cells"]
    summary: dict[str, Any] = {}
    for alpha in WEIGHTS:
        a = str(alpha)
        verdicts = {"clean": cells[a]["mix clean"], "STD": cells["0.0"]["on mixes"][a],
                    "ROB": cells["1.0"]["on mixes"][a], "MIX": cells[a]["mix standing"]}  # fmt: skip
        summary[a] = {key: plain(share(v)) for key, v in verdicts.items()}
        for key in ("STD", "ROB"):
            summary[a][f"{key} less MIX"] = plain(less(unbits(verdicts[key]), unbits(verdicts["MIX"])))
    store.data["summary"] = summary


def kinds_page(store: Curve) -> list[str]:
    summary, keys = store.data["summary"], ("clean", "STD", "ROB", "MIX")
    rows = [[f"{float(a):.4g}", *(percent(r[k]) for k in keys), *(points(r[f"{k} less MIX"]) for k in ("STD", "ROB"))]
            for a, r in summary.items()]  # fmt: skip
    weaker = [f"{float(a):.3g}" for a, r in summary.items() if min(r["STD less MIX"][0], r["ROB less MIX"][0]) < 0.0]
    verdict = "Neither transferred attack lowers any mix below the attack on the mix itself."
    if weaker:
        verdict = f"At alpha {', '.join(weaker)} a transferred attack breaks more images than the attack on the mix."
    return [
        "# Figure 4: the mix of weight alpha under attacks on g (STD), on h (ROB) and on itself (MIX)", "",
        f"{store.data['setting']['attack']}; images: {store.data['images']}. STD and ROB are points of highest loss "
        "of the base net; MIX counts any misclassified point that the search saw. Percent, 95 % intervals; "
        "differences are paired.", "",
        *table(["alpha", "Clean", "STD", "ROB", "MIX", "STD less MIX", "ROB less MIX"], rows), "", verdict,
    ]  # fmt: skip


def kinds_chart(store: Curve) -> str:
    summary = store.data["summary"]
    names = {"clean": "clean", "STD": "STD attack", "ROB": "ROB attack", "MIX": "MIX attack"}
    lines = [_line(name, WEIGHTS, np.array([summary[str(a)][key] for a in WEIGHTS])) for key, name in names.items()]
    return draw(lines, Axes("alpha", "accuracy of the mix", y_end=1.0), "Figure 4")
