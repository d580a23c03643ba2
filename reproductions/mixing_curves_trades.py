"""Figure 5: mixes beside TRADES and IAAT; and the local Lipschitz constant of robust nets (Eq. 12)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks import APGD
from hauberk.attacks.losses import AttackLoss
from hauberk.batch import Batch
from hauberk.certificates.local_lipschitz import LocalLipschitz, local_lipschitz
from hauberk.classifier import TILE, logits_of
from hauberk.evaluation.metrics import Bools
from hauberk.statistics import mean_interval
from hauberk.threats import CONFIG, Linf
from mixing_curves_attacked import SPEC, mix
from mixing_curves_draw import Axes, Line, draw
from mixing_curves_nets import PGD20, Curve, has, images, lift, net
from store import bits, percent, plain, points, share, table, unbits

BETAS = ("0", "0.1", "1", "6")
WEIGHTS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
EPS = 8 / 255


# --- Figure 5 ---------------------------------------------------------------------------------------------------


def trades(store: Curve, count: int) -> None:
    """PGD-20 on every TRADES net, on IAAT, and on mixes of the two ends of the sweep."""
    names = [f"trades_{beta}" for beta in BETAS if has(f"trades_{beta}")] + ["iaat"] * has("iaat")
    store.begin("mixes beside TRADES and IAAT", names, f"the first {count} of the test split", attack=SPEC,
                   weights=WEIGHTS)  # fmt: skip
    batch = images("test", count)
    for name in names:
        store.cell(name, functools.partial(_verdicts, batch, functools.partial(net, name)))
    accurate, robust = net("trades_0"), net("trades_6")
    for alpha in WEIGHTS:
        store.cell(f"mix {alpha}", functools.partial(_verdicts, batch, functools.partial(mix, accurate, robust, alpha)))


def _verdicts(batch: Batch, build: Callable[[], nn.Module]) -> dict[str, Any]:
    found = replace(PGD20, early_stop=True)(build(), batch)
    return {"clean": bits(found.clean_prediction == batch.labels), "robust": bits(~found.success)}


def _pairs(store: Curve) -> dict[str, tuple[Bools, Bools]]:
    return {key: (unbits(c["clean"]), unbits(c["robust"])) for key, c in store.data["cells"].items()}


def trades_summary(store: Curve) -> None:
    pairs, summary = _pairs(store), {}
    sweep = [pair for key, pair in pairs.items() if key.startswith("trades")]
    mixes = [pairs["trades_0"], *(pair for key, pair in pairs.items() if key.startswith("mix")), pairs["trades_6"]]
    for key, (clean, robust) in pairs.items():
        row = {"clean": plain(share(clean)), "robust": plain(share(robust))}
        if not key.startswith("trades"):
            row["above TRADES"] = plain(lift([(clean, robust)], sweep))
        if not key.startswith("mix"):
            row["above the mixes"] = plain(lift([(clean, robust)], mixes))
        summary[key] = row
    inner = [pair for key, pair in pairs.items() if key.startswith("mix")]
    store.data["summary"] = summary
    store.data["mean of the mixes above TRADES"] = plain(lift(inner, sweep))


def trades_page(store: Curve) -> list[str]:
    summary = store.data["summary"]
    rows = [[_title(key), percent(r["clean"]), percent(r["robust"]),
             *(points(r[k]) if k in r else "" for k in ("above TRADES", "above the mixes"))]
            for key, r in sorted(summary.items(), key=lambda item: -item[1]["clean"][0])]  # fmt: skip
    return [
        "# Figure 5: mixes beside TRADES and IAAT", "",
        "Small nets, three epochs each, the last weights; "
        f"{store.data['setting']['attack']}; images: {store.data['images']}. The mixes are of TRADES at beta 0 "
        "(standard training) and beta 6. *Above* is robust accuracy beyond that of the curve at the same clean "
        "accuracy: straight lines between neighbours, which tossing a coin between the two reaches, level beyond the "
        "ends; intervals resample images, all nets on the same ones. Percent, 95 % intervals.", "",
        *table(["Net", "Clean", "PGD-20", "Above the TRADES curve", "Above the curve of mixes"], rows), "",
        *_trades_verdict(summary, store.data["mean of the mixes above TRADES"]),
    ]  # fmt: skip


def _title(key: str) -> str:
    kind, _, value = key.replace("trades_", "TRADES ").partition(" ")
    return {"mix": f"mix, alpha {value}", "TRADES": f"TRADES, beta {value}"}.get(kind, kind.upper())


def _trades_verdict(summary: Mapping[str, Any], mean: list[float]) -> list[str]:
    lifts = {k.removeprefix("mix "): r["above TRADES"] for k, r in summary.items() if k.startswith("mix")}
    better, worse = [a for a, v in lifts.items() if v[1] > 0], [a for a, v in lifts.items() if v[2] < 0]
    rest = [a for a in lifts if a not in [*better, *worse]]
    found = {"above the TRADES curve beyond doubt": better, "below it": worse, "not told apart from it": rest}
    lines = [
        "Mixes "
        + "; ".join(f"{word}: alpha {', '.join(a)}" for word, a in found.items() if a)
        + ". On average over the "
        f"mixes they lie {points(mean)} points above the curve."
    ]
    claim = "The paper's claim that the mix is above the TRADES curve"
    if mean[1] > 0:
        lines += [f"{claim} holds at this size, on average over alpha."]
    elif better:
        lines += [f"{claim} holds at this size for alpha {', '.join(better)} alone; on average it is not confirmed."]
    else:
        lines += [f"{claim} is not confirmed at this size."]
    inner = {k: r["above the mixes"] for k, r in summary.items() if k in ("trades_0.1", "trades_1")}
    near = [f"{_title(k)} ({points(v)})" for k, v in inner.items() if v[1] <= 0.0 <= v[2]]
    if near:
        lines += [f"Not told apart from the curve of mixes at their own clean accuracy: {', '.join(near)}."]
    if "iaat" in summary:
        lift = summary["iaat"]["above the mixes"]
        word = "above" if lift[1] > 0 else "below" if lift[2] < 0 else "not told apart from"
        lines += [f"IAAT is {word} the curve of mixes: {points(lift)} points at its clean accuracy."]
    missing = [_title(f"trades_{beta}") for beta in BETAS if f"trades_{beta}" not in summary]
    missing += [] if "iaat" in summary else ["IAAT"]
    if missing:
        lines += [f"Not trained: {', '.join(missing)}."]
    return lines


def trades_chart(store: Curve) -> str:
    summary, lines = store.data["summary"], []
    groups = {"TRADES, beta 0 to 6": [f"trades_{b}" for b in BETAS if f"trades_{b}" in summary],
              "mix of beta 0 and beta 6": ["trades_0", *(f"mix {a}" for a in WEIGHTS), "trades_6"],
              "IAAT": ["iaat"] * ("iaat" in summary)}  # fmt: skip
    for name, keys in groups.items():
        if keys:
            clean, robust = (np.array([summary[k][axis] for k in keys]).T for axis in ("clean", "robust"))
            x, y = ([list(v) for v in values] for values in (clean, robust))
            lines.append(Line(name, x[0], y[0], y[1], y[2], x[1], x[2]))
    return draw(lines, Axes("clean accuracy", "accuracy under PGD-20", x_percent=True), "Figure 5")


# --- the local Lipschitz constant ---------------------------------------------------------------------------------


@dataclass(frozen=True, config=CONFIG)
class LabelRise(AttackLoss):
    """Raise the probability of the label, for Eq. 12 as it is printed."""

    def __call__(self, outputs: Mapping[str, Tensor], labels: Tensor, targets: Tensor | None) -> Tensor:  # noqa: ARG002
        """Of each row, (B,)."""
        value: Tensor = outputs["logits"].log_softmax(1).gather(1, labels[:, None]).squeeze(1)
        return value


def slopes(store: Curve, count: int) -> None:
    """Eq. 12 at every image, with the sign corrected and as printed."""
    names = ["pgd", *(n for n in ("trades_6",) if has(n))]
    store.begin("an estimate of the local Lipschitz constant, Eq. 12", names, f"the first {count} of the test split",
                   attack="APGD, 20 steps, Linf 8/255, one search a class, one on the margin; one that raises the "
                          "predicted class, for the printed form only")  # fmt: skip
    batch = images("test", count)
    for name in names:
        for start in range(0, count, 100):
            part = batch.select(slice(start, start + 100))
            store.cell(f"{name} {start}", functools.partial(_slopes, functools.partial(net, name), part))


def _slopes(build: Callable[[], nn.Module], batch: Batch) -> dict[str, Any]:
    model, threat = build(), Linf(EPS)
    rows = LocalLipschitz(threat, steps=20).gather(model, batch, seed=0, tile=TILE)
    with torch.no_grad():
        own = Batch(batch.images, logits_of(model, batch, TILE).argmax(1), batch.ids)
    raised = APGD(threat, LabelRise(), early_stop=False, steps=20)(model, own).best_loss_point
    with torch.no_grad():
        risen = logits_of(model, Batch(raised, own.labels, own.ids), TILE).double().softmax(1).numpy()
    corrected, printed = [], []
    for row, up in zip(rows, risen, strict=True):
        clean, seen = np.array(row.clean), np.array(row.points)
        label = int(clean.argmax())
        corrected.append(round(local_lipschitz(clean, seen, label, EPS), 3))
        printed.append(round(local_lipschitz(clean, np.vstack([seen, up]), label, EPS, as_printed=True), 3))
    return {"corrected": corrected, "printed": printed}


def slopes_summary(store: Curve) -> None:
    cells: dict[str, Any] = store.data["cells"]
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(key.split()[0] for key in cells):
        parts = [cell for key, cell in cells.items() if key.split()[0] == name]
        values = {kind: np.concatenate([p[kind] for p in parts]) for kind in ("corrected", "printed")}
        summary[name] = {kind: plain(mean_interval(v)) for kind, v in values.items()}
        summary[name]["change of a probability"] = plain(mean_interval(EPS * values["corrected"]))
        summary[name]["images"] = len(values["corrected"])
    store.data["summary"] = summary


def slopes_page(store: Curve) -> list[str]:
    titles = {"pgd": "h, adversarially trained", "trades_6": "TRADES, beta 6 (three epochs)", "standard": "g, standard"}
    rows = [[titles[name], str(r["images"]),
             *("{:.3f} ({:.3f} to {:.3f})".format(*r[k]) for k in ("corrected", "change of a probability", "printed"))]
            for name, r in store.data["summary"].items()]  # fmt: skip
    return [
        "# An estimate of the local Lipschitz constant (Eq. 12)", "",
        f"Averaged over classes and over images ({store.data['images']}); Linf 8/255, APGD of 20 steps, one search "
        "a class. An estimate from below and no certificate: an attack may miss the worst point. 95 % intervals "
        "over images.", "",
        *table(["Net", "Images", "Eq. 12, sign corrected", "times the budget: mean change of a probability",
                "Eq. 12 as printed"], rows), "",
        "The paper's WideResNet-34-10 (TRADES, PGD-20, all test images): 3.986, a change of 0.125. Eq. 12 as "
        "printed has the wrong sign: it takes the rise of the predicted class, subtracts the others', and is "
        "negative as a rule.",
    ]  # fmt: skip
