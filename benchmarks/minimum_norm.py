"""Minimum-norm attacks against their peers in foolbox 3.3.4 and adv-lib 0.2.8: the same model, images and steps.

    python benchmarks/minimum_norm.py RUN [--images 100] [--steps 100] [--out results/minimum_norm.json]

Every attack is judged by the same code: a point counts if it lies in the pixel box and is classified wrong, at its
distance from the image.  Images that are wrong without an attack are left out; an attack that found nothing has
distance infinity in the median.  Medians of few images swing by several percent, so each peer's row also holds the
median of own distance over the peer's, image by image, with its interval.  Passes are rows that went through the
model, per image, counted outside the attack.
No peer is a dependency: ``pip install --no-deps foolbox==3.3.4 adv-lib==0.2.8 eagerpy GitPython gitdb smmap tqdm``
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import hauberk
from hauberk import registry
from hauberk.attacks import Attack
from hauberk.attacks.carlini_wagner import CarliniWagner
from hauberk.attacks.ddn import DDN
from hauberk.attacks.fmn import FMN
from hauberk.batch import Batch
from hauberk.classifier import margins
from hauberk.evaluation import metrics
from hauberk.runs import environment
from hauberk.statistics import median_interval
from hauberk.threats import L1, L2, Linf, Norm, Threat, norms

THREATS: dict[Norm, Threat] = {"l1": L1(12.0), "l2": L2(0.5), "linf": Linf(8 / 255)}
# A nearest point lies on the boundary, and kernels round a row by the batch that it is in: each library searched in
# batches of its own, so a lead of the label that is this small counts as none, for all of them.
ROUNDING = 1e-5
ORDER: dict[Norm, float] = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}
Found = Callable[[nn.Module, Batch], Tensor]


class Counted(nn.Module):
    """The model, with the rows that went forwards and backwards through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, K)."""
        logits: Tensor = self.model(images)
        self.forwards += len(images)
        if logits.requires_grad:
            logits.register_hook(self._back)
        return logits

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def ours(attack: Attack) -> Found:
    return lambda model, batch: attack(model, batch).nearest_point


def own_attacks(steps: int, searches: int) -> Iterator[tuple[str, str, Norm, Found]]:
    yield "ddn", "hauberk", "l2", ours(DDN(THREATS["l2"], steps=steps))
    yield "ddn, loss margin", "hauberk", "l2", ours(DDN(THREATS["l2"], steps=steps, loss="margin"))
    for norm, threat in THREATS.items():
        yield "fmn", "hauberk", norm, ours(FMN(threat, steps=steps))
    yield (
        "carlini_wagner",
        "hauberk",
        "l2",
        ours(CarliniWagner(THREATS["l2"], steps=steps, binary_searches=searches, initial_constant=1.0)),
    )
    for name, settings in (("deepfool", {"steps": steps // 2}), ("fab", {"steps": steps // 4})):
        with contextlib.suppress(ImportError):
            for norm, threat in THREATS.items():
                kind = registry.entry(name).load()
                if norm in kind.norms:  # type: ignore[attr-defined]
                    yield name, "hauberk", norm, ours(kind(threat, **settings))


def foolbox_attacks(steps: int, searches: int) -> Iterator[tuple[str, str, Norm, Found]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox

    def found(attack: Any) -> Found:
        def run(model: nn.Module, batch: Batch) -> Tensor:
            there = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
            points, _, _ = attack(there, batch.images, foolbox.criteria.Misclassification(batch.labels), epsilons=None)
            result: Tensor = points
            return result

        return run

    kinds = foolbox.attacks
    yield "ddn", "foolbox", "l2", found(kinds.DDNAttack(steps=steps))
    for norm, kind in {"l1": kinds.L1FMNAttack, "l2": kinds.L2FMNAttack, "linf": kinds.LInfFMNAttack}.items():
        yield "fmn", "foolbox", norm, found(kind(steps=steps))  # type: ignore[misc]
    yield (
        "carlini_wagner",
        "foolbox",
        "l2",
        found(kinds.L2CarliniWagnerAttack(binary_search_steps=searches, steps=steps, initial_const=1.0)),
    )
    for norm, kind in {"l2": kinds.L2DeepFoolAttack, "linf": kinds.LinfDeepFoolAttack}.items():
        yield "deepfool", "foolbox", norm, found(kind(steps=steps // 2))  # type: ignore[misc]


def adv_lib_attacks(steps: int, searches: int) -> Iterator[tuple[str, str, Norm, Found]]:
    # its package file imports torchvision and visdom, which none of these attacks uses
    import adv_lib

    package = types.ModuleType("adv_lib.attacks")
    package.__path__ = [str(Path(adv_lib.__path__[0]) / "attacks")]
    sys.modules["adv_lib.attacks"] = package
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))

    def load(module: str, name: str) -> Any:
        return getattr(importlib.import_module(f"adv_lib.attacks.{module}"), name)

    def found(function: Any, **settings: Any) -> Found:
        return lambda model, batch: function(model, batch.images, batch.labels, **settings)

    yield "ddn", "adv-lib", "l2", found(load("decoupled_direction_norm", "ddn"), steps=steps, levels=None)
    for norm, order in ORDER.items():
        yield "fmn", "adv-lib", norm, found(load("fast_minimum_norm", "fmn"), steps=steps, norm=order)
    yield "carlini_wagner", "adv-lib", "l2", found(
        load("carlini_wagner", "carlini_wagner_l2"),
        max_iterations=steps, binary_search_steps=searches, initial_const=1.0,
    )  # fmt: skip
    for norm in ("l2", "linf"):
        yield "deepfool", "adv-lib", norm, found(load("deepfool", "df"), steps=steps // 2, norm=ORDER[norm])
    for norm, order in ORDER.items():
        yield "fab", "adv-lib", norm, found(load("fast_adaptive_boundary", "fab"), n_iter=steps // 4, norm=order)


def judge(model: nn.Module, batch: Batch, norm: Norm, find: Found) -> tuple[dict[str, Any], Tensor]:
    """Run an attack and measure the points it hands back; also the distance of every image it could move."""
    counted = Counted(model).eval()
    started = time.perf_counter()
    points = find(counted, batch).detach()
    seconds = time.perf_counter() - started
    with torch.no_grad():
        correct = model(batch.images).argmax(1) == batch.labels
        wrong = margins(model(points), batch.labels) < ROUNDING
    boxed = ((points >= -1e-6) & (points <= 1.0 + 1e-6)).flatten(1).all(1)
    nearest = torch.where(wrong & boxed, norms(points - batch.images, norm).double(), torch.inf)
    median = metrics.median_distance(correct.numpy(), np.where(correct.numpy(), nearest.numpy(), 0.0))
    curve = metrics.robust_accuracy_curve(correct.numpy(), nearest.numpy(), [THREATS[norm].eps])
    found = {
        "median": median.value,
        "interval": [median.low, median.high],
        "success": float((wrong & boxed)[correct].double().mean()),
        f"robust accuracy at {THREATS[norm]}": curve[0].value,
        "forwards": round(counted.forwards / len(batch), 1),
        "backwards": round(counted.backwards / len(batch), 1),
        "seconds": round(seconds, 2),
    }
    return found, nearest[correct]


def paired(own: Tensor, peer: Tensor) -> list[float]:
    """Median of own distance over the peer's, image by image, with its 95 % interval."""
    ratios = (own / peer).nan_to_num(nan=1.0).numpy()  # both found nothing: equal
    ratio = median_interval(ratios)
    return [round(value, 4) for value in (ratio.value, ratio.low, ratio.high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--searches", type=int, default=3, help="binary searches of Carlini & Wagner")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="names of attacks, by commas")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)  # adv-lib and foolbox draw from the global generator
    subject = hauberk.subject(options.run)
    batch = hauberk.evaluation_batch(subject.dataset, "test", options.images)
    own: dict[tuple[str, str], Tensor] = {}
    rows, wanted = [], set(filter(None, options.only.split(",")))
    for attacks in (own_attacks, foolbox_attacks, adv_lib_attacks):
        for name, library, norm, find in attacks(options.steps, options.searches):
            if wanted and name.split(",")[0] not in wanted:
                continue
            found, distances = judge(subject.model, batch, norm, find)
            row = {"attack": name, "library": library, "norm": norm} | found
            if library == "hauberk":
                own[name, norm] = distances
            elif (name, norm) in own:
                row["hauberk / this, image by image"] = paired(own[name, norm], distances)
            rows.append(row)
            print(
                f"{norm:5}{name:18}{library:9} median {row['median']:9.5f}  success {row['success']:.3f}  "
                f"passes {row['forwards']:7.1f} + {row['backwards']:7.1f}  {row['seconds']:6.2f} s  "
                f"{row.get('hauberk / this, image by image', '')}",
                flush=True,
            )
    if options.out:
        versions = {name: importlib.metadata.version(name) for name in ("foolbox", "adv-lib", "eagerpy")}
        setting = {"run": Path(options.run).name, "weights": subject.run.info["hashes"]["weights"]}
        setting |= {k: getattr(options, k) for k in ("images", "steps", "searches", "threads")}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"setting": setting, "environment": environment() | versions, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
