"""Facts from records of attacks on a random model: the sweep over draws, repeated queries, transfer between draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hauberk import registry
from hauberk.attacks.eot_sweep import EOTSweep
from hauberk.evaluation import metrics
from hauberk.evaluation.repeated import repeated_accuracy
from hauberk.records import Part
from hauberk.report.outcomes import correct, in_order
from hauberk.report.random_facts import RandomFacts, Repeated, Sweep, SweepStage, Transferred
from hauberk.statistics import Interval, mean_interval

TRIES = (1, 10, 100)


def random_facts(parts: Sequence[Part]) -> RandomFacts:
    """The facts about a random model from the attacks of one threat; the sweep with most images is shown."""
    own = [p for p in parts if p.facts.get("stochastic")]
    sweeps: dict[str, list[Part]] = {}
    for part in own:
        if (part.unit.get("suite") or {}).get("name") == "eot_sweep":
            sweeps.setdefault(f"{part.unit['suite']} {part.unit['seed']} {part.unit['tile']}", []).append(part)
    found = max(sweeps.values(), key=lambda items: sum(p.table.num_rows for p in items)) if sweeps else []
    fixed = [p for p in own if p.unit["method"].get("name") == "eot" and p.unit["method"].get("fixed")]
    return RandomFacts(
        sweep(found) if found else None, tuple(repeated(own)),
        tuple(sorted((transferred(p) for p in fixed), key=lambda t: t.draws)),
        missed([p for p in own if (p.unit.get("suite") or {}).get("version") == "rand"], found),
    )  # fmt: skip


def sweep(parts: Sequence[Part]) -> Sweep:
    """The stages of one sweep and the accuracy after each."""
    stages: dict[int, list[Part]] = {}
    for part in parts:
        stages.setdefault(int(part.unit["stage"]), []).append(part)
    standing: dict[int, bool] = {}
    found: list[SweepStage] = []
    fallen: list[int] = []
    for _, items in sorted(stages.items()):
        before = sum(standing.values())
        right = 0
        for part in items:
            held = correct(part) & ~part.column("success").astype(np.bool_)
            right += int(correct(part).sum())
            standing |= dict(zip(part.column("id").tolist(), held.tolist(), strict=True))
        left = sum(standing.values())
        fallen.append((right if not found else before) - left)
        method = items[0].unit["method"]
        steps = int(method["attack"]["steps"])
        share = metrics.accuracy(np.array(list(standing.values()), dtype=np.bool_))
        found.append(SweepStage(int(method["draws"]), steps, str(method["mean"]), share, fallen[-1]))
    made = registry.build(parts[0].unit["suite"], "attack")
    ended = isinstance(made, EOTSweep) and made.settled(fallen)
    return Sweep(tuple(found), ended or not any(standing.values()))


def missed(rand: Sequence[Part], swept: Sequence[Part]) -> Interval | None:
    """The share of the images seen by both that stands after AutoAttack and falls to the sweep."""
    one, other = standing_of(rand), standing_of(swept)
    both = sorted(one.keys() & other.keys())
    return metrics.accuracy(np.array([one[i] and not other[i] for i in both], dtype=np.bool_)) if both else None


def standing_of(parts: Sequence[Part]) -> dict[int, bool]:
    """Whether each image is right and fell in no stage."""
    found: dict[int, bool] = {}
    for part in parts:
        held = correct(part) & ~part.column("success").astype(np.bool_)
        for i, stands in zip(part.column("id").tolist(), held.tolist(), strict=True):
            found[i] = found.get(i, True) and stands
    return found


def repeated(parts: Sequence[Part]) -> list[Repeated]:
    """Chances of N tries from the records with most draws; a broken image is tried at the point that first broke it."""
    lengths = [len((p.table.column("draws")[0].as_py() if p.table.num_rows else None) or ()) for p in parts]
    most = max(lengths, default=0)
    rows: dict[int, dict[str, Any]] = {}
    for part in in_order(p for p, n in zip(parts, lengths, strict=True) if n == most and most):
        for row in part.table.select(["id", "label", "success", "clean_draws", "draws"]).to_pylist():
            if row["id"] not in rows or not rows[row["id"]]["success"]:
                rows[row["id"]] = row
    if not rows or any(len(row[name]) != most for row in rows.values() for name in ("clean_draws", "draws")):
        return []
    labels = [row["label"] for row in rows.values()]
    clean, attacked = ([row[name] for row in rows.values()] for name in ("clean_draws", "draws"))
    return [
        Repeated(n, repeated_accuracy(clean, labels, n), repeated_accuracy(attacked, labels, n))
        for n in TRIES if n <= most
    ]  # fmt: skip


def transferred(part: Part) -> Transferred:
    """The success of points found on fixed draws, on these draws and on fresh draws."""
    right = correct(part)
    drawn = np.asarray(part.table.column("draws").to_pylist()).reshape(len(right), -1)[right]
    wrong = (drawn != part.column("label")[right][:, None]).mean(1)
    return Transferred(
        int(part.unit["method"]["draws"]), metrics.accuracy(part.column("logit_margin")[right] < 0),
        metrics.accuracy(part.column("success")[right].astype(np.bool_)), mean_interval(wrong),
    )  # fmt: skip
