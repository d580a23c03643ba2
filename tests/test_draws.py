"""Draws of random models: by key they are functions, row by row; by torch's generator they are fenced."""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk.attacks import APGD, FAB, FGSM, PGD, Attack, AutoAttack, PartAttack, Square
from hauberk.attacks.gradients import BPDA
from hauberk.batch import Batch
from hauberk.capabilities import Decides, Random, Traits
from hauberk.certificates import LipschitzCertificate
from hauberk.classifier import decide, logits_of, margins
from hauberk.conformance import check_classifier, check_lipschitz_layer
from hauberk.defences import MixedClassifier
from hauberk.draws import Fenced, drawn, is_random, one_draw
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records
from hauberk.evaluation.work import Work
from hauberk.layers import NoiseInjection
from hauberk.layers.bound import Bound, unit_bound
from hauberk.layers.lipschitz import model_bound
from hauberk.noises import Gaussian, Laplace
from hauberk.randomness import Draw, Key
from hauberk.threats import Linf, Norm


def net(noise: float = 0.3, shared: bool = False) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(12, 8), NoiseInjection(Gaussian(noise), shared), nn.ReLU(), nn.Linear(8, 3)]
        return nn.Sequential(NoiseInjection(Laplace(0.05)), *layers).eval()


def batch(rows: int = 20) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(rows, 3, 2, 2, generator=generator)
    return Batch(images, torch.arange(rows) % 3, torch.arange(rows) + 100)


def key(*ids: int, seed: int = 0, number: int = 0) -> Key:
    return Key(seed, number, ids, "test")


@pytest.mark.parametrize("shared", [False, True])
def test_the_contract(shared: bool) -> None:
    check_classifier(net(shared=shared), (3, 2, 2))


def test_shared_noise_is_one_for_all_rows_and_parts_have_their_own() -> None:
    layer = NoiseInjection(Gaussian(1.0), shared=True)
    found = drawn(nn.Sequential(layer, nn.Flatten()), key(1, 2, 3))(torch.zeros(3, 1, 2, 2))
    assert torch.equal(found[0], found[1])
    two = nn.Sequential(NoiseInjection(Gaussian(1.0)), NoiseInjection(Gaussian(1.0)))
    one = nn.Sequential(layer := NoiseInjection(Gaussian(1.0)), layer)  # one module in two places has one noise
    zeros = torch.zeros(1, 1, 2, 2)
    single = drawn(nn.Sequential(layer), key(1))(zeros)
    torch.testing.assert_close(drawn(one, key(1))(zeros), 2 * single)
    assert not torch.allclose(drawn(two, key(1))(zeros), 2 * single, atol=1e-3)


def test_a_draw_changes_nothing_in_the_model_and_shares_its_weights() -> None:
    model = net()
    before = dict(model.named_modules())
    made = drawn(model, key(1))
    assert dict(model.named_modules()) == before
    assert {id(p) for p in made.parameters()} == {id(p) for p in model.parameters()}
    assert not any(module.training for module in made.modules())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    assert drawn(plain, key(1)) is plain




@pytest.mark.parametrize("name", ["pgd", "apgd", "fab", "square", "suite"])
def test_rows_do_not_depend_on_their_neighbours(name: str) -> None:
    """The invariance of everything else, for a model that is random: alone, in batches of 7, all, and shuffled."""
    attacks: dict[str, Attack] = {
        "pgd": PGD(Linf(0.1), steps=4, eot=3), "apgd": APGD(Linf(0.1), steps=6, eot=2),
        "fab": FAB(Linf(0.1), steps=4, restarts=1, eot=2), "square": Square(Linf(0.1), queries=20, eot=2),
        "suite": AutoAttack(Linf(0.1), version="custom", attacks=tuple(a(Linf(0.1), eot=2) for a in (FGSM, PGD))),
    }  # fmt: skip
    attack, model, images = attacks[name], net(), batch(20)
    whole = attack(model, images, seed=3, tile=16)
    assert int(whole.success.sum()) > 0
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    for rows in (torch.arange(7), torch.arange(7, 14), order, torch.tensor([11])):
        part = attack(model, images.select(rows), seed=3, tile=16)
        for column in ("success", "prediction", "clean_prediction", "forwards"):
            assert torch.equal(getattr(part, column), getattr(whole, column)[rows]), column
        for column in ("adversarial", "loss", "logit_margin", "nearest", "probabilities"):
            torch.testing.assert_close(getattr(part, column), getattr(whole, column)[rows], rtol=1e-5, atol=1e-6)
        assert torch.equal(part.draws, whole.draws[rows])


def test_a_row_that_was_asked_less_often_meets_its_own_next_draw() -> None:
    """The number of a draw counts the image's own passes, also where a search leaves some rows out for a while."""
    model, images = net(), batch(4)
    attack = PGD(Linf(0.1), eot=2)
    query, alone = attack.query(model, images, 16), attack.query(model, images.select([3]), 16)
    query.value(images.images)
    query.differences(images.images, torch.zeros(4, 1).long(), torch.tensor([True, False, True, False]))
    alone.value(images.images[3:])
    torch.testing.assert_close(query.value(images.images)[3:], alone.value(images.images[3:]))
    assert query.forwards.tolist() == [6, 4, 6, 4]


def test_answers_are_keyed_by_seed_and_id() -> None:
    model, images = net(), batch()
    logits = logits_of(model, images, 16)
    assert torch.equal(logits_of(model, images.select([5]), 16)[0], logits[5])
    assert not torch.equal(logits_of(model, images, 16, (1, 0, "logits")), logits)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert torch.equal(decide(model, images, seed=4), decide(model, images, seed=4))
    APGD(Linf(0.1), steps=2)(model, images)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_walk_bounds_every_draw_and_only_a_draw_is_certified() -> None:
    model, images = net(shared=True), batch(3)
    model[0].shared = True
    plain = nn.Sequential(*(m for m in model if not isinstance(m, NoiseInjection))).eval()
    assert model_bound(model, (3, 2, 2)).value == pytest.approx(model_bound(plain, (3, 2, 2)).value, rel=1e-9)
    with pytest.raises(HauberkError, match="draws noise in every call"):
        LipschitzCertificate()(model, images)
    certified = LipschitzCertificate()(drawn(model, key(0)), images)
    assert float(certified.radius.max()) > 0
    assert certified.prediction.tolist() == drawn(model, key(0))(images.images).argmax(1).tolist()


class Coins(nn.Module):
    """Randomness from everywhere but from an argument."""

    traits = Traits(declared=False)

    def forward(self, images: Tensor) -> Tensor:
        drawn = torch.randn(len(images), 2) + float(np.random.rand()) + random.random()  # noqa: NPY002
        return images.flatten(1)[:, :2] + drawn


def test_a_fence_repeats_a_draw_and_leaves_every_generator_as_it_was() -> None:
    model, images = Coins().eval(), batch(4).images
    assert is_random(model, images)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first, again, other = (one_draw(model, key(1, number=n))(images) for n in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert isinstance(one_draw(model, key(1)), Fenced)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


class Both(nn.Module):
    """Noise by key, and beside it noise that nobody asked for."""

    traits = Traits(stochastic=True)

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits + 0.1 * torch.randn_like(logits)


def test_what_a_model_draws_beside_its_keys_is_fenced_and_said(tmp_path: Path) -> None:
    model, images = Both().eval(), batch(4)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    made = one_draw(model, key(*images.ids.tolist()))
    assert torch.equal(made(images.images), made(images.images))
    assert torch.equal(torch.get_rng_state(), state)
    setting = Setting("noise", "test", ("a", "b", "c"), tile=4, gallery=0)
    for part, said in ((model, "global"), (net(), None)):
        (record,) = attack_records(part, images, PGD(Linf(0.1), steps=1), setting, Work(tmp_path / str(said)))
        assert record.facts.get("randomness") == said


class Guarded(nn.Module, Decides):
    """Decides by its own net, which is random."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def decide(self, images: Tensor, key: Key) -> Tensor:
        return self.net(images).argmax(1)


def test_a_decision_over_a_random_net_is_keyed_too() -> None:
    model, images = Guarded().eval(), batch(40)
    whole = decide(model, images, seed=1, tile=16)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    assert torch.equal(decide(model, images.select(order), seed=1, tile=16), whole[order])
    assert not torch.equal(decide(model, images, seed=2, tile=16), whole)


@pytest.mark.parametrize("seed", [-1, 2**32 + 5, 2**40, 2**63 + 1])
def test_any_integer_is_a_seed(seed: int) -> None:
    for model in (Coins().eval(), net()):
        rows = Batch(batch(4).images, torch.zeros(4).long(), torch.arange(4))
        found = (PGD(Linf(0.1), steps=1, eot=2)(model, rows, seed=seed).loss for _ in range(2))
        assert torch.equal(*found)


def test_a_wrapper_that_a_user_put_around_a_forward_stays() -> None:
    model = nn.Sequential(NoiseInjection(Gaussian(1e-9)), nn.Flatten()).eval()
    vars(model)["forward"] = partial(lambda inner, images: 3.0 * inner(images), model.forward)
    images = batch(1).images
    torch.testing.assert_close(drawn(model, key(1))(images), 3.0 * images.flatten(1))


class Step(nn.Module):
    """A random step without a gradient, with one around it that passes it."""

    traits = Traits(gradient="none")

    def __init__(self) -> None:
        super().__init__()
        self.noise = NoiseInjection(Gaussian(0.01))

    def forward(self, images: Tensor) -> Tensor:
        return self.noise(images).mul(8).round().div(8)


class Quantised(Random):
    """The same as one random module, whose draw has no gradient."""

    def draw(self, key: Draw) -> nn.Module:
        return drawn(Step(), key)


@pytest.mark.parametrize("step", [Step(), Quantised(), BPDA(Step())], ids=["container", "draw", "bpda"])
def test_steps_without_a_gradient_pass_one_in_every_draw(step: nn.Module) -> None:
    model, images = nn.Sequential(step, net(noise=0.01)).eval(), batch(16)
    found = PGD(Linf(0.3), steps=5, eot=2)(model, images)
    assert int(found.zero_gradients.sum()) == 0
    assert int(found.success.sum()) > int((found.clean_prediction != images.labels).sum())
    again = PGD(Linf(0.3), steps=5, eot=2)(model, images.select(torch.arange(5)))
    torch.testing.assert_close(again.loss, found.loss[:5], rtol=1e-5, atol=1e-6)


class Doubled(NoiseInjection):
    """A random layer that stretches by two and says one."""

    def draw(self, key: Draw) -> nn.Module:
        return nn.Sequential(super().draw(key), Twice())

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        return unit_bound(norm, "as it says")


class Twice(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return 2.0 * values


def test_the_bound_of_a_random_layer_is_held_against_its_draws() -> None:
    for shared in (False, True):
        check_lipschitz_layer(NoiseInjection(Gaussian(0.2), shared), (2, 3, 3))
    with pytest.raises(HauberkError, match="no two points move apart faster"):
        check_lipschitz_layer(Doubled(Gaussian(0.2)), (2, 3, 3))


def test_rows_that_are_no_images_are_refused_in_a_sentence() -> None:
    class Split(nn.Module):
        traits = Traits()

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).reshape(-1, 6)

    model = nn.Sequential(Split(), NoiseInjection(Gaussian(0.1)), nn.Unflatten(0, (-1, 2)), nn.Flatten()).eval()
    with pytest.raises(HauberkError, match="3 images cannot give noise of 6 rows"):
        drawn(model, key(1, 2, 3))(torch.zeros(3, 3, 2, 2))


def test_a_value_is_the_mean_over_the_next_draws() -> None:
    model, images = net(), batch(4)
    query = PGD(Linf(0.1), loss="margin", eot=3).query(model, images, 16)
    ids = tuple(images.ids.tolist())
    for first in (0, 3):
        draws = [one_draw(model, Key(0, first + n, ids, "search"))(images.images) for n in range(3)]
        expected = torch.stack([-margins(logits, images.labels) for logits in draws]).mean(0)
        torch.testing.assert_close(query.value(images.images.clone()), expected, rtol=1e-5, atol=1e-6)


def test_rows_that_met_unlike_numbers_of_draws_keep_their_places_and_share_calls() -> None:
    model, images = net(), batch(6)
    query = PGD(Linf(0.1), eot=2).query(model, images, 16)
    uneven = torch.arange(6) % 2 == 0
    query.differences(images.images, torch.zeros(6, 1).long(), uneven)
    calls: list[int] = []
    handle = model[1].register_forward_hook(lambda _module, inputs, _out: calls.append(len(inputs[0])))
    clean = query.clean_logits
    handle.remove()
    assert len(calls) == 2  # one for each number of draws, and not one for each change of it
    for row, (image, i) in enumerate(zip(images.images, images.ids.tolist(), strict=True)):
        alone = one_draw(model, Key(0, 2 if uneven[row] else 0, (i,), "search"))(image[None])
        torch.testing.assert_close(clean[row : row + 1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", ["accurate", "robust"])
def test_a_search_on_a_random_part_is_keyed_by_the_samples_too(part: str) -> None:
    mix, images = MixedClassifier(net(), net(0.1), 0.6, 1.0, 1.0).eval(), batch(12)
    attack = PartAttack(Linf(0.1), part=part, attack=PGD(Linf(0.1), steps=3, eot=2), eot=2)
    whole = attack(mix, images, seed=3, tile=16)
    alone = attack(mix, images.select([7]), seed=3, tile=16)
    torch.testing.assert_close(alone.adversarial, whole.adversarial[7:8], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone.loss, whole.loss[7:8], rtol=1e-5, atol=1e-6)
