r"""Diffusion purification against a Gaussian world, in which the score is known.

Pixels are :math:`N(m, v)` on [-1, 1], so that at noise sigma the model's answer is
:math:`\sigma (y - m) / (v + \sigma^2)`.  With :math:`g = v / (v + \sigma^2)` the probability flow takes y to
:math:`m + (y - m) \sqrt g`, and the reverse process draws from the posterior :math:`N(m + g (y - m), g \sigma^2)`.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hauberk import registry
from hauberk.attacks import APGD, PartAttack
from hauberk.attacks.gradients import draws
from hauberk.capabilities import Traits
from hauberk.classifier import traits
from hauberk.conformance import check_classifier
from hauberk.defences.diffusion_purification import DiffusionPurifier, diffusion_purification
from hauberk.defences.purified import PurifiedClassifier
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.models.diffusion_mlp import diffusion_mlp
from hauberk.randomness import Key
from hauberk.threats import Linf

from ..models.test_one_step_diffusion import SCHEDULE, TINY
from .test_purified import EPS, Toy, batch

TABLE = torch.cumprod(1.0 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
MEAN, VARIANCE = 0.2, 0.09


class Score(nn.Module):
    """The noise of a Gaussian world: pixels of one mean and variance, or a variance for each."""

    traits = Traits()

    def __init__(self, mean=MEAN, variance=VARIANCE):
        super().__init__()
        self.mean, self.variance, self.asked = mean, variance, []

    def forward(self, images, step, return_dict=True):
        assert not return_dict
        self.asked.append(step)
        left = float(TABLE[step])
        away = images - math.sqrt(left) * self.mean
        return (math.sqrt(1.0 - left) * away / (left * self.variance + 1.0 - left),)


class Curved(Score):
    """One whose gradient depends on where it is, so that a backward pass needs what the forward pass has seen."""

    def forward(self, images, step, return_dict=True):
        return (super().forward(images, step, return_dict=return_dict)[0] + 0.1 * torch.sin(5.0 * images),)


def key(rows, number=0):
    return Key(0, number, tuple(range(rows)), "test")


def purify(x, t_star, steps, sampler, **more):
    step = DiffusionPurifier(Score(**more), TABLE, t_star, steps, sampler)
    return step.draw(key(len(x)))(x), step.sigmas[0]


@pytest.mark.parametrize("t_star", [0.1, 0.3])
@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 100), ("ddim", 100), ("ode", 50)])
def test_mean_and_variance_are_those_of_theory(sampler, steps, t_star):
    x = torch.full((4000, 1, 2, 2), 0.75, dtype=torch.float64)
    found, sigma = purify(x, t_star, steps, sampler)
    pixels = 2.0 * found - 1.0
    gain = VARIANCE / (VARIANCE + sigma**2)
    if sampler == "ddpm":
        mean, variance = MEAN + gain * (0.5 - MEAN), gain**2 * sigma**2 + gain * sigma**2
    else:
        mean, variance = MEAN + math.sqrt(gain) * (0.5 - MEAN), gain * sigma**2
    count = pixels.numel()
    assert float(pixels.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / count) + 0.01)
    assert float(pixels.var()) == pytest.approx(variance, rel=0.1)


def test_images_of_its_own_world_keep_their_distribution():
    x = MEAN + math.sqrt(VARIANCE) * torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    for sampler in ("ddpm", "ddim", "ode"):
        found, _ = purify((x.double() + 1.0) / 2.0, 0.2, 200, sampler)
        pixels = 2.0 * found - 1.0
        assert float(pixels.mean()) == pytest.approx(MEAN, abs=0.02)
        assert float(pixels.var()) == pytest.approx(VARIANCE, rel=0.1)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "ode"])
def test_towards_no_noise_it_becomes_the_identity(sampler):
    x = torch.rand(8, 1, 4, 4, dtype=torch.float64)
    far = [float((purify(x, t, 1, sampler)[0] - x).abs().max()) for t in (0.2, 0.02, 0.001)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 0.03  # noise of standard deviation 0.01 on [-1, 1] is left of the first step


def test_the_error_of_heun_s_steps_falls_faster_than_that_of_euler_s():
    """At noise zero: what remains is the error of the solver alone."""
    still = DiffusionPurifier(Score(), TABLE, 0.3, 1, "ddim").sigmas[0]
    exact = MEAN + (0.5 - MEAN) * math.sqrt(VARIANCE / (VARIANCE + still**2))

    def error(sampler, steps):
        step = DiffusionPurifier(Score(), TABLE, 0.3, steps, sampler)
        y = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
        for nth in range(steps):
            y = step.step(y, nth, None)
        return abs(float(y) - exact)

    assert error("ode", 20) < error("ddim", 40) / 5
    assert error("ddim", 80) < 0.7 * error("ddim", 40)


def test_the_step_of_ddpm_is_the_textbook_one():
    r"""On x: :math:`(x_t - \beta_t e / \sqrt{1 - \bar\alpha_t}) / \sqrt{\alpha_t} + \sqrt{\tilde\beta_t} z`."""
    step, t = DiffusionPurifier(Score(), TABLE, 0.1, 100, "ddpm"), 99
    x, z = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    beta = float(1.0 - TABLE[t] / TABLE[t - 1])
    posterior = beta * float((1.0 - TABLE[t - 1]) / (1.0 - TABLE[t]))
    noise = Score()(x, t, return_dict=False)[0]
    wanted = (x - beta / math.sqrt(1.0 - TABLE[t]) * noise) / math.sqrt(1.0 - beta) + math.sqrt(posterior) * z
    found = math.sqrt(TABLE[t - 1]) * step.step(x / math.sqrt(TABLE[t]), 0, z)
    assert torch.allclose(found, wanted, atol=1e-12)
    assert step.times == list(range(99, -1, -1))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "ode"])
def test_the_checkpointed_gradient_is_the_plain_one_and_that_of_finite_differences(sampler):
    x = torch.rand(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    gradients, calls = [], []
    for checkpointed in (True, False):
        score = Curved()
        step = DiffusionPurifier(score, TABLE, 0.1, 4, sampler, checkpointed)
        found = step.draw(key(2))(x)
        calls.append(len(score.asked))
        gradients.append(torch.autograd.grad(found.pow(3).sum(), x)[0])
        again = len(score.asked) - calls[-1]
        assert again == (calls[-1] if checkpointed else 0)
    assert torch.equal(*gradients)
    torch.autograd.gradcheck(DiffusionPurifier(Curved(), TABLE, 0.1, 4, sampler).draw(key(2)), x)


def test_it_stands_against_the_oblivious_attack_and_falls_to_the_adaptive_one():
    """The world knows of no chessboards: their direction has hardly any variance, brightness has a lot."""

    class Smooth(Score):
        def forward(self, images, step, return_dict=True):
            level = images.mean((1, 2, 3), keepdim=True)
            own, rest = Score(0.0, 64.0), Score(0.0, 1e-4)
            (bright,), (other,) = (s(v, step, return_dict=False) for s, v in ((own, level), (rest, images - level)))
            return (bright + other,)

    model = PurifiedClassifier(Toy(), DiffusionPurifier(Smooth(), TABLE, 0.1, 5, "ddpm")).eval()
    search = APGD(Linf(EPS), "margin", early_stop=False, steps=10)
    assert bool(search(Toy().eval(), batch()).success.all())
    oblivious = PartAttack(Linf(EPS), part="undefended", attack=search)(model, batch())
    assert float(oblivious.success.float().mean()) <= 0.25
    assert float(search(model, batch()).success.float().mean()) >= 0.9


def test_the_contract_and_what_is_declared():
    torch.manual_seed(0)
    base = small_cnn((1, 6, 6), 3, (0.5,), (0.2,), widths=(4,), strides=(1,)).eval()
    model = PurifiedClassifier(base, DiffusionPurifier(Score(), TABLE, 0.1, 3, "ddim")).eval()
    check_classifier(model, (1, 6, 6))
    assert traits(model).stochastic and traits(model).gradient == "exact"
    assert draws(model, torch.rand(2, 1, 6, 6)) == 20


@pytest.mark.parametrize(("t_star", "steps"), [(0.0, 1), (1.1, 5), (0.1, 101), (0.1, 0), (0.0001, 1)])
def test_settings_that_do_not_fit_are_refused(t_star, steps):
    with pytest.raises(HauberkError, match="expected t_star in"):
        DiffusionPurifier(Score(), TABLE, t_star, steps, "ddpm")


def test_a_diffusion_model_of_one_s_own_is_asked_step_by_step():
    base = small_cnn((1, 4, 4), 3, (0.5,), (0.2,), widths=(4,), strides=(1,)).eval()
    own = diffusion_mlp((1, 4, 4), 3, conditional=False).eval()
    with torch.no_grad():  # an untrained one answers zero at every step
        for number, weight in enumerate(own.parameters()):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    model = diffusion_purification(base, own, steps=3, sampler="ddim").eval()
    check_classifier(model, (1, 4, 4))
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(model.purifier.seen(x, 7), own(x, torch.tensor([7, 7])))
    assert not torch.equal(model.purifier.seen(x, 7), model.purifier.seen(x, 0))
    again = registry.build(registry.spec(model)).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(model.purifier.draw(key(2))(x), again.purifier.draw(key(2))(x))
    for wrong in (diffusion_mlp((1, 4, 4), 3, conditional=True), base):
        with pytest.raises(HauberkError, match="not an unconditional diffusion model"):
            diffusion_purification(base, wrong)
    with pytest.raises(HauberkError, match="leave one of them out"):
        diffusion_purification(base, own, folder="x")


def test_a_unet_of_diffusers_is_built_and_rebuilt_from_its_spec():
    pytest.importorskip("diffusers")
    base = small_cnn((1, 8, 8), 3, (0.5,), (0.2,), widths=(4,), strides=(1,)).eval()
    model = diffusion_purification(base, unet=TINY, scheduler=SCHEDULE, steps=2).eval()
    check_classifier(model, (1, 8, 8))
    again = registry.build(registry.spec(model)).eval()
    again.load_state_dict(model.state_dict())
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(model.purifier.draw(key(2))(x), again.purifier.draw(key(2))(x))
    assert model.purifier.times == [99, 0]
