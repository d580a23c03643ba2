"""Attack, certify, mix or diagnose images in units of work: leave a record of each, skip what is done.

A unit is a few images and one method.  Its key says all its result depends on, so an evaluation resumes by doing
the units that are missing, and shards by taking every n-th.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import Attack, EOTSweep
from hauberk.attacks.wrapping import is_sequence, stages_of
from hauberk.batch import Batch, Samples
from hauberk.capabilities import Polled
from hauberk.certificates import Certificate
from hauberk.certificates.evidence import VoteCounts
from hauberk.classifier import Decides, predictor_name, traits
from hauberk.devices import device_of
from hauberk.draws import PROBES, drawn, is_random
from hauberk.evaluation.diagnostics import VERSION as DIAGNOSIS_VERSION
from hauberk.evaluation.diagnostics import cost as diagnostic_cost
from hauberk.evaluation.diagnostics import diagnose
from hauberk.evaluation.keys import Setting, facts_of, revisions, unit_of
from hauberk.evaluation.preflight import passes
from hauberk.evaluation.voting import count_votes
from hauberk.evaluation.work import Columns, Task, Work, done
from hauberk.layers.kept import kept_weights
from hauberk.randomness import Key
from hauberk.records import Part, RecordKind
from hauberk.verify.attacks import OWN_DECISIONS

USUAL_STEPS = 100  # of an attack that does not say how many it has
UNIT_TILES = 4  # tiles in one unit of an attack


# --- attacks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Attacking(Task):
    """Units of an attack: several tiles, so that the images still undecided fill them.

    Args:
        attack: AutoAttack leaves records of each of its stages, each on the images that survived the stages before.
        shown: ids of the images that are kept for pictures.
        most: stages that are done; None is all of them.
    """

    attack: Attack
    shown: frozenset[int]
    most: int | None = None

    kind: ClassVar[RecordKind] = "attack"

    @property
    def size(self) -> int:
        """Images of a unit."""
        return self.setting.tile * UNIT_TILES

    @property
    def stages(self) -> Sequence[Mapping[str, Any]]:
        """The attack, or the attacks of a suite."""
        suite = is_sequence(self.attack)
        return [
            {"method": registry.spec(stage), "threat": registry.spec(stage.threat)}
            | {"revisions": revisions(self.attack, stage)}
            | ({"suite": registry.spec(self.attack), "stage": number} if suite else {})
            for number, stage in enumerate(stages_of(self.attack)[: self.most])
        ]

    def passes(self) -> Sequence[float]:
        """The number of passes if no image is broken."""
        classes, random = len(self.setting.classes), bool(self.facts["stochastic"])
        return [sum(passes(stage, classes, random)) for stage in stages_of(self.attack)[: self.most]]

    def rows(self, images: Batch, stage: int) -> tuple[Columns, dict[str, Any]]:
        """What the stage found."""
        return _attack_columns(self.model, images, stages_of(self.attack)[stage], self.setting, self.shown), {}

    def whole(self, found: Part) -> bool:
        """Whether the record keeps every picture that is wanted now."""
        kept = (i for i, image in zip(found.column("id").tolist(), found.table.column("image"), strict=True)
                if image.is_valid)  # fmt: skip
        return self.shown & set(found.column("id").tolist()) <= set(kept)

    def left(self, found: Sequence[Part], images: Batch) -> Batch:
        """The survivors."""
        survived = found[-1].column("id")[~found[-1].column("success").astype(bool)]
        return images.select(torch.isin(images.ids, torch.as_tensor(survived.copy(), device=images.ids.device)))


def attack_records(model: nn.Module, samples: Samples, attack: Attack, setting: Setting, work: Work) -> list[Part]:
    """Attack every image in units; returns the parts of this shard.

    Args:
        model: a classifier in eval mode.
        samples: all images of the evaluation; those of one unit at a time are made floats.
        attack: what to run.
        setting: names, seed and tile.
        work: where the records go, and which share to do.
    """
    declared = traits(model)
    first = samples.select(slice(1)).batch().to(device_of(model))
    # what is not declared is unknown, so it is probed
    stochastic = declared.stochastic or (not declared.declared and is_random(model, first.images, PROBES))
    facts = facts_of(samples, setting) | {"stochastic": stochastic}
    one = drawn(model, Key(0, 0, tuple(first.ids.tolist()), "probe"))
    if stochastic and is_random(one, first.images, PROBES):
        facts |= {"randomness": "global"}  # it draws by itself: its rows cannot be repeated one by one
    if isinstance(model, Polled):
        facts |= {"poll": asdict(model.poll)}
    if isinstance(model, Decides) and not predictor_name(model).startswith(OWN_DECISIONS):
        facts |= {"decides": True}  # its name does not say it
    about = unit_of(model, predictor_name(model), registry.spec(attack), setting)
    about |= {"threat": registry.spec(attack.threat), "revisions": revisions(attack)}
    shown = frozenset(samples.ids[samples.order()[: setting.gallery]].tolist())
    task = Attacking(model=model, setting=setting, about=about, facts=facts, attack=attack, shown=shown)
    if isinstance(attack, EOTSweep) and work.shard[1] == 1:  # a shard sees a part of the images, and does every stage
        return _until_settled(task, attack, samples, work)
    return done(task, samples, work)


def _until_settled(task: Attacking, sweep: EOTSweep, samples: Samples, work: Work) -> list[Part]:
    """Stage after stage on all images, until the sweep's rule ends it."""
    found: list[Part] = []
    for count in range(1, len(sweep.stages()) + 1):
        found = done(replace(task, most=count), samples, work)
        if sweep.settled([fallen([p for p in found if p.unit["stage"] == n]) for n in range(count)]):
            break
    return found


def fallen(parts: Sequence[Part]) -> int:
    """How many images that were right before fell."""
    return sum(
        int((p.column("success").astype(bool) & (p.column("clean_prediction") == p.column("label"))).sum())
        for p in parts
    )  # fmt: skip


def _attack_columns(model: nn.Module, tile: Batch, attack: Attack, setting: Setting, shown: frozenset[int]) -> Columns:
    with kept_weights(model):
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


# --- certificates -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Certifying(Task):
    """Units of a certificate: one tile.

    Args:
        certificate: what proves.
        votes: of each image, where the certificate rests on votes.
    """

    certificate: Certificate
    votes: Mapping[int, VoteCounts] | None

    kind: ClassVar[RecordKind] = "certificate"

    def ready(self, ids: Sequence[int]) -> bool:
        """Whether there are the votes of all of them."""
        return self.votes is None or all(i in self.votes for i in ids)

    def whole(self, found: Part) -> bool:
        """Whether the record rests on as many votes as there are now: a budget may have ended an earlier call."""
        if self.votes is None:
            return True
        rows = zip(found.column("id").tolist(), found.table.column("evidence").to_pylist(), strict=True)
        return all(json.loads(row).get("drawn", self.votes[i].plan.n) == self.votes[i].n for i, row in rows)

    def rows(self, images: Batch, stage: int) -> tuple[Columns, dict[str, Any]]:  # noqa: ARG002
        """Class, radius and evidence; what rows share of the evidence is a fact."""
        ids = images.ids.tolist()
        votes = None if self.votes is None else [self.votes[i] for i in ids]
        found = self.certificate(self.model, images, self.setting.seed, self.setting.tile, votes)
        columns = {
            "id": ids,
            "label": images.labels.tolist(),
            "prediction": found.prediction.tolist(),
            "radius": found.radius.tolist(),
            "evidence": [json.dumps(row) for row in found.rows],
        }
        return columns, {"shared": found.shared}


def certificate_records(
    model: nn.Module, samples: Samples, certificate: Certificate, setting: Setting, work: Work
) -> list[Part]:
    """Certify every image in units; arguments as ``attack_records``.

    Votes are counted first, in records of their own.  A certificate that does not follow the plan recorded before the
    votes is recorded as an estimate.
    """
    about = unit_of(model, certificate.predictor(model), registry.spec(certificate), setting)
    about |= {"revisions": revisions(certificate)}
    facts = facts_of(samples, setting) | {
        "norm": certificate.norm,
        "proof": certificate.kind,
        "failure_probability": certificate.failure_probability,
    }
    counted = count_votes(model, samples, certificate, setting, work)
    if counted is not None:
        facts |= {"votes": counted.poll}
        if exploratory := counted.exploratory:
            facts |= {"proof": "estimate", "failure_probability": 1.0, "exploratory": exploratory}
        work = replace(work, budget=None)  # to conclude from votes takes little time, and makes them worth something
    votes = None if counted is None else counted.votes
    task = Certifying(model=model, setting=setting, about=about, facts=facts, certificate=certificate, votes=votes)
    return done(task, samples, work)


# --- diagnoses --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Diagnosing(Task):
    """One unit: the checks are made together, on all images."""

    attack: Attack
    images: int

    kind: ClassVar[RecordKind] = "diagnosis"

    @property
    def size(self) -> int:
        """All images."""
        return self.images

    def passes(self) -> Sequence[float]:
        """As the checks are planned."""
        return (diagnostic_cost(getattr(self.attack, "steps", USUAL_STEPS)),)

    def rows(self, images: Batch, stage: int) -> tuple[Columns, dict[str, Any]]:  # noqa: ARG002
        """One row for each check."""
        checks = diagnose(
            self.model, images, self.attack.threat, seed=self.setting.seed, tile=self.setting.tile, attack=self.attack
        ).checks
        names = ("value", "threshold", "verdict", "reason", "images")
        rows = {"id": list(range(len(checks))), "check": [c.name for c in checks]}
        return rows | {name: [getattr(c, name) for c in checks] for name in names}, {}


def diagnosis_records(model: nn.Module, samples: Samples, attack: Attack, setting: Setting, work: Work) -> list[Part]:
    """Judge an attack on the images, and record one row for each check; arguments as ``attack_records``."""
    method = {"name": "diagnosis", "attack": registry.spec(attack)}
    about = unit_of(model, predictor_name(model), method, setting) | {"threat": registry.spec(attack.threat)}
    about |= {"revisions": revisions(attack) | {"diagnosis": DIAGNOSIS_VERSION}}
    task = Diagnosing(
        model=model, setting=setting, about=about, facts=facts_of(samples, setting), attack=attack, images=len(samples)
    )
    return done(task, samples, work)
