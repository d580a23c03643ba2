"""Attacks on sampled rows again, from the weights.

An attack is a random search, and its last bits differ on another machine.  A survivor that falls is therefore counted,
and not called forged.  The model's answers at the image and at the kept points must agree up to rounding.  Rows whose
outcomes differ are checked in three further ways.  If machine, threads, versions and revisions are those of the record,
the whole unit of such a row is run again, which repeats its bits; an outcome that then differs was not measured.  On
any machine, two runs of one search have as many fallen survivors as broken rows that now resist, up to a sign test.
Among many fresh runs, the recorded run is alone in leaving an image standing no more often than any other run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import stats

from hauberk import registry
from hauberk.attacks import Attack, AttackResult
from hauberk.audit.data import split_of, taken
from hauberk.audit.revised import revisions_today
from hauberk.batch import Batch
from hauberk.classifier import decide
from hauberk.evaluation.units import UNIT_TILES
from hauberk.records import Part
from hauberk.runs import environment
from hauberk.subjects import Subject
from hauberk.verify import claims
from hauberk.verify.attacks import decides_itself
from hauberk.verify.plans import plan_key
from hauberk.verify.verdict import samples

LEVEL = 1e-4  # level of the sign test
RUNS, JITTER = 20, 1e-6  # fresh runs, on images moved by this much
ODD, FEWEST = 2e-4, 3  # level; this many images, all of which the recorded run alone leaves standing, are below it
CLOSE = 1e-3  # difference of float32 probabilities and margins between two machines
SAME = ("torch", "numpy", "cpu", "system", "threads", "accelerator", "hauberk")


def attack_again(
    part: Part, target: Subject, batch: Batch, generator: np.random.Generator, trusted: list[str]
) -> Iterator[str]:
    """Compare the model's answers at the image and at kept points again, and run the search again."""
    yield from _stage_problems(part)
    yield from _point_problems(part, target)
    attack: Attack = registry.build(part.unit["method"], "attack")
    found = attack(target.model, batch, part.unit["seed"], part.unit["tile"])
    rows = _Rows(part, batch)
    if not part.facts["stochastic"]:
        yield from _answer_problems(rows, found, decides_itself(part))
    again = found.success.cpu().numpy()
    fell, resisted = again & ~rows.success, ~again & rows.success
    trusted.append(
        f"{claims.SURVIVORS} ({part.unit['method']['name']}: of {int((~rows.success).sum())} sampled survivors "
        f"{int(fell.sum())} fall when attacked again, of {int(rows.success.sum())} broken rows {int(resisted.sum())} resist)"  # noqa: E501
    )
    differ = fell | resisted
    if not differ.any():
        return
    same_code = part.unit.get("revisions") == revisions_today(part)
    random = part.facts["stochastic"] or "device" in part.unit  # this check runs on the CPU
    if _same_machine(target) and same_code and not random:
        yield from _unit_problems(part, target, attack, rows.ids[differ])
    yield from sign_problems(rows.ids, fell, resisted)
    if fell.sum() >= FEWEST:
        attacked = fell | (rows.success & (rows.clean == batch.labels.cpu().numpy()))
        yield from odd_problems(*_odd_ones(part, target, attack, batch.select(torch.from_numpy(attacked)), generator))


def sign_problems(ids: np.ndarray, fell: np.ndarray, resisted: np.ndarray) -> Iterator[str]:
    """Whether far more survivors fall than broken rows resist, which two runs of one search would not show.

    Args:
        ids: samples, (B,).
        fell: survivors on record that fall now, (B,) bool.
        resisted: broken on record, and not broken now, (B,) bool.
    """
    chance = stats.binom.sf(int(fell.sum()) - 1, int((fell | resisted).sum()), 0.5)
    if chance < LEVEL:
        yield (
            f"{samples(ids[fell])}: they survived on record and fall when attacked again, "
            f"while {int(resisted.sum())} broken rows resist: chance {chance:.1g}"
        )


def odd_problems(alone: Sequence[int], others: int, runs: int = RUNS) -> Iterator[str]:
    """Whether the recorded run is alone in leaving an image standing, far more often than another run is.

    The recorded run and fresh runs of the same search are exchangeable.  Each run therefore has the same share of the
    images that exactly one of all runs leaves standing.

    Args:
        alone: samples that the recorded run alone leaves standing.
        others: how many samples exactly one of the fresh runs leaves standing, and the recorded run does not.
        runs: how many fresh runs there are.
    """
    chance = stats.binom.sf(len(alone) - 1, len(alone) + others, 1.0 / (runs + 1))
    if chance < ODD:
        yield (
            f"{samples(alone)}: they survived on record and fall in each of {runs} searches, as {others} do "
            f"in all but one of these: chance {chance:.1g}"
        )


def _odd_ones(
    part: Part, target: Subject, attack: Attack, batch: Batch, generator: np.random.Generator
) -> tuple[list[int], int]:
    """The images that the recorded run alone leaves standing, and the number that another run alone leaves standing.

    Fresh runs have seeds of their own.  Their images are moved by less than rounding on another machine would move an
    attack's steps, so that searches without random numbers differ too.
    """
    known = dict(zip(part.column("id").tolist(), part.column("success").tolist(), strict=True))
    recorded = np.asarray([known[i] for i in batch.ids.tolist()], dtype=bool)
    stood = np.zeros(len(batch), dtype=np.int64)
    for _ in range(RUNS):
        noise = torch.from_numpy(generator.uniform(-JITTER, JITTER, tuple(batch.images.shape))).to(batch.images)
        moved = replace(batch, images=(batch.images + noise).clamp(0.0, 1.0))
        found = attack(target.model, moved, int(generator.integers(2**31)), part.unit["tile"])
        stood += ~found.success.cpu().numpy()
    alone = ~recorded & (stood == 0)
    return batch.ids.cpu().numpy()[alone].tolist(), int((recorded & (stood == 1)).sum())


class _Rows:
    """The records of a batch, in its order."""

    def __init__(self, part: Part, batch: Batch) -> None:
        known = {row["id"]: row for row in part.table.to_pylist()}
        self.ids = batch.ids.cpu().numpy()
        rows = [known[int(i)] for i in self.ids]
        self.success = np.asarray([row["success"] for row in rows], dtype=np.bool_)
        self.clean = np.asarray([row["clean_prediction"] for row in rows])
        self.clean_probabilities = np.asarray([row["clean_probabilities"] for row in rows], dtype=np.float64)


def _stage_problems(part: Part) -> Iterator[str]:
    """Whether the attack of a stage is the one that its suite has at this place."""
    if "suite" in part.unit:
        stages = registry.build(part.unit["suite"], "attack").stages()
        if registry.spec(stages[part.unit["stage"]]) != dict(part.unit["method"]):
            yield f"stage {part.unit['stage']} of its suite is another attack"


def _answer_problems(rows: _Rows, found: AttackResult, own: bool) -> Iterator[str]:
    """Whether the model answers at the image as it did on record."""
    told = found.clean_probabilities.double().cpu().numpy()
    far = abs(told - rows.clean_probabilities).max(1) > CLOSE
    if far.any():
        yield f"{samples(rows.ids[far])}: the model gives other probabilities at the image"
    top = np.sort(told, 1)
    clear = (top[:, -1] - top[:, -2] > CLOSE) | own
    wrong = clear & (found.clean_prediction.cpu().numpy() != rows.clean)
    if wrong.any():
        yield f"{samples(rows.ids[wrong])}: the model decides otherwise at the image"


def _point_problems(part: Part, target: Subject) -> Iterator[str]:
    """Whether the model misclassifies the kept points as it did on record."""
    kept = [row for row in part.table.to_pylist() if row["adversarial"] is not None]
    if not kept or part.facts["stochastic"]:
        return
    shape = tuple(part.facts["shape"])
    points = np.stack([np.frombuffer(row["adversarial"], dtype=np.float32).reshape(shape) for row in kept])
    ids, labels = (torch.as_tensor([row[n] for row in kept]) for n in ("id", "label"))
    device = next((p.device for p in target.model.parameters()), torch.device("cpu"))
    batch = Batch(torch.from_numpy(points).to(device), labels.to(device), ids)
    said = decide(target.model, batch, part.unit["seed"], part.unit["tile"]).cpu().numpy()
    tables = np.sort(np.asarray([row["probabilities"] for row in kept], dtype=np.float64), 1)
    clear = (tables[:, -1] - tables[:, -2] > CLOSE) | decides_itself(part)
    wrong = clear & (said != np.asarray([row["prediction"] for row in kept]))
    if wrong.any():
        yield f"{samples(ids.numpy()[wrong])}: the kept point is classified otherwise"


def _same_machine(target: Subject) -> bool:
    """Whether bits repeat: machine, threads and versions are those of the recorded attack."""
    then, now = target.run.info.get("environments", {}).get("attack", {}), environment()
    return all(then.get(name) == now[name] for name in SAME)


def _unit_problems(part: Part, target: Subject, attack: Attack, ids: np.ndarray) -> Iterator[str]:
    """Run the whole units of some rows again, so that each row has the neighbours that it had on record."""
    success = dict(zip(part.column("id").tolist(), part.column("success").tolist(), strict=True))
    split = split_of(target.dataset, str(part.facts["split"]))
    for unit in _units(part, target):
        asked = [int(i) for i in ids if i in unit]
        if not asked:
            continue
        batch = split.select(torch.isin(split.ids, torch.as_tensor(unit))).batch()
        batch = batch.select(batch.ids.argsort())
        found = attack(target.model, batch, part.unit["seed"], part.unit["tile"])
        again = dict(zip(batch.ids.tolist(), found.success.tolist(), strict=True))
        wrong = [i for i in asked if bool(again[i]) != bool(success[i])]
        if wrong:
            yield f"{samples(wrong)}: the same search on the same machine has another outcome"


def _units(part: Part, target: Subject) -> list[np.ndarray]:
    """The ids of each unit of an evaluation; for a later stage, only the ids that it was run on."""
    own = part.column("id")
    plan = target.run.info.get("plans", {}).get(plan_key(part.kind, part.unit, part.facts))
    if plan is None and part.unit.get("stage", 0) > 0:
        return []  # the images from which its units were cut are unknown
    every = own if plan is None else np.concatenate([np.arange(first, end) for first, end in plan])
    every = taken(part, split_of(target.dataset, str(part.facts["split"])), len(every))
    size = UNIT_TILES * int(part.unit["tile"])
    units = (every[start : start + size] for start in range(0, len(every), size))
    return [unit[np.isin(unit, own)].copy() for unit in units]
