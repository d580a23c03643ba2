"""Verification that needs more than the files: the data, and with the weights a random sample of all evaluations again.

``verify`` reads files alone.  This package loads the run's data if it can be found, and on request the model, so that
sampled rows are certified and attacked again.  The verifier draws the sample, so the maker of the run cannot know it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hauberk.audit.again import recompute
from hauberk.audit.data import data_verdicts
from hauberk.data import Dataset, load
from hauberk.records import MEASURED, Part, group
from hauberk.subjects import subject
from hauberk.verify import Verdict, claims
from hauberk.verify.calibrations import CALIBRATED
from hauberk.verify.files import open_run
from hauberk.verify.run import verify_files
from hauberk.verify.verdict import MALFORMED, one_line

__all__ = ["ROWS", "audit", "draw", "recompute"]

ROWS = 299  # at least one of them is in a share of 1 % with probability 1 - 0.99^299 > 0.95


def draw() -> int:
    """A seed from the system's entropy."""
    return secrets.randbits(48)


def audit(
    run: Path, weights: bool = False, rows: int | None = ROWS, seed: int | None = None, factory: str | None = None,
    arch: str | None = None,
) -> list[Verdict]:  # fmt: skip
    """Check a run from its files, its data if they can be found, and on request its weights.

    Args:
        run: a run directory or a bundle.
        weights: whether to load the model, and to certify and attack again.
        rows: how many rows of each evaluation, drawn at random; None for all.
        seed: seed of the sample and of fresh votes; None draws one, see ``draw``.
        factory: ``module:factory`` or file of the model, if the run is about a user's own model.
        arch: for a checkpoint, the ``module:factory`` of the network that it fills.

    Returns:
        the verdicts of ``verify.verify_run``, then those of the data and of the weights.

    Raises:
        HauberkError: if the weights are asked for and cannot be loaded.
    """
    found = open_run(run)
    verdicts = verify_files(found)
    parts = _parts(found.parts)
    measured, whole = [p for p in found.parts if p.kind in MEASURED], bool(found.config)
    broken = any(v.problems for v in verdicts)
    if weights:
        if broken:
            left = ("the weights were not looked at: mend or refuse what the files already show",)
            return [*verdicts, Verdict(str(found.info.get("predictor", "")), "from the weights", 0, (), (), left)]
        target = subject(run, model=factory, arch=arch)
        generator = np.random.default_rng(draw() if seed is None else seed)
        return [*verdicts, *data_verdicts(parts, target.dataset, measured, whole), *recompute(target, rows, generator)]
    dataset, why = _data(found.recipe)
    if dataset is None:
        return [*verdicts, Verdict("", "data", 0, (), (), (claims.LABELS, claims.SELECTION, why))]
    return [*verdicts, *data_verdicts(parts, dataset, measured, whole)]


def _parts(parts: Sequence[Part]) -> list[Part]:
    try:
        return group(p for p in parts if p.kind in MEASURED)
    except MALFORMED:  # reported in the files' own verdicts
        return []


def _data(recipe: Mapping[str, Any]) -> tuple[Dataset | None, str]:
    """The data of a recipe, or why it is missing; a stranger's recipe may name data, and nothing else to build."""
    spec = recipe.get("data")
    spec = {"name": spec} if isinstance(spec, str) else spec
    spec = spec if isinstance(spec, dict) else {}
    held = spec.get("name") == CALIBRATED
    inner = spec.get("of") if held else spec
    if not isinstance(inner, dict) or not inner or any(isinstance(v, dict) for v in inner.values()):
        return None, "the data set: the recipe names none"
    here = {k: v for k, v in inner.items() if k != "download"}
    try:
        return load({**spec, "of": here} if held else here), ""
    except MALFORMED as error:
        return None, f"the data set: it is not here ({one_line(error)})"
