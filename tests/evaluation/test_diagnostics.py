"""The diagnosis: each check against values worked out by hand, masked nets against honest ones."""

from dataclasses import dataclass as plain
from dataclasses import replace

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks import APGD, FGSM, PGD, Attack, AttackResult, Query
from hauberk.batch import Batch
from hauberk.classifier import Traits, frozen
from hauberk.conformance import LinearOracle
from hauberk.data.digits import digits
from hauberk.errors import HauberkError
from hauberk.evaluation import diagnostics, indicators
from hauberk.evaluation.diagnostics import Check, Diagnosis, cost, diagnose
from hauberk.evaluation.indicators import LIMITS, ORDER, Subject, grade, odds
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, L1, L2, Linf, Threat


class Apply(nn.Module):
    """A net with a function after it."""

    def __init__(self, net: nn.Module, function) -> None:
        super().__init__()
        self.net, self.function = net, function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.net(images))


class Lambda(nn.Module):
    """Logits of images by a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


@dataclass(frozen=True, config=CONFIG)
class Idle(Attack):
    """Looks at the image and goes home."""

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        return query.images


@dataclass(frozen=True, config=CONFIG)
class Forgetful(PGD):
    """Finds adversarial points and denies the first."""

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = 64) -> AttackResult:
        found = super().__call__(model, batch, seed, tile)
        denied = found.success & (batch.ids != batch.ids[0])
        return replace(found, success=denied)


BUDGETS: list[float] = []


@dataclass(frozen=True, config=CONFIG)
class Erratic(Idle):
    """Claims all of 8 images in small and large balls, 6 and 4 in those between."""

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = 64) -> AttackResult:
        BUDGETS.append(self.threat.eps)
        claimed = 6 if 0.3 < self.threat.eps < 0.5 else 4 if 0.5 < self.threat.eps < 1.0 else 8
        return replace(super().__call__(model, batch, seed, tile), success=torch.arange(8) < claimed)


def subject(function, images: Tensor, labels: list[int], threat: Threat = Linf(0.1), loss: str = "ce") -> Subject:
    batch = Batch(images, torch.tensor(labels), torch.arange(len(labels)))
    return Subject(Lambda(function).eval(), batch, threat, PGD(threat, loss=loss), 0, 16)


def by_name(diagnosis: Diagnosis) -> dict[str, Check]:
    return {c.name: c for c in diagnosis.checks}


def column(*values: float) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1)


# --- grades ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("black_box", 0.02, "sound"), ("black_box", 0.03, "questionable"), ("black_box", 0.06, "broken"),
        ("binarisation", 0.95, "sound"), ("binarisation", 0.9, "questionable"), ("binarisation", 0.7, "broken"),
        ("silent_success", 0.0, "sound"), ("silent_success", 0.01, "broken"), ("output_form", 1.0, "questionable"),
    ],
)  # fmt: skip
def test_a_value_is_graded_by_its_limits(name: str, value: float, verdict: str) -> None:
    check = grade(name, value, 9, "something was seen", "do something")
    assert (check.verdict, check.threshold, check.images) == (verdict, LIMITS[name][0], 9)
    assert check.reason == ("Something was seen." if verdict == "sound" else "Something was seen: do something.")


def test_a_check_may_be_capped() -> None:
    assert grade("black_box", 1.0, 9, "seen", "do", "questionable").verdict == "questionable"


def test_the_worst_check_decides_and_its_reason_comes_first() -> None:
    made = [grade("black_box", v, 9, f"saw {v}", "do") for v in (0.0, 0.03, 1.0)]
    assert [Diagnosis(tuple(made[:k])).verdict for k in (1, 2, 3)] == list(ORDER)
    assert Diagnosis(tuple(made)).reasons == ("Saw 1.0: do.", "Saw 0.03: do.")


# --- checks of the model --------------------------------------------------------------------------------------


def test_cross_entropy_is_softplus_of_the_odds() -> None:
    logits = 5 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(20) % 6
    expected = functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(functional.softplus(odds(logits, labels)), expected)


def test_randomness_is_the_largest_change_in_parts_of_the_mean_spread() -> None:
    calls = []

    def flips(images: Tensor) -> Tensor:
        calls.append(1)
        return images.flatten(1) @ torch.tensor([[4.0, 0.0]]) + torch.tensor([0.0, 0.5 * (len(calls) % 2)])

    check = indicators.randomness(subject(flips, column(0.5, 0.5), [0, 0]))
    assert check.value == pytest.approx(0.5 / 1.5)  # the first call's logits are (2, 0.5)
    assert check.verdict == "broken"


def test_the_spread_that_randomness_is_held_against_is_the_mean_one() -> None:
    calls = []

    def flips(images: Tensor) -> Tensor:
        calls.append(1)
        return images.flatten(1) @ torch.tensor([[4.0, 0.0]]) + torch.tensor([0.0, 0.5 * (len(calls) % 2)])

    check = indicators.randomness(subject(flips, column(0.5, 0.25), [0, 0]))
    assert check.value == pytest.approx(0.5)  # the first call's spreads are 1.5 and 0.5


def test_a_model_that_declares_its_noise_is_sound() -> None:
    judged = subject(lambda x: torch.randn(len(x), 2), column(0.5, 0.5), [0, 0])
    judged.model.traits = Traits(stochastic=True)
    check = indicators.randomness(judged)
    assert check.verdict == "sound"
    assert check.value > check.threshold


def test_a_ceiling_is_counted() -> None:
    ten = torch.linspace(0.1, 1.0, 10).reshape(-1, 1, 1, 1)

    def capped(images: Tensor) -> Tensor:
        z = 10 * images.flatten(1)
        return torch.cat([z.clamp(max=6.05), -z], 1)

    check = indicators.output_form(subject(capped, ten, [0] * 10))
    assert check.value == pytest.approx(0.4)  # 7, 8, 9 and 10 share it, 6 is 1 % below, one is always largest
    assert check.verdict == "questionable"
    free = indicators.output_form(subject(lambda x: torch.cat([10 * x.flatten(1), -x.flatten(1)], 1), ten, [0] * 10))
    assert (free.value, free.verdict) == (0.0, "sound")
    inside = indicators.output_form(subject(lambda x: (x.flatten(1) * torch.tensor([1, -1])).sigmoid(), ten, [0] * 10))
    assert inside.verdict == "questionable"
    assert "probabilities" in inside.reason


def test_zero_gradients_are_counted() -> None:
    def dead_below_half(images: Tensor) -> Tensor:
        x = images.flatten(1)
        return torch.cat([(x - 0.5).relu() + 1.0, torch.zeros_like(x)], 1)

    check = indicators.zero_gradients(subject(dead_below_half, column(0.1, 0.2, 0.3, 0.9), [0] * 4))
    assert (check.value, check.verdict) == (0.75, "broken")


def test_a_zero_gradient_in_the_ball_counts_as_one_at_the_image() -> None:
    def dead_below_half(images: Tensor) -> Tensor:
        x = images.flatten(1)
        return torch.cat([(x - 0.5).relu() + 1.0, torch.zeros_like(x)], 1)

    def share(at: float) -> float:
        return indicators.zero_gradients(subject(dead_below_half, torch.full((400, 1, 1, 1), at), [0] * 400)).value

    assert share(0.45) == 1.0  # at the image, whatever the point
    assert share(0.55) == pytest.approx(0.25, abs=0.08)  # a quarter of the ball of 0.1 lies below a half
    assert share(0.65) == 0.0


def test_the_gradient_of_another_loss_only_makes_it_questionable() -> None:
    def loud(images: Tensor) -> Tensor:
        return torch.cat([1e4 * images.flatten(1), -1e4 * images.flatten(1)], 1)

    images = column(0.5, 0.6)
    assert indicators.zero_gradients(subject(loud, images, [0, 0])).verdict == "broken"
    other = indicators.zero_gradients(subject(loud, images, [0, 0], loss="margin"))
    assert (other.value, other.verdict) == (1.0, "questionable")


def test_rounding_turns_the_gradient_of_cross_entropy() -> None:
    # beyond a margin of 17, 1 - p is 0 in float32: the label's own part of the gradient is lost
    check = indicators.vanishing_gradients(
        subject(lambda x: torch.cat([40 * x.flatten(1), 0 * x.flatten(1)], 1), column(0.1, 0.3, 0.6, 0.9), [0] * 4)
    )
    assert check.value == 0.5
    assert check.verdict == "questionable"


def test_a_small_gradient_that_keeps_its_direction_is_sound() -> None:
    # 1 - p is 6e-6 here, which float32 can tell from 0; the two gradients' squares it cannot
    check = indicators.vanishing_gradients(
        subject(lambda x: torch.cat([1e-3 * x.flatten(1) + 12, 0 * x.flatten(1)], 1), column(0.1, 0.6, 0.9), [0] * 3)
    )
    assert (check.value, check.verdict) == (0.0, "sound")


@pytest.mark.parametrize(("kept", "value"), [(1.0, 0.0), (0.5, 1 / 3), (0.0, 1.0)])
@pytest.mark.parametrize("threat", [L1(0.2), L2(0.2), Linf(0.2)], ids=str)
def test_gradients_are_compared_with_finite_differences(kept: float, value: float, threat: Threat) -> None:
    oracle = LinearOracle.random((1, 3, 3), 2, seed=0)
    batch = oracle.batch(6)

    def partly(images: Tensor) -> Tensor:
        z = oracle(images)
        return kept * z + (1 - kept) * z.detach()

    judged = replace(subject(partly, batch.images, [0] * 6, threat), batch=batch)
    assert indicators.wrong_gradients(judged).value == pytest.approx(value, abs=1e-3)


def test_pixels_without_a_gradient_are_seen_though_the_rest_is_right() -> None:
    oracle = LinearOracle.random((1, 8, 8), 2, seed=0)
    batch = oracle.batch(16)
    lit = (torch.arange(8)[:, None] + torch.arange(8)) % 2 == 0

    def partly(images: Tensor) -> Tensor:
        logits: Tensor = oracle(torch.where(lit, images, images.detach()))
        return logits

    judged = replace(subject(partly, batch.images, batch.labels.tolist(), Linf(0.1)), batch=batch)
    assert indicators.wrong_gradients(judged).value > 0.3


def test_a_declared_surrogate_is_not_called_broken() -> None:
    judged = subject(lambda x: torch.cat([x.flatten(1).detach() + 0 * x.flatten(1), 0 * x.flatten(1)], 1),
                     column(0.4, 0.6), [0, 0])  # fmt: skip
    assert indicators.wrong_gradients(judged).verdict == "broken"
    judged.model.traits = Traits(gradient="bpda")
    assert indicators.wrong_gradients(judged).verdict == "questionable"


def test_neighbours_move_the_margin_by_its_slope() -> None:
    images = torch.full((400, 1, 1, 1), 0.5)
    check = indicators.neighbourhood(subject(lambda x: torch.cat([2 * x, -2 * x], 1).flatten(1), images, [0] * 400))
    # uniform in [-h, h]: the mean of |d| is h / 2, the margin's slope 4, the spread 2
    assert check.value == pytest.approx(0.5 * 0.1 / 16 * 4 / 2, rel=0.05)
    assert check.verdict == "sound"


# --- checks of the attack -------------------------------------------------------------------------------------


def test_a_loss_that_still_rises_is_counted() -> None:
    steps = torch.arange(21.0)
    rising, settled, late = steps, steps.clamp(max=15), torch.where(steps < 20, 0.0, 1.0)
    down, relapse = -steps, torch.where(steps == 5, 10.0, torch.where(steps == 20, 5.0, 0.0))
    check = diagnostics._rising(torch.stack([rising, settled, late, down, relapse], 1), every=8)
    assert (check.value, check.verdict) == (2 / 8, "questionable")


def test_a_rise_is_held_against_the_whole_rise_and_not_the_loss() -> None:
    late = 100.0 + torch.where(torch.arange(21) < 20, 0.0, 1.0)  # all of its rise comes at the end
    assert diagnostics._rising(late[:, None], every=1).value == 1.0


def test_an_idle_attack_is_beaten_by_everybody() -> None:
    oracle = LinearOracle.random((1, 3, 3), 2, seed=0)
    near, far = oracle.at_distance(0.01, "linf", rows=6), oracle.at_distance(0.2, "linf", rows=4)
    batch = Batch(torch.cat([near.images, far.images]), torch.cat([near.labels, far.labels]), torch.arange(10))
    found = by_name(diagnose(oracle, batch, Linf(0.05), attack=Idle(Linf(0.05)), surrogate=oracle))
    assert found["single_step"].value == 0.6  # exactly those whose radius is below the budget
    assert found["stronger_attack"].value == 0.6
    assert found["black_box"].value == 0.6
    assert 0.0 < found["random_search"].value <= 0.6
    assert found["transfer"].value == 0.0  # it is idle on the surrogate too
    assert found["unbounded"].value == 1.0
    assert found["binarisation"].value == 0.0
    assert "more_steps" not in found
    assert {found[n].verdict for n in ("single_step", "black_box", "unbounded", "binarisation")} == {"broken"}


@pytest.mark.parametrize(("missed", "verdict"), [(0, "sound"), (1, "questionable"), (3, "broken")])
@pytest.mark.parametrize("kind", [L1, L2, Linf])
def test_what_a_stronger_attack_finds_is_told(kind: type[Threat], missed: int, verdict: str) -> None:
    """The judged attack comes half as far as some boundaries are away."""
    oracle, norm = LinearOracle.random((1, 3, 3), 2, seed=0), kind(1.0).norm
    rows = {0.01: 10 - missed, 0.04: missed, 0.2: 2}
    groups = [oracle.at_distance(d, norm, rows=n) for d, n in rows.items() if n]
    images, labels = (torch.cat([getattr(g, name) for g in groups]) for name in ("images", "labels"))
    attack = PGD(kind(0.05), steps=10, step_size=0.002, random_start=False)
    batch = Batch(images, labels, torch.arange(12))
    check = by_name(diagnose(oracle, batch, kind(0.05), attack=attack))["stronger_attack"]
    assert (check.value, check.verdict) == (missed / 12, verdict)
    assert f"breaks {missed} of 12 images that the attack missed" in check.reason


def test_points_of_a_surrogate_are_tried() -> None:
    oracle = LinearOracle.random((1, 3, 3), 2, seed=0)
    masked = Apply(oracle, lambda z: z.detach()).eval()
    batch = oracle.at_distance(0.02, "linf", rows=8)
    check = by_name(diagnose(masked, batch, Linf(0.05), attack=FGSM(Linf(0.05)), surrogate=oracle))["transfer"]
    assert (check.value, check.verdict) == (1.0, "broken")


@pytest.mark.parametrize("rows", [8, 16])
def test_a_hidden_success_is_seen(rows: int) -> None:
    oracle = LinearOracle.random((1, 3, 3), 2, seed=0)
    batch = oracle.at_distance(0.02, "linf", rows=rows)
    check = by_name(diagnose(oracle, batch, Linf(0.05), attack=Forgetful(Linf(0.05))))["silent_success"]
    assert (check.value, check.verdict) == (1 / rows, "broken")


@pytest.mark.parametrize("rows", [8, 16])
def test_too_few_steps_are_seen(rows: int) -> None:
    # the boundary is 0.03 away: ten steps of 0.002 do not reach it, twenty do
    oracle = LinearOracle.random((1, 3, 3), 2, seed=0)
    batch = oracle.at_distance(0.03, "linf", rows=rows)
    attack = PGD(Linf(0.05), steps=10, step_size=0.002, random_start=False)
    found = by_name(diagnose(oracle, batch, Linf(0.05), attack=attack))
    assert found["more_steps"].value == 1.0
    assert found["rising_loss"].value == 1.0


def test_only_images_that_are_right_are_judged() -> None:
    oracle = LinearOracle.random((1, 3, 3), 2, seed=0)
    batch = oracle.at_distance(0.2, "linf", rows=8)
    labels = torch.where(torch.arange(8) < 3, 1 - batch.labels, batch.labels)
    found = by_name(diagnose(oracle, Batch(batch.images, labels, batch.ids), Linf(0.01), attack=Idle(Linf(0.01))))
    assert {c.images for name, c in found.items() if name != "binarisation"} == {5}
    assert found["unbounded"].value == 1.0  # no image is broken before the attack begins


def test_accuracy_that_rises_with_the_budget_is_counted() -> None:
    oracle = LinearOracle.random((1, 3, 3), 2, seed=0)
    judged = replace(subject(oracle, torch.rand(1, 1, 3, 3), [0]), model=oracle, batch=oracle.batch(8))
    judged = replace(judged, threat=L2(0.1), attack=Erratic(L2(0.1)))
    BUDGETS.clear()
    sweep, unbounded = diagnostics._sweep(judged, 0.25, "broken")
    # an image of 9 pixels is at most half of 3 from grey, fifteen times the budget in four equal steps
    assert pytest.approx([0.1 * 15 ** (k / 4) for k in (1, 2, 3, 4)]) == BUDGETS
    assert (sweep.value, sweep.verdict) == (0.5, "broken")  # 0.25, 0, 0.25, 0.5, 0: from the lowest to the next highest
    assert unbounded.value == 0.0


def test_the_budget_grows_and_so_does_the_step() -> None:
    attack = PGD(Linf(0.1), steps=50, step_size=0.02)
    assert diagnostics._rescaled(attack, 0.4) == PGD(Linf(0.4), steps=diagnostics.SWEEP_STEPS, step_size=0.08)
    assert diagnostics._rescaled(APGD(L2(1.0), steps=7), 3.0) == APGD(L2(3.0), steps=7)


@pytest.mark.parametrize("threat", [L2(0.15), Linf(0.05)], ids=str)
def test_a_linear_model_is_sound(threat: Threat) -> None:
    oracle = LinearOracle.random((1, 4, 4), 2, seed=0)
    radii = [oracle.at_distance(threat.eps * f, threat.norm, rows=8, seed=k) for k, f in enumerate((0.8, 1.3))]
    batch = Batch(torch.cat([b.images for b in radii]), torch.cat([b.labels for b in radii]), torch.arange(16))
    found = diagnose(oracle, batch, threat, steps=20)
    assert found.verdict == "sound", found.reasons
    assert found == diagnose(oracle, batch, threat, steps=20)


# --- the whole ------------------------------------------------------------------------------------------------


@plain
class Counter:
    calls: int = 0


def test_the_cost_is_an_upper_bound_that_is_nearly_met() -> None:
    oracle, count = LinearOracle.random((1, 3, 3), 2, seed=0), Counter()

    def counted(images: Tensor) -> Tensor:
        count.calls += 1
        z = 40 * oracle(images)
        if z.requires_grad:
            z.register_hook(lambda _: setattr(count, "calls", count.calls + 1))
        return z

    batch = oracle.at_distance(0.04, "linf", rows=16)  # one tile, so an image is in every call
    model = Lambda(counted).eval()
    model.traits = Traits()  # so that nobody probes for randomness, image by image
    diagnose(model, batch, Linf(0.002), steps=20, tile=16)
    assert 0.85 * cost(20) < count.calls <= cost(20)
    assert cost(100) > cost(20)
    assert cost(20, random=True) > cost(20)


def test_a_model_without_a_graph_has_zero_gradients() -> None:
    oracle = LinearOracle.random((1, 3, 3), 2, seed=0)
    found = diagnose(Apply(oracle, lambda z: z.detach()).eval(), oracle.batch(8), Linf(0.05), steps=5)
    assert by_name(found)["zero_gradients"].value == 1.0
    assert found.verdict == "broken"
    assert all(p.requires_grad for p in oracle.parameters())


def test_refusals() -> None:
    oracle = LinearOracle.random((1, 3, 3), 2, seed=0)
    batch = oracle.batch(8)
    with pytest.raises(HauberkError, match="no image is classified correctly"):
        diagnose(oracle, Batch(batch.images, 1 - batch.labels, batch.ids), Linf(0.05))
    with pytest.raises(HauberkError, match="probabilities"):
        diagnose(Apply(oracle, lambda z: z.softmax(1)).eval(), batch, Linf(0.05))


@pytest.fixture(scope="module")
def nets() -> dict[str, nn.Module]:
    """Two small nets trained on the digits."""
    data = digits()
    train = data.train.batch(torch.arange(len(data.train)))
    made: dict[str, nn.Module] = {}
    for name in ("mlp", "cnn", "noisy cnn"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
        if name == "mlp":
            net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(60):
            noise = 0.2 * torch.randn(train.images.shape) if "noisy" in name else 0.0
            optimizer.zero_grad()
            functional.cross_entropy(net(train.images + noise), train.labels).backward()
            optimizer.step()
        made[name] = net.eval()
    return made


def rounded(images: Tensor) -> Tensor:
    return torch.round(images * 4) / 4


@pytest.mark.parametrize(
    ("name", "threat"), [("mlp", Linf(0.08)), ("mlp", L1(2.0)), ("cnn", L2(0.4)), ("noisy cnn", Linf(0.08))], ids=str
)
def test_honest_nets_are_not_called_broken(nets: dict[str, nn.Module], name: str, threat: Threat) -> None:
    found = diagnose(nets[name], digits().val.batch(torch.arange(32)), threat, steps=20)
    assert found.verdict != "broken", found.reasons


@pytest.mark.parametrize("mask", ["loud", "rounded", "squashed"])
def test_masked_nets_are_flagged(nets: dict[str, nn.Module], mask: str) -> None:
    net = {
        "loud": Apply(nets["mlp"], lambda z: 1e4 * z),
        "rounded": nn.Sequential(Lambda(rounded), nets["noisy cnn"]),
        "squashed": Apply(nets["cnn"], lambda z: 20 * z.softmax(1) - 3),
    }[mask].eval()
    found = diagnose(net, digits().val.batch(torch.arange(32)), Linf(0.08), steps=20)
    assert found.verdict in ("questionable", "broken")
    if mask != "squashed":
        assert found.verdict == "broken"
        assert by_name(found)["binarisation"].verdict == "broken"


def test_frozen_parameters_come_back(nets: dict[str, nn.Module]) -> None:
    with frozen(nets["mlp"]):
        assert not any(p.requires_grad for p in nets["mlp"].parameters())
    diagnose(nets["mlp"], digits().val.batch(torch.arange(4)), Linf(0.05), attack=FGSM(Linf(0.05)))
    assert all(p.requires_grad for p in nets["mlp"].parameters())
