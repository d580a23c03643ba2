"""The verb train: a recipe with another data set beside its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hauberk import recipes
from hauberk.data import load
from hauberk.errors import HauberkError
from hauberk.runs import Run
from hauberk.verbs.train import train

RECIPE = {
    "name": "mixed", "data": {"name": "digits"}, "model": {"name": "small_cnn", "widths": [4], "strides": [2]},
    "objective": {"name": "standard"},
    "training": {"epochs": 1, "steps_per_epoch": 3, "batch_size": 16, "validate_every": 0, "threads": 1},
}  # fmt: skip


def written(path: Path, images: np.ndarray) -> Path:
    labels = np.arange(len(images)) % 10
    np.savez(path, x_train=images, y_train=labels, x_test=images[:10], y_test=labels[:10])
    return path


def mixed(file: Path) -> recipes.Recipe:
    data = {"name": "npz", "file": str(file), "layout": "NHW", "val_size": 0}
    return recipes.parse(RECIPE | {"extra": [{"data": data, "share": 0.5}]})


def test_other_images_have_a_share_and_the_run_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hauberk.objectives.standard import Standard

    noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    seen, plain = [], Standard.__call__

    def watched(self, model, batch, context):
        seen.append(batch.ids)
        return plain(self, model, batch, context)

    monkeypatch.setattr(Standard, "__call__", watched)
    recipe = mixed(written(tmp_path / "noise.npz", noise))
    assert recipes.parse(recipe.plain()) == recipe
    run = train(recipe, tmp_path / "run")
    assert [int((ids < 0).sum()) for ids in seen] == [8, 8, 8]
    (said,) = run.info["extra"]
    assert said.startswith("0.5 of noise, 40 training images, labels ")
    assert "extra" not in train(recipes.parse(RECIPE), tmp_path / "plain").info


def test_a_test_image_among_them_is_refused(tmp_path: Path) -> None:
    images = (load("digits").test.images[:40, 0]).to(torch.uint8).numpy()
    with pytest.raises(HauberkError, match="must not be trained on") as caught:
        train(mixed(written(tmp_path / "leak.npz", images)), tmp_path / "run")
    assert "40 training images of leak" in caught.value.message
    assert not (tmp_path / "run").exists()


def test_generated_images_are_labelled_by_a_run_and_say_where_they_come_from(tmp_path: Path) -> None:
    teacher = {"training": RECIPE["training"] | {"steps_per_epoch": 0, "epochs": 8, "ema": 0.5}}
    judge = {"name": "run", "path": str(train(recipes.parse(RECIPE | teacher), tmp_path / "judge").path)}
    gaussian = {"name": "gaussian_generator", "of": {"name": "digits"}, "images": 50, "judge": judge, "least": 0.3}
    dice = np.random.default_rng(0)
    np.savez(tmp_path / "edm.npz", image=dice.integers(0, 256, (30, 8, 8, 1), np.uint8))
    edm = {"name": "generated", "of": {"name": "digits"}, "file": str(tmp_path / "edm.npz"), "labeller": judge}
    recipe = recipes.parse(RECIPE | {"extra": [{"data": gaussian, "share": 0.25}, {"data": edm, "share": 0.5}]})
    info = train(recipe, tmp_path / "run").info
    told = {one["name"]: one for one in info["generated"]}
    assert list(told) == ["gaussian_of_digits", "edm_of_digits"]
    assert [one["share"] for one in told.values()] == [0.25, 0.5]
    predictor = Run.open(judge["path"]).info["predictor"]
    assert (told["gaussian_of_digits"]["judge"], told["edm_of_digits"]["labeller"]) == (predictor, predictor)
    assert 0.3 <= told["gaussian_of_digits"]["agreement"] <= 1.0
    labels = Run.open(judge["path"]).load_model()(load(edm).train.batch().images).argmax(1)
    assert told["edm_of_digits"]["classes"] == torch.bincount(labels, minlength=10).tolist()
    assert any("agrees with" in note for note in info["notes"])
    assert "generated" not in Run.open(judge["path"]).info


def test_generated_images_alone_take_the_place_of_the_training_split(tmp_path: Path) -> None:
    data = {"name": "gaussian_generator", "of": {"name": "digits"}, "images": 40}
    run = train(recipes.parse(RECIPE | {"data": data, "training": {"epochs": 1, "batch_size": 8}}), tmp_path / "run")
    assert [one["share"] for one in run.info["generated"]] == [1.0]


def test_an_unknown_key_of_an_extra_names_the_nearest() -> None:
    with pytest.raises(HauberkError) as caught:
        recipes.parse(RECIPE | {"extra": [{"data": {"name": "digits"}, "shares": 0.5}]})
    assert "share" in caught.value.hint


def test_a_defence_that_does_not_fit_is_refused_before_training(tmp_path: Path) -> None:
    """A denoiser for other noise; of a defence that fits, the try leaves no trace."""
    base = train(recipes.parse(RECIPE), tmp_path / "base").path
    denoiser = {"name": "dncnn", "channels": 1, "width": 4, "depth": 2}
    model = {"name": "denoised", "base": {"name": "run", "path": str(base)}, "denoiser": denoiser, "sigma": 0.25}
    recipe = RECIPE | {"model": model, "objective": {"name": "denoising"}}
    with pytest.raises(HauberkError, match="the smoothing has sigma 0"):
        train(recipes.parse(recipe | {"wrap": {"name": "smoothed", "sigma": 0.5}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    fits = train(recipes.parse(recipe | {"wrap": {"name": "smoothed", "sigma": 0.25}}), tmp_path / "run").load_model()
    plain = train(recipes.parse(recipe), tmp_path / "plain").load_model()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, fits.base.state_dict()[name])
    assert bool(plain.denoiser.residual[-1].weight.detach().any())
    frozen = RECIPE | {"wrap": {"name": "denoised", "denoiser": denoiser, "sigma": 0.25}}  # it freezes its base
    behind = train(recipes.parse(frozen), tmp_path / "behind").load_model()
    first = train(recipes.parse(RECIPE), tmp_path / "again").load_model()
    assert all(torch.equal(v, behind.base.state_dict()[n]) for n, v in first.state_dict().items())
