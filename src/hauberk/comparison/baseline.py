"""The comparison of a run with a baseline: its shares, the shared images, and whether a drop can be excluded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hauberk.comparison.contestant import Contestant, Quantity, read
from hauberk.comparison.drop import ALPHA, dropped
from hauberk.comparison.effects import difference
from hauberk.comparison.requirement import Finding, Requirement
from hauberk.errors import HauberkError


def compared(
    run: Path, against: Path, required: Sequence[Requirement], tolerated: float, unseen: float, of: str = ""
) -> list[Finding]:
    """One finding for each required share, or for each share that both runs have if none is required.

    Args:
        run: the run that is judged.
        against: the baseline.
        required: the requirements, with budgets as the records have them.
        tolerated: see ``drop.dropped``.
        unseen: likewise.
        of: a part of the predictor's name.
    """
    shares = [r for r in required if r.over == "all" and not r.radius]
    others = [
        Finding(f"{r.text} against {against}", "cannot tell",
                "only shares of all images are compared with a baseline; ask for this without --against")
        for r in required if r not in shares
    ]  # fmt: skip
    threats = [r.threat for r in shares if r.threat is not None]
    new, old = (read([path], threats) for path in (run, against))
    for path, found in ((run, new), (against, old)):
        problem = next((problem for one in found for problem in one.problems), "")
        if problem:
            why = f"the records of {path} do not verify: {problem}"
            return [*others, Finding(f"against {against}", "cannot tell", why, ("verify", str(path)))]
    new, old = ([one for one in found if of in one.predictor] for found in (new, old))
    return [*others, *_shares(new, old, shares, run, against, (tolerated, unseen), bool(required))]


def _shares(
    new: Sequence[Contestant], old: Sequence[Contestant], required: Sequence[Requirement], run: Path, against: Path,
    sizes: tuple[float, float], named: bool,
) -> list[Finding]:  # fmt: skip
    both = [q for q in dict.fromkeys(q for c in new for q in c.outcomes) if any(q in c.outcomes for c in old)]
    chosen = [*dict.fromkeys(r.quantity for r in required)] if named else both
    found = [_share(new, old, q, run, against, sizes, ALPHA / len(chosen)) for q in chosen]
    if not named:
        proved = [{norm for one in group for norm in one.proved} for group in (new, old)]
        looked_at = {q.norm for q in both if q.kind == "certified"}
        found += [
            Finding(f"certified {norm} against {against}", "cannot tell",
                    f"both runs have proofs in {norm}: name a radius, --require 'certified@{norm}:RADIUS>=SHARE'")
            for norm in sorted(set.intersection(*proved) - looked_at)
        ]  # fmt: skip
    if not found and not named:
        return [Finding(f"against {against}", "cannot tell", "the two runs have no measure in common")]
    return found


def _share(
    new: Sequence[Contestant], old: Sequence[Contestant], quantity: Quantity, run: Path, against: Path,
    sizes: tuple[float, float], alpha: float,
) -> Finding:  # fmt: skip
    name = f"{quantity} against {against}"
    mine, theirs = (next((c for c in group if quantity in c.outcomes), None) for group in (new, old))
    if mine is None or theirs is None:
        return Finding(name, "cannot tell", f"{run if mine is None else against} has no record of it")
    try:
        effect = difference(mine, theirs, quantity)
    except HauberkError as error:
        return Finding(name, "cannot tell", error.message)
    ids = np.intersect1d(mine.outcomes[quantity].ids, theirs.outcomes[quantity].ids)
    found = dropped(mine.outcomes[quantity].on(ids)[0], theirs.outcomes[quantity].on(ids)[0], *sizes, alpha)
    change = found.change
    said = (
        f"{mine.predictor} less {theirs.predictor}: {100 * change.value:+.1f} points [{100 * change.low:+.1f}, "
        f"{100 * change.high:+.1f}] at {100 * (1 - 2 * alpha):.4g} %, on {change.n} shared images; {found.lost} lost, "
        f"{found.won} won"
    )
    drop = f"a drop of more than {100 * sizes[0]:g} points" if sizes[0] else "a drop"
    if found.verdict == "fail" and effect.more:
        return Finding(name, "cannot tell", f"{said}; this run met attacks that the baseline did not")
    if found.verdict == "pass" and effect.fewer:
        return Finding(name, "cannot tell", f"{said}; the baseline met attacks that this run did not")
    end = {
        "fail": f"{drop} is beyond doubt",
        "pass": f"{drop} is not beyond doubt, and one of {100 * sum(sizes):g} points is excluded",
        "cannot tell": f"too few images: a drop of {100 * sum(sizes):g} points is not excluded",
    }[found.verdict]
    return Finding(name, found.verdict, f"{said}; {end}")
