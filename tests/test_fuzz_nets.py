"""Nets at random, then deformed: each is refused, or no attack just inside its radius turns the deployed form.

A share of them runs always.  ``HAUBERK_FUZZ_NETS=2000 HAUBERK_FUZZ_OUT=results/fuzz_nets.json pytest
tests/test_fuzz_nets.py`` tries so many and writes the summary.
"""

import importlib.util
import json
import math
import os
import platform
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import hauberk
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, MixedCertificate, SmoothingCertificate
from hauberk.certificates.frozen import freeze
from hauberk.classifier import decide
from hauberk.defences.mixed import MixedClassifier
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
VERDICTS = ("holds", "idle", "refused", "FALSE")
IMAGES, INSIDE = 4, 0.999
MANY = int(os.environ.get("HAUBERK_FUZZ_NETS", "37"))


def loaded() -> ModuleType:
    description = importlib.util.spec_from_file_location("nets", Path(__file__).with_name("nets.py"))
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module


NETS = loaded()

# --- the judge ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What to build: everything follows from it."""

    seed: int
    kind: str  # walked, mix or smoothed
    deformation: str

    @property
    def honest(self) -> bool:
        return self.deformation in (NETS.HARMLESS if self.kind == "walked" else NETS.HONEST_BOXES)


def cases() -> list[tuple[str, str]]:
    walked = [("walked", name) for name in [*NETS.HARMLESS, *NETS.HARMLESS, *NETS.HARMFUL]]
    return walked + [(kind, name) for kind in ("mix", "smoothed") for name in [*NETS.HONEST_BOXES, *NETS.RUDE_BOXES]]


@contextmanager
def made(case: Case) -> Iterator[nn.Module]:
    draw = random.Random(case.seed)
    with ExitStack() as stack:
        model = NETS.built(draw)
        if case.kind == "walked":
            NETS.DEFORMED[case.deformation](model, draw, stack)
            for module in model.modules() if case.deformation != "train mode" else ():
                module.training = False
            yield model
            return
        box = NETS.Rude(NETS.BOXES[case.deformation]).eval()
        if case.kind == "mix":
            yield MixedClassifier(box, model, draw.uniform(0.7, 1.0), draw.uniform(0.1, 10), draw.uniform(1, 50)).eval()
        else:
            yield SmoothedClassifier(box, Gaussian(0.25), 4, 100, 0.001).eval()


def rows(images: Tensor) -> Batch:
    return Batch(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)))


def steps(model: nn.Module, image: Tensor, top: int, radius: float) -> Tensor:
    """Points just inside the radius: against each rival by its gradient, again from there, and at random; (n, ...)."""
    found = [torch.randn(8, *image.shape[1:], dtype=image.dtype)]
    for rival in (c for c in range(NETS.CLASSES) if c != top):
        point = image.clone()
        for _ in range(4):
            point = point.detach().requires_grad_(True)
            logits = model(point.clone())
            if not logits.requires_grad:
                break
            try:
                (slope,) = torch.autograd.grad(logits[0, rival] - logits[0, top], point)
            except RuntimeError:  # a layer in place of what a gradient needs: random points are left
                break
            moved = (point - image).detach() / max(radius, 1e-30) + slope / slope.norm().clamp_min(1e-30)
            found.append(moved)
            point = image + INSIDE * radius * moved / moved.norm().clamp_min(1e-30)
    unit = torch.cat(found)
    unit = unit / unit.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
    return image + radius * torch.cat([INSIDE * unit, 0.5 * unit])


def flips(model: nn.Module, images: Tensor, radius: Tensor, prediction: Tensor) -> int:
    """How many certified images a point inside their radius turns, judged by the deployed classifier."""
    turned = 0
    for image, r, top in zip(images.split(1), radius.tolist(), prediction.tolist(), strict=True):
        if not r > 0.0:
            continue
        points = steps(model, image, top, r).detach()
        near = (points - image).double().flatten(1).norm(dim=1) < r
        turned += bool((decide(model, rows(points[near]))[: int(near.sum())] != top).any())
    return turned


def vote_flips(model: nn.Module, images: Tensor, radius: Tensor, prediction: Tensor) -> int:
    """The same for a vote: of many draws at points just inside, the class must have more than half, less 5 sigma."""
    turned, count = 0, 4096
    noise = torch.Generator().manual_seed(1)
    for image, r, top in zip(images.split(1), radius.tolist(), prediction.tolist(), strict=True):
        for unit in torch.randn(4, *image.shape[1:], generator=noise) if r > 0.0 else ():
            point = image + INSIDE * r * unit / unit.norm()
            with torch.no_grad():
                logits = model.base(point + 0.25 * torch.randn(count, *image.shape[1:], generator=noise))
            turned += int((logits.argmax(1) == top).sum()) < count / 2 - 5 * math.sqrt(count) / 2
    return turned


CERTIFICATES = {
    "walked": LipschitzCertificate(),
    "mix": MixedCertificate(),
    "smoothed": SmoothingCertificate(Gaussian(0.25), n0=32, n=512, alpha=1e-5),
}


def judged(case: Case) -> tuple[str, Tensor]:
    """``refused``, ``holds``, ``idle`` (nothing certified) or ``FALSE``, and the radii."""
    with made(case) as model:
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        images = torch.rand(IMAGES, 2, 2, 4, generator=torch.Generator().manual_seed(case.seed)).to(dtype)
        try:
            found = CERTIFICATES[case.kind](model, rows(images.clone()), tile=16)
        except HauberkError:
            return "refused", torch.zeros(IMAGES)
        attack = vote_flips if case.kind == "smoothed" else flips
        if attack(model, images, found.radius, found.prediction):
            return "FALSE", found.radius
        return ("holds" if bool((found.radius > 0).any()) else "idle"), found.radius


def plain_radii(case: Case) -> Tensor:
    """Of the same function in plain layers: every weight that is computed is written down."""
    with made(case) as model:
        with torch.no_grad():
            model(torch.rand(2, 2, 2, 4).to(next(model.parameters())))  # old hooks leave their weights
        frozen = freeze(model, (2, 2, 4))
        images = torch.rand(IMAGES, 2, 2, 4, generator=torch.Generator().manual_seed(case.seed))
        return LipschitzCertificate()(frozen, rows(images.double())).radius


# --- many ---------------------------------------------------------------------------------------------------------


def tried(count: int) -> dict[str, Any]:
    """Nets of each kind in turn: how many were refused, hold, certify nothing or are false, and honest shares."""
    kinds, counts, radii, false = cases(), Counter(), [], []
    for seed in range(count):
        case = Case(seed, *kinds[seed * 7 % len(kinds)])
        verdict, radius = judged(case)
        counts[case.kind, case.deformation, "honest" if case.honest else "harmful", verdict] += 1
        if verdict == "FALSE":
            false.append(str(case))
        if case.kind == "walked" and case.honest and verdict == "holds":
            radii.append(bool(torch.allclose(radius, plain_radii(case), rtol=1e-3, atol=1e-7)))
    honest = {v: sum(n for key, n in counts.items() if key[2:] == ("honest", v)) for v in VERDICTS}
    return {
        "nets": count, "false": false, "honest": honest,
        "honest_accepted": 1 - honest["refused"] / sum(honest.values()),
        "radius_of_plain_layers": sum(radii) / len(radii),
        "counts": [[*key, n] for key, n in sorted(counts.items())],
        "environment": {"hauberk": hauberk.__version__, "torch": torch.__version__,
                        "python": platform.python_version(), "machine": platform.machine()},
    }  # fmt: skip


# --- tests --------------------------------------------------------------------------------------------------------


@settings(max_examples=min(MANY // 6, 500), deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**31), st.sampled_from(cases()))
def test_a_deformed_net_is_refused_or_holds(seed: int, which: tuple[str, str]) -> None:
    case = Case(seed, *which)
    verdict, _ = judged(case)
    assert verdict != "FALSE", case
    assert not (case.honest and verdict == "refused"), case


def test_each_kind_in_turn_and_honest_nets_are_accepted_with_the_radius_of_plain_layers() -> None:
    summary = tried(MANY)
    if os.environ.get("HAUBERK_FUZZ_OUT"):
        Path(os.environ["HAUBERK_FUZZ_OUT"]).write_text(json.dumps(summary, indent=1) + "\n")
    assert not summary["false"]
    assert summary["honest_accepted"] >= 0.95, summary["counts"]
    assert summary["radius_of_plain_layers"] >= 0.95


def test_the_judge_sees_a_false_radius() -> None:
    """Thirty times the radius is broken for some of the nets."""
    seen = 0
    for seed in range(4):
        with made(Case(seed, "walked", "plain")) as model:
            images = torch.rand(IMAGES, 2, 2, 4)
            found = CERTIFICATES["walked"](model, rows(images), tile=16)
            seen += flips(model, images, 30 * found.radius, found.prediction)
    assert seen > 0
