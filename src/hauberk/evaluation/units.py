"""Units of work: attack or certify some images, leave a record, skip what is done.

A unit is a few images and one method.  Its key says all its result depends on, so an evaluation resumes by doing
the units that are missing, and shards by taking every n-th.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import Attack, AutoAttack
from hauberk.batch import Batch, Samples
from hauberk.certificates import Certificate, MixedCertificate
from hauberk.certificates.gate import admitted_once
from hauberk.certificates.mixed import needed_alpha
from hauberk.certificates.rounding import unchanged
from hauberk.classifier import Decides, check_eval, frozen, is_random, logits_of, names_once, predictor_name, traits
from hauberk.defences import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.evaluation.diagnostics import VERSION as DIAGNOSIS_VERSION
from hauberk.evaluation.diagnostics import diagnose
from hauberk.evaluation.fingerprint import answers
from hauberk.evaluation.keys import Setting, facts_of, revisions, unit_of
from hauberk.records import Part, RecordKind, data_hash, part, read, unit_key, write, write_once
from hauberk.verify.attacks import OWN_DECISIONS

PATH_VERSION = 1  # of the code that finds the alpha path
UNIT_TILES = 4  # tiles in one unit of an attack


@dataclass(frozen=True)
class Step:
    """Progress of an evaluation: units done and in all, seconds since the start, what is being done, and any news."""

    done: int
    total: int
    seconds: float
    label: str
    news: str = ""


Report = Callable[[Step], None]
Columns = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """Where the records of an evaluation go, and which share of it this process does.

    Args:
        folder: of the records.
        shard: (i, n): do units i, i + n, i + 2n, ...
        report: called after each unit.
        begin: makes the run, before a record is written.
    """

    folder: Path
    shard: tuple[int, int] = (0, 1)
    report: Report | None = None
    begin: Callable[[], object] = lambda: None


def attack_records(model: nn.Module, samples: Samples, attack: Attack, setting: Setting, work: Work) -> list[Part]:
    """Attack every image in units; returns the parts of this shard.

    A unit of an attack holds several tiles, so that the images still undecided fill them.  AutoAttack leaves records
    of each of its stages, each on the images that survived the stages before.

    Args:
        model: a classifier in eval mode.
        samples: all images of the evaluation; those of one unit at a time are made floats.
        attack: what to run.
        setting: names, seed and tile.
        work: where the records go, and which share to do.
    """
    shown = set(samples.ids[samples.order()[: setting.gallery]].tolist())
    declared = traits(model)
    first = samples.select(slice(1)).batch()
    # what is not declared is unknown, so it is probed
    stochastic = declared.stochastic or (not declared.declared and is_random(model, first.images))
    facts = facts_of(samples, setting) | {"stochastic": stochastic}
    if isinstance(model, Decides) and not predictor_name(model).startswith(OWN_DECISIONS):
        facts |= {"decides": True}  # its name does not say it
    whole = unit_of(model, predictor_name(model), registry.spec(attack), setting)
    whole |= {"threat": registry.spec(attack.threat), "revisions": revisions(attack)}
    stages = attack.stages() if isinstance(attack, AutoAttack) else (attack,)
    suite = {"suite": registry.spec(attack)} if isinstance(attack, AutoAttack) else {}
    parts, progress = [], _Progress("attack", model, whole, facts, samples, setting, work, setting.tile * UNIT_TILES)
    for left in progress.units():
        for number, stage in enumerate(stages):
            if len(left) == 0:
                break
            unit: dict[str, Any] = {"method": registry.spec(stage), "threat": registry.spec(stage.threat)}
            unit |= {"revisions": revisions(attack, stage)} | suite | ({"stage": number} if suite else {})
            columns = partial(_attack_columns, model, left, stage, setting, shown)
            parts.append(progress.do(left, columns, unit))
            survived = parts[-1].column("id")[~parts[-1].column("success").astype(bool)]
            left = left.select(torch.isin(left.ids, torch.as_tensor(survived.copy(), device=left.ids.device)))
        progress.report()
    return parts


def certificate_records(
    model: nn.Module, samples: Samples, certificate: Certificate, setting: Setting, work: Work
) -> list[Part]:
    """Certify every image in units; arguments as ``attack_records``."""
    shared: dict[str, Any] = {}

    def rows(tile: Batch) -> Columns:
        found = certificate(model, tile, setting.seed, setting.tile)
        shared.update(found.shared)
        return {
            "id": tile.ids.tolist(),
            "label": tile.labels.tolist(),
            "prediction": found.prediction.tolist(),
            "radius": found.radius.tolist(),
            "evidence": [json.dumps(row) for row in found.evidence],
        }

    unit = unit_of(model, certificate.predictor(model), registry.spec(certificate), setting)
    unit |= {"revisions": revisions(certificate)}
    facts = facts_of(samples, setting) | {
        "norm": certificate.norm,
        "proof": certificate.kind,
        "failure_probability": certificate.failure_probability,
        "shared": shared,
    }
    return _run(_Progress("certificate", model, unit, facts, samples, setting, work, setting.tile), rows)


def mix_records(
    model: MixedClassifier,
    samples: Samples,
    certificate: MixedCertificate | None,
    radii: Sequence[float],
    setting: Setting,
    work: Work,
) -> list[Part]:
    r"""For every image, the weights alpha at which the mix is right, and from which it is certified.

    The mix's probability is linear in alpha, so it is right on one open interval:
    :math:`(1-\alpha)(g_y - g_j) + \alpha(h_y - h_j) > 0` for all j.  It is certified at radius r from
    :math:`\alpha = 1/(1 + m(r))` upwards, with m the margin that the robust model keeps (Bai et al. 2024, Lemma 3.2).

    Args:
        model: the mix; its own alpha does not matter here.
        samples: all images of the evaluation.
        certificate: of the mix; None where nothing is proved of the robust model.
        radii: where certified accuracy is wanted.
        setting: names, seed and tile.
        work: where the records go, and which share to do.

    Raises:
        HauberkError: if the certificate is not deterministic: with a vote for a base, the mix that is certified takes
            exact vote probabilities, and no path of measured ones belongs to it.
    """
    if certificate is not None and certificate.kind != "deterministic":
        raise HauberkError(
            "the alpha path needs a deterministic certificate of the robust model",
            "certify one alpha instead: hauberk certify MIX --method mixed_margin",
        )
    check_eval(model)
    shared: dict[str, Any] = {}
    proved = list(radii) if certificate is not None else []

    def rows(tile: Batch) -> Columns:
        columns = _path_columns(model, tile, setting)
        if certificate is not None:
            kept, found = _kept_columns(model, tile, certificate, radii, setting)
            columns |= kept
            shared.update(found)
        return columns

    method = {"name": "alpha_path"} if certificate is None else registry.spec(certificate)
    unit = unit_of(model, predictor_name(model), method, setting)
    unit |= {"radii": proved, "revisions": revisions(certificate) | {"alpha_path": PATH_VERSION}}
    facts = facts_of(samples, setting) | {
        "norm": "" if certificate is None else certificate.norm,
        "proof": "none" if certificate is None else certificate.kind,
        "alpha": model.alpha,
        "eps": proved,
        "accurate": predictor_name(model.accurate),
        "robust": predictor_name(model.robust),
        "shared": shared,
    }
    return _run(_Progress("mix", model, unit, facts, samples, setting, work, setting.tile), rows)


def diagnosis_records(model: nn.Module, samples: Samples, attack: Attack, setting: Setting, work: Work) -> list[Part]:
    """Judge an attack on the images, and leave one row a check; arguments as ``attack_records``.

    The checks are made together, so all images are one unit.
    """

    def rows(tile: Batch) -> Columns:
        checks = diagnose(
            model, tile, attack.threat, seed=setting.seed, tile=setting.tile, attack=attack
        ).checks
        names = ("value", "threshold", "verdict", "reason", "images")
        return {"id": list(range(len(checks))), "check": [c.name for c in checks]} | {
            name: [getattr(c, name) for c in checks] for name in names
        }

    method = {"name": "diagnosis", "attack": registry.spec(attack)}
    unit = unit_of(model, predictor_name(model), method, setting) | {"threat": registry.spec(attack.threat)}
    unit |= {"revisions": revisions(attack) | {"diagnosis": DIAGNOSIS_VERSION}}
    facts = facts_of(samples, setting)
    return _run(_Progress("diagnosis", model, unit, facts, samples, setting, work, len(samples)), rows)


# --- the sweep over units ---------------------------------------------------------------------------------------


class _Progress:
    """The units of one shard: what they share, which are done, and what is said after each.

    The model's fingerprint, where it is new, is written before the first record.
    """

    def __init__(
        self, kind: RecordKind, model: nn.Module, unit: dict[str, Any], facts: dict[str, Any], samples: Samples,
        setting: Setting, work: Work, size: int,
    ) -> None:  # fmt: skip
        index, count = work.shard
        self._samples = samples
        self._rows = torch.split(samples.order(), size)[index::count] if len(samples) else ()
        self._work, self._started, self._done = work, time.monotonic(), 0
        self.kind, self.label = kind, f"{kind} {unit['method']['name']}"
        asked = answers(model, samples.select(slice(1)).batch().images, setting.probes, work.folder)
        self.unit, self.facts = unit | {"answers": asked.id}, facts
        self._first = list(asked.new)
        if asked.news:
            self._say(asked.news)

    def units(self) -> Iterator[Batch]:
        """Floats of one unit at a time, so that memory does not grow with the number of images; rows in order of id."""
        ids = self._samples.ids
        return (self._samples.select(rows[ids[rows].argsort()]).batch() for rows in self._rows)

    def do(self, images: Batch, columns: Callable[[], Columns], more: Mapping[str, Any]) -> Part:
        """One unit: read it if it is there, else compute and write it."""
        unit = {**self.unit, **more, "data": data_hash(images)}
        path = self._work.folder / f"{self.kind}-{unit_key(self.kind, unit)}.parquet"
        if path.exists():
            return read(path)
        values = columns()  # a certificate completes its facts while it works
        made = part(self.kind, unit, self.facts, values)
        self._work.begin()
        while self._first:
            write_once(self._work.folder, self._first.pop())
        write(self._work.folder, made)
        return made

    def report(self) -> None:
        """Say that a unit is done."""
        self._done += 1
        if self._work.report is not None:
            self._work.report(Step(self._done, len(self._rows), time.monotonic() - self._started, self.label))

    def _say(self, news: str) -> None:
        if self._work.report is not None:
            self._work.report(Step(0, len(self._rows), 0.0, self.label, news))
        else:
            warnings.warn(news, stacklevel=5)


def _run(progress: _Progress, rows: Callable[[Batch], Columns]) -> list[Part]:
    """Do the units of one shard that are not there yet."""
    parts = []
    with unchanged(), admitted_once(), names_once():
        for tile in progress.units():
            parts.append(progress.do(tile, partial(rows, tile), {}))
            progress.report()
    return parts


def _attack_columns(model: nn.Module, tile: Batch, attack: Attack, setting: Setting, shown: set[int]) -> Columns:
    found = attack(model, tile, setting.seed, setting.tile)
    keep = [int(i) in shown for i in tile.ids]
    return {
        "id": tile.ids.tolist(),
        "label": tile.labels.tolist(),
        "clean_prediction": found.clean_prediction.tolist(),
        "prediction": found.prediction.tolist(),
        "success": found.success.tolist(),
        "distance": found.distance.tolist(),
        "loss": found.loss.double().tolist(),
        "logit_margin": found.logit_margin.double().tolist(),
        "probability_margin": found.probability_margin.double().tolist(),
        "nearest": found.nearest.tolist(),
        "forwards": found.forwards.tolist(),
        "backwards": found.backwards.tolist(),
        "zero_gradients": found.zero_gradients.tolist(),
        "stopped": list(found.stopped),
        "image": _pictures(tile.images, keep),
        "adversarial": _pictures(found.adversarial, keep),
        "clean_probabilities": found.clean_probabilities.double().tolist(),
        "probabilities": found.probabilities.double().tolist(),
        "clean_draws": found.clean_draws.tolist(),
        "draws": found.draws.tolist(),
    }


def _pictures(images: Tensor, keep: list[bool]) -> list[bytes | None]:
    return [
        image.float().cpu().contiguous().numpy().tobytes() if wanted else None
        for image, wanted in zip(images, keep, strict=True)
    ]


def _path_columns(model: MixedClassifier, tile: Batch, setting: Setting) -> Columns:
    with frozen(model):
        accurate = model.accurate_scale * logits_of(model.accurate, tile, setting.tile)
        robust = model.robust_scale * logits_of(model.robust, tile, setting.tile)
    labels = tile.labels.tolist()
    pairs = zip(*(z.double().softmax(1).numpy() for z in (accurate, robust)), labels, strict=True)
    intervals = [right_interval(g, h, y) for g, h, y in pairs]
    return {
        "id": tile.ids.tolist(),
        "label": labels,
        "accurate_prediction": accurate.argmax(1).tolist(),
        "robust_prediction": robust.argmax(1).tolist(),
        "accurate_logits": accurate.float().tolist(),
        "robust_logits": robust.float().tolist(),
        "alpha_low": [low for low, _ in intervals],
        "alpha_high": [high for _, high in intervals],
        "certified_alpha": [[] for _ in labels],
    }


def _kept_columns(
    model: MixedClassifier, tile: Batch, certificate: MixedCertificate, radii: Sequence[float], setting: Setting
) -> tuple[Columns, dict[str, Any]]:
    # not frozen, because a certificate computes the weights again in float64 and must not meet those kept in float32
    evidence, shared = certificate.gather(model, tile, setting.seed, setting.tile)
    base = certificate.base
    certified = [
        [needed_alpha(base.margin(row, shared, r)) if right else float("nan") for r in radii]
        for row, y in zip(evidence, tile.labels.tolist(), strict=True)
        for right in [base.decision(row, shared) == y and not certificate.contradicted(row, shared)]
    ]
    return {"certified_alpha": certified, "evidence": [json.dumps(row) for row in evidence]}, shared


def right_interval(accurate: np.ndarray, robust: np.ndarray, label: int) -> tuple[float, float]:
    r"""The open interval of alpha in [0, 1] where the mix of two probability vectors predicts the label.

    Args:
        accurate: g, shape (K,).
        robust: h, shape (K,).
        label: y.

    Returns:
        (low, high); where the mix is right at an end of [0, 1] itself, the interval reaches beyond it (-1 or 2), so
        that strict comparison is always right; (NaN, NaN) where the mix is never right.
    """
    if not (np.isfinite(accurate).all() and np.isfinite(robust).all()):
        return float("nan"), float("nan")
    rivals = np.arange(len(accurate)) != label
    start = (accurate[label] - accurate)[rivals]  # the difference at alpha = 0, linear from here ...
    end = (robust[label] - robust)[rivals]  # ... to alpha = 1
    low, high = -1.0, 2.0
    for a, b in zip(start.tolist(), end.tolist(), strict=True):
        if a <= 0.0 and b <= 0.0:
            return float("nan"), float("nan")
        if a <= 0.0:
            low = max(low, a / (a - b))
        elif b <= 0.0:
            high = min(high, a / (a - b))
    return (low, high) if low < high else (float("nan"), float("nan"))
