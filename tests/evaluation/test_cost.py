"""What an evaluation is said to take: passes of the model that is asked, each timed once."""

import torch
from torch import nn

from hauberk.attacks import PGD
from hauberk.certificates import SmoothingCertificate
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.evaluation import cost
from hauberk.evaluation.preflight import Speed
from hauberk.noises import Gaussian
from hauberk.threats import Linf

IMAGES = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def test_votes_are_passes_of_the_base_and_attacks_those_of_the_whole(monkeypatch) -> None:
    base = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    model = SmoothedClassifier(base, Gaussian(0.25), bank=16, votes=100, alpha=0.01).eval()
    speeds, asked = {id(base): Speed(1.0, 2.0, 0.0), id(model): Speed(16.0, 32.0, 0.0)}, []

    def glance(module: nn.Module, images: torch.Tensor) -> Speed:
        asked.append(module)
        return speeds[id(module)]

    monkeypatch.setattr(cost, "glance", glance)
    votes, attack = SmoothingCertificate(Gaussian(0.25), n0=10, n=90), PGD(Linf(0.1), steps=5)
    assert cost.per_image(model, IMAGES, [votes, votes], 2, random=False) == 200.0
    assert asked == [base]
    whole = cost.per_image(model, IMAGES, [attack], 2, random=False)
    assert whole == cost.seconds(attack, speeds[id(model)], 2) and asked == [base, model]
    assert cost.per_image(model, IMAGES, [attack], 2, False, speeds[id(model)]) == whole and asked == [base, model]
