"""Certify a model, and say which certificate fits it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hauberk.certificates import Certificate, LipschitzCertificate, MixedCertificate, SmoothingCertificate
from hauberk.certificates.rounding import exact_forward
from hauberk.defences import MixedClassifier, SmoothedClassifier
from hauberk.devices import place
from hauberk.errors import HauberkError
from hauberk.evaluation.cost import foretell
from hauberk.evaluation.signing import sign
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import INLINE, Report, Work
from hauberk.executors import Executor
from hauberk.recipes import Plan
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.verbs.samples import check_target, evaluation_samples, note, probe_batch, setting_of


def certify(
    target: Subject,
    certificates: Sequence[Certificate],
    plan: Plan = Plan(),
    shard: tuple[int, int] = (0, 1),
    report: Report | None = None,
    executor: Executor = INLINE,
) -> Run:
    """Certify a subject's images and leave records in its run; arguments as ``attack``.

    A deterministic certificate works on the CPU, whatever the plan says: its bounds on rounding hold there.

    Raises:
        HauberkError: if the plan asks for less than float32.
    """
    if plan.precision != "float32":
        raise HauberkError(f"nothing is certified in {plan.precision}", "leave --precision out: it is for attacks")
    samples, setting = setting_of(target, plan, *certificates)
    foretell(target.model, samples, certificates, plan.tile, len(setting.classes), shard, report)
    started = time.monotonic()
    work = Work(target.run.records, shard, report, target.begin, executor)
    done = []
    for item in certificates:
        place(target.model, "cpu" if item.kind == "deterministic" else plan.device)
        done += certificate_records(target.model, samples, item, setting, work)
    if done:
        sign(target.begin(), "certify_seconds", started, done, samples.ids)
        note(target)
    return target.run


def default_certificate(target: Subject) -> Certificate | None:
    """The certificate that fits a model by its structure: a vote, a mix, a Lipschitz walk, or none."""
    model = target.model
    if isinstance(model, SmoothedClassifier):
        return SmoothingCertificate(model.noise)
    if isinstance(model, MixedClassifier):
        base = default_certificate(Subject(target.run, model.robust, target.dataset))
        return None if base is None else MixedCertificate(base)
    return None if lipschitz_refusal(target) else LipschitzCertificate()


def check_contract(target: Subject) -> None:
    """Raise if the model cannot be called on its data, or gives no logits: nothing certifies it then."""
    check_target(target, evaluation_samples(target.dataset, "test"))


def certifiable(target: Subject) -> bool:
    """Whether ``certify`` has something to do without being told: the recipe's certificates, or one that fits."""
    planned = target.recipe.get("evaluation", {}).get("certificates")
    return bool(planned) or default_certificate(target) is not None


def lipschitz_refusal(target: Subject) -> str:
    """Why nothing is proved of a model, or of the robust half of a mix, by its layers; empty if something is."""
    if isinstance(target.model, MixedClassifier):
        return lipschitz_refusal(Subject(target.run, target.model.robust, target.dataset))
    try:
        batch = probe_batch(target.dataset, 1)
        with LipschitzCertificate().admitted(target.model, batch, 1):  # the pairwise bounds refuse nothing
            exact_forward(target.model, tuple(batch.images.shape[1:]))
    except HauberkError as error:
        return error.message
    return ""
