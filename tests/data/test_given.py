"""Data as a user names it: found where it is, completed by what a model takes, else one clear question."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hauberk.cli import options
from hauberk.data import load
from hauberk.data.given import Takes, completed, described, placed
from hauberk.errors import HauberkError
from hauberk.subjects import _same

Fits = Callable[[int, int], bool]
NOTHING: Fits = lambda channels, size: False  # noqa: E731
ANYTHING: Fits = lambda channels, size: True  # noqa: E731


def only(*forms: tuple[int, int]) -> Fits:
    return lambda channels, size: (channels, size) in forms


def colour(size: int) -> Fits:
    return lambda channels, side: (channels, side) == (3, size)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where commands are typed; the folder of data sets is another one."""
    monkeypatch.setenv("HAUBERK_DATA", str(tmp_path / "sets"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def images(folder: str, *sizes: tuple[int, int], mode: str = "L") -> None:
    for k, name in enumerate(("ill", "well")):
        Path(folder, name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            Image.new(mode, size, (40 * k + i + 1) if mode == "L" else (k, i, 9)).save(Path(folder, name, f"{i}.png"))


def chosen(text: str, tried: Fits, sizes: tuple[int, ...] = ()) -> dict[str, object]:
    return completed(described(text), Takes(tried, sizes))[0]


@pytest.mark.parametrize(
    ("tried", "sizes", "form"),
    [
        (only((1, 20)), (), (1, 20)),
        (only((3, 20)), (), (3, 20)),
        (ANYTHING, (), (1, 20)),
        (only((3, 32)), (), (3, 32)),
        (only((1, 37)), (37,), (1, 37)),  # which only its layers can say
        (NOTHING, (), (1, 20)),  # the check says what is wrong with the model
    ],
)
def test_size_and_channels_are_those_that_the_model_takes(
    tried: Fits, sizes: tuple[int, ...], form: tuple[int, int]
) -> None:
    images("xrays", (20, 20), (30, 20))
    found = chosen("xrays", tried, sizes)
    assert (found["channels"], found["size"]) == form
    dataset = load(found)
    assert dataset.input_shape == (form[0], form[1], form[1])
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (0, 0, 4)
    assert any("no training images" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("sizes", "tried"), [([(20, 20), (40, 40)], ANYTHING), ([(20, 20), (40, 40)], NOTHING), ([(500, 500)], ANYTHING)]
)
def test_more_than_one_size_is_a_question(sizes: list[tuple[int, int]], tried: Fits) -> None:
    images("xrays", *sizes)
    with pytest.raises(HauberkError, match="which size") as raised:
        chosen("xrays", tried)
    assert "--data xrays,size=" in raised.value.hint


@pytest.mark.parametrize("folder", ["xrays", "x rays", "x rays, 2024", "it's, {1}"])
def test_what_a_question_suggests_can_be_typed(folder: str) -> None:
    images(folder, (20, 20), (40, 40))
    with pytest.raises(HauberkError, match="which size") as raised:
        chosen(folder, ANYTHING)
    option, typed = shlex.split(raised.value.hint.partition(": ")[2])
    assert option == "--data"
    spec = options.data(typed)
    assert spec is not None
    assert spec["folder"] == folder and isinstance(spec["size"], int)


def test_what_the_user_says_is_not_asked_again() -> None:
    images("xrays", (20, 20), (40, 40), mode="RGB")
    spec = described("xrays") | {"size": 16, "channels": 1}
    assert completed(spec, Takes(ANYTHING))[0] == spec | {"root": "."}
    assert completed(described("xrays") | {"size": 16}, Takes(only((1, 16))))[0]["channels"] == 1


def test_a_path_is_looked_for_among_the_data_sets_and_here(here: Path) -> None:
    images("xrays", (8, 8))
    images("sets/other", (8, 8))
    images("sets/twice", (8, 8))
    images("twice", (8, 8))
    assert placed(described("xrays"))["root"] == "."
    assert "root" not in placed(described("other")) and "root" not in placed(described("twice"))
    assert placed({"name": "image_folder", "folder": "xrays"})["root"] == "."
    assert "root" not in placed(described(str(here / "xrays")))


def test_a_part_of_own_images_to_choose_on_is_completed_and_loaded_as_they_are(here: Path) -> None:
    """A folder for judging has no training images, and none to count the ids of the part from."""
    images("xrays", *[(8, 8)] * 9)
    whole = completed(described("xrays"), Takes(only((1, 8))))[0]
    part = {"name": "calibrated", "of": described("xrays"), "images": 6}
    spec, said = completed(part, Takes(only((1, 8))))
    assert spec == part | {"of": whole} and said
    assert placed(part)["of"]["root"] == "."
    found = load(spec)
    assert (len(found.train), len(found.val), len(found.test)) == (0, 6, 12)
    taken = {tuple(image.flatten().tolist()) for image in found.val.images}
    assert len(taken) == 6 and taken.isdisjoint(tuple(image.flatten().tolist()) for image in found.test.images)
    assert _same(part, spec) and not _same(part | {"of": described("xrays") | {"size": 9}}, spec)


def test_a_name_means_the_same_place_when_it_is_described_and_when_it_is_loaded(here: Path) -> None:
    """Here a folder for judging, among the data sets one with a training split: both lookups take the latter."""
    images("twice", (8, 8))
    images("sets/twice/train", (8, 8))
    images("sets/twice/test", (8, 8))
    assert described("twice") == {"name": "image_folder", "folder": "twice"}


def test_a_folder_with_splits_keeps_them() -> None:
    images("set/train", (8, 8))
    images("set/test", (8, 8))
    assert described("set") == {"name": "image_folder", "folder": "set"}
    images("half/test", (8, 8))
    images("half/val", (8, 8))
    with pytest.raises(HauberkError, match="no folder train") as raised:
        load(chosen("half", ANYTHING))
    assert "half/test" in raised.value.hint


def test_a_yaml_file_describes_data_alone_or_as_a_recipe_does() -> None:
    images("xrays", (8, 8))
    Path("a.yaml").write_text("{name: image_folder, folder: xrays, size: 8, channels: 1}")
    Path("b.yaml").write_text("name: recipe\ndata: {name: digits, val_size: 5}\n")
    Path("c.yaml").write_text("data: xrays\n")
    assert described("a.yaml")["size"] == 8
    assert described("b.yaml") == {"name": "digits", "val_size": 5}
    assert described("c.yaml") == described("xrays")
    Path("d.yaml").write_text("- 1\n")
    with pytest.raises(HauberkError, match="does not describe a data set"):
        described("d.yaml")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("digit", "no dataset called 'digit'", "'digits'"),
        ("no/where", "no folder or file 'no/where'", "an .npz file"),
        ("none.npz", "no folder or file 'none.npz'", "an .npz file"),
        ("none.yaml", "no file none.yaml", "a YAML file"),
        ("notes.txt", "is not a data set", "an .npz file"),
        ("empty", "holds no images", "one folder for each class"),
    ],
)
def test_what_is_not_there(name: str, message: str, hint: str) -> None:
    Path("notes.txt").write_text("x")
    Path("empty", "a").mkdir(parents=True)
    with pytest.raises(HauberkError) as raised:
        chosen(name, ANYTHING)
    assert message in raised.value.message and hint in raised.value.hint


# --- arrays -----------------------------------------------------------------------------------------------------------


def saved(shape: tuple[int, ...], **names: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    labels = np.arange(len(pixels)) % 2
    np.savez("own.npz", **{names.get("x", "images"): pixels, names.get("y", "labels"): labels})


@pytest.mark.parametrize(
    ("shape", "tried", "form"),
    [
        ((6, 8, 8), only((1, 8)), (1, 8, 8)),
        ((6, 8, 8), colour(8), (3, 8, 8)),
        ((6, 8, 8, 3), colour(8), (3, 8, 8)),
        ((6, 3, 8, 8), colour(8), (3, 8, 8)),
        ((6, 3, 8, 8), only((1, 8)), (1, 8, 8)),
        ((6, 8, 8, 3), NOTHING, (3, 8, 8)),
        ((6, 8, 5), ANYTHING, (1, 8, 5)),
    ],
)
def test_arrays_get_the_layout_that_they_have_and_the_channels_that_the_model_takes(
    shape: tuple[int, ...], tried: Fits, form: tuple[int, int, int]
) -> None:
    saved(shape)
    dataset = load(chosen("own.npz", tried))
    assert dataset.input_shape == form and len(dataset.test) == 6 and not len(dataset.train)


@pytest.mark.parametrize("shape", [(6, 3, 8, 3), (6, 8, 8, 8), (6, 64)])
def test_axes_that_may_mean_two_things_are_a_question(shape: tuple[int, ...]) -> None:
    saved(shape)
    with pytest.raises(HauberkError, match="which axes") as raised:
        chosen("own.npz", ANYTHING)
    assert "layout=NHWC" in raised.value.hint


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("x", "y"), ("x_test", "y_test"), ("test_images", "test_labels")]
)
def test_names_of_arrays_that_are_in_use(names: tuple[str, str]) -> None:
    saved((6, 8, 8), x=names[0], y=names[1])
    assert len(load(chosen("own.npz", ANYTHING)).test) == 6


def test_colours_are_made_grey_by_their_luma() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 3, 3), np.uint8)
    np.savez("own.npz", images=pixels, labels=np.arange(4) % 2)
    grey = load({"name": "npz", "file": "own.npz", "layout": "NHWC", "channels": 1, "root": "."}).test.images
    expected = np.stack([np.asarray(Image.fromarray(p).convert("L")) for p in pixels])
    assert int(np.abs(grey[:, 0].numpy().astype(int) - expected).max()) <= 1  # Pillow rounds in 16 bits
