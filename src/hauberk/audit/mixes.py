"""The alpha path of sampled rows, computed again from the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from hauberk import registry
from hauberk.audit.certificates import logit_problems, shared_problems
from hauberk.batch import Batch
from hauberk.classifier import frozen, logits_of, predictor_name
from hauberk.defences import MixedClassifier
from hauberk.records import Part
from hauberk.subjects import Subject
from hauberk.verify.verdict import samples

CLOSE = 1e-4  # difference of float32 logits between two machines, relative to the largest


def mix_again(
    part: Part, target: Subject, batch: Batch, generator: np.random.Generator, trusted: list[str]  # noqa: ARG001
) -> Iterator[str]:
    """Compare the recorded logits of both models, and the evidence of the robust model, with those of the weights."""
    model = target.model
    if not isinstance(model, MixedClassifier):
        yield f"its records are of a mix, the model is {type(model).__name__}"
        return
    names = {"accurate": predictor_name(model.accurate), "robust": predictor_name(model.robust)}
    for role, name in names.items():
        if part.facts[role] != name:
            yield f"its {role} model is {part.facts[role]}, the weights hold {name}"
    if part.facts["alpha"] != model.alpha:
        yield f"its alpha is {part.facts['alpha']}, that of the model {model.alpha}"
    rows = {row["id"]: row for row in part.table.to_pylist()}
    ids = batch.ids.tolist()
    with frozen(model):
        for role, base, scale in (
            ("accurate", model.accurate, model.accurate_scale), ("robust", model.robust, model.robust_scale)
        ):  # fmt: skip
            fresh = (scale * logits_of(base, batch, part.unit["tile"])).double().cpu().numpy()
            old = np.asarray([rows[i][f"{role}_logits"] for i in ids], dtype=np.float64)
            far = abs(old - fresh).max(1) > CLOSE * np.maximum(1.0, abs(fresh).max(1))
            if far.any():
                yield f"{samples(np.asarray(ids)[far])}: the {role} model's logits are not those of the weights"
    if "base" in part.unit["method"]:
        certificate = registry.build(part.unit["method"], "certificate")
        evidence = certificate.gather(model, batch, part.unit["seed"], part.unit["tile"])
        yield from shared_problems(part.facts["shared"], evidence[0].shared())
        for i, seen in zip(ids, evidence, strict=True):
            yield from logit_problems(i, json.loads(rows[i]["evidence"]), seen.row())
