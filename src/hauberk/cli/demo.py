"""``hauberk demo``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hauberk.cli import options
from hauberk.cli.console import Reporter, emit, say
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk.verbs import demo as path
else:
    path = Later("hauberk.verbs.demo")


def demo(
    out: options.Out = None, threads: options.Threads = 1, device: options.Device = "auto", json: options.Json = False
) -> None:
    """Train, attack, certify, mix, report and verify four small nets on embedded digits, in minutes on two cores.

    The default is one thread: with nets this small, further threads mostly wait for each other.
    """
    options.threads(threads)
    where, _, line = options.device(device)
    reporter = Reporter(json, line)
    result = path.run_demo(
        out or Path("demo"), say=(lambda _: None) if json else say, training=reporter.training,
        evaluating=reporter.evaluating, device=where,
    )  # fmt: skip
    emit(
        {"report": str(result.report), "seconds": round(result.seconds, 1), "runs": [str(r) for r in result.runs]},
        json,
        [f"finished in {result.seconds:.0f} s", f"page: {result.report}",
         f"next: {_following(result.runs)}"],
    )


def _following(runs: Sequence[Path]) -> str:
    """The command that compares the mixes with the straight line between the two nets that they are made of."""
    mixes = [str(run) for run in runs if run.name.startswith("mix_")]
    ends = [str(run) for run in runs if run.name in ("demo_standard", "demo_lipschitz")]
    return shlex.join(["hauberk", "compare", *mixes, "--line", *ends])
