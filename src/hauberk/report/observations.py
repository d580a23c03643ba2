"""Remarks on records that a reader needs before trusting their numbers, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from hauberk.records import Part
from hauberk.report.words import class_name


def observed(parts: Iterable[Part], classes: Sequence[str]) -> tuple[str, ...]:
    """Remarks on the choice of images, on random numbers, exploratory proofs, single classes and abstentions.

    Args:
        parts: attacks and certificates of one predictor on one split.
        classes: the names of the classes.
    """
    said: list[str] = []
    for part in parts:
        if part.unit.get("stage", 0) == 0:
            said += _of(part, classes)
    return tuple(dict.fromkeys(said))


def _of(part: Part, classes: Sequence[str]) -> list[str]:
    labels, answers = part.column("label"), part.column("clean_prediction" if part.kind == "attack" else "prediction")
    said, n = [], len(labels)
    if part.facts.get("choice") == "hashed":
        said.append("The images are taken in proportion to the classes, by hashes of their ids.")
    if n > 1 and len(set(labels.tolist())) == 1:
        only = class_name(labels[0], classes)
        said.append(f"All {n:,} images are of one class, {only}: nothing here is about the other {len(classes) - 1}.")
    if part.facts.get("randomness") == "global":
        said.append("The model draws random numbers by itself, so that its rows cannot be repeated one by one.")
    if part.facts.get("shared", {}).get("draws") == "shared":
        said.append(
            "All images were voted on under the same draws of noise: the certificate of each holds with its alpha, "
            "while averages over images vary more, and false certificates come together more often, than with noise "
            "of their own."
        )
    if planned := part.facts.get("exploratory"):
        asked = part.facts["shared"]
        names = ("n0", "n", "alpha", "rule", "rival", "looks", "draws")
        other = ", ".join(f"{k} = {planned.get(k)}" for k in names if planned.get(k) != asked.get(k))
        said.append(
            f"The {part.unit['method']['name'].replace('_', ' ')} certificate with n = {asked['n']} is exploratory and "
            f"proves nothing: its votes were planned with {other}, and may have been looked at since. "
            f"Another seed draws fresh votes, under a plan of its own; where that has rule = anytime, any n may follow."
        )
    decided = answers[answers >= 0]
    if n > 1 and len(decided) > 1 and len(set(decided.tolist())) == 1:
        always = class_name(decided[0], classes)
        said.append(f"The model answers {always} for every image: its accuracy is the share of that class.")
    who = "The model" if part.kind == "attack" else f"The {part.unit['method']['name'].replace('_', ' ')} certificate"
    abstained = int(np.count_nonzero(answers < 0))
    if abstained:
        share = f"all {n:,} images" if abstained == n else f"{abstained:,} of {n:,} images"
        said.append(f"{who} abstains on {share}; an abstention counts as wrong.")
    return said
