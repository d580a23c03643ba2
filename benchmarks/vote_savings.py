"""How many votes a goal saves: decisions at any time and by looks against 100,000 votes, from a public log.

    python benchmarks/vote_savings.py sigma_0.50 --sigma 0.5 --out results/vote_savings.json

The log is one that locuslab's certify.py wrote (tab separated: idx, label, predict, radius, correct, time).  The radius
of an image gives a lower bound of its vote probability, which is taken as the probability; of an abstention nothing is
known, and 0.45 is taken, which is hard to decide.  The votes of both ways are then drawn as binomial numbers, many
times for each image, and the certificate decides.  A whole curve of certified accuracy is drawn from a tenth of the
votes and from all of them.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from hauberk.certificates import SmoothingCertificate
from hauberk.certificates.evidence import Rule, VoteCounts
from hauberk.certificates.votes import blocks
from hauberk.certification_log import read_log
from hauberk.noises import Gaussian
from hauberk.runs import environment
from hauberk.statistics import mean_interval, wilson

CAP, ALPHA, ABSTAINED = 100_000, 0.001, 0.45
RADII = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def probabilities(log: Path, sigma: float) -> np.ndarray:
    """The vote probability of each image of a log."""
    found = read_log(log)
    return np.where(found.predictions < 0, ABSTAINED, ndtr(found.radii / sigma))


def sequential(
    p: np.ndarray, sigma: float, goal: float, draws: np.random.Generator, rule: Rule = "anytime"
) -> tuple[np.ndarray, ...]:
    """For each image: votes taken, whether certified at the goal, whether settled before the cap."""
    votes = SmoothingCertificate(Gaussian(sigma), n=CAP, alpha=ALPHA, rule=rule, goal=goal)

    @functools.cache
    def look(k: int, n: int) -> tuple[bool, bool]:
        seen = VoteCounts((votes.n0, 0), (k, n - k), votes.plan, n)
        return votes.settled(seen), votes.radius(seen) >= goal

    found = []
    for share in p:
        k = n = 0
        settled = certified = False
        for block in blocks("counts", CAP):
            k, n = k + int(draws.binomial(block.stop - block.start, share)), block.stop
            if votes.plan.judges(n):
                settled, certified = look(k, n)
            if settled:
                break
        found.append((n + votes.n0, certified, settled))
    return tuple(np.array(column) for column in zip(*found, strict=True))


def fixed(p: np.ndarray, sigma: float, goal: float, draws: np.random.Generator) -> tuple[np.ndarray, ...]:
    """For each image: certified at the goal with all votes, and whether that or its opposite is beyond doubt."""
    yes = SmoothingCertificate(Gaussian(sigma), n=CAP, alpha=ALPHA)

    @functools.cache
    def look(k: int) -> tuple[bool, bool]:
        reached = yes.radius(VoteCounts((yes.n0, 0), (k, CAP - k), yes.plan)) >= goal
        rest, _ = yes.bounds(VoteCounts((yes.n0, 0), (CAP - k, k), yes.plan))  # of what was not voted for it
        return reached, reached or 1.0 - rest < float(ndtr(goal / sigma))

    looks = [look(int(draws.binomial(CAP, share))) for share in p]
    return tuple(np.array(column) for column in zip(*looks, strict=True))


def curves(p: np.ndarray, sigma: float, draws: np.random.Generator) -> list[dict[str, float]]:
    """The share of images certified at each radius by a tenth of the votes, and by all of them."""
    found = []
    for n in (CAP // 10, CAP):
        votes = SmoothingCertificate(Gaussian(sigma), n=n, alpha=ALPHA)
        counts, places = np.unique(draws.binomial(n, p), return_inverse=True)
        radii = [votes.radius(VoteCounts((votes.n0, 0), (int(k), n - int(k)), votes.plan)) for k in counts]
        found.append(np.array(radii)[places])
    few, whole = found
    return [
        {"radius": r, "certified": float((few >= r).mean()), "certified_by_all": float((whole >= r).mean())}
        for r in RADII
    ]


def main() -> None:
    """Print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("--sigma", type=float, required=True)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    p, rows = probabilities(given.log, given.sigma), []
    for goal in (0.25, 0.5, 1.0):
        draws = np.random.default_rng(0)
        many = np.tile(p, given.repeats)
        tries = {"anytime": sequential(many, given.sigma, goal, draws)}
        whole, decided = fixed(many, given.sigma, goal, draws)
        tries["looks"] = sequential(many, given.sigma, goal, draws, "looks")
        for rule, (taken, certified, settled) in tries.items():
            false = certified & (many < ndtr(goal / given.sigma))
            each = taken.reshape(given.repeats, -1).mean(0)
            row: dict[str, Any] = {
                "rule": rule, "goal": goal, "votes": vars(mean_interval(each)), "median_votes": float(np.median(taken)),
                "saving": CAP / float(each.mean()), "settled": vars(wilson(int(settled.sum()), len(many))),
                "decided_by_all": vars(wilson(int(decided.sum()), len(many))), "certified": float(certified.mean()),
                "certified_by_all": float(whole.mean()), "false": int(false.sum()),
            }  # fmt: skip
            rows.append(row)
            print(f"{rule}, goal {goal}: {row['votes']['value']:,.0f} votes (median {row['median_votes']:.0f}), "
                  f"{row['saving']:.1f} times fewer; settled {settled.mean():.4f} against {decided.mean():.4f}; "
                  f"certified {certified.mean():.4f} against {whole.mean():.4f}; {false.sum()} false")  # fmt: skip
    curve = curves(np.tile(p, given.repeats), given.sigma, np.random.default_rng(0))
    for point in curve:
        print(f"radius {point['radius']}: {point['certified']:.4f} by a tenth, {point['certified_by_all']:.4f} by all")
    if given.out:
        about = {"log": given.log.name, "images": len(p), "sigma": given.sigma, "cap": CAP, "alpha": ALPHA,
                 "abstained_as": ABSTAINED, "repeats": given.repeats}  # fmt: skip
        kept = {"about": about, "environment": environment(), "rows": rows, "curve": curve}
        given.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
