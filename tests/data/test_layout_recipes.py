"""The recipes for photographs and radiographs on disk, each run once on a small folder of its layout."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hauberk import recipes

from . import layouts

Typed = Callable[..., tuple[int, str, str]]


MODELS = {
    "smoothed_0.5": "{name: small_cnn, widths: [4], strides: [4]}",
    "hycas": "{name: hycas_net, widths: [4], strides: [4]}",
}


@pytest.mark.parametrize("method", MODELS)
@pytest.mark.parametrize("name", ["ham10000", "nih_chest_xray", "imagenet"])
def test_each_recipe_runs_on_a_small_folder(
    name: str, method: str, tmp_path: Path, monkeypatch, hauberk: Typed
) -> None:
    """Train one epoch of a small net, check, attack, certify, verify, report: the recipe as it is but for sizes."""
    monkeypatch.setenv("HAUBERK_DATA", str(tmp_path))
    places = {"ham10000": "HAM10000", "nih_chest_xray": "NIH_Chest_Xray", "imagenet": "imagenet"}
    {"ham10000": layouts.ham10000, "nih_chest_xray": layouts.nih, "imagenet": layouts.imagenet}[name](
        tmp_path / places[name]
    )
    recipe = f"{method}_{name}"
    few = {
        "data.size": 16, "model": MODELS[method], "training.epochs": 1,
        "training.batch_size": 8, "training.augmentation.crop": 1, "training.precision": "float32",
        "training.validation_images": 4, "evaluation.images": 4, "evaluation.attacks.0.steps": 2,
        "evaluation.certificates.0.n": 20, "evaluation.certificates.0.n0": 10,
    } | ({"data.val_size": 6} if name == "imagenet" else {})  # fmt: skip
    if name == "nih_chest_xray":
        few["data.rule"] = "any_finding"
    settings = [word for key, value in few.items() for word in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    for command in (("train", recipe, "-o", run, *settings), ("attack", run), ("certify", run), ("verify", run)):
        code, text, error = hauberk(*command)
        assert code == 0, text + error
    _, text, error = hauberk("check", run)  # which may say that one epoch was too little
    assert "images: floats in [0, 1]" in text, error
    assert ("The images come in" in error) == (name == "imagenet")
    code, text, _ = hauberk("report", run, "-o", tmp_path / "page.html", "--json")
    assert code == 0
    assert json.loads(text)
    page = (tmp_path / "page.html").read_text()
    assert ("data:image/png" in page) == (name == "nih_chest_xray")
    assert "stay in their files" in page
    assert recipes.read(recipe).data["size"] == 224
