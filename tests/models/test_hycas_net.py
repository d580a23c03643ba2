"""Networks of hybrid convolutions: no point, draw or direction is steeper than the budget, also after training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.draws import drawn, draws_by_key
from hauberk.errors import HauberkError
from hauberk.layers import model_bound, walk
from hauberk.layers.attention_noise import AttentionNoise
from hauberk.models.hycas_net import gate_shares, hycas_net
from hauberk.noises import Gaussian
from hauberk.objectives.base import Context
from hauberk.objectives.noisy_adversarial import NoisyAdversarial
from hauberk.randomness import Key

SHAPE = (2, 8, 8)
POINTS = 200
BUDGETS: dict[str, dict[str, Any]] = {
    "1": {"budget": "1"},
    "1 with masks and channels": {"budget": 1, "noise": "mask", "gate": "channel", "granularity": "element"},
    "1 with fresh filters": {"budget": "1", "filters": "draw"},
    "2": {"budget": "2"},
    "1 of a residual net": {"budget": "1", "backbone": "resnet18", "width": 2, "strength": 0.2},
}
LIMITS = {name: 2.0 if name == "2" else 1.0 for name in BUDGETS}


def make(seed: int = 0, **settings: Any) -> nn.Sequential:
    torch.manual_seed(seed)
    small = {"widths": (4, 6), "strides": (1, 2)} | settings
    net = hycas_net(SHAPE, 3, [0.4] * 2, [0.2] * 2, **small)
    assert isinstance(net, nn.Sequential)
    return net


def trained(net: nn.Sequential) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(32, *SHAPE, generator=generator)
    labels = (images.mean((1, 2, 3)) * 50).long() % 3
    objective = NoisyAdversarial(Gaussian(0.25), temperature=0.1)
    optimiser = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(20):
        optimiser.zero_grad()
        objective(net.train(), Batch(images, labels, torch.arange(32)), Context(generator)).total.backward()
        optimiser.step()
    return net


def points(generator: torch.Generator) -> Tensor:
    """Images, their midpoints, noise and points far away."""
    images = torch.rand(POINTS // 4, *SHAPE, generator=generator)
    noise = torch.randn(POINTS // 4, *SHAPE, generator=generator)
    return torch.cat([images, (images + images.flip(0)) / 2, 3.0 * noise, 100.0 * noise])


def features_of(net: nn.Sequential, number: int) -> nn.Module:
    """All before the last layer, in one draw."""
    return drawn(net[:-1], Key(0, number, tuple(range(POINTS)), "audit")).eval()


def jacobian_norms(
    function: Callable[[Tensor], Tensor], at: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Power iteration on the Jacobian at each row: the norms, and the directions."""
    direction = torch.randn(at.shape, generator=generator, dtype=at.dtype)
    size = torch.zeros(len(at))
    made, backward = torch.func.vjp(function, at)
    # forward mode by differentiating twice: the backward pass is linear, and its own transpose pushes directions
    _, forward = torch.func.vjp(lambda seen: backward(seen)[0], torch.zeros_like(made))
    for _ in range(8):
        direction = direction / direction.flatten(1).norm(dim=1).clamp_min(1e-30).reshape(-1, 1, 1, 1)
        (pushed,) = forward(direction)
        size = pushed.flatten(1).norm(dim=1)
        (direction,) = backward(pushed)
    return size, direction


CASES = [(name, after) for name, more in BUDGETS.items() for after in (False, True) if after or "backbone" not in more]


@pytest.mark.parametrize(("name", "after"), CASES)
def test_no_point_or_draw_is_steeper_than_the_budget(name: str, after: bool) -> None:
    net = make(**BUDGETS[name])
    net = (trained(net) if after else net).eval().requires_grad_(False)
    bound = model_bound(net[:-1].eval(), SHAPE).value
    assert bound <= LIMITS[name]
    generator = torch.Generator().manual_seed(1)
    steepest = 0.0
    for number in range(1 if "backbone" in BUDGETS[name] else 2):
        function, at = features_of(net, number), points(generator)
        norms, directions = jacobian_norms(function, at, generator)
        steepest = max(steepest, float(norms.max()))
        climbed = at.clone()
        for _ in range(3):  # gradient ascent on the stretch along the steepest directions
            climbed.requires_grad_()
            unit = directions / directions.flatten(1).norm(dim=1).clamp_min(1e-30).reshape(-1, 1, 1, 1)
            apart = (function(climbed + 0.01 * unit) - function(climbed - 0.01 * unit)).flatten(1).norm(dim=1) / 0.02
            (slope,) = torch.autograd.grad(apart.sum(), climbed)
            climbed = (climbed + 0.1 * slope.sign()).detach()
        norms, directions = jacobian_norms(function, climbed, generator)
        steepest = max(steepest, float(norms.max()))
        for scale in (1e-3, 1e-1, 10.0):
            for step in (torch.randn(at.shape, generator=generator), directions):
                step = scale * step / step.flatten(1).norm(dim=1).clamp_min(1e-30).reshape(-1, 1, 1, 1)
                made = function(climbed + step) - function(climbed)
                moved = step.flatten(1).norm(dim=1)
                ratio = made.flatten(1).norm(dim=1) / moved.clamp_min(1e-30)
                near = climbed.flatten(1).norm(dim=1) < 1e4 * scale  # farther out float32 loses the difference
                steepest = max(steepest, float((ratio * near * (moved > 0)).max()))
    assert steepest <= bound * (1 + 1e-4)
    if "backbone" not in BUDGETS[name]:  # a deep net loses more than its bound says
        assert steepest > 0.02 * bound  # the audit sees something


def test_the_printed_form_exceeds_its_promise_of_two() -> None:
    net = make(budget="as_printed", widths=(4, 4, 4, 4), strides=(1, 1, 1, 1)).eval().requires_grad_(False)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, AttentionNoise):
                assert module.mode == "full"
                module.logits.fill_(40.0)
    bound = model_bound(net[:-1].eval(), SHAPE).value
    assert bound > 2.0**4
    generator = torch.Generator().manual_seed(1)
    norms, _ = jacobian_norms(features_of(net, 0), points(generator), generator)
    assert 2.0 < float(norms.max()) <= bound


def test_attention_on_features_is_certified_by_smoothing_alone() -> None:
    net = make(source="attention").eval()
    with pytest.raises(HauberkError, match="depends on the features"):
        walk(net, SHAPE)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnet110"])
def test_residual_backbones_have_their_depth_and_budget(backbone: Any) -> None:
    net = make(backbone=backbone, width=2, streams=["sncan"])
    blocks = {"resnet18": 8, "resnet50": 16, "resnet110": 54}[backbone]
    convolutions = {"resnet18": 17, "resnet50": 49, "resnet110": 109}[backbone]
    assert len([m for m in net.modules() if type(m).__name__ == "ConvexResidual"]) == blocks
    assert len([m for m in net.modules() if type(m).__name__ == "HyCASConv2d"]) == convolutions
    assert net(torch.rand(2, *SHAPE)).shape == (2, 3)
    last = net[-1]
    assert isinstance(last, nn.Linear)
    # width 2, doubled and halved in size at each later stage; bottlenecks leave four times as many channels
    assert last.in_features == {"resnet18": 16 * 1, "resnet50": 64 * 1, "resnet110": 8 * 4}[backbone]
    if backbone == "resnet18":
        assert model_bound(net[:-1].eval(), SHAPE).value <= 1.0


def test_budget_two_of_a_residual_net_has_one_full_attention_at_the_end() -> None:
    net = make(backbone="resnet18", width=2, budget=2)
    modes = [m.mode for m in net.modules() if isinstance(m, AttentionNoise)]
    assert modes.count("full") == 1
    assert modes[-1] == "full"
    once = model_bound(make(backbone="resnet18", width=2)[:-1].eval(), SHAPE).value
    assert model_bound(net[:-1].eval(), SHAPE).value == pytest.approx(2.0 * once, rel=1e-6)


@pytest.mark.parametrize("budget", [1, "1"])
def test_the_spec_keeps_the_budget_as_it_was_written(budget: Any) -> None:
    assert make(budget=budget).spec["budget"] == budget  # or the recipe and the model would seem to differ


def test_odd_sides_are_rounded_up() -> None:
    net = hycas_net((1, 7, 5), 3, [0.4], [0.2], widths=(4, 6), strides=(1, 2))
    assert net(torch.rand(2, 1, 7, 5)).shape == (2, 3)


def test_without_noise_it_is_deterministic_and_gates_are_told() -> None:
    net = make(noise=None)
    assert not draws_by_key(net)
    shares = gate_shares(net)
    assert len(shares) == 2
    assert all(sum(found.values()) == pytest.approx(1.0) for found in shares.values())


@pytest.mark.parametrize(
    "settings",
    [{"budget": "3"}, {"backbone": "vgg"}, {"widths": (3,), "strides": (1,)}, {"strides": (1,)}, {"noise": "full"},
     {"noise": None, "budget": 2}],
    ids=str,
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(HauberkError):
        make(**settings)
