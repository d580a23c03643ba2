"""Bound a model layer by layer."""

from __future__ import annotations

from hauberk.boundary import answer, check_output, check_weights
from hauberk.evaluation.lipschitz_report import LipschitzReport, input_gradients, lipschitz_report
from hauberk.report.lipschitz import plain
from hauberk.subjects import Subject
from hauberk.threats import Norm
from hauberk.verbs.samples import evaluation_samples


def lipschitz(target: Subject, norm: Norm = "l2", images: int | None = 8) -> LipschitzReport:
    """Bound a model layer by layer, and keep the report and some input gradients with its run.

    Args:
        target: the model; one that the walk refuses gets its gradients and the reason.
        norm: of the bounds.
        images: the number of test images, from the first, whose gradients are shown; see ``lipschitz_report`` for what
            is measured.
    """
    samples = evaluation_samples(target.dataset, "test", images)
    batch = samples.batch()
    check_weights(target.model)
    check_output(answer(target.model, batch.images), len(batch), batch.images.dtype)
    report = lipschitz_report(target.model, batch.images, norm)
    shown = slice(None) if target.dataset.pictures else slice(0)
    gradients = input_gradients(target.model, batch.images)
    found = plain(report, batch.ids[shown], batch.images[shown], gradients[shown])
    with target.begin().editing() as info:
        info["lipschitz"] = info.get("lipschitz", {}) | {norm: found}
    return report
