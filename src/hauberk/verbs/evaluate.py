"""Run what a run's recipe plans: attacks, certificates and diagnoses."""

from __future__ import annotations

from hauberk import registry
from hauberk.devices import Device
from hauberk.evaluation.work import INLINE, Report
from hauberk.executors import Executor
from hauberk.recipes import parse
from hauberk.runs import Run
from hauberk.subjects import subject
from hauberk.verbs.attack import attack, diagnose
from hauberk.verbs.certify import certify

DIAGNOSED = 64  # images on which an attack is judged


def evaluate(run: Run, report: Report | None = None, device: Device = "auto", executor: Executor = INLINE) -> Run:
    """Run the attacks, certificates and diagnoses of a run's recipe.

    Args:
        run: with a recipe.
        report: called after each unit.
        device: where.
        executor: does the units.
    """
    recipe = parse(run.recipe)
    target, plan = subject(run.path), recipe.evaluation.model_copy(update={"device": device})
    attacks = [registry.build(spec, "attack") for spec in plan.attacks]
    certificates = [registry.build(spec, "certificate") for spec in plan.certificates]
    if attacks:
        attack(target, attacks, plan, report=report, executor=executor)
    if certificates:
        certify(target, certificates, plan, report=report, executor=executor)
    few = plan.model_copy(update={"images": min(DIAGNOSED, plan.images or DIAGNOSED)})
    for spec in plan.diagnoses:
        diagnose(target, registry.build(spec, "attack"), few, report)
    return run
