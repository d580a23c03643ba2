"""Recipes: frozen, typed, and an unknown key names the nearest valid one."""

from pathlib import Path

import pytest
import yaml

from hauberk import recipes
from hauberk.errors import HauberkError


def write(path: Path, **changes: object) -> Path:
    content = {
        "name": "r", "data": {"name": "digits"}, "model": {"name": "small_cnn"}, "objective": {"name": "standard"},
    } | changes  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("path", recipes.available(), ids=lambda p: p.stem)
def test_every_recipe_that_comes_along_is_valid_and_resolves_to_itself(path: Path) -> None:
    recipe = recipes.read(path)
    assert recipe.name == path.stem
    assert recipe.summary
    assert recipes.parse(recipe.plain()) == recipe
    assert recipes.read(path.stem) == recipe


def test_settings_replace_values(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", evaluation={"attacks": [{"name": "pgd", "threat": "linf:8/255"}]})
    recipe = recipes.read(path, ["training.epochs=2", "evaluation.attacks.0.threat=l2:0.5", "seed=7"])
    assert (recipe.training.epochs, recipe.seed) == (2, 7)
    assert recipe.evaluation.attacks[0]["threat"] == "l2:0.5"


@pytest.mark.parametrize(
    ("settings", "minutes"),
    [
        ([], 11.0),
        (["seed=3", "name=mine", "training.threads=1"], 11.0),
        (["training.epochs=1"], None),
        (["evaluation.images=5"], None),
        (["seed=3", "model.widths=[4]", "model.strides=[1]"], None),
        (["expected.minutes=2"], 2.0),
        (["training.epochs=1", "expected.minutes=2"], 2.0),
    ],
)
def test_a_changed_recipe_expects_nothing_but_what_is_said(settings: list[str], minutes: float | None) -> None:
    found = recipes.read("pgd_cifar10_small", settings).expected
    assert found.minutes == minutes
    assert (found.clean is None) == any(key.startswith(("training.e", "evaluation", "model")) for key in settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainig": {}}, "did you mean 'training'"),
        ({"training": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"evaluation": {"image": 3}}, "did you mean 'images'"),
        ({"objective": {"name": "tradess"}}, "did you mean 'trades'"),
        ({"objective": {"name": "standard", "temprature": 1}}, "did you mean 'temperature'"),
        ({"model": {"name": "smal_cnn"}}, "did you mean 'small_cnn'"),
        ({"data": {"name": "cifar"}}, "did you mean 'cifar10"),
        ({"training": {"epochs": 0}}, "greater than or equal to 1"),
        ({"evaluation": {"attacks": [{"name": "pgd", "threat": "linf:8/255", "step": 3}]}}, "did you mean 'steps'"),
        ({"evaluation": {"attacks": [{"name": "ddn", "threat": "l1:3"}]}}, "not in l1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(HauberkError) as caught:
        recipes.read(write(tmp_path / "r.yaml", **changes))
    assert message in str(caught.value)


def test_missing_files_bad_yaml_and_bad_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match="did you mean 'demo_standard'"):
        recipes.read("demo_standart")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: [")
    with pytest.raises(HauberkError, match="not valid YAML"):
        recipes.read(bad)
    bad.write_text("just text")
    with pytest.raises(HauberkError, match="not a recipe"):
        recipes.read(bad)
    with pytest.raises(HauberkError, match="key=value"):
        recipes.read(write(tmp_path / "r.yaml"), ["training.epochs"])


@pytest.mark.parametrize("key", ["training", "evaluation"])
def test_a_block_of_settings_is_not_replaced_as_a_whole(key: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: r\ndata: {name: digits}\nmodel: {name: small_cnn}\n")
    with pytest.raises(HauberkError, match=rf"whole block(.|\n)*--set {key}\."):
        recipes.read(str(path), [f"{key}={{}}"])


@pytest.mark.parametrize("key", ["training.epochs", "evaluation.attacks.9.steps", "evaluation.attacks.-1.steps",
                                 "evaluation.attacks.first", "evaluation.attacks.²",
                                 "evaluation.attacks.99999999999999999999.x"])  # fmt: skip
def test_a_setting_that_has_no_place_in_a_list(key: str, tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml")
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"training": [1], "evaluation": {"attacks": [{"name": "fgsm"}]}}))
    with pytest.raises(HauberkError, match="place in a list"):
        recipes.read(path, [f"{key}=5"])
