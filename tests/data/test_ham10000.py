"""HAM10000: no lesion on both sides, and no image in a record or on a page."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import hauberk
from hauberk.attacks import FGSM
from hauberk.data import load
from hauberk.data.ham10000 import DIAGNOSES
from hauberk.errors import HauberkError
from hauberk.recipes import Evaluation
from hauberk.records import PICTURES, read_all
from hauberk.report import write_report
from hauberk.subjects import subject
from hauberk.threats import Linf

SIZES = {"train": 28, "val": 7, "test": 14}
NET = """
import torch
from torch import nn
def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(2352, 7)).eval()
"""


def write(folder: Path, **changes: np.ndarray) -> dict[str, np.ndarray]:
    """The file of three splits, whose lesions are one an image, with arrays changed."""
    rng, arrays, first = np.random.default_rng(0), {}, 0
    for part, count in SIZES.items():
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8) % 7
        arrays[f"{part}_lesions"] = np.array([b"HAM_%07d" % (first + i) for i in range(count)])
        first += count
    np.savez(folder / "ham10000_28_by_lesion.npz", **(arrays | changes))
    return arrays


def test_the_splits_are_those_of_the_file(tmp_path: Path) -> None:
    arrays = write(tmp_path)
    dataset = load("ham10000_28", tmp_path)
    assert dataset.name == "ham10000_28_by_lesion"
    assert dataset.classes == tuple(DIAGNOSES.values())
    for part in (dataset.train, dataset.val, dataset.test):
        assert np.array_equal(part.images.permute(0, 2, 3, 1).numpy(), arrays[f"{part.name}_images"])
        assert np.array_equal(part.labels.numpy(), arrays[f"{part.name}_labels"])
    assert any("not the published split" in note for note in dataset.notes)


@pytest.mark.parametrize(("one", "other"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_a_lesion_in_two_splits_is_refused(tmp_path: Path, one: str, other: str) -> None:
    arrays = write(tmp_path)
    lesions = arrays[f"{other}_lesions"].copy()
    lesions[-1] = arrays[f"{one}_lesions"][-1]
    write(tmp_path, **{f"{other}_lesions": lesions})
    with pytest.raises(HauberkError, match=f"{one} and {other} share 1 lesion, for example HAM_"):
        load("ham10000_28", tmp_path)


def test_every_image_has_a_lesion(tmp_path: Path) -> None:
    arrays = write(tmp_path)
    write(tmp_path, val_lesions=arrays["val_lesions"][:-1])
    with pytest.raises(HauberkError, match="one lesion for each val image"):
        load("ham10000_28", tmp_path)


def test_no_image_is_kept_or_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., tuple[int, str]]
) -> None:
    write(tmp_path)
    (tmp_path / "linear_for_lesions.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data = {"name": "ham10000_28", "root": str(tmp_path)}
    target = subject("linear_for_lesions:build", tmp_path / "run", data)
    hauberk.attack(target, [FGSM(Linf(0.1))], Evaluation(images=8, tile=4, gallery=4))
    hauberk.lipschitz(target, images=2)
    (told,) = target.run.info["lipschitz"].values()
    assert told["pictures"] == []
    parts = read_all(tmp_path / "run" / "records", "attack")
    assert parts
    assert all(part.table.column(name).null_count == part.table.num_rows for part in parts for name in PICTURES)
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "data:image/png" not in page
    attack = ("attack", "linear_for_lesions:build", "--data", f"ham10000_28,root={tmp_path}", "--threat", "linf:0.1")
    code, said = typed(*attack, "--images", 4, "--keep", 2)
    assert code == 1
    assert "does not allow its images to be passed on" in said
    assert "records and pages hold none" in page


def test_real_images(reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "reproductions"))
    import image_sets

    image_sets.ham10000_28(reader, tmp_path)
    dataset, source = load("ham10000_28", tmp_path), reader.load("dermamnist")
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [6994, 999, 2022]
    assert np.array_equal(dataset.test.images.permute(0, 2, 3, 1).numpy(), source["x_test"])
    assert tuple(source["classes"]) == tuple(DIAGNOSES)
    assert torch.equal(dataset.train.labels, torch.from_numpy(source["y_train"]))
