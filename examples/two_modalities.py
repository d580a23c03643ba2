"""I have an input of two modalities: train on sub-samples, and certify the vote against edits of both at once.

Run it: ``python examples/two_modalities.py`` (seconds, no download).  The modalities are a digit's grey values and its
gradient, as two sensors would give them: one channel and two, 64 elements each.  An attacker changes at most r elements
of each modality to any value, in one attack.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.certificates import MMCert
from hauberk.data import load
from hauberk.evaluation.metrics import accuracy, certified_accuracy
from hauberk.randomness import Shared
from hauberk.statistics import Interval

CERTIFICATE = MMCert("channels", size=(8, 8), parts=(1, 2), kept=(12, 12), n0=100, n=1000, alpha=0.001)
EPOCHS, IMAGES = 60, 100


def sensed(batch: Batch) -> Batch:
    """Grey values and gradients, (B, 3, 8, 8), from 0.1 to 1: what a sub-sample leaves out is 0."""
    grey = batch.images
    across, down = torch.full_like(grey, 0.5), torch.full_like(grey, 0.5)
    across[..., 1:-1] += (grey[..., 2:] - grey[..., :-2]) / 2
    down[..., 1:-1, :] += (grey[..., 2:, :] - grey[..., :-2, :]) / 2
    return replace(batch, images=0.1 + 0.9 * torch.cat([grey, across, down], 1))


def trained() -> nn.Module:
    """A small net that meets a fresh sub-sample of every image at every step, as it will when it votes."""
    torch.manual_seed(0)
    everything, draws = sensed(load("digits").train.batch()), torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(everything)), 64):
            batch = everything.select(rows)
            seen = CERTIFICATE.step.noisy(batch.images, Shared(draws, len(batch)))
            loss = nn.functional.cross_entropy(model(seen), batch.labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return model.eval()


def show(what: str, share: Interval) -> None:
    """One line with a 95 % interval."""
    print(f"{what:46} {100 * share.value:5.1f} %   [{100 * share.low:.1f}, {100 * share.high:.1f}]")


def main() -> None:
    """Certify some test images, and show the certified accuracy for each number of changed elements."""
    torch.set_num_threads(1)
    model, batch = trained(), sensed(load("digits").test.batch(slice(0, IMAGES)))
    found = CERTIFICATE(model, batch, seed=0)
    right = (found.prediction == batch.labels).numpy()
    print("12 of the 64 elements of each modality are a sub-sample; 1000 of them vote on each image")
    show("at least, nothing changed", accuracy(right))
    for r in range(1, int(found.radius.max()) + 2):
        show(f"at least, {r} elements of each modality changed", certified_accuracy(right, found.radius.numpy(), r))
    print("What is certified is the vote over sub-samples, and not the net; a row fails with probability 0.001.")


if __name__ == "__main__":
    main()
