"""A random sample of every evaluation, certified, attacked and mixed again from the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from hauberk import registry
from hauberk.audit.attacks import attack_again
from hauberk.audit.certificates import certify_again
from hauberk.audit.data import split_of
from hauberk.audit.mixes import mix_again
from hauberk.audit.revised import revisions_today
from hauberk.batch import Batch
from hauberk.classifier import Decides, is_random, predictor_name, traits, weights_hash
from hauberk.draws import PROBES
from hauberk.evaluation.fingerprint import answers, dtype_of, probes
from hauberk.identity import structure
from hauberk.records import Part, group, read_all
from hauberk.subjects import Subject
from hauberk.verify import Verdict, claims
from hauberk.verify.attacks import decides_itself
from hauberk.verify.verdict import guarded

BUILT = ("certificate", "attack", "threat", "noise", "loss")  # kinds that the method of a record may hold


def recompute(target: Subject, rows: int | None, generator: np.random.Generator) -> list[Verdict]:
    """Certify and attack sampled rows of every recorded evaluation again.

    Args:
        target: the subject whose records are checked.
        rows: how many rows of each evaluation; None for all.
        generator: draws the sample and the seeds of fresh votes.
    """
    verdicts = [_model_verdict(target)]
    for part in group(read_all(target.run.records)):
        if part.kind != "diagnosis":
            verdicts.append(_verdict(part, target, rows, generator))
    return verdicts


def _model_verdict(target: Subject) -> Verdict:
    """Whether the model's answers to the probe images are those of its fingerprint on record."""
    name = predictor_name(target.model)
    stored = read_all(target.run.records, "fingerprint")
    if not stored:
        return Verdict(name, "fingerprint", 0, (), (), ("the model's answers: there is no fingerprint of them",))
    images = target.dataset.test.select(slice(1)).batch().images
    asked = answers(target.model, images, probes(target.dataset.test), target.run.records)
    named = {str(p.unit["answers"]) for p in read_all(target.run.records) if "answers" in p.unit}
    problems = []
    if asked.new or named != {asked.id}:
        problems.append("the model answers otherwise than the fingerprint that its records name")
    return Verdict(name, "fingerprint", len(stored), tuple(problems), (claims.MODEL,))


def _verdict(part: Part, target: Subject, rows: int | None, generator: np.random.Generator) -> Verdict:
    ids = part.column("id")
    picked = ids if rows is None or rows >= len(ids) else np.sort(generator.choice(ids, rows, replace=False))
    batch = _batch(target, part, picked)
    problems = list(guarded(_identity, part, target))
    problems += guarded(_method_problems, [part.unit["method"], part.unit.get("suite", [])])
    trusted: list[str] = []
    detail = f"{part.unit['method']['name']}: {len(picked)} of {len(ids)} rows, drawn at random"
    checked = [claims.POINTS, claims.OWN] if part.kind == "attack" else [f"{claims.EVIDENCE} ({detail})"]
    trusted += guarded(_revised, part, target)
    if not problems and len(batch) == len(picked):
        run = {"certificate": certify_again, "attack": attack_again, "mix": mix_again}[part.kind]
        problems += guarded(run, part, target, batch, generator, trusted)
    elif not problems:
        problems.append("some of its samples are not in the data")
    name = f"{part.unit['method']['name']} from the weights"
    return Verdict(str(part.unit["predictor"]), name, len(picked), tuple(problems), tuple(checked), tuple(trusted))


def _batch(target: Subject, part: Part, ids: Iterable[int]) -> Batch:
    split = split_of(target.dataset, str(part.facts["split"]))
    return split.select(torch.isin(split.ids, torch.as_tensor(np.asarray(list(ids)).copy()))).batch()


def _identity(part: Part, target: Subject) -> Iterator[str]:
    """Whether the records name this model and these weights."""
    own = predictor_name(target.model)
    if part.kind == "certificate":
        own = registry.build(part.unit["method"], "certificate").predictor(target.model)
    if part.unit["predictor"] != own:
        yield f"the records are about {part.unit['predictor']}, the weights are another model's"
    if part.unit["weights"] != weights_hash(target.model):
        yield f"the records name weights {part.unit['weights']}, the model has {weights_hash(target.model)}"
    for name, found in (("structure", structure(target.model)), ("dtype", dtype_of(target.model))):
        if name == "structure" and part.kind == "mix":  # a mix has the structure from before it was saved: see _revised
            continue
        if part.unit.get(name, found) != found:  # records of the first versions name no structure
            yield f"the records name the {name} {part.unit[name]}, the model has {found}"
    if part.kind == "attack":
        yield from _decision_problems(part, target)


def _decision_problems(part: Part, target: Subject) -> Iterator[str]:
    """Whether the records are right about the model's randomness and about a decision rule of its own."""
    known = traits(target.model)
    image = target.dataset.test.select(slice(1)).batch().images
    probed = not known.declared and is_random(target.model, image, PROBES)
    if bool(part.facts["stochastic"]) != (known.stochastic or probed):
        yield f"the records say random: {part.facts['stochastic']}, of the model the opposite holds"
    if decides_itself(part) != isinstance(target.model, Decides):
        yield f"the records say that it decides in a way of its own: {decides_itself(part)}, the opposite holds"


def _revised(part: Part, target: Subject) -> Iterator[str]:
    """The claim about revisions of the code, if other revisions or another structure made the records."""
    saved = part.unit.get("structure") if part.kind == "mix" else None
    other = part.unit.get("revisions") not in (None, revisions_today(part))
    if other or saved not in (None, structure(target.model)):
        yield f"{claims.REVISIONS} ({part.unit['method']['name']})"


def _method_problems(spec: Any) -> Iterator[str]:
    """Whether a method holds certificates, attacks, threats, noises and losses alone: nothing else may be built."""
    if isinstance(spec, Mapping):
        if "name" in spec and registry.entry(str(spec["name"])).kind not in BUILT and spec["name"] != "alpha_path":
            yield f"its method names {spec['name']}, which is none"
        for value in spec.values():
            yield from _method_problems(value)
    elif isinstance(spec, list | tuple):
        for value in spec:
            yield from _method_problems(value)
