import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from hauberk.data.pickles import read_arrays
from hauberk.errors import HauberkError

PATH = Path("data_batch_1")


class Runs:
    """Asks the unpickler to call a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def python2_pickle(data, labels):
    """The opcodes that Python 2 wrote for {'labels': [...], 'data': uint8 array}, protocol 2, put down by hand."""
    rows, columns = data.shape
    return b"".join([
        b"\x80\x02}(",
        b"U\x06labels](", *[b"K" + bytes([k]) for k in labels], b"e",
        b"U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
        b"(K\x01M", struct.pack("<H", rows), b"M", struct.pack("<H", columns), b"\x86",
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
        b"T", struct.pack("<I", data.size), data.tobytes(), b"tb",
        b"u.",
    ])  # fmt: skip


def test_python_2_batch(random_images):
    data = random_images(5, 3072)
    found = read_arrays(python2_pickle(data, [3, 1, 4, 1, 5]), PATH)
    assert found["labels"] == [3, 1, 4, 1, 5]
    assert np.array_equal(found["data"], data)


@pytest.mark.parametrize("protocol", [3, 4])
def test_python_3_batch(random_images, protocol):
    values = {"data": random_images(5, 3072), "labels": [1, 2], "names": ["a", "b"]}
    found = read_arrays(pickle.dumps(values, protocol), PATH)
    assert np.array_equal(found["data"], values["data"])
    assert found["names"] == ["a", "b"]


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_refused_and_not_run(tmp_path, protocol):
    witness = tmp_path / "ran"
    content = pickle.dumps({"data": Runs(os.system, f"touch {witness}")}, protocol)
    with pytest.raises(HauberkError, match=rf"the pickle holds code: it uses {os.system.__module__}\.system"):
        read_arrays(content, PATH)
    pickle.loads(content)
    assert witness.exists()  # the payload was real


@pytest.mark.parametrize(
    "value",
    [
        Runs(eval, "1 + 1"),
        Runs(getattr, "a", "upper"),
        Runs(np.load, "x.npy"),
        Runs(np.memmap, "x"),
        OrderedDict(a=1),
        np.float64(1.0),
        Path("x"),
    ],
)
def test_every_other_name_is_refused(value):
    with pytest.raises(HauberkError, match="the pickle holds code"):
        read_arrays(pickle.dumps({"data": value}, 4), PATH)


def test_names_that_only_look_alike_are_refused():
    for line in (b"cnumpy\nndarray.dump\n.", b"cnumpy\nfromfile\n.", b"cos\nsystem\n.", b"c__builtin__\neval\n."):
        with pytest.raises(HauberkError, match="the pickle holds code"):
            read_arrays(line, PATH)


def test_every_truncation_is_reported(random_images):
    content = python2_pickle(random_images(1, 300), [3])
    assert read_arrays(content, PATH)["labels"] == [3]
    for length in range(len(content)):
        with pytest.raises(HauberkError, match="damaged or not a pickle"):
            read_arrays(content[:length], PATH)


def test_not_a_dictionary():
    with pytest.raises(HauberkError, match="expected a dictionary, got list"):
        read_arrays(pickle.dumps([1, 2]), PATH)
