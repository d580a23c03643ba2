"""Certify a model, and choose the certificate that fits it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from hauberk.certificates import (
    Certificate,
    DerandomisedSplitting,
    LipschitzCertificate,
    MixedCertificate,
    SmoothingCertificate,
)
from hauberk.certificates.draw_bounds import DrawCertificate
from hauberk.certificates.lipschitz import network
from hauberk.certificates.random_vote import RandomVote
from hauberk.certificates.rounding import exact_forward
from hauberk.defences import MixedClassifier, SmoothedClassifier
from hauberk.defences.bottom_class import BottomClass
from hauberk.defences.derandomised import DerandomisedClassifier
from hauberk.devices import place
from hauberk.errors import HauberkError
from hauberk.evaluation.budget import Budget
from hauberk.evaluation.cost import foretell
from hauberk.evaluation.signing import sign
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import INLINE, Report, Work
from hauberk.executors import Executor
from hauberk.layers import walk
from hauberk.recipes import Plan
from hauberk.records import Part, group
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
    seconds: float | None = None,
) -> Run:
    """Certify a subject's images and leave records in its run; arguments as ``attack``.

    A certificate by Lipschitz bounds always works on the CPU, for which its bounds on rounding are proved.

    Where the time is over, what is done stays, and the same call goes on.  A certificate by votes then concludes on the
    images for which its rule has a bound.  By looks, or at any time, those are all that have come to the first bound,
    which takes the same votes of each; further votes come after that of all images, in rounds.  By another rule they
    are those with all n votes, and none is judged on fewer.  Images come in a fixed order, and none is left out or done
    earlier for what is seen of it, so that accuracies over those that are done are not biased.

    Args:
        target: what is certified.
        certificates: which ones.
        plan: images, seed and tile.
        shard: (i, n): do every n-th unit, from the i-th.
        report: called after each unit.
        executor: does the units.
        seconds: that it may take, beside concluding from the votes that are there; None for all that it needs.

    Raises:
        HauberkError: if the plan asks for less than float32.
    """
    budget = None if seconds is None else Budget(seconds)
    if plan.precision != "float32":
        raise HauberkError(
            f"certificates are not computed in {plan.precision}", "leave --precision out: it is for attacks only"
        )
    samples, setting = setting_of(target, plan, *certificates)
    foretell(target.model, samples, certificates, plan.tile, len(setting.classes), shard, report, seconds)
    started = time.monotonic()
    work = Work(target.run.records, shard, report, target.begin, executor, budget)
    done = []
    for item in certificates:
        on_cpu = item.kind == "deterministic" or isinstance(item, DrawCertificate)
        place(target.model, "cpu" if on_cpu else plan.device)
        done += certificate_records(target.model, samples, item, setting, work)
    if done:
        stopped = budget is not None and budget.spent
        sign(target.begin(), "certify_seconds", started, done, samples.ids, stopped)
        note(target)
    _note_stop(target, shard, _stop(done, len(samples), budget) if budget is not None and budget.spent else "")
    return target.run


def _note_stop(target: Subject, shard: tuple[int, int], said: str) -> None:
    """Keep with the run that its budget ended this shard's work, or that it did not this time."""
    name, info = "{}/{}".format(*shard), target.run.info
    if not info or info.get("stopped", {}).get(name, "") == said:
        return
    with target.run.editing() as info:
        info["stopped"] = {k: v for k, v in info.get("stopped", {}).items() if k != name}
        info["stopped"] |= {name: said} if said else {}
    note(target)


def _stop(done: Sequence[Part], images: int, budget: Budget) -> str:
    """A sentence on what a spent budget has left."""
    found = []
    for part in group(done):
        rows = map(json.loads, part.table.column("evidence").to_pylist())
        votes = [row.get("drawn", part.facts["shared"].get("n")) for row in rows]
        name = str(part.unit["method"]["name"]).replace("_", " ")
        some = "" if None in votes else " with " + " to ".join(f"{k:,}" for k in sorted({min(votes), max(votes)}))
        some += " votes each" if some else ""
        found.append(f"{name} has concluded on {len(votes):,} of {images:,} images{some}")
    reached = "; ".join(found) or "nothing is concluded yet"
    rest = "." if budget.units else "; it needs more time, for not one unit of work was finished."
    return (f"certify stopped after its budget of {budget.seconds:g} s: {reached}. Which images are done does not "
            f"depend on what was seen of them. The same command goes on{rest}")  # fmt: skip


def default_certificate(target: Subject) -> Certificate | None:
    """The certificate that fits a model by its structure: a vote, a mix, a Lipschitz walk, or none."""
    model = target.model
    if isinstance(model, SmoothedClassifier):
        return SmoothingCertificate(model.noise)
    if isinstance(model, DerandomisedClassifier):
        return DerandomisedSplitting(model.splits, model.seed)
    if isinstance(model, BottomClass):
        return None if lipschitz_refusal(target) else LipschitzCertificate(model.norm)
    if isinstance(model, MixedClassifier):
        base = default_certificate(Subject(target.run, model.robust, target.dataset))
        return None if base is None or isinstance(base, DerandomisedSplitting) else MixedCertificate(base)
    return None if lipschitz_refusal(target) else LipschitzCertificate()


def of_draws(target: Subject) -> RandomVote | None:
    """The vote over the draws of a random model whose every layer has a bound that holds for all of them, or None."""
    vote, batch = RandomVote(), probe_batch(target.dataset, 1)
    try:
        with vote.admitted(target.model, batch, 1):
            walk(target.model, tuple(batch.images.shape[1:]))
    except HauberkError:
        return None
    return vote


def check_contract(target: Subject) -> None:
    """Raise if the model cannot be called on its data, or gives no logits, so that it cannot be certified."""
    check_target(target, evaluation_samples(target.dataset, "test"))


def certifiable(target: Subject) -> bool:
    """Whether ``certify`` has something to do without being told: the recipe's certificates, or one that fits."""
    planned = target.recipe.get("evaluation", {}).get("certificates")
    return bool(planned) or default_certificate(target) is not None or of_draws(target) is not None


def lipschitz_refusal(target: Subject) -> str:
    """Why the layers of a model, or of the robust half of a mix, give no certificate; empty if they do."""
    if isinstance(target.model, MixedClassifier):
        return lipschitz_refusal(Subject(target.run, target.model.robust, target.dataset))
    try:
        batch = probe_batch(target.dataset, 1)
        with LipschitzCertificate().admitted(target.model, batch, 1):  # the pairwise bounds refuse nothing
            exact_forward(network(target.model), tuple(batch.images.shape[1:]))
    except HauberkError as error:
        return error.message
    return ""
