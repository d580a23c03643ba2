"""The naive defences before one standard net, under the oblivious attack beside the adaptive one.

    hauberk train standard_cifar10_small -o runs/small_cifar10/standard_cifar10_small-seed0
    python reproductions/naive_defences.py runs/small_cifar10/standard_cifar10_small-seed0 --ddpm RUN

Rows are the net alone, behind total variation minimisation, random resizing and padding, a denoiser that its logits
guide (trained here), and, where a run of a diffusion model is given, diffusion purification.  Every step resumes.
results/naive_defences gets a bundle for each row, table.json and tradeoff.md.  A defence is called broken where it is
at least 40 points above the net alone under the oblivious attack and at most 10 under the adaptive one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hauberk
from hauberk import recipes, registry
from hauberk.attacks import APGD, EOT, Attack, AutoAttack, PartAttack
from hauberk.recipes import Plan
from hauberk.records import Part, group, read_all
from hauberk.report import markdown
from hauberk.report.outcomes import worst_case
from hauberk.runs import Run, environment
from hauberk.statistics import Interval, wilson
from hauberk.subjects import Subject, subject
from hauberk.threats import Threat
from hauberk.verbs.train import train

RESULTS = Path(__file__).resolve().parents[1] / "results" / "naive_defences"
STEPS, FEW_STEPS = 50, 20  # of APGD on the net alone, and through a random step
GAINS, LEFT = 0.4, 0.1  # what is called broken


def wrapped(base: Subject, name: str, folder: Path, **settings: Any) -> Run:
    """The run of a defence around the net, which is not trained."""
    model = registry.build({"name": name}, "defence", base=base.run.load_model(), **settings).eval()
    recipe = {"name": name, "data": base.recipe["data"], "model": registry.spec(model)}
    run = Run.create(folder / name, recipe)
    if not run.has_model:
        facts = {"dataset": recipe["data"], "classes": list(base.dataset.classes)}
        run.save_model(model, facts, seed=0, environment=environment())
    return run


def guided(base: Subject, folder: Path, threat: Threat, epochs: int, steps: int) -> Run:
    """The run of a denoiser that is trained before the net against attacks within twice the budget."""
    wider = registry.spec(threat) | {"eps": 2 * threat.eps}
    changes = [f"data.name={base.recipe['data']['name']}", f"model.base.path={base.run.path}",
               f"model.denoiser.channels={base.dataset.input_shape[0]}", f"training.epochs={epochs}",
               f"training.steps_per_epoch={steps}",
               f"objective.attack.threat={json.dumps(wider)}"]  # fmt: skip
    return train(recipes.read("guided_denoiser_cifar10_small", changes), folder / "guided_denoiser")


def attacks(kind: str, threat: Threat, draws: int) -> list[Attack]:
    """The adaptive attacks of a row, and the oblivious one."""
    if kind == "alone":
        return [AutoAttack(threat)]
    search = APGD(threat, "margin", early_stop=False, steps=FEW_STEPS)
    whole: Attack = EOT(threat, attack=search, draws=draws, mean="logits")
    if kind == "deterministic":
        whole = AutoAttack(threat)
    return [whole, PartAttack(threat, part="undefended", attack=APGD(threat, "margin", steps=STEPS))]


def counted(parts: list[Part]) -> Interval:
    """Images right and standing under all of the attacks, with Wilson's interval."""
    _, right, survived = worst_case(parts)
    return wilson(int((right & survived).sum()), len(right))


def row(name: str, run: Path) -> dict[str, Any]:
    """Clean, oblivious and adaptive accuracy of a run, and by which attacks."""
    parts = group(read_all(run / "records", "attack"))
    blind = [p for p in parts if p.unit["method"]["name"] == "part"]
    own = [p for p in parts if p not in blind]
    _, right, _ = worst_case(parts)
    found = {"clean": wilson(int(right.sum()), len(right)), "adaptive": counted(own), "worst": counted(parts)}
    if blind:
        found["oblivious"] = counted(blind)
    return {"defence": name, "run": run.name} | {key: asdict(value) for key, value in found.items()}


def verdict(row: dict[str, Any], alone: float) -> str:
    """Broken or not, by the rule that was fixed beforehand."""
    if "oblivious" not in row:
        return ""
    gain, left = row["oblivious"]["value"] - alone, row["worst"]["value"] - alone
    return "broken" if gain >= GAINS and left <= LEFT else f"not by the rule: {100 * gain:+.1f}, {100 * left:+.1f}"


def page(rows: list[dict[str, Any]], threat: str) -> str:
    """The table of tradeoff.md."""
    alone = rows[0]["adaptive"]["value"]
    lines = [
        [r["defence"], *(percent(r[key]) if key in r else "" for key in ("clean", "oblivious", "adaptive", "worst")),
         verdict(r, alone)] for r in rows
    ]  # fmt: skip
    said = f"Per cent of {rows[0]['clean']['n']} test images at {threat}, with 95 % intervals.\n\n"
    return said + markdown.table(("Defence", "Clean", "Oblivious", "Adaptive", "Worst of both", "Verdict"), lines)


def percent(found: dict[str, Any]) -> str:
    value = Interval(**found)
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", type=Path, help="the run of the standard net")
    parser.add_argument("--threat", default="linf:4/255")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2, help="of the guided denoiser")
    parser.add_argument("--steps", type=int, default=0, help="of an epoch of the guided denoiser; 0 is all of it")
    parser.add_argument("--ddpm", help="the run of a diffusion model that is told no class")
    parser.add_argument("--runs", type=Path, default=Path("runs/naive_defences"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    base, threat = subject(options.net), registry.build(options.threat, "threat")
    side = base.dataset.input_shape[-1]
    made = [("undefended", "alone", wrapped(base, "resized", options.runs, size=side))]
    made.append(("total variation", "random", wrapped(base, "total_variation", options.runs, steps=30)))
    sizes = {"low": side + 1, "high": side + 4, "size": side + 5}
    made.append(("resize and pad", "random", wrapped(base, "resize_pad", options.runs, **sizes)))
    made.append(("guided denoiser", "deterministic", guided(base, options.runs, threat, options.epochs, options.steps)))
    if options.ddpm:
        model = Run.open(options.ddpm).load_model()
        made.append(("diffusion purification", "random",
                     wrapped(base, "diffusion_purification", options.runs, diffusion=model, steps=5)))  # fmt: skip
    rows = []
    for name, kind, run in made:
        hauberk.attack(subject(run.path), attacks(kind, threat, options.draws), Plan(images=options.images))
        rows.append(row(name, run.path))
        bundle = ["bundle", str(run.path), "-o", str(options.out / run.path.name)]
        subprocess.run([sys.executable, "-P", "-m", "hauberk", *bundle], check=True)
    (options.out / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    (options.out / "tradeoff.md").write_text(page(rows, options.threat))


if __name__ == "__main__":
    main()
