"""The demo: one complete path through the library, on the digits of scikit-learn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hauberk import recipes, registry
from hauberk.devices import Device
from hauberk.errors import HauberkError
from hauberk.evaluation.work import Report
from hauberk.recipes import Plan
from hauberk.report import write_report
from hauberk.subjects import subject
from hauberk.training.progress import Progress
from hauberk.verbs import mix as mixing
from hauberk.verbs.attack import attack
from hauberk.verbs.certify import certify, default_certificate
from hauberk.verbs.evaluate import follow
from hauberk.verbs.train import train
from hauberk.verify import verify_folder

RECIPES = ("demo_standard", "demo_adversarial", "demo_lipschitz", "demo_smoothed")
ALPHAS = (0.6, 0.75, 0.9)
ROBUST_SCALE = 4.0  # 1-Lipschitz logits are small; sharper probabilities keep larger margins


@dataclass(frozen=True)
class Demo:
    """What the demo left: the report, the runs it is about, and how long it took."""

    report: Path
    runs: tuple[Path, ...]
    seconds: float


def run_demo(
    out: Path, say: Callable[[str], None], training: Callable[[Progress], None], evaluating: Report,
    device: Device = "auto",
) -> Demo:  # fmt: skip
    """Train four nets, attack, certify, mix, report and verify them; the same call resumes.

    Args:
        out: folder of the runs and the report.
        say: called with a line for each stage.
        training: called with the training's progress.
        evaluating: called with the evaluation's progress.
        device: where.

    Raises:
        HauberkError: if any certificate does not verify.
    """
    started = time.monotonic()
    runs, plan = [], Plan(device=device)
    for name in RECIPES:
        recipe = recipes.read(name)
        say(f"{name}: {recipe.summary}")
        runs.append(follow(train(recipe, out / name, training, device), evaluating, device))
    standard, lipschitz = (subject(out / name) for name in ("demo_standard", "demo_lipschitz"))
    attacks = [registry.build(spec) for spec in lipschitz.run.recipe["evaluation"]["attacks"]]
    for alpha in ALPHAS:
        say(f"mix: {alpha:g} of the 1-Lipschitz net, {1 - alpha:g} of the standard one")
        how = mixing.Mixture(alpha, robust_scale=ROBUST_SCALE)
        run = mixing.mix(standard, lipschitz, how, out / f"mix_{alpha:g}", plan, evaluating)
        mixed = subject(run.path)
        attack(mixed, attacks, plan, report=evaluating)
        certificate = default_certificate(mixed)
        if certificate is not None:
            certify(mixed, [certificate], plan, report=evaluating)
        runs.append(run)
    say("verify: every certificate again from its evidence, with numpy and scipy alone")
    problems = [p for run in runs for verdict in verify_folder(run.records) for p in verdict.problems]
    if problems:
        raise HauberkError(f"{len(problems)} certificates do not verify: {problems[0]}", "please report this")
    report = write_report([run.path for run in runs], out / "report.html")
    return Demo(report, tuple(run.path for run in runs), time.monotonic() - started)

