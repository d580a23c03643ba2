import numpy as np
import pytest
from PIL import Image

from hauberk.data import load
from hauberk.errors import HauberkError


@pytest.fixture
def save(tmp_path, random_images):
    """Write ``count`` random PNG images under a folder of ``own``: their arrays by file name."""
    made = iter(range(10**6))

    def write(folder, count, shape=(8, 8, 3), ending="png"):
        target = tmp_path / "own" / folder
        target.mkdir(parents=True, exist_ok=True)
        images = {}
        for i in range(count):
            images[f"{i:03d}.{ending}"] = random_images(*shape, seed=next(made))
            Image.fromarray(images[f"{i:03d}.{ending}"]).save(target / f"{i:03d}.{ending}")
        return images

    return write


@pytest.fixture
def read(tmp_path):
    return lambda **settings: load({"name": "image_folder", "folder": "own", "size": 8} | settings, tmp_path)


def pixels(split):
    return split.images.permute(0, 2, 3, 1).numpy()


def test_train_val_test(save, read, fingerprints):
    sizes = {"train": 6, "val": 2, "test": 3}
    saved = {(part, name): save(f"{part}/{name}", n) for part, n in sizes.items() for name in "ba"}
    dataset = read()
    assert dataset.name == "own"
    assert dataset.classes == ("a", "b")
    for split in (dataset.train, dataset.val, dataset.test):
        expected = [image for name in "ab" for image in saved[split.name, name].values()]
        assert np.array_equal(pixels(split), np.stack(expected))
        assert split.labels.tolist() == [0] * (len(split) // 2) + [1] * (len(split) // 2)
    assert dataset.val.ids.tolist() == [12, 13, 14, 15]
    with pytest.raises(HauberkError, match="folder val of its own"):
        read(val_size=3)


def test_val_is_held_out_of_train(save, read, fingerprints):
    for name in "ab":
        save(f"train/{name}", 20)
        save(f"test/{name}", 5)
    dataset = read()
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (36, 4, 10)
    assert dataset.val.labels.tolist() == [0, 0, 1, 1]
    assert not fingerprints(dataset.train) & fingerprints(dataset.val)
    assert len(read(val_size=10).val) == 10


def test_a_flat_folder_is_split_by_content(save, read, tmp_path, fingerprints):
    for name in "ab":
        save(name, 100)
    dataset = read()
    parts = {s.name: fingerprints(s) for s in (dataset.train, dataset.val, dataset.test)}
    assert sum(map(len, parts.values())) == 200
    assert sorted(i for s in (dataset.train, dataset.val, dataset.test) for i in s.ids.tolist()) == list(range(200))
    assert 20 <= len(parts["test"]) <= 60  # 0.2 of 200, four standard deviations either way
    assert 3 <= len(parts["val"]) <= 37

    # neither new names nor new neighbours move an image, and a copy follows its original
    folder = tmp_path / "own" / "a"
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"renamed-{999 - i}.png")
    (folder / "copy.png").write_bytes((folder / "renamed-999.png").read_bytes())
    save("b", 130)
    again = read()
    for split in (again.train, again.val, again.test):
        others = set().union(*(v for k, v in parts.items() if k != split.name))
        assert not fingerprints(split) & others
    assert not fingerprints(again.train) & fingerprints(again.test)


def test_fractions(save, read):
    for name in "ab":
        save(name, 30)
    assert len(read(val_fraction=0.0).val) == 0
    with pytest.raises(HauberkError, match=r"val_fraction below 1, got 0\.5 \+ 0\.5"):
        read(test_fraction=0.5, val_fraction=0.5)
    with pytest.raises(HauberkError, match="test_fraction"):
        read(test_fraction=1.0)
    with pytest.raises(HauberkError, match="say val_fraction instead"):
        read(val_size=3)


def test_the_central_square_is_resized(tmp_path, read):
    image = np.zeros((16, 40, 3), np.uint8)
    image[:, 12:28] = 200  # the central square, and nothing of it is black
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / "own" / part / name).mkdir(parents=True)
            Image.fromarray(image).save(tmp_path / "own" / part / name / "0.png")
    assert (pixels(read(val_size=0).train) == 200).all()


def test_grey_and_other_forms(save, read, tmp_path):
    for part in ("train", "test"):
        for name, shape in (("a", (8, 8)), ("b", (8, 8, 4))):
            save(f"{part}/{name}", 2, shape)
    assert read(val_size=0, channels=1).input_shape == (1, 8, 8)
    colour = read(val_size=0).train.images
    assert (colour[:2, 0] == colour[:2, 1]).all()  # grey images become three equal channels
    grey = np.asarray(Image.open(tmp_path / "own/train/a/000.png"))
    assert np.array_equal(read(val_size=0, channels=1).train.images[0, 0].numpy(), grey)


def test_orientation_is_applied(save, read, tmp_path):
    for name in "ab":
        save(f"train/{name}", 1)
        save(f"test/{name}", 1)
    image = np.zeros((8, 8, 3), np.uint8)
    image[0] = 255
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    Image.fromarray(image).save(tmp_path / "own/test/a/000.png", exif=upside_down)
    found = pixels(read(val_size=0).test)[0]
    assert found[7].min() == 255
    assert found[:7].max() == 0


def test_webp_and_jpeg_are_read_and_notes_passed_over(save, read, tmp_path):
    for part in ("train", "test"):
        save(f"{part}/a", 2, ending="webp")
        save(f"{part}/b", 2, ending="jpg")
    (tmp_path / "own/train/a/notes.txt").write_text("not an image")
    (tmp_path / "own/train/a/._000.png").write_text("a hidden file")
    (tmp_path / "own/train/.cache").mkdir()
    assert len(read(val_size=0).train) == 4


def test_missing_folders(save, read, tmp_path):
    with pytest.raises(HauberkError) as caught:
        read()
    assert str(tmp_path / "own") in caught.value.message
    save("train/a", 1)
    with pytest.raises(HauberkError, match="two class folders or more, got 1"):
        read()
    save("train/b", 1)
    with pytest.raises(HauberkError, match=r"own.test, which is not there"):
        read()
    save("test/c", 1)
    with pytest.raises(HauberkError, match="there is no class 'c' in train"):
        read()
    (tmp_path / "own/test/c/000.png").unlink()
    (tmp_path / "own/test/c").rename(tmp_path / "own/test/a")
    with pytest.raises(HauberkError, match="holds no images"):
        read()


@pytest.mark.parametrize("damage", ["truncated", "text", "sixteen bits"])
def test_bad_images_are_named(save, read, tmp_path, damage):
    for part in ("train", "test"):
        for name in "ab":
            save(f"{part}/{name}", 2, (64, 64, 3))
    path = tmp_path / "own/test/b/001.png"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "text":
        path.write_bytes(b"text")
    else:
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)
    with pytest.raises(HauberkError, match="more than 8 bits" if damage == "sixteen bits" else "cannot read the image"):
        read()
