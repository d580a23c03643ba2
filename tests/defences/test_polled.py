"""Predictors of a random model: their rules by hand, their names, and that attacks and decisions follow them."""

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import PGD
from hauberk.attacks.gradients import draws
from hauberk.batch import Batch
from hauberk.capabilities import Random
from hauberk.classifier import classes, decide, logits_of, predictor_name
from hauberk.conformance import check_classifier
from hauberk.defences.polled import polled
from hauberk.errors import HauberkError
from hauberk.layers import NoiseInjection
from hauberk.noises import Gaussian
from hauberk.randomness import Draw
from hauberk.threats import Linf


def noisy(size: float = 1.0) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 3), NoiseInjection(Gaussian(size))).eval()


class Skewed(nn.Module):
    """Class 1 by far in few draws, class 0 by little in most: the vote and the mean differ."""

    def __init__(self, key: Draw) -> None:
        super().__init__()
        self.key = key

    def forward(self, images: Tensor) -> Tensor:
        rare = (self.key.rows(images).uniform() < 0.25).to(images)
        return torch.stack([torch.full_like(rare, 1.0), 20.0 * rare], 1)


class Rare(Random):
    """The random classifier of it."""

    def draw(self, key: Draw) -> nn.Module:
        return Skewed(key)


def batch(rows: int = 12) -> Batch:
    images = torch.rand(rows, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(rows) % 3, torch.arange(rows))


def wrap(base: nn.Module, rule: str, count: int) -> nn.Module:
    base.spec = {"name": "mine"}  # type: ignore[assignment]
    return polled(base, rule, count).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("rule", "count"), [("single", 9), ("vote", 9), ("mean", 9)])
def test_the_rule_by_hand(rule: str, count: int) -> None:
    model, images = wrap(noisy(), rule, count), batch()
    every = [logits_of(model, images, 64, (3, n, "decide")) for n in range(1 if rule == "single" else count)]
    expected = sum(every).argmax(1) if rule == "mean" else torch.stack([classes(z) for z in every], 1).mode(1).values
    assert torch.equal(decide(model, images, seed=3), expected)
    found = PGD(Linf(0.05), steps=2)(model, images, seed=4)
    there = Batch(found.adversarial, images.labels, images.ids)
    fresh = [logits_of(model, there, 64, (4, n, "votes")) for n in range(len(every))]
    judged = sum(fresh).argmax(1) if rule == "mean" else torch.stack([classes(z) for z in fresh], 1).mode(1).values
    wrong = found.clean_prediction != images.labels
    assert torch.equal(found.prediction[~wrong], judged[~wrong])
    assert draws(model, images.images[:1]) == (9 if rule == "mean" else 20)


def test_the_vote_and_the_mean_are_different_predictors() -> None:
    rows = Batch(torch.zeros(40, 1, 1, 1), torch.zeros(40).long(), torch.arange(40))
    assert decide(wrap(Rare().eval(), "vote", 41), rows).tolist() == [0] * 40
    assert decide(wrap(Rare().eval(), "mean", 41), rows).tolist() == [1] * 40
    assert 4 <= int(decide(wrap(Rare().eval(), "single", 1), rows).sum()) <= 18


def test_records_call_it_by_its_rule() -> None:
    base = noisy()
    own = predictor_name(base)
    names = [predictor_name(wrap(base, rule, 5)) for rule in ("single", "vote", "mean")]
    own = predictor_name(base)
    assert names == [f"single_draw({own})", f"majority(draws=5, {own})", f"mean_logits(draws=5, {own})"]


def test_the_contract_and_what_cannot_be_polled() -> None:
    check_classifier(wrap(noisy(), "vote", 5), (3, 2, 2))
    spec = {"name": "lip_mlp", "input_shape": (1, 2, 2), "num_classes": 3, "mean": [0.5], "std": [0.5]}
    plain = registry.build(spec, "model")
    with pytest.raises(HauberkError, match="is not random"):
        polled(plain)
    smooth = registry.build({"name": "smoothed", "base": registry.spec(plain), "noise": "gaussian:0.25"}, "defence")
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        polled(smooth)
