"""Check a model before an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from hauberk.attacks import APGD, AutoAttack
from hauberk.capabilities import ScoresOnly
from hauberk.classifier import decide, is_random
from hauberk.devices import Device, device_of, place
from hauberk.evaluation.preflight import Bill, Finding, Speed, bills, measure, preflight
from hauberk.evaluation.sense import check_budget
from hauberk.subjects import Subject
from hauberk.threats import Threat
from hauberk.verbs.attack import suite
from hauberk.verbs.samples import probe_batch


@dataclass(frozen=True)
class Preflight:
    """The results of ``check``.

    Args:
        findings: of the model.
        speed: seconds an image; None where the model cannot be called.
        bills: what each version of AutoAttack takes at most.
    """

    findings: tuple[Finding, ...]
    speed: Speed | None = None
    bills: tuple[Bill, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the model can be evaluated."""
        return all(f.good for f in self.findings)


def check(
    target: Subject, threat: Threat | None = None, images: int = 1000, tile: int = 64, device: Device = "auto"
) -> Preflight:
    """Check a model before an evaluation; with a threat, predict the time of each suite.

    Args:
        target: from ``subject``.
        threat: of the evaluation planned.
        images: the number of images of the evaluation.
        tile: rows of a model call.
        device: on which the evaluation will be.
    """
    if threat is not None:
        check_budget(threat, target.dataset.input_shape)
    place(target.model, device)
    batch = probe_batch(target.dataset, tile).to(device_of(target.model))
    findings = tuple(preflight(target.model, batch, tile, target.dataset.num_classes))
    if not any(f.name == "rows" for f in findings):  # the model cannot be called on these images
        return Preflight(findings)
    speed = measure(target.model, next(batch.tiles(tile))[0].images)
    if threat is None:
        return Preflight(findings, speed)
    random, scores = is_random(target.model, batch.images[:1]), isinstance(target.model, ScoresOnly)
    right = round(images * float((decide(target.model, batch, tile=tile) == batch.labels).float().mean()))
    first, *others = suite(target, threat)
    adaptive = AutoAttack(threat, version="custom", attacks=(APGD(threat),), losses=first.losses).stages()[1:]
    known = target.dataset.num_classes
    return Preflight(findings, speed, tuple(bills(threat, speed, known, right, random, (*adaptive, *others), scores)))
