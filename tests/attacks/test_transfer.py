"""Transfer: on the same model it is the white-box attack; on another it tries what was found there."""

from pathlib import Path

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import APGD, FGSM, PGD, Attack, Query
from hauberk.attacks.transfer import Transfer
from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.errors import HauberkError
from hauberk.models.small_cnn import small_cnn
from hauberk.randomness import PerSample, Randomness
from hauberk.runs import Run
from hauberk.threats import CONFIG, L1, L2, Linf, Threat

SHAPE = (1, 6, 6)


def network(seed: int, shape: tuple[int, ...] = SHAPE, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    model = small_cnn(shape, classes, [0.5] * shape[0], [0.2] * shape[0], widths=(6,), strides=(1,), batch_norm=False)
    nn.init.normal_(model[-1].weight, std=2.0)
    nn.init.zeros_(model[-1].bias)
    return model.eval()


def saved(model: nn.Module, path: Path) -> str:
    run = Run.create(path, {"name": "source", "data": {"name": "none"}})
    run.save_model(model, {})
    return str(run.path)


@pytest.fixture
def model() -> nn.Module:
    return network(1)


@pytest.fixture
def batch(model: nn.Module) -> Batch:
    images = torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    return Batch(images, labels, torch.arange(30) + 50)


@pytest.mark.parametrize(
    "attack",
    [PGD(Linf(0.02), steps=5), APGD(L2(0.08), steps=8), PGD(L1(0.5), steps=5, restarts=2), FGSM(Linf(0.02))],
    ids=str,
)
@pytest.mark.parametrize("early_stop", [True, False])
def test_from_the_same_model_it_is_the_white_box_attack(
    attack: Attack, early_stop: bool, model: nn.Module, batch: Batch, tmp_path: Path
) -> None:
    transfer = Transfer(attack.threat, source=saved(model, tmp_path), attack=attack, early_stop=early_stop)
    found, white = transfer(model, batch, seed=3), attack(model, batch, seed=3)
    assert 1 < int(white.success.sum()) < 29
    assert torch.equal(found.success, white.success)
    assert not found.backwards.any()
    assert set(found.forwards.tolist()) <= ({1, 2, 3, 4, 5} if early_stop else {5})
    assert bool((found.distance <= attack.threat.eps).all())
    if not early_stop:
        full = registry.build(registry.spec(attack) | {"early_stop": False})(model, batch, seed=3)
        torch.testing.assert_close(found.loss, full.loss)
        torch.testing.assert_close(found.logit_margin, full.logit_margin)
        torch.testing.assert_close(found.nearest, full.nearest)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.4), L1(2.0)], ids=str)
def test_from_another_model_it_tries_the_sources_points(
    threat: Threat, model: nn.Module, batch: Batch, tmp_path: Path
) -> None:
    other = network(2)
    attack = PGD(threat, steps=5, early_stop=False)
    found = Transfer(threat, source=saved(other, tmp_path), attack=attack)(model, batch)
    there = attack(other, batch)
    last = attack.perturb(other, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
    tried = [batch.images, last, there.best_loss_point, there.logit_margin_point]
    tried.append(torch.where((there.nearest <= threat.eps)[:, None, None, None], there.nearest_point, batch.images))
    with torch.no_grad():
        wrong = torch.stack([model(points).argmax(1) != batch.labels for points in tried]).any(0)
    assert torch.equal(found.success, wrong)
    assert 1 < int(wrong.sum()) < len(batch)
    assert bool((found.success <= PGD(threat, steps=30, restarts=3)(model, batch).success).all())


def _moved(images: Tensor, length: float) -> Tensor:
    return images + length * torch.sign(torch.sin(97.0 * images))


@dataclass(frozen=True, config=CONFIG)
class Leaves(Attack):
    """Goes far out of the ball and looks at nothing."""

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        return _moved(query.images, 5.0 * self.threat.eps)


@dataclass(frozen=True, config=CONFIG)
class Retires(Attack):
    """Looks at a point, takes all rows out, and goes on regardless."""

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        query.value(_moved(query.images, self.threat.eps).clamp(0, 1))
        query.retire(torch.ones_like(query.active))
        query.value(query.images)
        return query.images


def test_a_last_point_outside_is_brought_back(model: nn.Module, batch: Batch, tmp_path: Path) -> None:
    attack = Leaves(Linf(0.1))
    found = Transfer(Linf(0.1), source=saved(model, tmp_path), attack=attack)(model, batch)
    with torch.no_grad():
        there = model(_moved(batch.images, 0.1).clamp(0, 1)).argmax(1)
    assert torch.equal(found.success, (there != batch.labels) | (found.clean_prediction != batch.labels))
    assert 1 < int(found.success.sum()) < len(batch)


def test_what_was_seen_before_a_search_ran_out_of_rows_is_tried(model: nn.Module, batch: Batch, tmp_path: Path) -> None:
    attack = Retires(Linf(0.1))
    found = Transfer(Linf(0.1), source=saved(model, tmp_path), attack=attack)(model, batch)
    assert torch.equal(found.success, attack(model, batch).success)
    assert 1 < int(found.success.sum()) < len(batch)


def test_an_image_that_the_source_gets_wrong_is_still_attacked(model: nn.Module, tmp_path: Path) -> None:
    """The source calls every image wrong; its gradient is the attacked model's, and leads across the border."""

    def shifted(by: float) -> nn.Module:
        made = network(1)
        with torch.no_grad():
            made[-1].bias[1:] += by
        return made

    images = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(4))
    sure = shifted(-30.0)
    wrong = shifted(50.0)
    batch = Batch(images, torch.zeros(20).long(), torch.arange(20))
    with torch.no_grad():
        assert bool((wrong(images).argmax(1) != 0).all())
        margin = (sure(images)[:, 0] - sure(images)[:, 1:].amax(1)).median()
    target = shifted(-30.0 + float(margin) - 0.1)
    attack = PGD(Linf(0.1), steps=5, loss="margin", random_start=False)
    found = Transfer(Linf(0.1), source=saved(wrong, tmp_path), attack=attack)(target, batch)
    natural = found.clean_prediction != 0
    assert int((found.success & ~natural).sum()) > 3


def test_batch_size_and_training(model: nn.Module, batch: Batch, tmp_path: Path) -> None:
    other = network(2)
    attack = PGD(Linf(0.1), steps=3)
    transfer = Transfer(Linf(0.1), source=saved(other, tmp_path), attack=attack)
    whole, part = transfer(model, batch, tile=16), transfer(model, batch.select(slice(7, 12)), tile=16)
    assert torch.equal(whole.success[7:12], part.success)
    torch.testing.assert_close(whole.adversarial[7:12], part.adversarial, atol=1e-6, rtol=0)

    def perturb(by: Attack, on: nn.Module) -> Tensor:
        return by.perturb(on, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))

    torch.testing.assert_close(perturb(transfer, model), perturb(attack, other), atol=1e-6, rtol=0)


def test_the_source_must_be_the_one_meant(model: nn.Module, batch: Batch, tmp_path: Path) -> None:
    attack = PGD(Linf(0.1), steps=2)
    path = saved(network(2), tmp_path / "a")
    Transfer(Linf(0.1), source=path, weights=weights_hash(network(2)), attack=attack)(model, batch)
    with pytest.raises(HauberkError, match="expected 0123456789abcdef"):
        Transfer(Linf(0.1), source=path, weights="0123456789abcdef", attack=attack)(model, batch)
    with pytest.raises(HauberkError, match="not a run directory"):
        Transfer(Linf(0.1), source=str(tmp_path / "none"), attack=attack)(model, batch)
    with pytest.raises(HauberkError, match="has 5 classes"):
        Transfer(Linf(0.1), source=saved(network(2, classes=5), tmp_path / "b"), attack=attack)(model, batch)
    with pytest.raises(HauberkError, match=r"shape \(1, 5, 6\)"):
        Transfer(Linf(0.1), source=saved(network(2, (1, 5, 6)), tmp_path / "c"), attack=attack)(model, batch)
    with pytest.raises(ValueError, match=r"linf:0\.2"):
        Transfer(Linf(0.1), source=path, attack=PGD(Linf(0.2)))


def test_a_source_that_is_trained_again_is_read_again(model: nn.Module, batch: Batch, tmp_path: Path) -> None:
    attack = FGSM(Linf(0.1))
    transfer = Transfer(Linf(0.1), source=saved(network(2), tmp_path), attack=attack, early_stop=False)
    first = transfer(model, batch)
    saved(model, tmp_path)
    again = transfer(model, batch)
    assert not torch.equal(first.loss, again.loss)


def test_it_is_rebuilt_from_its_spec(tmp_path: Path) -> None:
    transfer = Transfer(Linf(0.1), source=str(tmp_path), weights="00", attack=PGD(Linf(0.1), steps=2))
    assert registry.build(registry.spec(transfer)) == transfer
