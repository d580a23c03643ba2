"""I have a model: attack and certify any ``nn.Module`` that takes images in [0, 1] and gives logits.

Run it: ``python examples/own_model.py`` (seconds, no download).  From the command line only ``build`` is needed:
``cd examples && hauberk attack own_model:build --data digits --threat linf:0.1 --threads 1``.
"""

from __future__ import annotations

import torch
from torch import nn

from hauberk.attacks import APGD, PGD, Attack
from hauberk.certificates import Certificate, LipschitzCertificate, SmoothingCertificate
from hauberk.classifier import Normalize
from hauberk.data import Dataset, load
from hauberk.evaluation.metrics import accuracy, certified_accuracy, robust_accuracy
from hauberk.noises import Gaussian
from hauberk.statistics import Interval
from hauberk.threats import L2, Linf

EPOCHS = 20


def build() -> nn.Module:
    """A model of your own: here a small net, trained in a few seconds with a loop of your own.

    Normalisation is its first layer, so that every budget and radius is in pixel units.
    """
    torch.manual_seed(0)
    data = load("digits")
    model = nn.Sequential(Normalize(data.mean, data.std), nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    everything = data.train.batch()
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(everything)), 64):
            batch = everything.select(rows)
            loss = nn.functional.cross_entropy(model(batch.images), batch.labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return model.eval()


def survive(model: nn.Module, data: Dataset, attack: Attack) -> Interval:
    """Accuracy under an attack: an upper bound, since a stronger attack may break more."""
    batch = data.test.batch(slice(0, 100))
    result = attack(model, batch, seed=0)
    return robust_accuracy((result.clean_prediction == batch.labels).numpy(), (~result.success).numpy())


def proved(model: nn.Module, data: Dataset, certificate: Certificate, eps: float) -> Interval:
    """Accuracy that no attack of that size can take away: a lower bound."""
    batch = data.test.batch(slice(0, 100))
    result = certificate(model, batch, seed=0)
    return certified_accuracy((result.prediction == batch.labels).numpy(), result.radius.numpy(), eps)


def show(what: str, share: Interval) -> None:
    """One line with a 95 % interval."""
    print(f"{what:48} {100 * share.value:5.1f} %   [{100 * share.low:.1f}, {100 * share.high:.1f}]")


def main() -> None:
    """Measure from both sides."""
    torch.set_num_threads(1)
    model, data = build(), load("digits")
    batch = data.test.batch(slice(0, 100))
    with torch.no_grad():
        show("clean accuracy", accuracy((model(batch.images).argmax(1) == batch.labels).numpy()))
    show("at most, Linf 0.1, PGD", survive(model, data, PGD(Linf(0.1), steps=20)))
    show("at most, Linf 0.1, APGD on the margin", survive(model, data, APGD(Linf(0.1), steps=50, loss="margin")))
    show("at most, L2 0.25, APGD", survive(model, data, APGD(L2(0.25), steps=50)))
    show("at least, L2 0.1, Lipschitz (deterministic)", proved(model, data, LipschitzCertificate(), 0.1))
    votes = SmoothingCertificate(Gaussian(0.25), n0=100, n=2000, alpha=0.001)
    show("at least, L2 0.25, smoothed model (fails 1 in 1000)", proved(model, data, votes, 0.25))
    print("The last line is about another predictor: the majority vote of the model under noise.")


if __name__ == "__main__":
    main()
