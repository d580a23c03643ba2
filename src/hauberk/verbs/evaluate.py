"""Run what a run's recipe plans: attacks, certificates and diagnoses."""

from __future__ import annotations

from hauberk import registry
from hauberk.evaluation.work import Report
from hauberk.recipes import parse
from hauberk.runs import Run
from hauberk.subjects import subject
from hauberk.verbs.attack import attack, diagnose
from hauberk.verbs.certify import certify

DIAGNOSED = 64  # images on which an attack is judged


def evaluate(run: Run, report: Report | None = None) -> Run:
    """Run the attacks, certificates and diagnoses of a run's recipe."""
    recipe = parse(run.recipe)
    target, plan = subject(run.path), recipe.evaluation
    attacks = [registry.build(spec, "attack") for spec in plan.attacks]
    certificates = [registry.build(spec, "certificate") for spec in plan.certificates]
    if attacks:
        attack(target, attacks, plan, report=report)
    if certificates:
        certify(target, certificates, plan, report=report)
    few = plan.model_copy(update={"images": min(DIAGNOSED, plan.images or DIAGNOSED)})
    for spec in plan.diagnoses:
        diagnose(target, registry.build(spec, "attack"), few, report)
    return run
