"""The verb generate: a diffusion model is trained, sampled, and its images are learnt from by another training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hauberk import recipes
from hauberk.attacks import FGSM
from hauberk.capabilities import Generates
from hauberk.cli.app import build
from hauberk.data import load
from hauberk.errors import HauberkError
from hauberk.randomness import PerSample
from hauberk.runs import Run
from hauberk.subjects import subject
from hauberk.threats import Linf
from hauberk.verbs.attack import attack
from hauberk.verbs.generate import Sampler, generate, sampled
from hauberk.verbs.train import train

TRAINING = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 16, "validate_every": 0, "threads": 1}
MODEL = {"name": "diffusion_mlp", "width": 16, "depth": 1}
RECIPE = {
    "name": "ddpm", "data": {"name": "digits"}, "model": MODEL, "objective": {"name": "diffusion"},
    "training": TRAINING,
}  # fmt: skip
CLASSIFIER = {"model": {"name": "small_cnn", "widths": [4], "strides": [2]}, "objective": {"name": "standard"}}
FEW = Sampler(steps=3, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipes.parse(RECIPE), tmp_path_factory.mktemp("ddpm") / "run", device="cpu")


def of_file(path: Path, **settings) -> dict:
    return {"name": "generated", "of": {"name": "digits"}, "file": str(path), **settings}


def test_what_is_written_is_what_is_sampled_and_is_learnt_from(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    told = generate(run, path, 70, FEW)
    data = load(of_file(path))
    assert torch.equal(data.train.images, sampled(run.load_model(), 70, FEW))
    assert data.train.labels.tolist() == [j % 10 for j in range(70)]
    assert data.provenance.content == told.content
    assert (told.generator, told.trained_on, told.conditional) == ("ddpm", "train", True)
    assert told.settings == {"predictor": run.info["predictor"], "data": "digits", "seed": 0, "steps": 3, "eta": 0.0}
    extra = [{"data": of_file(path), "share": 0.5}]
    learnt = train(recipes.parse(RECIPE | CLASSIFIER | {"name": "more", "extra": extra}), tmp_path / "more")
    assert learnt.info["generated"][0]["settings"]["predictor"] == run.info["predictor"]
    with np.load(path) as held:
        assert len(held["seen"]) == len(load("digits").train)


def test_seed_and_number_decide_an_image_and_nothing_else(run: Run) -> None:
    model = run.load_model()
    many = sampled(model, 70, FEW)
    assert torch.equal(sampled(model, 5, FEW), many[:5])
    assert not torch.equal(sampled(model, 5, Sampler(3, seed=1, device="cpu")), many[:5])
    ancestral = Sampler(3, eta=1.0, device="cpu")
    assert torch.equal(sampled(model, 70, ancestral)[:5], sampled(model, 5, ancestral))
    assert not torch.equal(sampled(model, 5, ancestral), many[:5])


class Classes(Generates):
    """Makes an image of its class alone, and keeps what it was given."""

    input_shape, num_classes, conditional = (1, 2, 2), 3, True

    def __init__(self) -> None:
        self.starts: list[torch.Tensor] = []
        self.noises: list[torch.Tensor] = []

    def sample(self, start, labels, steps, eta, noise):
        self.starts.append(start)
        self.noises.append(noise(7))
        return (labels / 5.0)[:, None, None, None].expand(start.shape)


def test_every_image_has_its_own_class_start_and_noise() -> None:
    model = Classes()
    assert sampled(model, 70, FEW)[:, 0, 0, 0].tolist() == [51 * (j % 3) for j in range(70)]
    for found, purpose in ((model.starts, "ddim start"), (model.noises, "ddim 7")):
        assert torch.equal(torch.cat(found)[:70], PerSample(0, range(70), purpose).normal(1, 2, 2))


def test_images_of_an_unconditional_model_need_a_labeller(tmp_path: Path) -> None:
    plain = train(recipes.parse(RECIPE | {"model": MODEL | {"conditional": False}}), tmp_path / "plain", device="cpu")
    told = generate(plain, tmp_path / "samples.npz", 20, FEW)
    assert told.conditional is False
    with pytest.raises(HauberkError, match="no labels"):
        load(of_file(tmp_path / "samples.npz"))
    judge = train(recipes.parse(RECIPE | CLASSIFIER), tmp_path / "judge", device="cpu")
    named = {"name": "run", "path": str(judge.path)}
    data = load(of_file(tmp_path / "samples.npz", labeller=named))
    expected = judge.load_model()(data.train.batch().images).argmax(1)
    assert torch.equal(data.train.labels, expected)
    assert generate(plain, tmp_path / "b.npz", 20, FEW, judge.load_model()).labeller == data.provenance.labeller


def test_a_model_that_has_learnt_from_held_out_images_is_refused(tmp_path: Path) -> None:
    """The validation images of the digits are training images where a part of the test images serves to choose."""
    other = {"data": {"name": "calibrated", "of": {"name": "digits"}, "images": 50}}
    generate(train(recipes.parse(RECIPE | other), tmp_path / "run", device="cpu"), tmp_path / "samples.npz", 10, FEW)
    with pytest.raises(HauberkError, match="learnt from 200 val images of digits"):
        load(of_file(tmp_path / "samples.npz"))
    assert load({**of_file(tmp_path / "samples.npz"), "of": other["data"]})


def test_images_that_are_learnt_beside_the_data_count_as_seen(tmp_path: Path) -> None:
    test = load("digits").test
    images = test.images[:30, 0].numpy()
    np.savez(tmp_path / "more.npz", x_train=images, y_train=np.arange(30) % 10, x_test=images[:2], y_test=np.arange(2))
    more = {"name": "npz", "file": str(tmp_path / "more.npz"), "layout": "NHW", "val_size": 0}
    noise = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=noise, y_train=np.arange(30) % 10, x_test=noise[:2], y_test=np.arange(2))
    extra = [{"data": more | {"file": str(tmp_path / "noise.npz")}, "share": 0.5}]
    learnt = train(recipes.parse(RECIPE | {"extra": extra}), tmp_path / "run", device="cpu")
    generate(learnt, tmp_path / "samples.npz", 10, FEW)
    with np.load(tmp_path / "samples.npz") as held:
        assert len(held["seen"]) == len(load("digits").train) + 30


def test_what_is_no_diffusion_model_is_refused_and_one_is_no_classifier(run: Run, tmp_path: Path) -> None:
    judge = train(recipes.parse(RECIPE | CLASSIFIER), tmp_path / "judge", device="cpu")
    with pytest.raises(HauberkError, match="no diffusion model"):
        generate(judge, tmp_path / "samples.npz", 10, FEW)
    with pytest.raises(HauberkError, match=r"ending in \.npz"):
        generate(run, tmp_path / "samples.png", 10, FEW)
    with pytest.raises(HauberkError, match="no logits"):
        attack(subject(str(run.path)), [FGSM(Linf(0.1))])
    with pytest.raises(HauberkError, match="no accuracy"):
        train(recipes.parse(RECIPE | {"training": TRAINING | {"validate_every": 1}}), tmp_path / "validated")
    with pytest.raises(HauberkError, match="no logits"):
        train(recipes.parse(RECIPE | {"objective": {"name": "standard"}}), tmp_path / "standard")
    with pytest.raises(HauberkError, match="expected a diffusion model"):
        train(recipes.parse(RECIPE | CLASSIFIER | {"objective": {"name": "diffusion"}}), tmp_path / "classifier")


def test_at_the_command_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    typed = ["generate", str(run.path), "--images", "12", "--steps", "2", "--device", "cpu", "-o", str(path)]
    found = CliRunner().invoke(build(), typed)
    assert found.exit_code == 0, found.output
    assert "12 images, ddpm" in found.output and "next, in a recipe" in found.output
    assert path.exists()
