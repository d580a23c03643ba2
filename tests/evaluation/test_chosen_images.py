"""Which images an evaluation takes, its units and its pictures: a larger number goes on where a smaller one ended."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import hauberk
from hauberk.attacks import FGSM
from hauberk.certificates import LipschitzCertificate
from hauberk.data import Dataset, Split, load
from hauberk.data.choice import proportional_order
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records, certificate_records
from hauberk.evaluation.work import Work
from hauberk.recipes import Evaluation, parse
from hauberk.records import group, read_all
from hauberk.runs import Run
from hauberk.threats import L2
from hauberk.verbs.samples import setting_of

CLASSES = tuple("0123456789")


@pytest.fixture(scope="module")
def sorted_digits() -> Dataset:
    """The digits with test images that are sorted by class, as in a folder of folders."""
    data = load("digits")
    order = data.test.labels.argsort(stable=True)
    test = Split("test", data.test.images[order], data.test.labels[order], torch.arange(len(order)))
    return Dataset("sorted", data.classes, data.train, data.val, test)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def taken(dataset: Dataset, images: int | None, choice: str) -> list[int]:
    return hauberk.evaluation_samples(dataset, "test", images, choice).ids.tolist()


def test_files_sorted_by_class_give_every_class(sorted_digits: Dataset) -> None:
    labels = sorted_digits.test.labels
    assert len(set(labels[taken(sorted_digits, 20, "first")].tolist())) == 1
    assert Counter(labels[taken(sorted_digits, 20, "hashed")].tolist()) == dict.fromkeys(range(10), 2)


@pytest.mark.parametrize(("few", "many"), [(1, 2), (10, 11), (48, 200), (200, 400), (399, None)])
@pytest.mark.parametrize("choice", ["hashed", "first"])
def test_each_number_is_inside_the_next(few: int, many: int | None, choice: str, sorted_digits: Dataset) -> None:
    small, large = taken(sorted_digits, few, choice), taken(sorted_digits, many, choice)
    assert large[:few] == small and len(large) == (many or 400)


def test_more_images_than_there_are_are_refused(sorted_digits: Dataset) -> None:
    with pytest.raises(HauberkError, match="has 400 test images, but 401 were requested"):
        hauberk.evaluation_samples(sorted_digits, "test", 401, "hashed")


def run(net: nn.Module, dataset: Dataset, images: int, choice: str, folder: Path) -> None:
    samples = hauberk.evaluation_samples(dataset, "test", images, choice)
    setting = Setting("sorted", "test", CLASSES, tile=4, gallery=5, choice=choice)
    attack_records(net, samples, FGSM(L2(0.2)), setting, Work(folder))
    certificate_records(net, samples, LipschitzCertificate(), setting, Work(folder))


def files(folder: Path) -> set[str]:
    return {p.name for kind in ("attack", "certificate") for p in folder.glob(f"{kind}-*.parquet")}


@pytest.mark.parametrize("choice", ["hashed", "first"])
def test_more_images_add_units_and_redo_the_last_alone(
    choice: str, net: nn.Module, sorted_digits: Dataset, tmp_path: Path
) -> None:
    run(net, sorted_digits, 50, choice, tmp_path)  # attacks in units of 16: three and a part; certificates of 4
    before = files(tmp_path)
    assert len(before) == 4 + 13
    run(net, sorted_digits, 80, choice, tmp_path)
    assert files(tmp_path) >= before
    assert len(files(tmp_path)) == len(before) + 2 + 8
    # attacks: the fourth unit again and a fifth; certificates: the 13th again and 14th to 20th
    for part in group([*read_all(tmp_path, "attack"), *read_all(tmp_path, "certificate")]):
        assert sorted(part.column("id").tolist()) == sorted(taken(sorted_digits, 80, choice))
        assert part.facts.get("choice", "first") == choice


def test_the_pictures_are_those_of_the_first_images_taken(
    net: nn.Module, sorted_digits: Dataset, tmp_path: Path
) -> None:
    run(net, sorted_digits, 40, "hashed", tmp_path)
    (part,) = group(read_all(tmp_path, "attack"))
    pictured = [row["id"] for row in part.table.to_pylist() if row["image"] is not None]
    assert sorted(pictured) == sorted(taken(sorted_digits, 5, "hashed"))
    image = next(row["image"] for row in part.table.to_pylist() if row["id"] == pictured[0])
    batch = sorted_digits.test.batch(torch.tensor([pictured[0]]))
    assert np.array_equal(np.frombuffer(image, np.float32), batch.images.numpy().ravel())


def test_samples_chosen_in_two_ways_are_two_evaluations(
    net: nn.Module, sorted_digits: Dataset, tmp_path: Path
) -> None:
    for choice in ("first", "hashed"):
        run(net, sorted_digits, 30, choice, tmp_path)
    found = group(read_all(tmp_path, "certificate"))
    assert sorted(len(p.table) for p in found) == [30, 30]


def test_a_verb_takes_the_images_of_its_plan(tiny_run: Path) -> None:
    target = hauberk.subject(tiny_run)
    test = target.dataset.test
    samples, setting = setting_of(target, Evaluation(images=30))
    assert torch.equal(samples.index, proportional_order(test.ids, test.labels)[:30]) and setting.choice == "hashed"
    samples, setting = setting_of(target, Evaluation(images=30, choice="first"))
    assert torch.equal(samples.ids, test.ids[:30]) and setting.choice == "first"


@pytest.mark.parametrize("block", [{}, {"images": 5}, {"images": 5, "split": "val"}, None, {"choice": "hashed"}])
def test_a_recipe_from_before_there_was_a_choice_took_the_first(block, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"name": "old", "model": {}, "data": {"name": "digits"}})
    content = {"name": "old", "data": {"name": "digits"}} | ({} if block is None else {"evaluation": block})
    (run.path / "recipe.yaml").write_text(yaml.safe_dump(content))
    expected = (block or {}).get("choice", "first")
    assert run.recipe.get("evaluation", {"choice": "first"})["choice"] == expected


def test_new_recipes_say_their_choice(tiny_run: Path) -> None:
    stored = yaml.safe_load((tiny_run / "recipe.yaml").read_text())
    assert stored["evaluation"]["choice"] == "hashed" == parse(stored).evaluation.choice
