"""BPDA and EOT: exact values, the surrogate's gradient, averages over draws, and random states left alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks import PGD, Attack, Query
from hauberk.attacks.gradients import BPDA, EOT_DRAWS, attackable, behind_a_fence, bpda, draws
from hauberk.batch import Batch
from hauberk.classifier import Traits, decide, frozen, logits_of, traits
from hauberk.conformance import LinearOracle
from hauberk.defences import SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian
from hauberk.randomness import PerSample, Randomness
from hauberk.threats import CONFIG, L2, Linf


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def levels(values: Tensor, steps: int = 8) -> Tensor:
    return (values * steps).round() / steps


class Quantise(nn.Module):
    """Input rounded to a few levels: its true gradient is zero almost everywhere."""

    traits = Traits(gradient="none")

    def forward(self, images: Tensor) -> Tensor:
        return levels(images)


# --- BPDA ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_value_is_exact_and_the_gradient_is_the_identitys(dtype: torch.dtype) -> None:
    values = (rand(3, 2, 4, 4).to(dtype) * 1e-3).requires_grad_(True)
    step = partial(torch.mul, other=1 / 3)  # exact + (x - x) would be rounded here
    found = bpda(lambda v: step(v).round(decimals=3), None, values)
    assert torch.equal(found, step(values).round(decimals=3))
    incoming = rand(3, 2, 4, 4, seed=1).to(dtype)
    (gradient,) = torch.autograd.grad(found, values, incoming)
    assert torch.equal(gradient, incoming)


def test_the_gradient_is_the_surrogates() -> None:
    values = rand(2, 3, 4).requires_grad_(True)
    surrogate = lambda v: torch.sin(3 * v).sum(2)  # noqa: E731 - also of another shape than the input
    module = BPDA(Exactly(lambda v: v.sum(2).round()), Exactly(surrogate))
    found = module(values)
    assert torch.equal(found, values.sum(2).round())
    incoming = rand(2, 3, seed=1)
    (gradient,) = torch.autograd.grad(found, values, incoming)
    expected = 3 * torch.cos(3 * values) * incoming[:, :, None]
    torch.testing.assert_close(gradient, expected)
    assert traits(nn.Sequential(module)).gradient == "bpda"


class Exactly(nn.Module):
    traits = Traits()

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


def test_the_step_itself_gets_no_gradient() -> None:
    step = nn.Linear(3, 3)
    values = rand(2, 3).requires_grad_(True)
    found = BPDA(step)(values)
    assert torch.equal(found, step(values))
    assert torch.autograd.grad(found.sum(), [values, step.weight], allow_unused=True)[1] is None


def test_a_surrogate_of_another_shape_is_named() -> None:
    values = rand(2, 3).requires_grad_(True)
    with pytest.raises(HauberkError, match=r"shape \(2, 3\), the exact pass \(2, 1\)"):
        bpda(lambda v: v.sum(1, keepdim=True), None, values)


def test_without_gradients_the_surrogate_is_not_asked() -> None:
    def never(values: Tensor) -> Tensor:
        raise AssertionError("nobody wants a gradient")

    values = rand(2, 3)
    with torch.no_grad():
        assert torch.equal(bpda(levels, never, values), levels(values))
        assert bpda(lambda v: v.sum(1), None, values).shape == (2,)


def test_a_step_that_works_in_place_spoils_neither_values_nor_gradient() -> None:
    values = rand(2, 3).requires_grad_(True)
    kept = values.detach().clone()
    inner = torch.exp(values)  # its backward pass reads its own result
    found = bpda(lambda v: v.mul_(8).round_().div_(8), torch.square, inner)
    assert torch.equal(found, levels(kept.exp()))
    torch.testing.assert_close(torch.autograd.grad(found.sum(), values)[0], 2 * kept.exp().square())
    assert torch.equal(values, kept)


# --- attackable ----------------------------------------------------------------------------------------------------


@pytest.fixture
def quantised() -> tuple[nn.Module, Batch]:
    """A linear classifier behind a quantiser, with images at 0.6 of the budget from the boundary."""
    torch.manual_seed(0)
    oracle = LinearOracle.random((1, 4, 4), 3, seed=2)
    batch = oracle.at_distance(0.6 * 0.15, "linf")
    model = nn.Sequential(Quantise(), oracle).eval()
    right = decide(model, batch) == batch.labels
    assert int(right.sum()) >= 2
    return model, batch.select(right)


def search(attack: Attack, model: nn.Module, batch: Batch) -> Query:
    """The search alone, without what ``Attack.__call__`` puts around it."""
    with frozen(model):
        query = attack.query(model, batch)
        query.value(batch.images)
        attack.search(query, PerSample(0, batch.ids, "attack"))
    return query


def test_rounding_blinds_an_attack_and_bpda_opens_its_eyes(quantised: tuple[nn.Module, Batch]) -> None:
    model, batch = quantised
    attack = PGD(Linf(0.15), steps=10, random_start=False, early_stop=False)
    blind = search(attack, model, batch)
    assert torch.equal(blind.zero_gradients, blind.backwards)
    assert not bool(blind.misclassified.any())
    with attackable(model):
        seeing = search(attack, model, batch)
    assert int(seeing.zero_gradients.sum()) == 0
    assert bool(seeing.misclassified.all())

    found = attack(model, batch)
    assert bool(found.success.all())
    assert int(found.zero_gradients.sum()) == 0
    with torch.no_grad():
        assert torch.equal(found.prediction, model(found.adversarial).argmax(1))  # judged by the model as it is
    assert "forward" not in vars(model[0])


def test_values_and_decisions_are_the_models_own_inside(quantised: tuple[nn.Module, Batch]) -> None:
    model, batch = quantised
    outside, inside = logits_of(model, batch), None
    with attackable(model):
        inside = logits_of(model, batch)
        leaf = batch.images.clone().requires_grad_(True)
        assert torch.equal(model[0](leaf), levels(batch.images))
    assert torch.equal(inside, outside)


def test_forward_is_restored_also_after_an_error_and_after_an_attack_inside_an_attack() -> None:
    model = nn.Sequential(Quantise())
    values = rand(1, 2).requires_grad_(True)

    def gradient() -> Tensor:
        return torch.autograd.grad(model(values).sum(), values)[0]

    with pytest.raises(ValueError, match="stop"), attackable(model):
        raise ValueError("stop")
    assert "forward" not in vars(model[0])
    with attackable(model):
        with attackable(model):
            assert bool((gradient() == 1).all())
        assert bool((gradient() == 1).all())
    assert "forward" not in vars(model[0])
    assert bool((gradient() == 0).all())


def test_a_forward_that_belongs_to_the_object_is_opened_too_and_comes_back() -> None:
    module = Quantise()
    own = partial(levels, steps=4)
    module.forward = own  # type: ignore[method-assign]
    values = rand(2, 3).requires_grad_(True)
    with attackable(module):
        found = module(values)
        assert torch.equal(found, levels(values, 4))
        assert bool((torch.autograd.grad(found.sum(), values)[0] == 1).all())
    assert module.forward is own


def test_a_module_brings_its_own_surrogate() -> None:
    class Halve(Quantise):
        def surrogate(self, values: Tensor) -> Tensor:
            return 0.5 * values

    class Squared(Quantise):
        def __init__(self) -> None:
            super().__init__()
            self.surrogate = Exactly(torch.square)

    values = rand(2, 3).requires_grad_(True)
    for module, slope in ((Halve(), torch.tensor(0.5)), (Squared(), 2 * values.detach())):
        with attackable(module):
            (gradient,) = torch.autograd.grad(module(values).sum(), values)
        torch.testing.assert_close(gradient, slope.expand(2, 3))


def test_other_modules_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), BPDA(Exactly(levels)), nn.ReLU())
    with attackable(model):
        assert not any("forward" in vars(module) for module in model.modules())


def test_a_whole_model_without_gradients_can_be_attacked_by_its_values_alone() -> None:
    """There is no identity from images to logits: a gradient attack says so, one that asks for values works."""

    class Oracle(nn.Module):
        traits = Traits(gradient="none")

        def forward(self, images: Tensor) -> Tensor:
            first = images.flatten(1)[:, 0].detach()
            return torch.stack([0.5 - first, first - 0.5], 1)

    @dataclass(frozen=True, config=CONFIG)
    class Brighter(Attack):
        def search(self, query: Query, randomness: Randomness) -> Tensor:
            query.value(query.images + 0.1)
            return query.images

    batch = Batch(torch.full((2, 1, 1, 2), 0.45), torch.zeros(2).long(), torch.arange(2))
    assert Brighter(Linf(0.1))(Oracle().eval(), batch).success.all()
    with pytest.raises(HauberkError, match="needs a surrogate of its own"):
        PGD(Linf(0.1))(Oracle().eval(), batch)


# --- EOT -----------------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    r"""Two classes, :math:`z = \mp m/2` with :math:`m = w \cdot x - b + \sigma t (v \cdot x)`, a normal t for each row.

    The margin loss of label 0 is m, so its gradient has mean w and the covariance :math:`\sigma^2 v v^T`.
    """

    traits = Traits(stochastic=True)

    def __init__(self, weight: Tensor, along: Tensor, offset: float = 0.0, sigma: float = 1.0) -> None:
        super().__init__()
        self.weight, self.along, self.offset, self.sigma, self.calls = weight, along, offset, sigma, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        flat = images.flatten(1)
        half = 0.5 * (flat @ self.weight - self.offset + self.sigma * torch.randn(len(flat)) * (flat @ self.along))
        return torch.stack([-half, half], 1)


def noisy(rows: int = 1, **settings: float) -> tuple[Noisy, Batch]:
    images = rand(rows, 1, 2, 2, seed=3)
    weight, along = torch.tensor([1.0, -2.0, 0.5, 0.0]), torch.tensor([0.0, 1.0, 2.0, -1.0])
    return Noisy(weight, along, **settings).eval(), Batch(images, torch.zeros(rows).long(), torch.arange(rows))


@pytest.mark.parametrize("eot", [1, 4, 16])
def test_the_gradient_is_the_mean_and_its_variance_falls_like_one_over_n(eot: int) -> None:
    model, batch = noisy(repeats := 2000)
    query = Query(model, batch.images, batch.labels, L2(1.0), "margin", track=True, eot=eot)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        found = query.gradient(batch.images)[1].flatten(1).double()
    error = (model.along.abs() / math.sqrt(eot * repeats)).double()
    assert bool(((found.mean(0) - model.weight).abs() <= 4 * error + 1e-6).all())
    expected = model.along.double().square() / eot
    # the variance of n normal numbers is known to a relative error of sqrt(2 / (n - 1))
    torch.testing.assert_close(found.var(0), expected, rtol=4 * math.sqrt(2 / (repeats - 1)), atol=1e-10)


def test_n_draws_are_n_forward_passes_and_the_value_is_their_mean() -> None:
    model, batch = noisy(3)
    query = Query(model, batch.images, batch.labels, L2(1.0), "margin", track=True, eot=7)
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        value = query.value(batch.images)
        assert (model.calls, query.forwards.tolist(), query.backwards.tolist()) == (7, [7] * 3, [0] * 3)
        torch.manual_seed(5)
        flat = batch.images.flatten(1)
        single = torch.stack([flat @ model.weight + torch.randn(3) * (flat @ model.along) for _ in range(7)])
        torch.testing.assert_close(value, single.mean(0))
        torch.manual_seed(5)
        half = 0.5 * torch.stack([flat @ model.weight + torch.randn(3) * (flat @ model.along) for _ in range(7)])
    query.gradient(batch.images)
    assert (model.calls, query.forwards.tolist(), query.backwards.tolist()) == (14, [14] * 3, [7] * 3)
    query.differences(batch.images, torch.ones(3, 1).long())
    assert (model.calls, query.forwards.tolist(), query.backwards.tolist()) == (21, [21] * 3, [14] * 3)
    # what is remembered as the model's answer is the mean probability
    torch.testing.assert_close(query.clean_logits.softmax(1), torch.stack([-half, half], 2).softmax(2).mean(0))


def test_a_random_model_gets_eot_by_itself_and_its_rows_are_not_dropped_on_one_error() -> None:
    """In one draw of ten the answer is wrong everywhere; dropped on such a draw, a row would stop early."""

    class Flaky(nn.Module):
        traits = Traits(stochastic=True)

        def forward(self, images: Tensor) -> Tensor:
            first = images.flatten(1)[:, 0] + 1.0 + 0.01 * torch.randn(())
            sign = torch.where(torch.rand(()) < 0.1, -1.0, 1.0)
            return torch.stack([sign * first, -sign * first], 1)

    model = Flaky().eval()
    batch = Batch(rand(4, 1, 2, 2), torch.zeros(4).long(), torch.arange(4))
    attack = PGD(Linf(0.01), steps=5)
    assert attack.early_stop
    found = attack(model, batch)
    assert (found.forwards.tolist(), found.backwards.tolist()) == ([7 * EOT_DRAWS] * 4, [5 * EOT_DRAWS] * 4)
    assert float(found.logit_margin.min()) > 0  # no mean over the draws was ever wrong
    single = PGD(Linf(0.01), steps=100, eot=1)(model, batch)  # a setting of one's own counts
    assert int(single.backwards.max()) <= 100
    assert set(single.stopped) <= {"found", "misclassified"}
    query = attack.query(model, batch)
    assert (query.eot, query.drop) == (EOT_DRAWS, False)


def test_eot_finds_the_way_that_single_draws_lose() -> None:
    model, batch = noisy(200, sigma=20.0)
    alike = {}
    for eot in (1, 100):
        query = Query(model, batch.images, batch.labels, L2(0.1), "margin", track=True, eot=eot)
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            gradients = query.gradient(batch.images)[1].flatten(1)
        alike[eot] = torch.cosine_similarity(gradients, model.weight[None]).mean()
    assert float(alike[1]) < 0.5 < float(alike[100])


# --- how many draws, and from where --------------------------------------------------------------------------------


class Coin(nn.Module):
    """Another answer in half of the calls."""

    def forward(self, images: Tensor) -> Tensor:
        sign = torch.where(torch.rand(()) < 0.5, -1.0, 1.0)
        first = images.flatten(1)[:, 0]
        return torch.stack([sign * first, first], 1)


class Counted(Exactly):
    def __init__(self, declared: Traits) -> None:
        super().__init__(lambda images: images.flatten(1)[:, :2])
        self.traits, self.calls = declared, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


def test_a_net_that_is_declared_deterministic_is_not_probed() -> None:
    model = Counted(Traits())
    assert draws(model, rand(1, 1, 2, 2)) == 1
    assert model.calls == 0
    assert draws(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval(), rand(1, 1, 2, 2)) == 1


@pytest.mark.parametrize("declared", [Traits(stochastic=True), Traits(declared=False)])
def test_a_net_that_only_might_be_random_is_probed(declared: Traits) -> None:
    model = Counted(declared)
    assert draws(model, rand(1, 1, 2, 2)) == 1
    assert model.calls > 1


def test_a_random_net_gets_twenty_draws() -> None:
    model, batch = noisy()
    assert draws(model, batch.images) == EOT_DRAWS == 20
    with torch.random.fork_rng([]):
        found = []
        for seed in range(50):
            torch.manual_seed(seed)
            found.append(draws(Coin(), batch.images))
    assert set(found) == {20}  # one pair of calls would agree half of the time


def test_a_vote_whose_forward_pass_is_fixed_needs_no_average() -> None:
    model = SmoothedClassifier(LinearOracle.random((1, 2, 2), 3), Gaussian(0.2), bank=3, votes=10, alpha=0.1).eval()
    assert draws(model, rand(1, 1, 2, 2)) == 1


@pytest.mark.parametrize("model", [noisy()[0], Coin()], ids=["declared", "unknown"])
def test_a_fence_repeats_and_leaves_the_global_state(model: nn.Module) -> None:
    images = rand(2, 1, 2, 2)

    def run(seed: int) -> Tensor:
        with behind_a_fence(model, seed):
            return torch.stack([model(images) for _ in range(20)])

    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = run(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(run(3), one)
    assert not torch.equal(run(4), one)
    with pytest.raises(ValueError, match="stop"), behind_a_fence(model, 0):
        torch.manual_seed(0)
        raise ValueError("stop")
    torch.manual_seed(11)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_deterministic_model_is_not_reseeded() -> None:
    model = nn.Linear(2, 2)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        expected = torch.rand(4)
        torch.manual_seed(1)
        with behind_a_fence(model, 0):
            first = torch.rand(2)
        assert torch.equal(torch.cat([first, torch.rand(2)]), expected)


def test_an_attack_on_a_random_model_can_be_repeated() -> None:
    model, batch = noisy(5, offset=0.2, sigma=0.3)
    attack = PGD(Linf(0.1), steps=3)
    one, other = attack(model, batch, seed=2), attack(model, batch, seed=2)
    assert torch.equal(one.adversarial, other.adversarial)
    assert torch.equal(one.loss, other.loss)
    assert not torch.equal(attack(model, batch, seed=3).loss, one.loss)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpus_state_is_left_alone_too() -> None:
    torch.cuda.manual_seed(4)
    before = torch.cuda.get_rng_state()
    model, batch = noisy()
    with behind_a_fence(model, 0):  # a model on the CPU
        model(batch.images)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    there = nn.Sequential(nn.Linear(2, 2), Coin()).cuda()
    with behind_a_fence(there, 0):
        one = torch.rand(3, device="cuda")
    with behind_a_fence(there, 0):
        assert torch.equal(torch.rand(3, device="cuda"), one)
    assert torch.equal(torch.cuda.get_rng_state(), before)
