"""A classifier behind a purifier: what its suite is, and that each naive defence is broken by the right attack alone.

The toy: the label is whether an image is brighter than grey, and the classifier also looks, four times as hard, at a
chessboard.  An attack on the classifier alone draws the chessboard, which every purifier here washes out; one on the
whole, which knows of the purifier, changes the brightness.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks import APGD, AutoAttack, EOTSweep, PartAttack
from hauberk.batch import Batch
from hauberk.capabilities import Traits
from hauberk.data import load
from hauberk.defences import smoothed
from hauberk.defences.purified import PurifiedClassifier
from hauberk.defences.resize_pad import resize_pad
from hauberk.defences.total_variation import total_variation
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.noises import Gaussian
from hauberk.recipes import Plan
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.threats import Linf
from hauberk.verbs import evaluate as verb

SIDE, BRIGHT, EPS = 8, 0.05, 0.1


class Toy(nn.Module):
    """Brightness above grey, over the pixels that are not black, and four times a chessboard."""

    traits = Traits()

    def __init__(self) -> None:
        super().__init__()
        self.spec = {"name": "own", "source": "toy:build"}

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = (torch.arange(n) for n in images.shape[2:])
        board = 1.0 - 2.0 * ((rows[:, None] + columns) % 2)
        inside = (images > 0.05).to(images)
        count = inside.sum((1, 2, 3))
        light = (inside * (images - 0.5)).sum((1, 2, 3)) / count
        loud = (inside * board * (images - 0.5)).sum((1, 2, 3)) / count
        score = light + 4.0 * loud
        return torch.stack([-score, score], 1)


class Blur(nn.Module):
    """The mean over two by two pixels: what a guided denoiser may learn."""

    traits = Traits()

    def forward(self, images: Tensor) -> Tensor:
        around = functional.pad(images, (0, 1, 0, 1), mode="replicate")
        return functional.avg_pool2d(around, 2, 1)


def batch(rows: int = 8) -> Batch:
    labels = torch.arange(rows) % 2
    level = 0.5 + BRIGHT * (2.0 * labels - 1.0)
    return Batch(level[:, None, None, None].expand(rows, 1, SIDE, SIDE).clone(), labels, torch.arange(rows))


DEFENCES = {
    "total variation": lambda: total_variation(Toy(), drop=0.3, weight=0.1),
    "resize and pad": lambda: resize_pad(Toy(), 9, 12, 13),
    "guided denoiser": lambda: PurifiedClassifier(Toy(), Blur()),
}


@pytest.mark.parametrize("name", DEFENCES)
def test_each_naive_defence_stands_against_the_oblivious_attack_and_falls_to_the_one_that_knows_it(name):
    model, images = DEFENCES[name]().eval(), batch()
    search = APGD(Linf(EPS), "margin", early_stop=False, steps=20)
    assert bool(search(Toy().eval(), images).success.all())  # the classifier alone falls
    oblivious = PartAttack(Linf(EPS), part="undefended", attack=search)(model, images)
    adaptive = search(model, images)
    assert float(oblivious.success.float().mean()) <= 0.25
    assert float(adaptive.success.float().mean()) >= 0.9


def test_a_straight_through_gradient_misses_what_the_gradient_of_the_steps_finds():
    """BPDA draws the chessboard that total variation washes out, so that its failure is no evidence."""
    search = APGD(Linf(EPS), "margin", early_stop=False, steps=20)
    fallen = {
        way: float(search(total_variation(Toy(), 0.3, 0.1, backward=way).eval(), batch()).success.float().mean())
        for way in ("exact", "identity")
    }
    assert fallen["exact"] >= 0.9
    assert fallen["identity"] <= 0.25


@pytest.mark.parametrize(
    ("build", "version", "sweeps"),
    [(total_variation, "rand", 1), (partial(total_variation, drop=0.0), "fast", 0), (resize_pad, "rand", 1)],
)
def test_an_evaluation_follows_what_the_purifier_declares(build, version, sweeps, tmp_path):
    """A random one meets AutoAttack rand and a sweep over draws; each the oblivious attack beside the others."""
    torch.manual_seed(0)
    base = small_cnn((1, 8, 8), 10, (0.5,), (0.2,), widths=(4,), strides=(1,)).eval()
    target = Subject(Run(tmp_path / "run"), build(base).eval(), load("digits"), {"model": {}})
    attacks = verb.planned(target, Linf(0.1), Plan(images=2)).attacks
    assert isinstance(attacks[0], AutoAttack)
    assert attacks[0].version == version
    assert [a.part for a in attacks if isinstance(a, PartAttack)] == ["undefended"]
    assert sum(isinstance(a, EOTSweep) for a in attacks) == sweeps


def test_it_is_the_classifier_at_the_purified_images():
    toy, images = Toy().eval(), torch.rand(3, 1, SIDE, SIDE)
    model = PurifiedClassifier(toy, Blur())
    assert torch.equal(model(images), toy(Blur()(images)))
    assert model.parts() == {"undefended": toy}
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        PurifiedClassifier(smoothed(toy, Gaussian(0.25)), Blur())
