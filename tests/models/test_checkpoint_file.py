"""Checkpoints as training programs write them: found whatever stands around them, refused where they do not fit."""

import argparse
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.models.checkpoint_file import fill, read_state


class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Linear(width, 2)


def made(seed: int = 0, width: int = 3) -> Net:
    torch.manual_seed(seed)
    return Net(width).eval()


def prefixed(before: str) -> dict[str, torch.Tensor]:
    return {f"{before}{name}": value for name, value in made(1).state_dict().items()}


FORMS = {
    "alone": prefixed(""),
    "ordered": OrderedDict(prefixed("")),
    "data parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "a net of a name of its own": prefixed("student.backbone."),
    "beside the optimiser": {"state_dict": prefixed("module."), "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
    "model": {"model": prefixed(""), "args": {"lr": 0.1}, "step": torch.tensor(3)},
    "net": {"net": prefixed("module."), "acc": 93.5},
    "twice inside": {"model": {"state_dict": prefixed("")}},
    "any other name": {"generator_of_logits": prefixed(""), "epoch": 1},
}  # fmt: skip


def loaded(saved: object, path: Path, model: nn.Module) -> tuple[str, ...]:
    torch.save(saved, path)
    state, said = read_state(path, path.read_bytes())
    return (*said, *fill(model, state, path.name, "nets:Net"))


@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_found_whatever_stands_around_them(form: str, tmp_path: Path) -> None:
    model = made(0)
    assert loaded(FORMS[form], tmp_path / "net.pt", model) == ()
    assert all(torch.equal(v, made(1).state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["net.safetensors", "NET.SAFETENSORS"])
def test_safetensors(name: str, tmp_path: Path) -> None:
    path, model = tmp_path / name, made(0)
    safetensors.torch.save_file(prefixed("module."), path)
    fill(model, read_state(path, path.read_bytes())[0], path.name, "nets:Net")
    assert torch.equal(model.head.weight, made(1).head.weight)


def test_a_network_that_normalises_first_takes_the_net_that_was_saved(tmp_path: Path) -> None:
    net = made(0)
    loaded(prefixed("module."), tmp_path / "net.pt", nn.Sequential(Normalize([0.5], [0.25]), net))
    assert torch.equal(net.conv.weight, made(1).conv.weight)


def test_entries_beside_the_weights_are_said(tmp_path: Path) -> None:
    (said,) = loaded({"state_dict": prefixed("model.") | {"loss.weight": torch.ones(2)}}, tmp_path / "a.ckpt", made(0))
    assert "loss.weight" in said and "passed over" in said


@pytest.mark.parametrize("taken", ["state_dict", "model"])
def test_weights_that_are_left_out_are_said(taken: str, tmp_path: Path) -> None:
    model, average = made(0), {k: 0 * v for k, v in prefixed("").items()}
    saved = {f"{taken}_ema": average, taken: prefixed(""), "teacher": average, "epoch": 3}
    (said,) = loaded({"run": saved} if taken == "model" else saved, tmp_path / "net.pt", model)
    assert torch.equal(model.head.weight, made(1).head.weight)
    assert f"under {taken} are taken" in said and f"{taken}_ema, teacher" in said


@pytest.mark.parametrize("pair", [("teacher.", "student."), ("model.", "ema."), ("a.", "a.b.")])
@pytest.mark.parametrize("swapped", [False, True])
def test_two_nets_that_fit_are_a_question(pair: tuple[str, str], swapped: bool, tmp_path: Path) -> None:
    one, other = reversed(pair) if swapped else pair
    with pytest.raises(HauberkError, match="which weights") as raised:
        loaded(prefixed(one) | prefixed(other), tmp_path / "net.pt", made(0))
    first, second = sorted(pair)
    assert f"{first}* and {second}*" in raised.value.message and f"startswith('{second}')" in raised.value.hint


def test_of_two_nets_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    model, wide = made(0), {f"teacher.{k}": v for k, v in made(2, width=5).state_dict().items()}
    (said,) = loaded(prefixed("student.") | wide, tmp_path / "net.pt", model)
    assert "teacher.conv.weight" in said and torch.equal(model.head.weight, made(1).head.weight)


def less(*names: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in prefixed("").items() if k not in names}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (less("head.weight", "head.bias"), "2 missing (head.weight, head.bias)"),
        (prefixed("") | {"head2.weight": torch.ones(2, 2)}, "1 not expected (head2.weight)"),
        (prefixed("") | {"conv.weight": torch.ones(3, 3, 3, 3)}, "conv.weight is 3x3x3x3, expected 3x1x3x3"),
        (less("norm.running_mean"), "1 missing (norm.running_mean)"),
        ({"other": torch.ones(2)}, "missing"),
        ({"stem.weight": torch.ones(3, 1, 3, 3), "stem.bias": torch.ones(3)}, "(stem.weight, stem.bias)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(state: dict[str, torch.Tensor], said: str, tmp_path: Path) -> None:
    with pytest.raises(HauberkError) as raised:
        loaded(state, tmp_path / "net.pt", made(0))
    assert said in raised.value.message and "net.pt does not fit nets:Net" in raised.value.message


def test_a_whole_model_or_a_namespace_is_not_run(tmp_path: Path) -> None:
    for saved, named in ((made(), "Net"), ({"state_dict": {}, "args": argparse.Namespace(lr=1)}, "Namespace")):
        with pytest.raises(HauberkError, match="holds more than weights") as raised:
            loaded(saved, tmp_path / "net.pt", made())
        assert named in raised.value.message and "state_dict()" in raised.value.hint


@pytest.mark.parametrize("saved", [torch.ones(3), [torch.ones(3)], {"epoch": 1}, {}, 5])
def test_a_file_without_weights(saved: object, tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match=r"weights by name"):
        loaded(saved, tmp_path / "net.pt", made())


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"junk", b"PK\x03\x04 cut"])
@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_a_damaged_file(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HauberkError, match="truncated"):
        read_state(tmp_path / name, content)
