"""Whether a model was trained on the validation images, so that choices on them are too optimistic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hauberk.batch import Batch
from hauberk.classifier import frozen, logits_of
from hauberk.devices import device_of
from hauberk.recipes import Plan
from hauberk.runs import Run
from hauberk.statistics import Interval, unpaired_difference, wilson
from hauberk.subjects import Subject
from hauberk.verbs.samples import evaluation_samples

Table = NDArray[np.float64]
MOST = 2000  # test images that are looked at


def known_images(
    subjects: Sequence[Subject], logits: Sequence[Table], labels: NDArray[np.int64], plan: Plan = Plan()
) -> list[str]:
    """One sentence for each model that is more accurate on the validation images than it should be.

    Its accuracy there is compared with that on as many test images, at most 2,000. It is reported where Newcombe's 95 %
    interval of the difference lies above 0, which happens by chance for one of 40 models that were not trained on them.
    Nothing is chosen by the test images.

    Args:
        subjects: the models.
        logits: of each model at the validation images, (N, K).
        labels: of these images, (N,).
        plan: tile and device.
    """
    found = []
    for subject, table in zip(subjects, logits, strict=True):
        seen, fresh = int((table.argmax(1) == labels).sum()), _on_test(subject, min(len(labels), MOST), plan)
        if unpaired_difference((seen, len(labels)), fresh).low > 0.0:
            found.append(_sentence(str(subject.recipe["name"]), wilson(seen, len(labels)), wilson(*fresh)))
    return found


def keep(run: Run, sentences: Sequence[str]) -> None:
    """Keep the sentences with a mix, for its report."""
    if sentences:
        with run.editing() as info:
            info["known_images"] = list(sentences)
            info["notes"] = [*info.get("notes", ()), *sentences]


def _on_test(subject: Subject, images: int, plan: Plan) -> tuple[int, int]:
    """How many test images the model is right on, and of how many."""
    samples = evaluation_samples(subject.dataset, "test", min(images, len(subject.dataset.test)), "hashed")
    right = 0
    with frozen(subject.model):
        for rows in torch.split(samples.order(), plan.tile):
            batch: Batch = samples.select(rows).batch().to(device_of(subject.model))
            right += int((logits_of(subject.model, batch, plan.tile).argmax(1) == batch.labels).sum())
    return right, len(samples)


def _sentence(name: str, seen: Interval, fresh: Interval) -> str:
    return (
        f"{name} is right on {seen.value:.1%} of {seen.n} validation images and on {fresh.value:.1%} "
        f"({fresh.low:.1%} to {fresh.high:.1%}) of {fresh.n} test images. It seems to have learnt the former, and what "
        "is chosen on them promises too much; choose on test images that are then not reported: --calibrate-on 1000"
    )
