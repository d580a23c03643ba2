"""Folders in the layouts of HAM10000, NIH Chest X-ray and ImageNet-1k: their splits, classes and what is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from hauberk.data import Dataset, load
from hauberk.data.grouped import tenths
from hauberk.data.image_file import Form, read_image
from hauberk.errors import HauberkError

from . import layouts


def parts(data: Dataset) -> dict[str, set[int]]:
    return {split.name: set(split.ids.tolist()) for split in (data.train, data.val, data.test)}


def everyone(data: Dataset) -> dict[int, tuple[str, int]]:
    """The split and label of each id, where ids are of all splits together."""
    splits = (data.train, data.val, data.test)
    return {i: (s.name, k) for s in splits for i, k in zip(s.ids.tolist(), s.labels.tolist(), strict=True)}


# --- HAM10000 -------------------------------------------------------------------------------------------------


@pytest.fixture
def ham(tmp_path: Path) -> tuple[Path, list[tuple[str, str, str]]]:
    return tmp_path / "HAM10000", layouts.ham10000(tmp_path / "HAM10000")


def lesions(tmp_path: Path, **settings: object) -> Dataset:
    return load({"name": "ham10000", "size": 12} | settings, tmp_path)


def test_lesions_stay_together_by_the_hashes_of_their_names(ham, tmp_path: Path) -> None:
    _, rows = ham
    data = lesions(tmp_path)
    assert data.name == "ham10000_12_by_lesion"
    found = everyone(data)
    assert sorted(found) == list(range(len(rows)))
    for k, dx in enumerate(layouts.DX):
        names = layouts.in_order({lesion for _, lesion, other in rows if other == dx})
        for place, (_, lesion, other) in enumerate(rows):
            if other == dx:
                rank = names.index(lesion) / len(names)
                assert found[place] == ("train" if rank < 0.7 else "val" if rank < 0.8 else "test", k)


def test_photographs_are_the_central_squares_of_their_files(ham, tmp_path: Path) -> None:
    base, rows = ham
    data = lesions(tmp_path)
    batch = data.test.batch(slice(3))
    for number, image in zip(batch.ids.tolist(), batch.images, strict=True):
        path = next(base.rglob(f"{rows[number][0]}.jpg"))
        assert np.array_equal((255 * image).round().numpy(), read_image(path, Form(12, 3)).pixels)
    assert not data.pictures


def test_the_split_is_that_of_28_pixels(reader, tmp_path: Path) -> None:
    """On the real table: the split at 28 pixels was made elsewhere, by the same rule."""
    source = reader.load("dermamnist")
    of = {
        lesion.decode(): (number, int(k))
        for number, part in enumerate(("train", "val", "test"))
        for lesion, k in zip(source[f"lesion_id_{part}"], source[f"y_{part}"], strict=True)
    }
    names = sorted(of)
    assert tenths(names, [of[n][1] for n in names], (7, 8)).tolist() == [of[n][0] for n in names]


def broken_table(base: Path, old: str, new: str) -> None:
    table = base / "HAM10000_metadata.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("akiec", "wart", "'wart' is not a diagnosis"),
        ("lesion_id", "lesion", "lacks the column lesion_id"),
        ("ISIC_0000000", "ISIC_9999999", "lacks 1 image of 105 that its table names: ISIC_9999999"),
        ("HAM_000001,ISIC_0000001,akiec", "HAM_000001,ISIC_0000001,bcc", "of more than one class"),
        (",ISIC_0000004,akiec,histo,50,female,back", "", "too few values"),
    ],
)
def test_tables_that_say_something_else_are_refused(ham, tmp_path: Path, old: str, new: str, words: str) -> None:
    broken_table(ham[0], old, new)
    with pytest.raises(HauberkError, match=words):
        lesions(tmp_path)


def test_a_missing_table_and_a_photograph_that_is_there_twice(ham, tmp_path: Path) -> None:
    base, rows = ham
    copy = base / "more" / f"{rows[0][0]}.jpg"
    layouts.picture(copy, 1)
    with pytest.raises(HauberkError, match=f"holds {rows[0][0]} twice"):
        lesions(tmp_path)
    copy.unlink()
    (base / "HAM10000_metadata.csv").rename(base / "HAM10000_metadata.tab")
    assert len(lesions(tmp_path).classes) == 7
    (base / "HAM10000_metadata.tab").unlink()
    with pytest.raises(HauberkError, match=r"HAM10000_metadata.csv, which is not there"):
        lesions(tmp_path)


# --- NIH Chest X-ray ------------------------------------------------------------------------------------------


@pytest.fixture
def nih(tmp_path: Path) -> tuple[Path, list[tuple[str, str, str]]]:
    return tmp_path / "NIH_Chest_Xray", layouts.nih(tmp_path / "NIH_Chest_Xray")


def chest(tmp_path: Path, rule: str = "any_finding", **settings: object) -> Dataset:
    return load({"name": "nih_chest_xray", "size": 12, "rule": rule} | settings, tmp_path)


EXPECTED = {  # of the findings that an image has
    "only_positive": lambda f: f[0] if len(f) == 1 else None,
    "at_most_one": lambda f: "no finding" if not f else f[0] if len(f) == 1 else None,
    "any_finding": lambda f: "finding" if f else "no finding",
    "finding:Mass": lambda f: "Mass" if "Mass" in f else "no Mass",
}


@pytest.mark.parametrize("rule", EXPECTED)
@pytest.mark.parametrize("split", ["official", "by_patient"])
def test_every_rule_on_every_split(nih, tmp_path: Path, rule: str, split: str) -> None:
    _, rows = nih
    data = chest(tmp_path, rule, split=split)
    assert data.name == f"nih_chest_xray_12{'_by_patient' if split == 'by_patient' else ''}-{rule}"
    assert data.input_shape == (1, 12, 12)
    found = everyone(data)
    kept = {}
    for place, (_, text, _) in enumerate(rows):
        answer = EXPECTED[rule]([f for f in text.split("|") if f != "No Finding"])
        if answer is not None:
            kept[place] = answer
    assert {i: data.classes[k] for i, (_, k) in found.items()} == kept
    if split == "official":
        assert {i for i, (part, _) in found.items() if part == "test"} == {i for i in kept if int(rows[i][2]) % 3 == 0}
        names = layouts.in_order({patient for _, _, patient in rows if int(patient) % 3})
        held = {n for r, n in enumerate(names) if r / len(names) >= 0.9}
    else:
        names = layouts.in_order({patient for _, _, patient in rows})
        held = {n for r, n in enumerate(names) if 0.7 <= r / len(names) < 0.8}
    assert {i for i, (part, _) in found.items() if part == "val"} == {i for i in kept if rows[i][2] in held}


def test_a_rule_is_asked_for_and_must_be_known(nih, tmp_path: Path) -> None:
    cases = (({}, "rule"), ({"rule": "first"}, "rule"), ({"rule": "finding:Wart"}, "no finding 'Wart'"))
    for description, words in cases:
        with pytest.raises(HauberkError, match=words):
            load({"name": "nih_chest_xray", "size": 12} | description, tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("Data_Entry_2017.csv", "Mass|Nodule", "Mass|Wart", "'Wart' is not a finding"),
        ("Data_Entry_2017.csv", "Mass|Nodule", "Mass|No Finding", "contradicts itself"),
        ("test_list.txt", "00000003_000.png", "00000003_009.png", "00000003_000.png is in neither list"),
        ("test_list.txt", "00000003_000.png", "00000003_000.png\n00000001_000.png", "1_000.png is in both lists"),
    ],
)
def test_lists_that_say_something_else(nih, tmp_path: Path, file: str, old: str, new: str, words: str) -> None:
    path = nih[0] / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(HauberkError, match=words):
        chest(tmp_path)


def test_a_patient_in_two_splits_is_refused(nih, tmp_path: Path) -> None:
    base, moved = nih[0], "00000003_000.png"
    tested, learnt = base / "test_list.txt", base / "train_val_list.txt"
    tested.write_text(tested.read_text().replace(moved + "\n", ""))
    learnt.write_text(learnt.read_text() + moved + "\n")
    with pytest.raises(HauberkError, match="share 1 patient, for example 3"):
        chest(tmp_path)
    tested.unlink()
    with pytest.raises(HauberkError, match=r"test_list.txt, which is not there"):
        chest(tmp_path)
    assert len(chest(tmp_path, split="by_patient").test)


# --- ImageNet-1k ----------------------------------------------------------------------------------------------


def classes_of_val(data: Dataset) -> dict[str, str]:
    images = data.test.images
    return {images.path(i).stem: data.classes[int(k)] for i, k in enumerate(data.test.labels)}


def net_of(tmp_path: Path, **settings: object) -> Dataset:
    return load({"name": "imagenet", "size": 12, "val_size": 6} | settings, tmp_path)


@pytest.mark.parametrize("kind", ["folders", "wnids", "places", "solution"])
def test_val_with_folders_or_a_mapping(tmp_path: Path, kind: str) -> None:
    base = tmp_path / "imagenet"
    of = layouts.imagenet(base, flat=kind != "folders")
    lines = {
        "wnids": [f"{name}.JPEG {wnid}" for name, wnid in of.items()],
        "places": [f"{name}.JPEG {layouts.WNIDS.index(wnid)}" for name, wnid in of.items()],
        "solution": ["ImageId,PredictionString", *(f"{name},{wnid} 1 2 30 40 " for name, wnid in of.items())],
    }
    settings = {}
    if kind != "folders":
        (base / "val.txt").write_text("\n".join(lines[kind]))
        settings["mapping"] = "val.txt"
    data = net_of(tmp_path, **settings)
    assert data.classes == layouts.WNIDS
    assert (len(data.train), len(data.val), len(data.test)) == (30, 6, 12)
    assert classes_of_val(data) == of
    assert data.val.labels.bincount().tolist() == [2, 2, 2]
    assert not parts(data)["train"] & parts(data)["val"]
    assert parts(data)["test"] == set(range(12))
    first = data.train.batch(slice(1))
    path = data.train.images.path(0)
    assert path.parent.name == layouts.WNIDS[int(first.labels[0])]
    assert np.array_equal((255 * first.images[0]).round().numpy(), read_image(path, Form(12, 3, 0.875)).pixels)
    assert not data.pictures


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    base = tmp_path / "imagenet"
    with pytest.raises(HauberkError, match="train, which is not there"):
        net_of(tmp_path)
    of = layouts.imagenet(base, flat=True)
    with pytest.raises(HauberkError, match="no class folders"):
        net_of(tmp_path)
    with pytest.raises(HauberkError, match=r"val.txt, which is not there"):
        net_of(tmp_path, mapping="val.txt")
    cases = {
        "7\n8\n": "line 1 names no class",
        "".join(f"{name}.JPEG n99999999\n" for name in of): "line 1 names no class",
        "".join(f"{name}.JPEG {wnid}\n" for name, wnid in list(of.items())[1:]): "1 image without a class",
        f"{min(of)}.JPEG 0\n{min(of)}.JPEG 1\n": "line 2 names no class of train, or names another",
    }
    for text, words in cases.items():
        (base / "val.txt").write_text(text)
        with pytest.raises(HauberkError, match=words):
            net_of(tmp_path, mapping="val.txt")


def test_folders_of_train_and_val_agree(tmp_path: Path) -> None:
    base = tmp_path / "imagenet"
    layouts.imagenet(base)
    layouts.picture(base / "val" / "n99999999" / "x.JPEG", 0)
    with pytest.raises(HauberkError, match="no class 'n99999999' in train"):
        net_of(tmp_path)
    (base / "train" / "n99999999").mkdir()
    with pytest.raises(HauberkError, match="n99999999 holds no images"):
        net_of(tmp_path)
    (base / "train" / "cats").mkdir()
    with pytest.raises(HauberkError, match="cats: expected folders named by WordNet ids"):
        net_of(tmp_path)


def test_the_rule_of_tenths_by_hand() -> None:
    names = [f"g{i}" for i in range(13)]
    order = sorted(names, key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    found = dict(zip(names, tenths(names, [0] * 13, (7, 8)).tolist(), strict=True))
    assert [found[n] for n in order] == [0] * 10 + [1] + [2] * 2  # 7 / 10 of 13 is 9.1, 8 / 10 is 10.4
    assert tenths(names, [0] * 13, (0,)).tolist() == [1] * 13
