"""Memory: images become floats one unit of work at a time, whatever is done with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hauberk
from hauberk import registry
from hauberk.attacks import APGD, AutoAttack
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, MixedCertificate
from hauberk.data import Split, load
from hauberk.defences import MixedClassifier
from hauberk.evaluation.alpha_path import mix_records
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records, certificate_records
from hauberk.evaluation.work import Work
from hauberk.recipes import Evaluation
from hauberk.records import HASHED_ROWS, data_hash
from hauberk.subjects import Subject
from hauberk.threats import L2
from hauberk.training.distributed import World
from hauberk.training.validation import held_out, validate
from hauberk.verbs import mix as mixing
from hauberk.verbs.samples import setting_of

TILE = 4
UNIT = 4 * TILE
PGD = APGD(L2(0.2), steps=2)


class Counted(Split):
    """A split that notes how many images it makes floats at one time."""

    most = 0

    def select(self, index: Tensor | slice) -> Counted:
        return Counted(self.name, self.images[index], self.labels[index], self.ids[index])

    def batch(self, index: Tensor | slice | None = None) -> Batch:
        made = super().batch(index)
        Counted.most = max(Counted.most, len(made))
        return made


@pytest.fixture
def counted() -> Counted:
    Counted.most = 0
    train = load("digits").train.select(slice(0, 70))
    return Counted(train.name, train.images, train.labels, train.ids)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def attack(net: nn.Module, split: Split, setting: Setting, work: Work) -> None:
    attack_records(net, split, PGD, setting, work)


def suite(net: nn.Module, split: Split, setting: Setting, work: Work) -> None:
    attack_records(net, split, AutoAttack(L2(0.2), version="custom", attacks=(PGD, PGD)), setting, work)


def lipschitz(net: nn.Module, split: Split, setting: Setting, work: Work) -> None:
    certificate_records(net, split, LipschitzCertificate(), setting, work)


def smoothing(net: nn.Module, split: Split, setting: Setting, work: Work) -> None:
    method = {"name": "smoothing", "sigma": 0.5, "n0": 10, "n": 20}
    certificate_records(net, split, registry.build(method, "certificate"), setting, work)


def mix(net: nn.Module, split: Split, setting: Setting, work: Work) -> None:
    model = MixedClassifier(net, net, 0.5, 1.0, 1.0).eval()
    mix_records(model, split, MixedCertificate(LipschitzCertificate()), (0.1,), setting, work)


@pytest.mark.parametrize(
    ("verb", "most"), [(attack, UNIT), (suite, UNIT), (lipschitz, TILE), (smoothing, TILE), (mix, TILE)]
)
def test_only_the_images_of_one_unit_are_floats(verb, most, counted: Counted, net: nn.Module, tmp_path: Path) -> None:
    verb(net, counted, Setting("digits", "train", tuple("0123456789"), tile=TILE, gallery=3), Work(tmp_path))
    assert Counted.most == most


def test_the_whole_split_is_hashed_a_few_images_at_a_time(counted: Counted) -> None:
    """And the hash is that of the floats all at once, so that it names old records too."""
    assert data_hash(counted) == data_hash(counted.batch()) == data_hash(counted.select(torch.arange(69, -1, -1)))
    Counted.most = 0
    data_hash(counted)
    assert Counted.most == HASHED_ROWS


@pytest.mark.parametrize("method", [None, PGD], ids=["clean", "attacked"])
def test_validation_takes_four_tiles_at_a_time(method, counted: Counted, net: nn.Module) -> None:
    many = Counted("val", counted.images.repeat(4, 1, 1, 1), counted.labels.repeat(4), torch.arange(280))
    score = validate(net, held_out(many, 0, seed=0), method, World())
    assert Counted.most == 256
    assert score.clean == float((net(counted.batch().images).argmax(1) == counted.labels).double().mean())


def test_a_mix_is_chosen_unit_by_unit(counted: Counted, net: nn.Module, tmp_path: Path) -> None:
    """The logits of all units are those of the whole batch."""
    data = load("digits")
    object.__setattr__(data, "val", Counted("val", data.val.images, data.val.labels, data.val.ids))
    subject = Subject(None, net, data)  # type: ignore[arg-type]
    plan = Evaluation(split="val", images=100, tile=20)
    found = mixing.gather(subject, subject, PGD, plan, folder=tmp_path)
    assert Counted.most == 80
    whole = hauberk.evaluation_batch(data, "val", 100, "hashed")
    assert found.labels.tolist() == whole.labels.tolist()
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found.accurate), net(whole.images).double(), atol=1e-5)
        worst = PGD(net, whole, plan.seed, 20).probability_margin_point
        assert torch.allclose(torch.from_numpy(found.robust_attacked), net(worst).double(), atol=1e-4)


def test_every_verb_takes_integers(tiny_run: Path) -> None:
    samples, _ = setting_of(hauberk.subject(tiny_run), Evaluation(images=5))
    assert samples.split.images.dtype == torch.uint8 and len(samples) == 5
