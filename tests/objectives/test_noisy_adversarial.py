"""Noise, attack and streams: each term is the one that is written down, and zero weights take it away."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from hauberk.attacks import PGD
from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.layers import ConvexGate
from hauberk.models.hycas_net import hycas_net
from hauberk.noises import Gaussian
from hauberk.objectives.base import Context
from hauberk.objectives.gaussian_augmentation import GaussianAugmentation
from hauberk.objectives.noisy_adversarial import NoisyAdversarial, streams_alone
from hauberk.threats import Linf

NOISE = Gaussian(0.25)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(6, 1, 6, 6, generator=generator), torch.arange(6) % 3, torch.arange(6))


def net(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return hycas_net((1, 6, 6), 3, [0.5], [0.2], **{"widths": (4,), "strides": (1,), "noise": None} | settings)


def loss(objective: Any, model: nn.Module) -> Any:
    return objective(model.train(), batch(), Context(torch.Generator().manual_seed(7)))


def test_with_noise_alone_it_is_gaussian_augmentation() -> None:
    model = net()
    assert torch.equal(loss(NoisyAdversarial(NOISE), model).total, loss(GaussianAugmentation(NOISE), model).total)


def test_temperature_and_offset_are_those_of_standard_training() -> None:
    model, images = net(), batch()
    found = loss(NoisyAdversarial(NOISE, temperature=0.25, offset=0.4), model).total
    noise = NOISE.sample(Context(torch.Generator().manual_seed(7)).randomness(6), 1, 6, 6)
    logits = model(images.images + noise)
    lowered = logits - 0.4 * functional.one_hot(images.labels, 3)
    expected = 0.25 * functional.cross_entropy(lowered / 0.25, images.labels)
    assert torch.allclose(found, expected)


def test_the_attacked_term_counts_kappa_times() -> None:
    model = net()
    attack = PGD(Linf(8 / 255), steps=3)
    parts = [loss(NoisyAdversarial(NOISE, attack=attack, kappa=k), model) for k in (0.5, 1.0)]
    plain = loss(NoisyAdversarial(NOISE), model)
    assert torch.allclose(parts[0].total - plain.total, 0.5 * parts[0].terms["ce_adversarial"])
    assert torch.allclose(parts[1].total - plain.total, parts[1].terms["ce_adversarial"])
    clean = functional.cross_entropy(model(batch().images), batch().labels)
    assert parts[0].terms["ce_adversarial"] > clean


def test_a_random_net_meets_fresh_noise_at_every_step_of_the_attack() -> None:
    model = net(noise="halved")
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda _, __, made: seen.append(made.detach()))
    attack = PGD(Linf(0.0), steps=3, random_start=False)
    loss(NoisyAdversarial(NOISE, attack=attack, kappa=1.0), model)
    at_one_point = seen[1:-1]
    assert len(at_one_point) >= 3
    assert not torch.equal(at_one_point[0], at_one_point[1])


def test_streams_alone_pass_one_stream_each() -> None:
    model = net()
    gate = next(m for m in model.modules() if isinstance(m, ConvexGate))
    images = batch().images
    found = streams_alone(model, images)
    assert len(found) == 3
    for stream, logits in enumerate(found):
        with torch.no_grad():
            kept = gate.logits.clone()
            gate.logits.zero_()[stream] = 1e4
            assert torch.allclose(model(images), logits)
            gate.logits.copy_(kept)
    weighed = loss(NoisyAdversarial(NOISE, stream_weight=2.0), model)
    plain = loss(NoisyAdversarial(NOISE), model)
    assert torch.allclose(weighed.total - plain.total, 2.0 * weighed.terms["ce_streams"])
    weighed.total.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_streams_of_a_net_without_gates_are_refused() -> None:
    with pytest.raises(HauberkError, match="no gate"):
        streams_alone(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), batch().images)


@pytest.mark.parametrize("settings", [{"kappa": 1.0}, {"attack": PGD(Linf(0.1), steps=1)}], ids=["kappa", "attack"])
def test_kappa_and_attack_come_together(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="kappa"):
        NoisyAdversarial(NOISE, **settings)
