"""Checks of random models: the share of the noise in closed form; honest noise passes, planted masks are exposed."""

import pytest
import torch
from torch import Tensor, nn

from hauberk.attacks import APGD, PGD
from hauberk.batch import Batch
from hauberk.capabilities import Random
from hauberk.errors import HauberkError
from hauberk.evaluation.diagnostics import cost, diagnose
from hauberk.evaluation.indicators import Check, Subject, grade, output_form, randomness
from hauberk.evaluation.random_checks import noise_check, noise_share, rivals
from hauberk.layers import NoiseInjection
from hauberk.noises import Gaussian
from hauberk.randomness import Draw
from hauberk.records import Part, part
from hauberk.threats import Linf
from hauberk.verify.diagnoses import diagnosis_problems

BALL = Linf(0.06)


class Scaled(nn.Module):
    """A value that does not change, and a gradient that is multiplied by noise."""

    def __init__(self, key: Draw, size: float) -> None:
        super().__init__()
        self.key, self.size = key, size

    def forward(self, images: Tensor) -> Tensor:
        noise = self.size * self.key.shared(images).normal(*images.shape[1:]).to(images)
        return images + (images - images.detach()) * noise + 1e-3 * noise / self.size


class Mask(Random):
    """Noise that an attacker's gradients drown in and answers hardly see."""

    def draw(self, key: Draw) -> nn.Module:
        return Scaled(key, 300.0)


class Softmax(nn.Module):
    """Probabilities in the place of logits, times a number."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, logits: Tensor) -> Tensor:
        return self.size * logits.softmax(1)


def line(*before: nn.Module, after: nn.Module | None = None) -> tuple[nn.Module, Batch]:
    """Two classes by a line through grey, and images of which about half lie within the budget of it."""
    slope = nn.Linear(16, 2)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, generator=generator)
    with torch.no_grad():
        slope.weight.copy_(torch.stack([-weight, weight]) * 2)
        slope.bias.copy_(torch.tensor([1.0, -1.0]) * weight.sum())
    images = (0.5 + 0.25 * (torch.rand(48, 1, 4, 4, generator=generator) - 0.5)).clamp(0, 1)
    labels = ((images.flatten(1) - 0.5) @ weight > 0).long()
    layers = [*before, nn.Flatten(), slope, *([] if after is None else [after])]
    return nn.Sequential(*layers).eval(), Batch(images, labels, torch.arange(48))


def checks(model: nn.Module, batch: Batch) -> dict[str, Check]:
    return {c.name: c for c in diagnose(model, batch, BALL, steps=10).checks}


def recorded(found: list[Check]) -> Part:
    names = ("value", "threshold", "verdict", "reason", "images")
    columns = {"id": list(range(len(found))), "check": [c.name for c in found]}
    return part("diagnosis", {}, {}, columns | {n: [getattr(c, n) for c in found] for n in names})


def test_a_random_model_may_be_random_and_verify_says_so() -> None:
    """The check of randomness is sound for a model that declares its noise, whose share is then on record."""
    model, batch = line(NoiseInjection(Gaussian(0.2)))
    asked = Subject(model, batch, BALL, APGD(BALL), 0, 64)
    due = [grade(n, 0.0, 48, "seen", "do") for n in ("output_form", "zero_gradients", "black_box", "random_search")]
    found = [randomness(asked), *due, grade("single_step", 0.0, 48, "seen", "do")]
    assert found[0].value > 1e-3
    assert list(diagnosis_problems(recorded([*found, noise_check(asked)]))) == []
    assert any("does not make it sound" in p for p in diagnosis_problems(recorded(found)))


def test_the_share_of_additive_noise_on_a_linear_model() -> None:
    r"""Of :math:`W(x + n)` less its mean over classes: noise sigma^2 |w_k|^2, images those of W x."""
    sigma, generator = 1.0, torch.Generator().manual_seed(1)
    weight = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    weight -= weight.mean(0)
    images = torch.randn(400, 40, generator=generator, dtype=torch.float64)
    noise = sigma * torch.randn(50, 400, 40, generator=generator, dtype=torch.float64)
    drawn = (images + noise) @ weight.T + 7.0 * torch.randn(50, 400, 1, generator=generator, dtype=torch.float64)
    assert noise_share(drawn) == pytest.approx((sigma**2 / (1 + sigma**2)) ** 0.5, rel=0.03)
    few = torch.stack([drawn[k : k + 2] for k in range(0, 50, 2)])  # with two draws it has no bias either
    assert sum(noise_share(two) for two in few) / 25 == pytest.approx((sigma**2 / (1 + sigma**2)) ** 0.5, rel=0.05)
    assert noise_share((images @ weight.T).expand(5, 400, 3)) == 0.0
    assert noise_share(noise @ weight.T) > 0.95


def test_a_net_whose_noise_does_little_is_called_deterministic() -> None:
    for sigma, said in ((0.002, "deterministic in all but name"), (0.2, "of the output.")):
        model, batch = line(NoiseInjection(Gaussian(sigma)))
        found = noise_check(Subject(model, batch, BALL, APGD(BALL), 0, 64))
        assert said in found.reason
        assert found.verdict == "sound"
        assert (found.value < 0.05) == (sigma == 0.002)


@pytest.mark.slow
def test_honest_noise_passes() -> None:
    found = checks(*line(NoiseInjection(Gaussian(0.02), shared=True)))
    assert {c.name for c in found.values() if c.verdict == "broken"} == set()
    assert list(diagnosis_problems(recorded(list(found.values())))) == []
    for name in ("black_box", "eot_pgd", "draw_transfer", "more_draws", "fewer_steps"):
        assert found[name].verdict == "sound", found[name]


@pytest.mark.slow
def test_noise_that_only_drowns_gradients_is_exposed() -> None:
    found = checks(*line(Mask()))
    assert found["black_box"].verdict == "broken", found["black_box"]


def test_a_softmax_in_the_place_of_logits_is_exposed() -> None:
    model, batch = line(NoiseInjection(Gaussian(0.02), shared=True), after=Softmax(1.0))
    with pytest.raises(HauberkError, match="expected logits, got probabilities"):
        diagnose(model, batch, BALL, steps=2)
    model, batch = line(NoiseInjection(Gaussian(0.02), shared=True), after=Softmax(0.9))
    found = output_form(Subject(model, batch, BALL, APGD(BALL), 0, 64))
    assert found.verdict == "questionable"


def test_more_draws_are_those_of_the_judged_attack() -> None:
    model, batch = line(NoiseInjection(Gaussian(0.02)))
    attack = PGD(BALL, "margin", steps=7, restarts=2)
    more = rivals(Subject(model, batch, BALL, attack, 0, 64))["more_draws"][0]
    assert more.draws == 50
    assert (more.inner.steps, more.inner.restarts, more.inner.loss) == (7, 2, "margin")
    assert cost(10, random=True) > 20 * cost(10) / 2
