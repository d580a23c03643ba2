"""Images that stay in their files: the same images, batches and notes as in memory, and few at a time."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import hauberk
from hauberk import registry
from hauberk.attacks import FGSM
from hauberk.data import Dataset, Selection, Split, streamed
from hauberk.data.calibrated import calibrated
from hauberk.data.dataset import MEASURED, channel_statistics
from hauberk.data.examined import examined
from hauberk.data.image_file import Form, read_image
from hauberk.data.source import Part, Source
from hauberk.data.streamed import ImageFiles, names_array
from hauberk.errors import HauberkError
from hauberk.evaluation.fingerprint import ROWS
from hauberk.recipes import Evaluation
from hauberk.records import HASHED_ROWS, data_hash
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.threats import Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit
from hauberk.verbs.samples import PROBED

from .layouts import picture

COUNT = 40
FORM = Form(8, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("files")
    for i in range(COUNT):
        picture(base / f"{i % 3}" / f"{i:02d}.{('png', 'jpg')[i % 2]}", i, (20, 14))
    return base


@pytest.fixture
def files(folder: Path) -> ImageFiles:
    return ImageFiles(folder, names_array([f"{i % 3}/{i:02d}.{('png', 'jpg')[i % 2]}" for i in range(COUNT)]), FORM)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded, in the order of the end of each."""
    seen: list[str] = []
    inner = streamed.decoded

    def noted(path: Path, form: Form) -> object:
        seen.append(path.name)
        return inner(path, form)

    monkeypatch.setattr(streamed, "decoded", noted)
    return seen


def split(images: torch.Tensor | ImageFiles, name: str = "train", first: int = 0) -> Split:
    n = len(images)
    return Split(name, images, torch.arange(n) % 3, torch.arange(first, first + n))  # type: ignore[arg-type]


def dataset(images: torch.Tensor | ImageFiles) -> Dataset:
    parts = [images[torch.arange(i, j)] for i, j in ((0, 24), (24, 30), (30, COUNT))]
    train, val, test = (split(p, n, f) for p, n, f in zip(parts, ("train", "val", "test"), (0, 24, 0), strict=True))
    return Dataset("files", ("a", "b", "c"), train, val, test)


def test_every_image_is_that_of_the_reader(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "AT_ONCE", 7)
    expected = np.stack([read_image(files.path(row), FORM).pixels for row in range(COUNT)])
    assert np.array_equal(files.read().numpy(), expected)
    assert len({image.tobytes() for image in expected}) == COUNT
    assert files.shape == (COUNT, 3, 8, 8)
    assert torch.equal(torch.stack(list(files)), files.read())


@pytest.mark.parametrize(
    "index",
    [slice(3, 9), slice(None, None, 7), torch.tensor([5, 1, 1, 39]), torch.arange(COUNT) % 5 == 0, slice(0)],
    ids=["slice", "steps", "places", "mask", "none"],
)
def test_rows_are_chosen_as_of_a_tensor(files: ImageFiles, index: torch.Tensor | slice) -> None:
    whole = files.read()
    assert torch.equal(files[index].read(), whole[index])
    own, other = split(files).batch(index), split(whole).batch(index)
    assert torch.equal(own.images, other.images)
    assert torch.equal(own.labels, other.labels)
    assert own.images.dtype == torch.float32
    assert data_hash(split(files).select(slice(9))) == data_hash(split(whole).select(slice(9)))


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_threads_change_nothing(files: ImageFiles, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = files.read()
    monkeypatch.setattr(streamed, "cores", lambda: threads)
    assert torch.equal(files.read(), expected)


def test_nothing_is_read_before_a_batch_is_asked_for(files: ImageFiles, asked: list[str]) -> None:
    data = dataset(files)
    assert data.input_shape == (3, 8, 8)
    chosen = Selection(data.test, torch.tensor([7, 2]))
    assert chosen.select(slice(1)).ids.tolist() == [7]
    assert any("stay in their files" in note for note in data.notes)
    assert not asked
    chosen.batch()
    assert sorted(asked) == ["32.png", "37.jpg"]


def test_an_evaluation_reads_its_images_a_unit_at_a_time(
    files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    train, val, test = (files[torch.arange(i, j)] for i, j in ((0, 6), (6, 10), (10, COUNT)))
    data = Dataset("files", ("a", "b", "c"), split(train), split(val, "val", 6), split(test, "test"))
    sizes: list[int] = []
    names: set[bytes] = set()
    inner = ImageFiles.read

    def noted(self: ImageFiles) -> torch.Tensor:
        sizes.append(len(self))
        names.update(self.names.tolist())
        return inner(self)

    monkeypatch.setattr(ImageFiles, "read", noted)
    target = Subject(Run(tmp_path / "run"), net, data, {"name": "net", "data": {"name": "digits"}, "model": {}})
    hauberk.attack(target, [FGSM(Linf(0.1))], Evaluation(images=28, tile=1))
    assert max(sizes) == PROBED  # before the first unit
    units = sizes[sizes.index(4) :]
    assert units.count(4) >= 7
    assert max(units) == 4
    few = Subject(Run(tmp_path / "few"), net, data, target.planned)
    names.clear()
    hauberk.attack(few, [FGSM(Linf(0.1))], Evaluation(images=2, tile=1))
    assert len(names) <= 2 + ROWS  # and those of the fingerprint
    sizes.clear()
    data_hash(split(files))
    assert max(sizes) <= HASHED_ROWS


@pytest.mark.parametrize("mixed", [False, True])
def test_batches_are_those_of_images_in_memory_and_come_again(files: ImageFiles, mixed: bool) -> None:
    def source(images: torch.Tensor | ImageFiles) -> Source:
        parts = (Part("more", split(images[torch.arange(30, 40)]), 0.25),) if mixed else ()
        return Source(dataset(images), parts, batch_size=8, seed=3)

    streams, memory = source(files), source(files.read())
    assert str(streams) == str(memory)
    for epoch in (0, 1):
        for one, other in zip(streams.batches(epoch), memory.batches(epoch), strict=True):
            a, b, again = streams.batch(one), memory.batch(other), source(files).batch(one)
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.images, again.images)
            assert torch.equal(a.labels, b.labels)
            assert torch.equal(a.ids, b.ids)


def test_the_next_batch_is_read_while_one_is_used(files: ImageFiles, asked: list[str]) -> None:
    source = Source(dataset(files), (), batch_size=8, seed=3)
    assert source._ahead is not None
    for _ in range(2):
        one, two, three = source.batches(0)
        names = [sorted(files.path(int(i)).name for i in index) for index in (one, two, three)]
        for place, index in enumerate((one, two, three)):
            source.batch(index)
            if place < 2:
                source._ahead._begun[1].result()
            assert sorted(asked) == sorted(chain(*names[: min(place + 2, 3)])), place
        assert source._ahead._begun is None
        asked.clear()
    source.batches(0)
    source.batch(two.clone())  # of no list: nothing follows, and what was begun is not taken for it
    assert sorted(asked) == names[1]
    assert Source(dataset(files.read()), (), batch_size=8, seed=3)._ahead is None


def test_an_error_is_raised_when_its_own_batch_is_asked_for(folder: Path, tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(4)]
    for name in names[:2]:
        picture(tmp_path / name, 1)
    images = ImageFiles(tmp_path, names_array(names), FORM)
    ahead = streamed.Ahead(split(images).batch)
    series = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([1])]
    ahead.follow(series)
    assert len(ahead.get(series[0]).images) == 2
    assert len(ahead.get(series[2]).images) == 1
    with pytest.raises((HauberkError, OSError), match=r"2\.png|3\.png"):
        ahead.get(series[1])


def test_statistics_are_those_of_the_images(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(files)
    assert (data.mean, data.std) == channel_statistics(data.train.images.read())
    assert len(data.train) < MEASURED
    monkeypatch.setattr("hauberk.data.dataset.MEASURED", 6)
    few = dataset(files)
    assert few.mean == channel_statistics(files[torch.arange(0, 24, 4)].read())[0]


def test_a_file_that_cannot_be_read_is_named(folder: Path, files: ImageFiles, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes((folder / "1" / "01.jpg").read_bytes()[:300])
    images = ImageFiles(tmp_path, names_array(["cut.jpg", "gone.png"]), FORM)
    for row in (0, 1):
        with pytest.raises((HauberkError, OSError), match=("cut.jpg", "gone.png")[row]):
            split(images[torch.tensor([row])]).batch()


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(HauberkError, match=r"deep\.png has 16 bits"):
        ImageFiles(tmp_path, names_array(["deep.png"]), Form(8, 1)).read()


def test_a_part_of_the_central_square(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[5:15, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "frame.png")
    whole, half = (read_image(tmp_path / "frame.png", Form(10, 3, share)).pixels for share in (1.0, 0.5))
    assert (half == 200).all()
    assert not (whole == 200).all()


def test_what_the_files_say(folder: Path, files: ImageFiles, tmp_path: Path) -> None:
    content = (folder / "0" / "00.png").read_bytes()
    (tmp_path / "copy.png").write_bytes(content)
    (tmp_path / "again.png").write_bytes(content)
    (tmp_path / "none.png").write_bytes(b"no picture")
    picture(tmp_path / "small.png", 99, (4, 4))
    others = ImageFiles(tmp_path, names_array(["copy.png", "again.png", "none.png", "small.png"]), FORM)
    said = " ".join(examined({"train": files, "val": others, "test": files[torch.arange(5)]}))
    assert "1 file cannot be read as an image: none.png." in said
    assert "1 image of fewer pixels to be made larger: small.png." in said
    assert "in 2 sizes, from 4x4 to 20x14 pixels" in said
    assert "2 files of the val split are in the train split too, byte by byte" in said
    assert "5 files of the test split are in the train split too" in said
    assert "1 file of the test split is in the val split too" in said
    assert examined({"train": files[torch.arange(5)], "val": files[torch.arange(5, 9)]}) == ()
    (tmp_path / "nor this.png").write_bytes(b"nor this")
    broken = [ImageFiles(tmp_path, names_array([name]), FORM) for name in ("none.png", "nor this.png")]
    (said,) = examined(dict(zip(("train", "val"), broken, strict=True)))
    assert said == "2 files cannot be read as an image: none.png, nor this.png."


def test_only_whole_files_are_copies(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name, value in (("one.png", 0), ("other.png", 1)):
        pixels[0, 0, 0] = value
        Image.fromarray(pixels).save(tmp_path / name, compress_level=0)
    sizes = {(tmp_path / name).stat().st_size for name in ("one.png", "other.png")}
    assert len(sizes) == 1
    (tmp_path / "same.png").write_bytes((tmp_path / "one.png").read_bytes())
    one, other, same = (ImageFiles(tmp_path, names_array([n]), FORM) for n in ("one.png", "other.png", "same.png"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hauberk.data.examined._end", lambda *_: 7)
        assert examined({"train": one, "test": other}) == ()
        assert len(examined({"train": one, "test": same})) == 1


def test_images_to_choose_on_are_not_taken_out_of_files(files: ImageFiles) -> None:
    with pytest.raises(HauberkError, match="is read from its files"):
        calibrated(dataset(files), 2)


def test_a_training_that_is_stopped_sees_the_same_batches(
    files: ImageFiles, tmp_path: Path, in_pieces: Callable[[Callable[[], nn.Module]], nn.Module]
) -> None:
    config = Training(epochs=2, batch_size=8, lr=0.05, checkpoint_minutes=1e-9, validation_images=0)

    def train(name: str) -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        run = Run.create(tmp_path / name, {"name": name, "data": {"name": "digits"}})
        return fit(net, registry.build({"name": "standard"}, "objective"), dataset(files), config, run)

    whole, pieces = train("whole"), in_pieces(lambda: train("pieces"))
    for one, other in zip(whole.parameters(), pieces.parameters(), strict=True):
        assert torch.equal(one, other)
