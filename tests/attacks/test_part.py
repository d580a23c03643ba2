"""An attack on a part: what it tries on the whole, on constant and adaptive mixes, and the errors."""

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import APGD, FGSM, PGD, Attack
from hauberk.attacks.part import PartAttack
from hauberk.batch import Batch
from hauberk.capabilities import HasParts
from hauberk.conformance import LinearOracle, check_attack
from hauberk.defences import MixedClassifier
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier, adaptive_mixed
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.randomness import PerSample
from hauberk.threats import L1, L2, Linf, Threat

SHAPE = (1, 6, 6)


def base(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = small_cnn(SHAPE, 4, [0.5], [0.2], widths=(6, 6), strides=(1, 1), batch_norm=False)
    nn.init.normal_(net[-1].weight, std=2.0)
    nn.init.zeros_(net[-1].bias)
    return net.eval()


def line(seed: int) -> nn.Module:
    """A linear model; all of them are of much the same opinion."""
    draws = [torch.randn(4, 36, generator=torch.Generator().manual_seed(k)) for k in (99, seed)]
    return LinearOracle(draws[0] + 0.7 * draws[1], torch.zeros(4), SHAPE)


def labelled(model: nn.Module, rows: int = 30) -> Batch:
    images = torch.rand(rows, *SHAPE, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    return Batch(images, labels, torch.arange(rows) + 50)


@pytest.fixture
def constant() -> MixedClassifier:
    return MixedClassifier(line(1), line(2), 0.6, 2.0, 1.0).eval()


@pytest.fixture
def adaptive() -> AdaptiveMixedClassifier:
    torch.manual_seed(3)
    taps = {"accurate_taps": ("2", "4"), "robust_taps": ("2", "4")}
    model = adaptive_mixed(base(1), base(2), **taps, alpha_min=0.3, alpha_max=0.9, widths=(4,))
    model.mixing.norm.running_var.fill_(0.05)
    return model.eval()


@pytest.mark.parametrize("threat", [L1(0.3), L2(0.15), Linf(0.05)], ids=str)
def test_the_contract(threat: Threat, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a model whose part is itself."""

    class Parted(LinearOracle, HasParts):
        def parts(self) -> dict[str, nn.Module]:
            return {"itself": self}

    monkeypatch.setattr("hauberk.conformance.attack.LinearOracle", Parted)
    check_attack(PartAttack(threat, part="itself", attack=PGD(threat, steps=10)))


@pytest.mark.parametrize("part", ["accurate", "robust"])
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.4), L1(1.2)], ids=str)
def test_it_tries_the_parts_points_on_the_whole(part: str, threat: Threat, constant: MixedClassifier) -> None:
    batch = labelled(constant)
    attack = PGD(threat, steps=5, early_stop=False)
    found = PartAttack(threat, part=part, attack=attack)(constant, batch)
    alone = constant.parts()[part]
    there = attack(alone, batch)
    last = attack.perturb(alone, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
    tried = [batch.images, last, there.best_loss_point, there.logit_margin_point]
    tried.append(torch.where((there.nearest <= threat.eps)[:, None, None, None], there.nearest_point, batch.images))
    with torch.no_grad():
        wrong = torch.stack([constant(points).argmax(1) != batch.labels for points in tried]).any(0)
    assert torch.equal(found.success, wrong)
    assert 1 < int(wrong.sum()) < len(batch)
    assert not found.backwards.any()
    assert bool((found.forwards <= 5).all())


@pytest.mark.parametrize("attack", [PGD(Linf(0.03), steps=5), APGD(L2(0.1), steps=8), FGSM(Linf(0.03))], ids=str)
def test_on_the_gray_box_it_is_the_attack_itself(attack: Attack, adaptive: AdaptiveMixedClassifier) -> None:
    """Which has the same values as the whole, so that what fools it fools the whole."""
    batch = labelled(adaptive)
    found = PartAttack(attack.threat, part="gray_box", attack=attack)(adaptive, batch, seed=3)
    alone = attack(adaptive.parts()["gray_box"], batch, seed=3)
    assert torch.equal(found.success, alone.success)
    assert 1 < int(found.success.sum()) < len(batch)
    white = attack(adaptive, batch, seed=3)
    assert not torch.equal(white.adversarial, alone.adversarial)


def test_the_bases_of_an_adaptive_mix(adaptive: AdaptiveMixedClassifier) -> None:
    batch = labelled(adaptive)
    attack = APGD(Linf(0.05), steps=8)
    for part, single in (("accurate", adaptive.accurate), ("robust", adaptive.robust)):
        found = PartAttack(Linf(0.05), part=part, attack=attack, early_stop=False)(adaptive, batch)
        there = APGD(Linf(0.05), steps=8, early_stop=False)(single, batch)
        with torch.no_grad():
            reached = adaptive(there.best_loss_point).argmax(1) != batch.labels
        assert bool((found.success >= reached).all())


def test_a_mix_of_one_model_falls_to_that_one_alone() -> None:
    """At alpha 1 the accurate base has no say: what fools it need not fool the mix, what fools the robust one does."""
    mix = MixedClassifier(base(1), base(2), 1.0, 1.0, 1.0).eval()
    batch = labelled(mix)
    attack = PGD(Linf(0.03), steps=5, early_stop=False)
    white = attack(mix, batch)
    robust = PartAttack(Linf(0.03), part="robust", attack=attack)(mix, batch)
    accurate = PartAttack(Linf(0.03), part="accurate", attack=attack)(mix, batch)
    assert torch.equal(robust.success, white.success)
    assert int(accurate.success.sum()) < int(white.success.sum())


def test_in_training_it_is_the_attack_on_the_part(constant: MixedClassifier) -> None:
    batch = labelled(constant)
    attack = PGD(Linf(0.05), steps=3)

    own = torch.linspace(0.0, 0.05, len(batch))

    def perturb(by: Attack, on: nn.Module, budget: Tensor | None = None) -> Tensor:
        return by.perturb(on, batch.images, batch.labels, PerSample(0, batch.ids, "attack"), budget)

    constant.train()
    found = perturb(PartAttack(Linf(0.05), part="robust", attack=attack), constant)
    assert torch.equal(found, perturb(attack, constant.robust))
    found = perturb(PartAttack(Linf(0.05), part="robust", attack=attack), constant, own)
    assert torch.equal(found, perturb(attack, constant.robust, own))
    assert not torch.equal(found, perturb(attack, constant.robust))
    assert all(m.training for m in constant.modules())


def test_what_is_not_there_is_named(constant: MixedClassifier) -> None:
    batch, attack = labelled(constant), PGD(Linf(0.05), steps=1)
    with pytest.raises(HauberkError, match="no part 'acurate'") as caught:
        PartAttack(Linf(0.05), part="acurate", attack=attack)(constant, batch)
    assert "did you mean 'accurate'" in str(caught.value)
    with pytest.raises(HauberkError, match="no part 'xyz'") as caught:
        PartAttack(Linf(0.05), part="xyz", attack=attack)(constant, batch)
    assert "accurate, robust" in str(caught.value)
    with pytest.raises(HauberkError, match="with parts, got LinearOracle"):
        PartAttack(Linf(0.05), attack=attack)(constant.robust, batch)
    for other in (Linf(0.2), Linf(0.05), L2(0.1)):
        with pytest.raises(ValueError, match=str(other).replace(".", r"\.")):
            PartAttack(Linf(0.1), attack=PGD(other))


def test_without_a_search_of_its_own_it_is_apgd_on_the_margin(constant: MixedClassifier) -> None:
    batch, threat = labelled(constant, 8), L2(0.2)
    found = PartAttack(threat, part="robust", early_stop=False)(constant, batch)
    named = PartAttack(threat, part="robust", attack=APGD(threat, loss="margin"), early_stop=False)(constant, batch)
    assert torch.equal(found.adversarial, named.adversarial)
    assert torch.equal(found.loss, named.loss)


def test_it_is_rebuilt_from_its_spec() -> None:
    attack = PartAttack(Linf(0.05), part="robust", attack=APGD(Linf(0.05), "dlr", steps=4))
    assert registry.build(registry.spec(attack)) == attack
