"""EOT: means over draws by hand, verdicts of fresh draws, and the true robust accuracy of a vote over linear models."""

import math

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import APGD, EOT, PGD, EOTSweep, Query
from hauberk.attacks.judging import heard
from hauberk.batch import Batch
from hauberk.capabilities import Poll, Polled
from hauberk.classifier import classes, logits_of
from hauberk.conformance import LinearOracle
from hauberk.draws import one_draw
from hauberk.errors import HauberkError
from hauberk.evaluation.preflight import passes
from hauberk.layers import NoiseInjection
from hauberk.noises import Gaussian, Uniform
from hauberk.randomness import Key
from hauberk.threats import L2, Linf


def net(noise: float = 0.3) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(12, 8), NoiseInjection(Gaussian(noise)), nn.Tanh(), nn.Linear(8, 3)]
        return nn.Sequential(*layers).eval().requires_grad_(False)


def batch(rows: int = 6) -> Batch:
    images = torch.rand(rows, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(rows) % 3, torch.arange(rows) + 100)


def by_hand(model: nn.Module, images: Batch, points: Tensor, numbers: list[int]) -> list[Tensor]:
    """Logits of the draws of these numbers."""
    keys = [Key(0, n, tuple(images.ids.tolist()), "search") for n in numbers]
    return [one_draw(model, key)(points) for key in keys]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("mean", ["loss", "logits"])
def test_the_gradient_is_that_of_the_mean(mean: str, fixed: bool) -> None:
    model, images = net(), batch()
    query = EOT(Linf(0.1), draws=3, mean=mean, fixed=fixed).query(model, images, 16)
    for numbers in ([0, 1, 2], [0, 1, 2] if fixed else [3, 4, 5]):
        leaf = images.images.clone().requires_grad_(True)
        drawn = by_hand(model, images, leaf, numbers)
        entropy = nn.CrossEntropyLoss(reduction="none")
        by_losses = torch.stack([entropy(logits, images.labels) for logits in drawn]).mean(0)
        value = by_losses if mean == "loss" else entropy(torch.stack(drawn).mean(0), images.labels)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        found = query.gradient(images.images)
        torch.testing.assert_close(found[0], value.detach())
        torch.testing.assert_close(found[1], gradient)


def test_the_verdict_is_a_vote_however_few_draws_a_gradient_has() -> None:
    model, images = net(1.0), batch(12)
    found = EOT(Linf(0.2), attack=PGD(Linf(0.2), steps=3), draws=1, votes=7, tries=11)(model, images, seed=2)
    assert found.draws.shape == found.clean_draws.shape == (12, 11)
    for points, draws, said in (
        (images.images, found.clean_draws, found.clean_prediction), (found.adversarial, found.draws, found.prediction)
    ):  # fmt: skip
        there = Batch(points, images.labels, images.ids)
        fresh = torch.stack([classes(logits_of(model, there, 64, (2, n, "votes"))) for n in range(11)], 1)
        assert torch.equal(draws, fresh)
        assert torch.equal(said, fresh[:, :7].mode(1).values)
    assert int(found.success.sum()) > 0


class Means(nn.Module, Polled):
    """A random model that decides by mean logits."""

    def __init__(self, base: nn.Module, poll: Poll) -> None:
        super().__init__()
        self.base, self.poll = base, poll

    def forward(self, images: Tensor) -> Tensor:
        return self.base(images)


def test_a_model_that_states_its_rule_is_attacked_and_judged_by_it() -> None:
    model, images = Means(net(1.0), Poll("mean", 5)).eval(), batch(12)
    for attack in (PGD(Linf(0.1), steps=2), EOT(Linf(0.1), attack=PGD(Linf(0.1), steps=2), draws=2)):
        found = attack(model, images, seed=1)
        there = Batch(found.adversarial, images.labels, images.ids)
        total = sum(logits_of(model, there, 64, (1, n, "votes")) for n in range(5))
        expected = torch.where(found.clean_prediction != images.labels, found.clean_prediction, total.argmax(1))
        assert torch.equal(found.prediction, expected)
    query: Query = PGD(Linf(0.1)).query(model, images)
    assert (query.eot, query.mean) == (5, "logits")
    single = Means(net(1.0), Poll("vote", 1)).eval()
    assert heard(single, images, (Poll("vote", 20), 20), 64, 0)[0].shape == (12, 20)
    one = heard(single, images, (Poll("vote", 20), 0), 64, 0)
    assert one[0].shape == (12, 1)
    assert one[1] is not None
    assert torch.equal(one[1], one[0][:, 0])


def test_on_a_model_that_is_not_random_it_is_the_attack_inside() -> None:
    oracle = LinearOracle.random((1, 2, 2), 3, seed=0)
    images = oracle.at_distance(0.05 / 1.2, "linf")
    inner = APGD(Linf(0.05), steps=5)
    plain, around = inner(oracle, images), EOT(Linf(0.05), attack=inner, draws=7)(oracle, images)
    for name in ("success", "adversarial", "forwards", "draws", "prediction"):
        assert torch.equal(getattr(plain, name), getattr(around, name)), name


def test_named_outputs_have_no_mean_logits_and_threats_must_agree() -> None:
    with pytest.raises(ValueError, match="the attack inside has the threat"):
        EOT(Linf(0.1), attack=PGD(Linf(0.2)))
    assert registry.build(registry.spec(EOTSweep(L2(0.5))), "attack") == EOTSweep(L2(0.5))


# --- closed form: a linear model with additive noise -----------------------------------------------------------


class Line(nn.Module):
    """Two classes, the logit of the second being s (w x - b) with a slope w of one sign in each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 2.0, 0.5]))

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1) @ self.weight - 0.75
        return torch.stack([-score, score], 1)


def line(noise: float) -> tuple[nn.Module, Batch, Tensor]:
    """A vote over noise, images, and how far each is from where the vote changes, in L2: it is where the line is.

    The noise is symmetric, so the limit of the vote is the class without noise, and its distance that to the line.
    """
    model = nn.Sequential(NoiseInjection(Uniform(noise)), Line()).eval().requires_grad_(False)
    images = 0.5 + 0.2 * (torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(3)) - 0.5)
    score = Line()(images)[:, 1].detach()
    distance = score.abs() / math.sqrt(1 + 4 + 4 + 0.25)
    return model, Batch(images, (score > 0).long(), torch.arange(40)), distance


def test_the_sweep_finds_the_true_robust_accuracy_of_a_vote() -> None:
    """Within the budget every image falls, beyond it none: but for images so near that 201 draws may be mistaken."""
    noise, eps = 0.02, 0.03
    model, images, distance = line(noise)
    sweep = EOTSweep(L2(eps), draws=(1, 5, 20), steps=(5, 10, 20), votes=201, tries=0)
    found = sweep(model, images, seed=0)
    # along the slope the noise has this width; beyond 0.35 of it a vote of 201 errs with probability 1e-4
    near = 0.35 * noise
    clear = (distance - eps).abs() > near
    assert int(clear.sum()) > 25
    assert torch.equal(found.success[clear], (distance <= eps)[clear])
    assert 5 < int(found.success.sum()) < 35


def test_a_sweep_ends_by_its_rule() -> None:
    sweep = EOTSweep(Linf(0.1), draws=(1, 5, 20, 50), steps=(1, 1, 1, 1))
    assert not sweep.settled([3, 0])
    assert not sweep.settled([3, 0, 0, 0])  # five draws are too few
    assert not sweep.settled([3, 0, 0, 0, 1, 0, 0])  # half a round
    assert sweep.settled([3, 0, 0, 0, 0, 0])
    assert not sweep.settled([3, 0, 0, 0, 1, 0])
    assert not sweep.settled([3, 0, 0, 0, 0, 1])
    assert not sweep.settled([])
    stages = sweep.stages()
    assert [(s.draws, s.mean, s.inner.loss) for s in stages[:2]] == [(1, "loss", "ce"), (1, "logits", "margin")]
    assert [s.draws for s in stages] == [1, 1, 5, 5, 20, 20, 50, 50]
    with pytest.raises(ValueError, match="as many draws and steps"):
        EOTSweep(Linf(0.1), draws=(5, 1), steps=(1, 1))
    with pytest.raises(ValueError, match="each round needs one of both"):
        EOTSweep(Linf(0.1), draws=(1, 5), steps=(1,))
    with pytest.raises(HauberkError, match="cannot be used in training"):
        sweep.search(None, None)  # type: ignore[arg-type]


def test_a_quiet_round_with_draws_enough_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """On images far from the line nothing falls, so that the fourth round is never begun."""
    model, images, _ = line(0.05)
    asked: list[int] = []
    search = EOT.search
    monkeypatch.setattr(EOT, "search", lambda self, *args: asked.append(self.draws) or search(self, *args))
    EOTSweep(L2(1e-4), steps=(1, 1, 1, 1), votes=5, tries=0)(model, images.select(slice(0, 3)))
    assert asked == [1, 1, 5, 5, 20, 20]


def test_its_passes_are_predicted() -> None:
    model, images, _ = line(0.05)
    attack = EOT(L2(1e-4), attack=APGD(L2(1e-4), steps=4, early_stop=False), draws=3, votes=5, tries=9)
    found = attack(model, images.select([0]))
    forwards, backwards = passes(attack, 2, random=True)
    assert backwards == int(found.backwards)
    assert forwards == int(found.forwards) + 3 * 5 + 2 * 9
    sweep = EOTSweep(L2(1e-4), draws=(3,), steps=(4,), votes=5, tries=9)
    assert passes(sweep, 2, random=True) == tuple(2 * n for n in (forwards, backwards))


def test_fixed_draws_are_a_deterministic_net_and_its_points_fail_on_fresh_draws() -> None:
    """Noise before a saturated step: an attack on one draw breaks that draw, and few others."""
    model, images, distance = line(0.4)
    right = images.select((distance > 0.08).nonzero().flatten())
    inner = PGD(L2(0.06), "margin", steps=20, early_stop=False)
    one = EOT(L2(0.06), attack=inner, draws=1, fixed=True, votes=201)(model, right)
    assert float((one.logit_margin < 0).float().mean()) > float(one.success.float().mean()) + 0.2
    query = EOT(L2(0.06), draws=2, fixed=True).query(model, right)
    assert torch.equal(query.value(right.images), query.value(right.images))
