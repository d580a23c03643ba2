"""The cost and the expected results of a certificate before it starts; nothing is recorded."""

from __future__ import annotations

from collections.abc import Sequence

from hauberk.certificates import Certificate, SmoothingCertificate
from hauberk.certificates.voted import VoteCertificate
from hauberk.devices import device_of
from hauberk.evaluation.cost import foretell
from hauberk.evaluation.forecast import Forecast, forecast, pilot
from hauberk.evaluation.work import Report
from hauberk.recipes import Plan
from hauberk.subjects import Subject
from hauberk.verbs.samples import setting_of

IMAGES = 200  # of a pilot at most


def dry_run(
    target: Subject, certificates: Sequence[Certificate], plan: Plan = Plan(), report: Report | None = None
) -> list[tuple[Certificate, Forecast | None]]:
    """Predict the results of each certificate from a pilot; the cost of all is reported first.

    A pilot is a few votes of the first images of the evaluation, by random streams of their own.  So a plan that is
    chosen after a look at it is as good as one that was chosen before.

    Args:
        target: what would be certified.
        certificates: which ones.
        plan: images, seed and tile.
        report: called with the largest total time.

    Returns:
        each certificate with what is foretold of it; None of one without votes, or of a mix.
    """
    samples, setting = setting_of(target, plan, *certificates)
    foretell(target.model, samples, certificates, plan.tile, len(setting.classes), (0, 1), report)
    batch = samples.select(samples.order()[:IMAGES]).batch().to(device_of(target.model))
    found: list[tuple[Certificate, Forecast | None]] = []
    for item in certificates:
        told = None
        if isinstance(item, VoteCertificate):
            goal = item.goal if isinstance(item, SmoothingCertificate) else None
            radii = () if goal is None else (goal,)
            told = forecast(item, pilot(item.poll(target.model), batch, plan.seed, plan.tile), radii=radii)
        found.append((item, told))
    return found
