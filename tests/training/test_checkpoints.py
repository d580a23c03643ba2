import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from hauberk.data.source import Part, Source
from hauberk.errors import HauberkError
from hauberk.objectives.standard import Standard
from hauberk.training import checkpoints
from hauberk.training.config import Training

PURPOSE = {"lr": "0.1", "seed": "3"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "training.pt"


def test_what_is_saved_comes_back(path):
    state = {"eps": torch.rand(5), "ids": torch.arange(5), "temperature": 0.5, "nested": {"counts": torch.ones(2)}}
    checkpoints.save(path, PURPOSE, {"epoch": 4, "state": state})
    found = checkpoints.load(path, PURPOSE)
    assert found["epoch"] == 4
    assert torch.equal(found["state"]["eps"], state["eps"])
    assert torch.equal(found["state"]["nested"]["counts"], torch.ones(2))


def test_no_file_is_no_checkpoint(path):
    assert checkpoints.load(path, PURPOSE) is None


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(path, kept):
    checkpoints.save(path, PURPOSE, {"weights": torch.rand(1000)})
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(HauberkError, match="remove it"):
        checkpoints.load(path, PURPOSE)


@pytest.mark.parametrize("content", [{"weights": torch.rand(3)}, [1, 2], {"hauberk_training": 999}])
def test_a_foreign_file_is_refused(path, content):
    path.parent.mkdir()
    torch.save(content, path)
    with pytest.raises(HauberkError, match="not a training checkpoint"):
        checkpoints.load(path, PURPOSE)


def test_another_run_is_refused_and_the_difference_is_named(path):
    checkpoints.save(path, PURPOSE, {})
    with pytest.raises(HauberkError, match=r"its lr was 0\.1, now it is 0\.2"):
        checkpoints.load(path, PURPOSE | {"lr": "0.2"})


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_file_that_would_run_code_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path.parent.mkdir()
    torch.save({"hauberk_training": 1, "purpose": PURPOSE, "content": Payload()}, path)
    with pytest.raises(HauberkError, match="not a checkpoint"):
        checkpoints.load(path, PURPOSE)
    path.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(HauberkError, match="not a checkpoint"):
        checkpoints.load(path, PURPOSE)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_the_earlier_checkpoint(path, monkeypatch, call):
    checkpoints.save(path, PURPOSE, {"epoch": 1})

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(HauberkError, match="No space left"):
        checkpoints.save(path, PURPOSE, {"epoch": 2})
    monkeypatch.undo()
    assert checkpoints.load(path, PURPOSE) == {"epoch": 1}
    assert [p.name for p in path.parent.iterdir()] == ["training.pt"]


def test_the_purpose_names_all_data_and_is_that_of_older_checkpoints_without_new_settings(dataset, network):
    own, other = (Source(dataset, extra, 10, 0) for extra in ((), [Part("more", dataset.val, 0.5)]))
    plain = checkpoints.purpose(network(), Standard(), own, Training())
    assert plain["data"].startswith("blobs, 96 training images, labels ")
    assert "swa" not in plain
    assert checkpoints.purpose(network(), Standard(), own, Training(swa=0.5))["swa"] == "0.5"
    assert checkpoints.purpose(network(), Standard(), other, Training()) != plain


@pytest.mark.parametrize("wanted", [PURPOSE | {"swa": "0.5"}, {"lr": "0.1"}])
def test_a_setting_that_one_of_them_lacks_is_a_difference(path, wanted):
    checkpoints.save(path, PURPOSE, {})
    with pytest.raises(HauberkError, match="another training run"):
        checkpoints.load(path, wanted)
