"""The classifier contract: traits, checks with errors that teach, tiles, names."""

import copy
import math
import re

import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.classifier import (
    Decides,
    Normalize,
    Traits,
    check_classifier,
    check_eval,
    check_images,
    check_labels,
    check_logits,
    decide,
    evaluating,
    frozen,
    is_random,
    logits_of,
    margins,
    named_outputs,
    predictor_name,
    traits,
    weights_hash,
)
from hauberk.errors import HauberkError
from hauberk.layers import AOLLinear
from hauberk.randomness import Key


class Declared(nn.Module):
    def __init__(self, own: Traits) -> None:
        super().__init__()
        self.traits = own


class Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.round()


def linear(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes)).eval()


def batch(rows: int = 5, classes: int = 3) -> Batch:
    images = torch.rand(rows, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(rows) % classes, torch.arange(rows) + 100)


def test_normalize_is_per_channel() -> None:
    images = torch.rand(2, 2, 3, 3)
    found = Normalize([0.2, 0.5], [0.1, 2.0])(images)
    torch.testing.assert_close(found[:, 0], (images[:, 0] - 0.2) / 0.1)
    torch.testing.assert_close(found[:, 1], (images[:, 1] - 0.5) / 2.0)


def test_the_worst_trait_wins() -> None:
    assert traits(linear()) == Traits()
    assert traits(nn.Sequential(linear(), Unknown())).declared is False
    both = nn.Sequential(Declared(Traits(gradient="bpda")), Declared(Traits(stochastic=True)), linear())
    assert traits(both) == Traits(stochastic=True, gradient="bpda")
    assert traits(nn.Sequential(both, Declared(Traits(gradient="none")))).gradient == "none"


def test_randomness_is_probed() -> None:
    images = torch.rand(4, 1, 2, 2)
    assert not is_random(linear(), images)
    assert is_random(nn.Dropout(0.5).train(), images)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(3, 4, 4), "(B, C, H, W)"),
        (torch.randint(0, 255, (1, 1, 2, 2)), "float"),
        (torch.full((1, 1, 2, 2), math.nan), "NaN"),
        (torch.full((1, 1, 2, 2), 1.01), "in [0, 1]"),
        (torch.full((1, 1, 2, 2), -0.01), "in [0, 1]"),
    ],
)
def test_bad_images(images: torch.Tensor, words: str) -> None:
    with pytest.raises(HauberkError) as caught:
        check_images(images)
    assert words in caught.value.message
    check_images(torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2))


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0.0, 1.0], [1]])
def test_bad_labels(labels: list[float]) -> None:
    with pytest.raises(HauberkError):
        check_labels(torch.tensor(labels), 3, 2)
    check_labels(torch.tensor([0, 2]), 3, 2)


def test_bad_logits() -> None:
    shapes = [torch.zeros(2), torch.zeros(3, 3), torch.zeros(2, 1)]
    for bad in (*shapes, torch.full((2, 3), math.nan), torch.rand(2, 3).softmax(1)):
        with pytest.raises(HauberkError):
            check_logits(bad, 2)
    check_logits(torch.rand(2, 3).log_softmax(1), 2)
    check_logits(torch.zeros(2, 3), 2)


def test_train_mode_anywhere_is_refused() -> None:
    model = nn.Sequential(linear(), nn.Dropout())
    model.eval()[1].train()
    with pytest.raises(HauberkError, match="train mode"):
        check_eval(model)


def test_the_number_of_classes_comes_back() -> None:
    assert check_classifier(linear(), batch()) == 3
    with pytest.raises(HauberkError, match=r"0\.\.1"):
        check_classifier(linear(2), batch())


def test_frozen_and_evaluating_restore_what_they_found() -> None:
    model = nn.Sequential(linear(), nn.Dropout())
    model.train()
    model[0].eval()
    model[0][1].bias.requires_grad_(False)
    with frozen(model), evaluating(model):
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(m.training for m in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, False]
    assert model.training
    assert model[1].training
    assert not model[0].training


@pytest.mark.parametrize("rows", [1, 4, 5, 9])
def test_models_see_whole_tiles(rows: int) -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return images.flatten(1)

    data = batch(rows, 4)
    logits = logits_of(Spy().eval(), data, tile=4)
    assert set(seen) == {4}
    assert torch.equal(logits, data.images.flatten(1))
    assert torch.equal(decide(Spy().eval(), data, tile=4), logits.argmax(1))


def test_a_padded_tile_repeats_the_last_row() -> None:
    tiles = list(batch(5).tiles(4))
    assert [used for _, used in tiles] == [4, 1]
    assert tiles[1][0].ids.tolist() == [104] * 4


def test_a_vote_decides_for_itself() -> None:
    class Vote(nn.Module, Decides):
        def decide(self, images: torch.Tensor, key: Key) -> torch.Tensor:
            return torch.tensor(key.ids) + key.seed

    assert decide(Vote().eval(), batch(5), seed=1, tile=2).tolist() == [101, 102, 103, 104, 105]


def test_own_attributes_of_such_names_do_no_harm() -> None:
    """Only what inherits a capability has it."""

    class Mine(nn.Sequential):
        decide = outputs = parts = draw = predictor = adaptive_losses = surrogate = None

        def __init__(self) -> None:
            super().__init__(*linear().children())
            self.decide = lambda images: images
            self.outputs = self.parts = self.draw = {"logits": 3}
            self.predictor = "best"

    model, images = Mine().eval(), batch(3)
    assert decide(model, images).tolist() == decide(linear(), images).tolist()
    assert predictor_name(model) != "best"
    assert list(named_outputs(model, images.images)) == ["logits"]
    assert torch.equal(logits_of(model, images), logits_of(linear(), images))


def test_names_follow_the_weights() -> None:
    model, other = linear(), linear()
    assert weights_hash(model) == weights_hash(other)
    name = predictor_name(model)
    assert re.fullmatch(r"Sequential\[[0-9a-f]{16}\]", name)
    assert name == predictor_name(linear())
    bent = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU()).eval()
    bent.load_state_dict(model.state_dict())
    assert weights_hash(bent) == weights_hash(model)
    assert predictor_name(bent) != name  # the same weights in another architecture are another function
    with torch.no_grad():
        other[1].bias[0] += 1e-6
    assert weights_hash(model) != weights_hash(other)
    assert weights_hash(model.double()) != weights_hash(linear())


def test_margins() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, -math.inf, 5.0]])
    assert margins(logits, torch.tensor([0, 1, 0])).tolist() == [1.0, 0.0, -5.0]


def test_deep_copies_of_a_parametrised_layer_keep_weights_of_their_own_while_frozen() -> None:
    """Torch's own cache takes copies for one layer, because they share the class that it made."""
    torch.manual_seed(0)
    layer = AOLLinear(4, 4)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.parametrizations.weight.original.copy_(torch.randn(4, 4))
    model, images = nn.Sequential(nn.Flatten(), layer, other).eval(), torch.rand(3, 1, 2, 2)
    expected = model(images)
    with frozen(model):
        assert torch.equal(model(images), expected)
        assert torch.equal(model(images), expected)
        assert model[1].weight is model[1].weight  # computed once
        with frozen(model[1]), frozen(other):
            assert torch.equal(model(images), expected)
    assert model[1].weight is not model[1].weight
    assert all("forward" not in vars(module) for module in model.modules())
