"""Data for the tests of the data room: small files made here, and real ones where they are at hand.

Real images are read from the folder that ``HAUBERK_TEST_DATA`` names; tests that need them are skipped without it.
"""

import gzip
import pickle
import struct

import numpy as np
import pytest


@pytest.fixture(scope="session")
def official(reader, tmp_path_factory):
    """CIFAR-10, MNIST and Fashion-MNIST in the publishers' own files."""
    folder = tmp_path_factory.mktemp("official")
    reader.official(folder)
    return folder


@pytest.fixture
def fingerprints():
    """The set of a split's images, as bytes."""
    return lambda split: {image.numpy().tobytes() for image in split.images}


@pytest.fixture
def random_images():
    """Distinct random 8-bit images of a given shape."""
    return lambda *shape, seed=0: np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def write_batch(random_images):
    """Write a CIFAR batch file of ``count`` images; the labels go round the classes."""

    def write(path, count, classes=10, seed=0, **changes):
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = [i % classes for i in range(count)]
        values = {"data": random_images(count, 3072, seed=seed), "labels": labels} | changes
        path.write_bytes(pickle.dumps({k.encode(): v for k, v in values.items()}, protocol=4))
        return values

    return write


@pytest.fixture
def small_cifar10(tmp_path, write_batch):
    """Six small batch files: (folder, the train images, the test images)."""
    folder = tmp_path / "cifar-10-batches-py"
    batches = [write_batch(folder / f"data_batch_{i}", 40, seed=i)["data"] for i in range(1, 6)]
    test = write_batch(folder / "test_batch", 30, seed=6)["data"]
    return tmp_path, np.concatenate(batches).reshape(-1, 3, 32, 32), test.reshape(-1, 3, 32, 32)


@pytest.fixture
def idx_bytes():
    """An IDX file of unsigned bytes, written straight from the description of the format."""

    def build(array):
        head = struct.pack(">HBB", 0, 8, array.ndim) + b"".join(struct.pack(">I", n) for n in array.shape)
        return head + array.tobytes()

    return build


@pytest.fixture
def write_mnist(idx_bytes, random_images):
    """Write four small IDX files into a folder: (train images, train labels, test images, test labels)."""

    def write(folder, compressed=False):
        folder.mkdir(parents=True, exist_ok=True)
        arrays = []
        for part, count, seed in (("train", 100, 1), ("t10k", 30, 2)):
            images, labels = random_images(count, 28, 28, seed=seed), (np.arange(count) % 10).astype(np.uint8)
            for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
                content = idx_bytes(array)
                if compressed:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / name).write_bytes(content)
                arrays.append(array)
        return arrays

    return write
