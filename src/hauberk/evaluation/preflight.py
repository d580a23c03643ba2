"""Checks of a model before an evaluation: the contract, its gradients, its speed, and the cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from hauberk.attacks import EOT, Attack, AttackLoss, AutoAttack, EOTSweep, PartAttack, Square, Towards
from hauberk.attacks.autoattack import by_scores, sequences
from hauberk.attacks.eot import SEEN
from hauberk.attacks.gradients import EOT_DRAWS, attackable
from hauberk.attacks.wrapping import Wrapping
from hauberk.batch import Batch
from hauberk.boundary import answer, called, check_classes, check_images, check_labels, check_logits, check_weights
from hauberk.capabilities import Baked, ScoresOnly
from hauberk.classifier import (
    TILE,
    check_eval,
    check_followed,
    check_mode,
    check_separate,
    classes,
    frozen,
    is_random,
    traits,
)
from hauberk.errors import HauberkError
from hauberk.statistics import wilson
from hauberk.threats import Linf, Threat, norms

TRIALS = 3
TINY = 0.02  # seconds of a tile, above which what a search adds is little
QUERIES = (100, 200)  # of two runs of Square, which differ by the passes and what is beside them
TRIED = 6  # most passes of the whole on an image, in an attack on a part
JUDGED, ROUNDED = 2, 8  # passes around an attack towards a class, and around one with points of whole levels
IMAGE = (1, 4, 4)  # of the images on which passes are counted
# of walks, and how often they are repeated
LENGTHS = {"steps": (10, 20), "queries": (10, 20), "targets": (1, 2), "restarts": (1, 2), "eot": (1, 2)}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        name: what was looked at.
        good: whether an evaluation can go on as it is.
        text: what was seen, and what to do about it where it is not good.
    """

    name: str
    good: bool
    text: str


@dataclass(frozen=True)
class Speed:
    """Seconds an image on full tiles.

    Args:
        forward: of one forward pass.
        gradient: of one forward and one backward pass to the input.
        beside: that a search spends on each pass beside the model; 0 where the model takes long.
    """

    forward: float
    gradient: float
    beside: float = 0.0

    def seconds(self, forwards: float, backwards: float) -> float:
        """Of a search with so many passes on one image."""
        return forwards * (self.forward + self.beside) + backwards * (self.gradient - self.forward)


@dataclass(frozen=True)
class Bill:
    """The largest cost of an attack.

    Args:
        name: the attack, or the version of AutoAttack.
        forwards: forward passes an image that survives to the end.
        backwards: backward passes of the same.
        seconds: for all images that are classified right, if none of them falls.
    """

    name: str
    forwards: int
    backwards: int
    seconds: float


def preflight(model: nn.Module, batch: Batch, tile: int = TILE, num_classes: int | None = None) -> list[Finding]:
    """Check a model on some images of its data; nothing is attacked, and no check raises.

    Args:
        model: a classifier.
        batch: images in [0, 1], labels, ids; a tile of them is enough.
        tile: rows of a model call.
        num_classes: of the data.
    """
    images = next(batch.tiles(min(tile, len(batch))))[0].images
    findings = [
        _tried("images", lambda: check_images(batch.images), "floats in [0, 1], shape " + _shape(batch.images)),
        _tried("mode", lambda: check_eval(model), "eval mode"),
    ]
    weights = _tried("weights", lambda: check_weights(model))
    if not (findings[0].good and weights.good):
        return [*findings, *([] if weights.good else [weights])]
    try:
        logits = answer(model, images)
    except HauberkError as error:
        return [*findings, Finding("forward", False, f"{error.message}: {error.hint}")]
    findings.append(_tried("logits", lambda: check_logits(logits, len(images), images.dtype)))
    if not findings[-1].good:
        return findings
    findings[-1] = Finding("logits", True, f"shape {_shape(logits)}")
    labels = f"0..{logits.shape[1] - 1}"
    if num_classes is not None:
        findings.append(_classes(logits.shape[1], num_classes))
        if logits.shape[1] < num_classes:
            return findings
    baked = _tried("mode", lambda: check_mode(model, images), "eval mode, by two calls and by other company")
    findings[1] = baked if isinstance(model, Baked) else findings[1]
    return [
        *findings,
        _tried("labels", lambda: check_labels(batch.labels, logits.shape[1], len(batch)), labels),
        _accuracy(logits, batch.labels[: len(images)]),
        _tried("rows", lambda: check_separate(model, images, len(images)), "each image is classified by itself"),
        *_nature(model, images[:8]),
        _gradients(model, images),
    ]


def _classes(outputs: int, num_classes: int) -> Finding:
    if outputs <= num_classes:
        return _tried("classes", lambda: check_classes(outputs, num_classes), f"{outputs}, as many as the data has")
    said = f"the model has {outputs} outputs, the data {num_classes} classes: an answer beyond them is always wrong"
    return Finding("classes", False, said)


def _accuracy(logits: Tensor, labels: Tensor) -> Finding:
    hits, chance = int((classes(logits) == labels).sum()), 1.0 / logits.shape[1]
    right = hits / len(labels)
    good = right > 1.5 * chance or wilson(hits, len(labels)).low > chance  # of two classes 0.75 is far from chance
    doubt = "" if good else " (no better than chance: are images scaled and classes ordered as in training?)"
    return Finding("accuracy", good, f"{right:.0%} of {len(labels)} images{doubt}")


def _nature(model: nn.Module, images: Tensor) -> list[Finding]:
    """Declared traits against what two forward passes show."""
    known, random = traits(model), is_random(model, images)
    if random and not known.stochastic and known.declared:
        said = Finding("randomness", False, "two forward passes differ, though the model is declared deterministic")
    elif random:
        said = Finding("randomness", True, f"random: every gradient averages {EOT_DRAWS} draws, verdicts are votes")
    else:
        said = Finding("randomness", True, "two forward passes agree bit for bit")
    texts = {
        "exact": "exact, as declared" if known.declared else "not declared by every module: attack without it too",
        "bpda": "a surrogate stands in for some step (BPDA)",
        "none": "some step has none: its surrogate, or the identity, stands in (BPDA)",
    }
    if isinstance(model, ScoresOnly):
        return [said]
    return [said, Finding("gradient", True, texts[known.gradient])]  # "input gradient" says whether there is one


def _gradients(model: nn.Module, images: Tensor) -> Finding:
    """Whether the input gradient exists, is finite and not zero."""
    if isinstance(model, ScoresOnly):
        return Finding("input gradient", True, "there is none: attacks by scores alone, which may miss much")
    followed = _tried("input gradient", lambda: check_followed(model, images))
    if not followed.good:
        return followed
    leaf = images.clone().requires_grad_(True)
    try:
        with frozen(model), attackable(model), torch.enable_grad():
            logits = called(model, leaf)
            (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, logits.argmax(1)), leaf)
    except RuntimeError:
        return Finding("input gradient", False, "there is none: the model cuts the graph (detach, numpy, no_grad?)")
    if not bool(gradient.isfinite().all()):
        return Finding("input gradient", False, "NaN or infinite for some image")
    dead = int((gradient.flatten(1).abs().amax(1) == 0).sum())
    said = f"zero for {dead} of {len(images)} images" if dead else "finite and nowhere zero"
    return Finding("input gradient", dead == 0, said)


def measure(model: nn.Module, images: Tensor, trials: int = TRIALS) -> Speed:
    """Time forward and gradient passes on one tile; the best of a few trials after a warm-up."""

    def forward() -> None:
        with torch.no_grad():
            called(model, images)

    def gradient() -> None:
        leaf = images.clone().requires_grad_(True)
        with torch.enable_grad():
            value = called(model, leaf).logsumexp(1).sum()
            if value.requires_grad:
                torch.autograd.grad(value, leaf, allow_unused=True)

    with frozen(model), attackable(model):
        once, there_and_back = _timed(forward, trials), _timed(gradient, trials)
    own = search_seconds(images) if once < TINY else 0.0
    return Speed(once / len(images), there_and_back / len(images), own)


def search_seconds(images: Tensor) -> float:
    """Seconds an image and pass that a search takes by itself: Square's queries on a model that costs nothing."""
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    batch = Batch(images.detach().clamp(0.1, 1.0), labels, torch.arange(len(images), device=images.device))
    model, taken = _Mean().eval(), []
    for queries in QUERIES:
        attack = Square(Linf(8 / 255), queries=queries)
        taken.append(_timed(lambda: attack(model, batch, tile=len(images)), 1))  # noqa: B023 - called at once
    return max(0.0, (taken[1] - taken[0]) / (QUERIES[1] - QUERIES[0]) / len(images))


class _Mean(nn.Module):
    """Class 0, as long as the image is not black."""

    traits = traits(nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, 2)."""
        mean = images.flatten(1).mean(1, keepdim=True)
        return torch.cat([mean, -mean], 1)


def _timed(work: Callable[[], object], trials: int) -> float:
    work()
    best = float("inf")
    for _ in range(trials):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def bills(
    threat: Threat, speed: Speed, num_classes: int, images: int, random: bool = False, beside: Sequence[Attack] = (),
    scores: bool = False,
) -> list[Bill]:  # fmt: skip
    """The cost of each version of AutoAttack, at most: as if no image were broken.

    Args:
        threat: of the evaluation.
        speed: from ``measure``.
        num_classes: K.
        images: how many are classified right.
        random: whether every gradient averages several draws.
        beside: attacks that the model needs with each version, see ``hauberk.verbs.attack.suite``.
        scores: whether the model gives no gradients.
    """
    planned = by_scores(threat) if scores else sequences(threat)
    versions = ["fast", "standard"] if scores else ["rand"] if random else ["fast", "standard", "plus"]
    found = []
    known: dict[Attack, tuple[int, int]] = {}
    for version in versions:
        forwards = backwards = 0
        for stage in (*planned[version], *beside):
            known.setdefault(stage, passes(stage, num_classes))
            forwards, backwards = forwards + known[stage][0], backwards + known[stage][1]
        seconds = images * speed.seconds(forwards, backwards)
        found.append(Bill(version, forwards, backwards, seconds))
    return found


def passes(attack: Attack, num_classes: int, random: bool = False) -> tuple[int, int]:
    """Most forward and backward passes that an attack spends on one image that withstands it.

    Of a random model every value and gradient is the mean of several draws, unless the attack says how many.

    Counted on a linear classifier with its border at five times the budget: a minimum-norm attack gets there and pays
    for its way back, and no image falls.  Long and repeated walks are counted at two short lengths; passes grow evenly
    with each.  A registered loss takes the passes of cross-entropy, and an attack on a part is counted as one on the
    whole.
    """
    # what is around one counts it inside
    stages = attack.stages() if isinstance(attack, AutoAttack | EOTSweep) else (attack,)
    own = [stage.eot is not None or isinstance(stage, EOT) for stage in stages]
    draws = [EOT_DRAWS if random and not mine else 1 for mine in own]
    found = [(n * f, n * b) for n, (f, b) in zip(draws, (_passes(s, num_classes) for s in stages), strict=True)]
    return sum(f for f, _ in found), sum(b for _, b in found)


def _passes(attack: Attack, num_classes: int) -> tuple[int, int]:
    if isinstance(attack, PartAttack):
        forwards, backwards = _passes(attack.search_of, num_classes)
        return forwards + TRIED, backwards
    if isinstance(attack, EOT):
        forwards, backwards = _passes(attack.inner, num_classes)
        kept = len(SEEN) * attack.votes + 2 * max(attack.votes, attack.tries)
        return attack.draws * forwards + kept, attack.draws * backwards
    if isinstance(attack, Wrapping):
        towards = isinstance(attack, Towards)
        forwards, backwards = passes(attack.inner, 2 if towards else num_classes)
        return forwards + (JUDGED if towards else ROUNDED), backwards
    if isinstance(attack.loss, AttackLoss):
        attack = replace(attack, loss="ce")
    for name, (less, enough) in LENGTHS.items():
        length = getattr(attack, name, None) or 0
        length = min(length, num_classes - 1) if name == "targets" else length
        if length > enough:
            walks: list[Any] = [{name: n} for n in (less, enough)]
            short, longer = (_passes(replace(attack, **walk), num_classes) for walk in walks)
            more = (length - enough) / (enough - less)
            forwards, backwards = (b + math.ceil(more * (b - a)) for a, b in zip(short, longer, strict=True))
            return forwards, backwards
    return _count(attack, num_classes)


def _count(attack: Attack, num_classes: int) -> tuple[int, int]:
    eps = 0.02 * norms(torch.full((1, *IMAGE), 0.5), attack.threat.norm).item()
    return _counted(replace(attack, threat=replace(attack.threat, eps=eps)), num_classes)


@lru_cache(maxsize=1024)  # the suites share most of their stages
def _counted(attack: Attack, num_classes: int) -> tuple[int, int]:
    image, small = torch.full((1, *IMAGE), 0.5), attack.threat
    batch = Batch(image, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    model = _Far(num_classes, 5.0 * small.eps / norms(torch.ones_like(image), small.norm).item())
    found = attack(model.eval(), batch, tile=1)
    return int(found.forwards), int(found.backwards)


class _Far(nn.Module):
    """Class 0 until every pixel has grown by ``room``; then all others, one shortly after the other."""

    traits = traits(nn.Identity())

    def __init__(self, num_classes: int, room: float) -> None:
        super().__init__()
        later = torch.linspace(1.0, 1.1, num_classes - 1)
        self.offsets = torch.cat([torch.zeros(1), -room * later])

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, K)."""
        slope = torch.ones_like(self.offsets)
        slope[0] = 0.0
        return 10.0 * (self.offsets + (images - 0.5).flatten(1).mean(1, keepdim=True) * slope)


def _tried(name: str, check: Callable[[], None], good: str = "") -> Finding:
    try:
        check()
    except HauberkError as error:
        return Finding(name, False, f"{error.message}: {error.hint}" if error.hint else error.message)
    return Finding(name, True, good)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
