import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
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
    with pytest.raises(HauberkError, match="use val_fraction instead"):
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


@pytest.mark.parametrize(
    "damage", ["truncated", "text", "empty", "cut jpeg", "cut sixteen bits", "animated", "cmyk", "gif", "bomb"]
)
def test_bad_images_are_named(save, read, tmp_path, damage, monkeypatch):
    for part in ("train", "test"):
        for name in "ab":
            save(f"{part}/{name}", 2, (64, 64, 3))
    path = tmp_path / "own/test/b/001.png"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage in ("text", "empty"):
        path.write_bytes({"text": b"text", "empty": b""}[damage])
    elif damage == "cut jpeg":
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:900])
    elif damage == "cut sixteen bits":
        Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(path)
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "animated":
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "black")]
        frames[0].save(path, "PNG", save_all=True, append_images=frames[1:])
    elif damage == "cmyk":
        Image.new("CMYK", (8, 8), (1, 2, 3, 4)).save(path, "JPEG")
    elif damage == "gif":
        Image.new("L", (8, 8)).save(path, "GIF")
    else:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    words = {"animated": "has 3 frames", "cmyk": "colours of kind CMYK", "empty": "it is empty",
             "text": "it is not a PNG, JPEG, WEBP image"}  # fmt: skip
    with pytest.raises(HauberkError, match=words.get(damage, "cannot read the image")):
        read()


# --- depth ----------------------------------------------------------------------------------------------------


def encoded16(values):
    """A PNG of 16 bits a channel, without filters."""
    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)), (b"IEND", b""),
    )  # fmt: skip
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.fixture
def save16(tmp_path):
    """Write a data set of 16-bit images: ``form(shape, seed)`` gives each one."""

    def write(make, size=8):
        written = {}
        for part in ("train", "test"):
            for seed, name in enumerate("ab"):
                folder = tmp_path / "own" / part / name
                folder.mkdir(parents=True, exist_ok=True)
                written[part, name] = make(np.random.default_rng(seed), size)
                (folder / "0.png").write_bytes(encoded16(written[part, name]))
        return written

    return write


@pytest.mark.parametrize("stored", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_depth(save16, read, stored, channels):
    def make(generator, size):
        values = generator.integers(0, 65536, (size, size, stored), dtype=np.uint16)
        if stored in (2, 4):
            values[:, :, -1] = 65535
        return values

    written = save16(make)
    dataset = read(val_size=0, channels=channels)
    assert dataset.train.images.dtype == torch.uint16
    for row, name in enumerate("ab"):
        colours = written["train", name][:, :, : 3 if stored > 2 else 1].astype(np.float64)
        if channels == 1 and stored > 2:
            colours = np.rint(colours @ np.array([0.299, 0.587, 0.114]))[:, :, None]
        expected = np.broadcast_to(colours, (8, 8, channels))
        assert np.array_equal(dataset.train.images[row].permute(1, 2, 0).numpy(), expected)
        floats = dataset.train.batch().images[row].permute(1, 2, 0).numpy()
        assert np.array_equal(floats, (expected / 65535.0).astype(np.float32))


@pytest.mark.parametrize("value", [0x00FF, 0x0001, 0x0100, 0x7FFF, 0xFFFE])
def test_a_low_byte_is_no_zero(save16, read, value):
    save16(lambda generator, size: np.full((size, size, 3), value, np.uint16))
    assert float(read(val_size=0).test.batch().images.max()) == np.float32(value / 65535.0)


def test_sixteen_bits_are_resized_at_their_depth(save16, read):
    """A ramp of neighbouring values has 8 bits of steps only if the low byte is lost."""
    save16(lambda generator, size: np.repeat(np.arange(64, dtype=np.uint16)[None, :, None] + 30_000, 64, 0), 64)
    row = read(val_size=0, channels=1).train.images[0, 0, 4].numpy().astype(int)
    assert np.abs(row - (30_000 + np.arange(8) * 8 + 3.5)).max() <= 1.5


@pytest.mark.parametrize("stored", [2, 4])
def test_transparent_pixels_of_sixteen_bits_lie_over_black_and_are_counted(save16, read, stored):
    def make(generator, size):
        values = np.full((size, size, stored), 40_000, np.uint16)
        values[:, :, -1] = 65535
        values[0, :, -1], values[1, :, -1] = 0, 65535 // 5
        return values

    save16(make)
    dataset = read(val_size=0, channels=1)
    assert dataset.train.images[0, 0, :3, 0].tolist() == [0, 8000, 40_000]
    assert any("4 of 4 images have transparent pixels; they are laid over black." in note for note in dataset.notes)


def test_eight_bit_images_beside_sixteen_bit_ones_mean_the_same(save, save16, read):
    save16(lambda generator, size: generator.integers(0, 65536, (size, size, 3), dtype=np.uint16))
    saved = save("test/b", 2)
    dataset = read(val_size=0)
    assert dataset.test.images.dtype == torch.uint16
    expected = (saved["001.png"] / 255.0).astype(np.float32)
    assert np.array_equal(dataset.test.batch().images[-1].permute(1, 2, 0).numpy(), expected)
    assert any("of 6 images have 16 bits a channel" in note for note in dataset.notes)


def test_statistics_of_sixteen_bits(save16, read):
    written = save16(lambda generator, size: generator.integers(0, 65536, (size, size, 3), dtype=np.uint16))
    dataset = read(val_size=0)
    every = np.stack([written["train", n] for n in "ab"]) / 65535.0
    assert np.allclose(dataset.mean, every.mean((0, 1, 2)), atol=1e-12)
    assert np.allclose(dataset.std, every.std((0, 1, 2)), atol=1e-12)


# --- what would lie -------------------------------------------------------------------------------------------


def said(dataset, *words):
    return any(all(w in note for w in words) for note in dataset.notes)


@pytest.fixture
def four(save):
    """Two classes with two training and two test images each."""
    for part in ("train", "test"):
        for name in "ab":
            save(f"{part}/{name}", 2)


def bitmaps(folder, count=3):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (8, 8)).save(folder / f"{i}.bmp")


@pytest.mark.parametrize("what", ["empty", "bitmaps", "hidden", "text", "flat"])
def test_a_class_without_training_images_is_named(four, save, read, tmp_path, what):
    folder = tmp_path / "own/train/c"
    if what == "flat":
        (tmp_path / "own/train").rename(tmp_path / "flat")
        (tmp_path / "own/test").rename(tmp_path / "unused")
        for name in "ab":
            (tmp_path / "flat" / name).rename(tmp_path / "own" / name)
        folder = tmp_path / "own/c"
    folder.mkdir(parents=True)
    if what == "bitmaps":
        bitmaps(folder)
    if what == "hidden":
        (folder / "._0.png").write_bytes(b"")
    if what == "text":
        (folder / "list").write_text("0.png")
    words = {"bitmaps": "holds no images but 3 .bmp", "text": "holds no images but 1 without an ending"}
    with pytest.raises(HauberkError, match=f"c {words.get(what, 'holds no images: it is empty')}"):
        read(val_size=None if what == "flat" else 0)


@pytest.mark.parametrize("where", ["train/a", "train/b", "test/a"])
@pytest.mark.parametrize("depth", [1, 2])
def test_images_one_folder_deeper_are_refused(four, save, read, where, depth):
    save(f"{where}/{'/'.join(['left', 'more'][:depth])}", 1)
    with pytest.raises(HauberkError, match="images one folder deeper, in left"):
        read(val_size=0)


def test_a_folder_around_the_data_is_found(save, read):
    for name in "ab":
        save(f"inner/{name}", 2)
    with pytest.raises(HauberkError, match=r"did you mean the folder .*own.inner"):
        read()


@pytest.mark.parametrize("leftover", ["__MACOSX", ".ipynb_checkpoints", "__MACOSX/a", ".git"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_what_archives_and_tools_leave_is_no_class(four, save, read, leftover, part):
    save(f"{part}/{leftover}", 1)
    assert read(val_size=0).classes == ("a", "b")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a/x.bmp"], ("1 file passed over", "1 .bmp")),
        (["a/x.bmp", "b/x.bmp", "b/y.BMP"], ("3 files passed over", "3 .bmp")),
        (["a/notes.txt", "b/x.tif"], ("2 files passed over", "1 .tif, 1 .txt")),
        (["a/x.gif"], ("1 .gif",)),
        (["labels.csv"], ("1 .csv",)),
        (["b/README"], ("1 without an ending",)),
    ],
)
def test_files_that_are_passed_over_are_counted_and_named(four, read, tmp_path, names, words):
    assert not said(read(val_size=0), "passed over")
    for name in names:
        (tmp_path / "own/train" / name).write_bytes(b"content")
    assert said(read(val_size=0), *words)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([str(k) for k in range(12)], [str(k) for k in range(12)]),
        (["class10", "class2", "class1"], ["class1", "class2", "class10"]),
        (["b", "a", "c"], ["a", "b", "c"]),
        (["007", "7", "01", "1"], ["01", "1", "007", "7"]),
        (["v1.10", "v1.9", "v1"], ["v1", "v1.9", "v1.10"]),
        (["10 dogs", "9 cats"], ["9 cats", "10 dogs"]),
    ],
)
def test_numbers_in_names_are_sorted_as_numbers(save, read, names, order):
    for part in ("train", "test"):
        for name in names:
            save(f"{part}/{name}", 1)
    dataset = read(val_size=0)
    assert list(dataset.classes) == order
    assert said(dataset, "natural order") == (order != sorted(order))


def test_the_order_of_classes_can_be_given(four, save, read):
    dataset = read(val_size=0, classes=("b", "a"))
    assert dataset.classes == ("b", "a")
    assert torch.equal(dataset.train.images[:2], read(val_size=0).train.images[2:])
    for wrong in (("a",), ("a", "b", "c"), ("a", "a", "b"), ("a", "x")):
        with pytest.raises(HauberkError, match="name each class folder once"):
            read(val_size=0, classes=wrong)


def test_forms_that_are_changed_are_said(save, read, tmp_path):
    for part in ("train", "test"):
        save(f"{part}/a", 1, (8, 8))
        save(f"{part}/b", 1, (20, 10, 3))
    dataset = read(val_size=0)
    assert said(dataset, "2 sizes, from 8x8 to 10x20 pixels", "resized to 8x8")
    assert said(dataset, "2 of 4 images are not square")
    assert said(dataset, "2 of 4 images have no colours and are given three equal channels")
    assert said(read(val_size=0, channels=1), "the others made grey")


@pytest.mark.parametrize("mode", ["P", "1", "LA", "RGBA", "PA"])
def test_palettes_and_transparency_show_what_is_seen(four, read, tmp_path, mode):
    """The hidden colour of a transparent pixel is not shown: it lies over black, which is counted."""
    path = tmp_path / "own/test/b/001.png"
    seen = Image.new("RGBA", (8, 8), (255, 255, 255, 255))
    seen.putpixel((0, 0), (200, 200, 200, 0))
    if mode in ("LA", "RGBA"):
        seen.convert(mode).save(path)
    elif mode == "PA":
        seen.quantize(4).save(path)
    else:
        seen.convert("RGB").convert(mode).save(path)
    dataset = read(val_size=0)
    image = dataset.test.images[-1]
    assert int(image[:, 1:, 1:].min()) == 255
    assert (int(image[0, 0, 0]) == 0) == (mode in ("LA", "RGBA", "PA"))
    assert said(dataset, "1 of 8 images have transparent") == (mode in ("LA", "RGBA", "PA"))


def test_turned_images_are_counted(four, read, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 8), "red").save(tmp_path / "own/test/a/000.png", exif=exif)
    assert said(read(val_size=0), "1 of 8 images are turned as their EXIF orientation says")


@pytest.mark.parametrize(
    ("meant", "name"),
    [("val", "valid"), ("val", "validation"), ("val", "dev"), ("val", "Val"), ("train", "Train"), ("train", "training"),
     ("test", "TEST"), ("test", "testing")],
)  # fmt: skip
def test_a_split_under_another_name_is_not_passed_over(meant, name, four, read, tmp_path):
    shutil.copytree(tmp_path / "own/test", tmp_path / "own" / "val")
    (tmp_path / "own" / meant).rename(tmp_path / "own" / name)
    with pytest.raises(HauberkError, match=f"{name} is not read: .*\n.*rename it to {meant}"):
        read()


def test_a_folder_of_ones_own_beside_the_splits_is_no_split(four, read, tmp_path):
    shutil.copytree(tmp_path / "own/test", tmp_path / "own/extra")
    assert len(read(val_size=0).test) == 4


def test_an_image_is_of_a_size_that_a_machine_can_hold(four, read):
    with pytest.raises(HauberkError, match="size: Input should be less than or equal to 4096"):
        read(size=4097)
