"""The model of a run for other uses: the source of an attack, the teacher of a training."""

from __future__ import annotations

from functools import lru_cache

from torch import nn

from hauberk.errors import HauberkError
from hauberk.randomness import fenced
from hauberk.records import content_hash
from hauberk.runs import Run


def run_hash(path: str) -> str:
    """The hash of the weights and the spec of a run's model."""
    config = Run.open(path).model_config
    return content_hash([config["weights"], config["spec"]])


def run_model(path: str, weights: str | None = None) -> nn.Module:
    """The model of a run in eval mode, loaded once.

    Args:
        path: the run directory.
        weights: its ``hauberk.classifier.weights_hash``; None accepts any weights.

    Raises:
        HauberkError: if there is no such run, or its weights are others.
    """
    found = str(Run.open(path).model_config["weights"])
    if weights not in {None, found}:
        raise HauberkError(
            f"the run {path} has weights {found}, expected {weights}",
            "give the intended run, or the hash of the weights of this run",
        )
    return _load(path, found)


@lru_cache(maxsize=4)
def _load(path: str, weights: str) -> nn.Module:  # noqa: ARG001 - the hash tells a run that was trained again
    with fenced():  # the initial weights are drawn, and a training that is resumed reads the run at another step
        return Run.open(path).load_model().requires_grad_(False)
