"""The verb train: a recipe with another data set beside its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hauberk import recipes
from hauberk.data import load
from hauberk.errors import HauberkError
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
    with pytest.raises(HauberkError, match="no fresh test") as caught:
        train(mixed(written(tmp_path / "leak.npz", images)), tmp_path / "run")
    assert "40 training images of leak" in caught.value.message
    assert not (tmp_path / "run").exists()


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
