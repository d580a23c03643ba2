"""What holds for every registered model: shapes, spec round trip, copies, saved weights, dtypes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from hauberk import registry
from hauberk.classifier import traits
from hauberk.errors import HauberkError

SMALL: dict[str, dict[str, Any]] = {
    "small_cnn": {"widths": [4, 6], "strides": [1, 2]},
    "resnet18": {"width": 4},
    "lip_convnet": {"widths": [4, 6], "depth": 1, "hidden": 8},
    "lip_convnet_n": {"width": 2},
    "li_resnet": {"width": 4, "depth": 2, "hidden": 8},
    "cnn_6c2f": {"scale": 0.1},
    "lip_mlp": {"widths": [8, 6]},
    "lip_mlp_n": {"widths": [8, 6], "layer": "cpl"},
    "lip_resnet": {"widths": [16], "depth": 1, "dense": 1},
    "one_hidden_layer": {"hidden": 6},
    "hycas_net": {"widths": [4, 6], "strides": [1, 2], "noise": None},  # with noise two calls differ
}
NAMES = sorted(SMALL)


def make(name: str, shape: tuple[int, int, int] = (3, 8, 8), **more: Any) -> nn.Module:
    torch.manual_seed(0)
    statistics = {"mean": [0.4] * shape[0], "std": [0.2] * shape[0]}
    model: nn.Module = registry.build(
        {"name": name, "input_shape": shape, "num_classes": 5} | statistics | SMALL[name] | more, kind="model"
    )
    return model.eval()


def images(shape: tuple[int, ...], rows: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_all_registered_models_are_tested() -> None:
    ours = {e.name for e in registry.entries("model") if e.path.startswith("hauberk.models.")}
    # own builds what a user writes; the others are denoisers, from images to images, and diffusion models
    others = {"own", "dncnn", "dunet", "one_step_diffusion", "diffusion_unet", "diffusion_mlp"}
    assert ours == set(NAMES) | others


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 4, 4), (3, 9, 5), (4, 6, 13)])
@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str, shape: tuple[int, int, int]) -> None:
    model = make(name, shape)
    assert model(images(shape)).shape == (3, 5)
    assert model(images(shape, rows=1)).shape == (1, 5)


@pytest.mark.parametrize("name", NAMES)
def test_spec_round_trip(name: str) -> None:
    model = make(name)
    spec = registry.spec(model)
    assert json.loads(json.dumps(spec)) == spec
    again = registry.build(spec).eval()
    assert registry.spec(again) == spec
    assert repr(again) == repr(model)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images((3, 8, 8))), model(images((3, 8, 8))))


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_in_the_spec(name: str) -> None:
    import inspect

    builder = registry.entry(name).load()
    assert set(registry.spec(make(name))) == {"name", *inspect.signature(builder).parameters}


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_saved_weights(name: str) -> None:
    model = make(name)
    expected = model(images((3, 8, 8))).detach()
    twin = copy.deepcopy(model)
    saved = safetensors.torch.save(model.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(twin(images((3, 8, 8))), expected)
    assert twin.spec == model.spec
    model.load_state_dict(safetensors.torch.load(saved))
    assert torch.equal(model(images((3, 8, 8))), expected)


@pytest.mark.parametrize("name", NAMES)
def test_double_precision_and_channels_last(name: str) -> None:
    model = make(name)
    expected = model(images((3, 8, 8)))
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert torch.allclose(last(images((3, 8, 8)).to(memory_format=torch.channels_last)), expected, atol=1e-5)
    precise = copy.deepcopy(model).double()(images((3, 8, 8)).double())
    assert precise.dtype == torch.float64
    assert torch.allclose(precise.float(), expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_trains(name: str) -> None:
    model = make(name).train()
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    data, labels = images((3, 8, 8), rows=10), torch.arange(10) % 5
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(data) / 0.1, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    duals = ("log_p", "log_q")  # of one_hidden_layer, which enter its bounds and no logit
    assert all(p.grad is not None for key, p in model.named_parameters() if not key.endswith(duals))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_traits_are_plain(name: str) -> None:
    found = traits(make(name))
    assert (found.stochastic, found.gradient, found.declared) == (False, "exact", True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 1}, "two classes"),
        ({"input_shape": (8, 8)}, "expected an input shape"),
        ({"input_shape": (1, 8, 8)}, "each of 1 channels"),
        ({"std": (0.2, 0.0, 0.2)}, "positive std"),
    ],
)
def test_refusals(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(HauberkError, match=message):
        make(name, **change)
