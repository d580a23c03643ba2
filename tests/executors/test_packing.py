"""A job in another process: models of every kind arrive whole, and one that does something else there is refused."""

import importlib
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hauberk import layers
from hauberk.attacks import FGSM
from hauberk.batch import Batch
from hauberk.classifier import predictor_name
from hauberk.errors import HauberkError
from hauberk.evaluation.fingerprint import answers
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import Attacking
from hauberk.executors import packing
from hauberk.executors.packing import packed, unpacked
from hauberk.models import lip_convnet
from hauberk.threats import L2

IMAGES = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
SETTING = Setting("none", "test", ("a", "b"))


def task(model: nn.Module, folder: Path) -> Attacking:
    asked = answers(model.eval(), IMAGES, Batch(IMAGES, torch.zeros(3, dtype=torch.int64), torch.arange(3)), folder)
    return Attacking(
        model=model, setting=SETTING, about={}, facts={}, attack=FGSM(L2(0.1)), shown=frozenset(), asked=asked
    )


@pytest.mark.parametrize(
    "layer",
    [
        layers.AOLLinear(16, 16), layers.CayleyLinear(16, 16), layers.SandwichLinear(16, 16), nn.Linear(16, 16),
        nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16)),
    ],
    ids=lambda layer: nn.utils.parametrize.type_before_parametrizations(layer).__name__,
)  # fmt: skip
def test_a_model_arrives_whole(layer: nn.Module, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), layer, nn.Linear(16, 2)).eval()
    found = unpacked(packed(task(model, tmp_path)))
    assert isinstance(found, Attacking)
    assert found.model is not model
    assert torch.equal(found.model(IMAGES), model(IMAGES))
    assert predictor_name(found.model) == predictor_name(model)


def test_a_registered_network_keeps_its_name(tmp_path: Path) -> None:
    model = lip_convnet((1, 4, 4), 2, (0.5,), (0.2,), widths=(2,), depth=1, hidden=4).eval()
    found = unpacked(packed(task(model, tmp_path)))
    assert isinstance(found, Attacking)
    assert predictor_name(found.model) == predictor_name(model)
    assert found.attack == FGSM(L2(0.1))


class Reading(nn.Module):
    """Its factor stands in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2] * float(self.path.read_text())


def test_a_copy_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "factor").write_text("1.0")
    content = packed(task(Reading(tmp_path / "factor"), tmp_path))
    unpacked(content)
    (tmp_path / "factor").write_text("1.1")
    with pytest.raises(HauberkError, match="the model gives other answers in a worker process"):
        unpacked(content)


def test_what_cannot_be_pickled_is_said(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    model.register_forward_hook(lambda module, images, logits: None)
    with pytest.raises(HauberkError, match=r"the model cannot be sent to other processes: .*lambda"):
        packed(task(model, tmp_path))


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed(task(nn.Flatten(), tmp_path))
    monkeypatch.setattr(packing, "__version__", "0.0.1")
    with pytest.raises(HauberkError, match=r"a worker has Hauberk 0\.0\.1, the driver"):
        unpacked(content)


def test_modules_are_found_where_the_driver_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere_only.py").write_text("from torch import nn\nclass Net(nn.Flatten):\n    pass\n")
    with monkeypatch.context() as here:
        here.syspath_prepend(str(tmp_path))
        net = importlib.import_module("elsewhere_only").Net()
        content = packed(task(net, tmp_path))
    monkeypatch.delitem(sys.modules, "elsewhere_only")
    monkeypatch.setattr("sys.path", [*sys.path])
    assert unpacked(content) is not None


def test_a_missing_module_is_said(tmp_path: Path) -> None:
    version, folders, inside = pickle.loads(packed(task(nn.Flatten(), tmp_path)))
    content = pickle.dumps((version, folders, inside.replace(b"flatten", b"flutten")))
    with pytest.raises(HauberkError, match="a worker cannot load the code of the model: ModuleNotFoundError"):
        unpacked(content)
