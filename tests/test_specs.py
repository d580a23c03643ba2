"""Descriptions are looked at as data: whatever is wrong in one is said before anything of it is built."""

import importlib
from typing import Any

import pytest
from torch import nn

from hauberk import recipes, registry
from hauberk.data import Dataset
from hauberk.errors import HauberkError

CNN = {
    "name": "small_cnn", "input_shape": [1, 8, 8], "num_classes": 10, "mean": [0.5], "std": [0.5], "widths": [4],
    "strides": [1],
}  # fmt: skip
PGD = {"name": "pgd", "threat": "linf:0.1"}
MIX = {"name": "mixed", "accurate": CNN, "robust": CNN, "alpha": 0.5}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of models and data sets that were made."""
    made: list[str] = []

    def small_cnn(
        input_shape: list[int], num_classes: int, mean: list[float], std: list[float], widths: list[int],
        strides: list[int], batch_norm: bool = True,
    ) -> nn.Module:  # fmt: skip
        made.append("small_cnn")
        return nn.Identity()

    def digits() -> Dataset:
        made.append("digits")
        return None

    monkeypatch.setattr(importlib.import_module("hauberk.models.small_cnn"), "small_cnn", small_cnn)
    monkeypatch.setattr(importlib.import_module("hauberk.data.digits"), "digits", digits)
    return made


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"inner": value}
    return value


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (MIX | {"alpha": "much"}, "alpha"),
        (MIX | {"alpha": [0.5]}, "alpha"),
        (MIX | {"robust": PGD}, "robust cannot be pgd, which is a attack"),
        (MIX | {"robust": {"name": "digits"}}, "robust cannot be digits"),
        (MIX | {"robust": 3}, "robust"),
        (MIX | {"robust": CNN | {"num_classes": "ten"}}, "num_classes"),
        (MIX | {"robust": CNN | {"wdiths": [4]}}, "did you mean 'widths'"),
        (MIX | {"robust": {k: v for k, v in CNN.items() if k != "mean"}}, "mean is missing"),
        (PGD | {"steps": {"name": "digits"}}, "steps cannot be digits"),
        (PGD | {"loss": CNN}, "loss cannot be small_cnn"),
        (PGD | {"threat": {"name": "linf", "eps": {"name": "digits"}}}, "eps cannot be digits"),
        (PGD | {"steps": 2**40}, "too large for a setting"),
        (PGD | {"steps": -(10**5000)}, "too large for a setting"),
        (PGD | {"note": "x" * 5000}, "4,096 characters"),
        (PGD | {"note": list(range(30_000))}, "20,000 values"),
        (PGD | {"note": nested(30)}, "blocks within each other"),
        (PGD | {"note": {3: 4}}, "as text"),
        ({"name": ["pgd"]}, "no method called"),
        ([PGD], "needs a 'name'"),
        (None, "needs a 'name'"),
    ],
)
def test_nothing_is_built_of_a_wrong_description(description: Any, words: str, built: list[str]) -> None:
    with pytest.raises(HauberkError) as caught:
        registry.build(description)
    assert words in str(caught.value)
    assert not built


def test_checking_builds_nothing_and_building_does(built: list[str]) -> None:
    registry.check(MIX)
    registry.check({key: CNN[key] for key in ("name", "widths", "strides")}, "model", recipes.TASK)
    assert not built
    registry.build(CNN)
    assert built == ["small_cnn"]


def test_values_become_what_their_annotations_say() -> None:
    plan = registry.check(CNN | {"widths": ("4",), "batch_norm": "no"})
    assert plan.arguments["widths"] == (4,)
    assert plan.arguments["batch_norm"] is False
    with pytest.raises(HauberkError, match="batch_norm"):
        registry.check(CNN | {"batch_norm": "abc"})


@pytest.mark.parametrize("name", [["pgd"], {"name": "pgd"}, 3, None, True])
def test_a_name_is_text(name: Any) -> None:
    plain = {"name": "r", "data": {"name": "digits"}, "objective": {"name": "standard"}}
    for model in ({"name": name}, MIX | {"robust": {"name": name}}):
        with pytest.raises(HauberkError):
            recipes.parse(plain | {"model": model})
    with pytest.raises(HauberkError):
        registry.entry(name)
