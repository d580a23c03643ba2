"""What two published nets know of CIFAR-10: their accuracy on the images held out for validation, and on test.

    HAUBERK_MODELS=... HAUBERK_DATA=... python reproductions/published_knowledge.py

Writes results/published/knowledge.json, accuracies with Wilson intervals.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

import published_nets
from hauberk.classifier import logits_of
from hauberk.data import Split, load
from hauberk.runs import environment
from hauberk.statistics import Interval, wilson

OUT = Path(__file__).resolve().parents[1] / "results" / "published" / "knowledge.json"
ROWS = 250


def accuracy(net: torch.nn.Module, split: Split) -> Interval:
    """The share of a split that a net is right on."""
    right = 0
    for rows in torch.split(torch.arange(len(split)), ROWS):
        batch = split.select(rows).batch()
        right += int((logits_of(net, batch, ROWS).argmax(1) == batch.labels).sum())
    return wilson(right, len(split))


def main() -> None:
    """Measure and write."""
    data = load("cifar10")
    nets = {name: getattr(published_nets, name)().eval() for name in ("resnet20", "resnet4b")}
    splits = {"val": data.val, "test": data.test}
    found = {name: {split: asdict(accuracy(net, s)) for split, s in splits.items()} for name, net in nets.items()}
    OUT.write_text(json.dumps({"environment": environment(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
