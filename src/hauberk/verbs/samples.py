"""The images of an evaluation, and what stands before its first unit of work."""

from __future__ import annotations

from hauberk.batch import Batch, Samples
from hauberk.boundary import answer, check_classes, check_output, check_weights
from hauberk.classifier import TILE, check_classifier, check_eval, check_separate
from hauberk.data import Dataset, Selection
from hauberk.data.choice import Choice, chosen
from hauberk.devices import arithmetic, device_of, place, said
from hauberk.errors import HauberkError
from hauberk.evaluation.fingerprint import probes
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.sense import check_sense, check_votes
from hauberk.recipes import Plan
from hauberk.subjects import Subject

PROBED = 16  # images on which a model is tried before anything is spent on it


def evaluation_samples(
    dataset: Dataset, split: str = "test", images: int | None = None, choice: Choice = "first"
) -> Selection:
    """The images of a split that an evaluation takes, still integers.

    Args:
        dataset: the data set.
        split: ``train``, ``val`` or ``test``.
        images: how many; None for all.
        choice: ``hashed`` or ``first``, see :func:`hauberk.data.choice.chosen`.

    Raises:
        HauberkError: if there are fewer.
    """
    part = {"train": dataset.train, "val": dataset.val, "test": dataset.test}[split]
    if not len(part):
        raise HauberkError(f"{dataset.name} has no {split} images", "hold some out of training with val_size")
    if images is not None and images > len(part):
        raise HauberkError(
            f"{dataset.name} has {len(part)} {split} images, but {images} were requested", "request fewer images"
        )
    return Selection(part, chosen(part.ids, part.labels, images, choice))


def evaluation_batch(
    dataset: Dataset, split: str = "test", images: int | None = None, choice: Choice = "first"
) -> Batch:
    """The images of :func:`evaluation_samples` as floats, all at once."""
    return evaluation_samples(dataset, split, images, choice).batch()


def probe_batch(dataset: Dataset, images: int) -> Batch:
    """A few images that nothing is reported on: of the validation split, or of the training split without one.

    For data that is only for evaluation they are test images; nothing is chosen by them.
    """
    split = next(part for part in (dataset.val, dataset.train, dataset.test) if len(part))
    return evaluation_batch(dataset, split.name, min(images, len(split)), "hashed")


def check_target(target: Subject, samples: Samples, tile: int = TILE) -> None:
    """Raise unless the model keeps the contract on some of these images, and has a logit for each class of the data."""
    check_eval(target.model)
    first = samples.select(slice(0, PROBED)).batch().to(device_of(target.model))
    check_weights(target.model)
    logits = answer(target.model, first.images)
    check_output(logits, len(first), first.images.dtype)
    check_classes(logits.shape[1], target.dataset.num_classes)
    check_classifier(target.model, first)
    check_separate(target.model, first.images, tile)


def setting_of(target: Subject, plan: Plan, *methods: object) -> tuple[Selection, Setting]:
    """The images of an evaluation, still integers, and what its units share, once model and methods fit them.

    The model is on the plan's device from here on.
    """
    check_sense(*methods, shape=target.dataset.input_shape)
    check_votes(target.model)
    data = target.dataset
    samples = evaluation_samples(data, plan.split, plan.images, plan.choice)
    said(plan.device, plan.precision)  # whether it is there
    place(target.model, plan.device)
    with arithmetic(plan.precision):
        check_target(target, samples, plan.tile)
    names = (data.name, plan.split, data.classes)
    numbers = (plan.seed, plan.tile, plan.gallery if data.pictures else 0)
    return samples, Setting(*names, *numbers, plan.choice, plan.precision, data.calibration, probes(data.test))


def note(target: Subject) -> None:
    """Keep the remarks on model and data with the run, for the report."""
    with target.begin().editing() as info:
        stops = map(str, info.get("stopped", {}).values())
        info["notes"] = [*target.notes, *info.get("known_images", ()), *stops]
