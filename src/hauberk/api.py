"""The verbs, for notebooks and for the command line: each takes artefacts and leaves one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hauberk import registry
from hauberk.attacks import APGD, Attack, AutoAttack, PartAttack
from hauberk.attacks.autoattack import Version
from hauberk.batch import Batch, Samples
from hauberk.boundary import answer, check_classes, check_output, check_weights
from hauberk.certificates import Certificate, LipschitzCertificate, MixedCertificate
from hauberk.certificates.rounding import exact_forward
from hauberk.classifier import check_classifier, check_eval, decide, evaluating, is_random
from hauberk.data import Dataset, Selection, load
from hauberk.data.choice import Choice, chosen
from hauberk.defences import MixedClassifier, SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.evaluation.fingerprint import probes
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.lipschitz_report import LipschitzReport, input_gradients, lipschitz_report
from hauberk.evaluation.preflight import Bill, Finding, Speed, bills, measure, preflight
from hauberk.evaluation.sense import check_budget, check_sense, check_votes
from hauberk.evaluation.signing import sign
from hauberk.evaluation.units import (
    Report,
    Work,
    attack_records,
    certificate_records,
    diagnosis_records,
)
from hauberk.recipes import Evaluation, Recipe, parse
from hauberk.report.lipschitz import plain
from hauberk.runs import Run, environment
from hauberk.subjects import Subject as Subject
from hauberk.subjects import subject as subject
from hauberk.threats import Norm, Threat
from hauberk.training.distributed import is_main
from hauberk.training.loop import fit
from hauberk.training.progress import Progress

DIAGNOSED = 64  # images on which an attack is judged
PROBED = 16  # images on which a model is tried before anything is spent on it


def train(
    recipe: Recipe, out: Path | None = None, report: Callable[[Progress], None] | None = None
) -> Run:
    """Train a recipe's model; the same call resumes an interrupted run and returns a finished one at once.

    Args:
        recipe: what to train.
        out: the run directory; by default ``runs/<name>``.
        report: called with the progress.

    Returns:
        the run, with its model saved.
    """
    run, plain_recipe = Run(out or Path("runs") / recipe.name), recipe.plain()
    new = run.check(plain_recipe, _completed) is None
    if run.has_model:
        return Run.create(run.path, plain_recipe, _completed)
    dataset = load(recipe.data)
    torch.manual_seed(recipe.seed)  # the initial weights; every other draw has a generator of its own
    model = build_model(recipe, dataset)
    objective = registry.build(recipe.objective, "objective")
    check_sense(objective, recipe.training, shape=dataset.input_shape)
    check_start(model, dataset)
    started = time.monotonic()
    run = Run.create(run.path, plain_recipe, _completed)
    try:
        trained = fit(model, objective, dataset, recipe.training, run, seed=recipe.seed, report=report)
    except HauberkError:
        if new and is_main():
            run.abandon()
        raise
    if recipe.wrap is not None:
        trained = registry.build(recipe.wrap, "defence", base=trained)
    if not is_main():
        return run
    seconds = time.monotonic() - started
    run.save_model(
        trained.eval(),
        {"dataset": recipe.data, "classes": list(dataset.classes)},
        seed=recipe.seed,
        timings=run.info.get("timings", {}) | {"train_seconds": round(seconds, 1)},
        environment=environment(),
    )
    return run


def check_start(model: nn.Module, dataset: Dataset) -> None:
    """Raise unless an untrained model takes the images of its data and has a logit for each class."""
    few = dataset.train.select(slice(0, 2)).batch()
    with torch.random.fork_rng(devices=[]), evaluating(model):
        logits = answer(model, few.images)
    check_output(logits, len(few))
    check_classes(logits.shape[1], dataset.num_classes)


def _completed(known: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of a run with the settings that are younger than it, which had their defaults then."""
    try:
        return parse(known).plain()
    except HauberkError:
        return known


def build_model(recipe: Recipe, dataset: Dataset) -> nn.Module:
    """The untrained model of a recipe: a network, or a defence around models that are there already."""
    kind = registry.entry(str(recipe.model["name"])).kind
    context = model_context(dataset)
    for key, value in context.items():
        given = recipe.model.get(key, value)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise HauberkError(f"the model's {key} is {given}, that of the data {value}", f"leave {key} out of it")
    model: nn.Module = registry.build(recipe.model, "defence" if kind == "defence" else "model", **context)
    return model


def model_context(dataset: Dataset) -> dict[str, Any]:
    """What a model's builder may ask of the data: shape, classes, and the training split's statistics."""
    return {
        "input_shape": dataset.input_shape,
        "num_classes": dataset.num_classes,
        "mean": dataset.mean,
        "std": dataset.std,
    }


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
        raise HauberkError(f"{dataset.name} has {len(part)} {split} images, {images} were asked for", "ask for fewer")
    return Selection(part, chosen(part.ids, part.labels, images, choice))


def evaluation_batch(
    dataset: Dataset, split: str = "test", images: int | None = None, choice: Choice = "first"
) -> Batch:
    """The images of :func:`evaluation_samples` as floats, all at once."""
    return evaluation_samples(dataset, split, images, choice).batch()


def probe_batch(dataset: Dataset, images: int) -> Batch:
    """A few images that nothing is reported on: of the validation split, or of the training split without one."""
    split = dataset.val if len(dataset.val) else dataset.train
    return evaluation_batch(dataset, split.name, min(images, len(split)), "hashed")


def check_target(target: Subject, samples: Samples) -> None:
    """Raise unless the model keeps the contract on some of these images, and has a logit for each class of the data."""
    first = samples.select(slice(0, PROBED)).batch()
    check_eval(target.model)
    check_weights(target.model)
    logits = answer(target.model, first.images)
    check_output(logits, len(first), first.images.dtype)
    check_classes(logits.shape[1], target.dataset.num_classes)
    check_classifier(target.model, first)


def attack(
    target: Subject,
    attacks: Sequence[Attack],
    plan: Evaluation = Evaluation(),
    shard: tuple[int, int] = (0, 1),
    report: Report | None = None,
) -> Run:
    """Attack a subject's images and leave records in its run.

    Args:
        target: from ``subject``.
        attacks: what to run, one after another; the report takes the worst case over them, image by image.
        plan: split, number of images, seed, tile, gallery; its own attacks are not read.
        shard: (i, n) to do every n-th unit.
        report: called after each unit.
    """
    samples, setting = setting_of(target, plan, *attacks)
    started = time.monotonic()
    work = Work(target.run.records, shard, report, target.begin)
    done = [part for item in attacks for part in attack_records(target.model, samples, item, setting, work)]
    if done:
        sign(target.begin(), "attack_seconds", started, done, samples.ids)
        _note(target)
    return target.run


def suite(target: Subject, threat: Threat, version: Version = "fast") -> tuple[AutoAttack, *tuple[PartAttack, ...]]:
    """AutoAttack as a model needs it: with the losses that read its outputs, and with attacks on each of its parts.

    A defence made of classifiers declares ``adaptive_losses`` and ``parts()``, so it is not attacked as if it were one
    net by accident; the report takes the worst over all, image by image.

    Args:
        target: from ``subject``.
        threat: norm ball in the pixel box.
        version: of AutoAttack.
    """
    model = target.model
    losses = tuple(getattr(model, "adaptive_losses", ()))
    parts = getattr(model, "parts", None)
    names = tuple(parts()) if callable(parts) else ()
    return AutoAttack(threat, version=version, losses=losses), *(PartAttack(threat, part=name) for name in names)


def diagnose(
    target: Subject, attack: Attack, plan: Evaluation = Evaluation(images=64), report: Report | None = None
) -> Run:
    """Judge whether an attack's failures on a subject can be believed, and leave the checks in its run.

    Args:
        target: from ``subject``.
        attack: the attack to judge.
        plan: split, number of images (64 to 128 are enough), seed and tile.
        report: called at the end.
    """
    samples, setting = setting_of(target, plan, attack)
    started = time.monotonic()
    work = Work(target.run.records, report=report, begin=target.begin)
    diagnosis_records(target.model, samples, attack, setting, work)
    sign(target.begin(), "diagnose_seconds", started)
    _note(target)
    return target.run


@dataclass(frozen=True)
class Preflight:
    """What ``check`` saw.

    Args:
        findings: of the model.
        speed: seconds an image; None where the model cannot be called.
        bills: what each version of AutoAttack takes at most.
    """

    findings: tuple[Finding, ...]
    speed: Speed | None = None
    bills: tuple[Bill, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing stands against an evaluation."""
        return all(f.good for f in self.findings)


def check(target: Subject, threat: Threat | None = None, images: int = 1000, tile: int = 64) -> Preflight:
    """Look at a model before anything is spent on it; with a threat, predict what each suite takes.

    Args:
        target: from ``subject``.
        threat: of the evaluation planned.
        images: how many it will see.
        tile: rows of a model call.
    """
    if threat is not None:
        check_budget(threat, target.dataset.input_shape)
    batch = probe_batch(target.dataset, tile)
    findings = tuple(preflight(target.model, batch, tile, target.dataset.num_classes))
    blocking = {"forward", "logits", "images", "classes", "weights"}
    if any(f.name in blocking and not f.good for f in findings):
        return Preflight(findings)
    speed = measure(target.model, next(batch.tiles(tile))[0].images)
    if threat is None:
        return Preflight(findings, speed)
    random = is_random(target.model, batch.images[:1])
    right = round(images * float((decide(target.model, batch, tile=tile) == batch.labels).float().mean()))
    first, *others = suite(target, threat)
    adaptive = AutoAttack(threat, version="custom", attacks=(APGD(threat),), losses=first.losses).stages()[1:]
    beside = (*adaptive, *others)
    return Preflight(findings, speed, tuple(bills(threat, speed, target.dataset.num_classes, right, random, beside)))


def certify(
    target: Subject,
    certificates: Sequence[Certificate],
    plan: Evaluation = Evaluation(),
    shard: tuple[int, int] = (0, 1),
    report: Report | None = None,
) -> Run:
    """Certify a subject's images and leave records in its run; arguments as ``attack``."""
    samples, setting = setting_of(target, plan, *certificates)
    started = time.monotonic()
    work = Work(target.run.records, shard, report, target.begin)
    done = [part for item in certificates for part in certificate_records(target.model, samples, item, setting, work)]
    if done:
        sign(target.begin(), "certify_seconds", started, done, samples.ids)
        _note(target)
    return target.run


def _note(target: Subject) -> None:
    """Keep with the run what there is to know about its data, for the report."""
    with target.begin().editing() as info:
        info["notes"] = list(target.dataset.notes)


def setting_of(target: Subject, plan: Evaluation, *methods: object) -> tuple[Selection, Setting]:
    """The images of an evaluation, still integers, and what its units share, once model and methods fit them."""
    check_sense(*methods, shape=target.dataset.input_shape)
    check_votes(target.model)
    data = target.dataset
    samples = evaluation_samples(data, plan.split, plan.images, plan.choice)
    check_target(target, samples)
    names = (data.name, plan.split, data.classes)
    return samples, Setting(*names, plan.seed, plan.tile, plan.gallery, plan.choice, probes(data.test))


def evaluate(run: Run, report: Report | None = None) -> Run:
    """Run the attacks, certificates and diagnoses of a run's recipe."""
    recipe = parse(run.recipe)
    target, plan = subject(run.path), recipe.evaluation
    attacks = [registry.build(spec, "attack") for spec in plan.attacks]
    certificates = [registry.build(spec, "certificate") for spec in plan.certificates]
    if attacks:
        attack(target, attacks, plan, report=report)
    if certificates:
        certify(target, certificates, plan, report=report)
    few = plan.model_copy(update={"images": min(DIAGNOSED, plan.images or DIAGNOSED)})
    for spec in plan.diagnoses:
        diagnose(target, registry.build(spec, "attack"), few, report)
    return run


def lipschitz(target: Subject, norm: Norm = "l2", images: int | None = 8) -> LipschitzReport:
    """Bound a model layer by layer, and keep the report and some input gradients with its run.

    Args:
        target: the model; one that the walk refuses gets its gradients and the reason.
        norm: of the bounds.
        images: the first so many test images, whose gradients are shown; see ``lipschitz_report`` for what is measured.
    """
    samples = evaluation_samples(target.dataset, "test", images)
    batch = samples.batch()
    check_weights(target.model)
    check_output(answer(target.model, batch.images), len(batch), batch.images.dtype)
    report = lipschitz_report(target.model, batch.images, norm)
    found = plain(report, batch.ids, batch.images, input_gradients(target.model, batch.images))
    with target.begin().editing() as info:
        info["lipschitz"] = info.get("lipschitz", {}) | {norm: found}
    return report


def default_certificate(target: Subject) -> Certificate | None:
    """The certificate that fits a model by its structure: a vote, a mix, a Lipschitz walk, or none."""
    model = target.model
    if isinstance(model, SmoothedClassifier):
        smoothing: Certificate = registry.build({"name": "smoothing", "sigma": model.noise.sigma})
        return smoothing
    if isinstance(model, MixedClassifier):
        base = default_certificate(Subject(target.run, model.robust, target.dataset))
        return None if base is None else MixedCertificate(base)
    return None if lipschitz_refusal(target) else LipschitzCertificate()


def certifiable(target: Subject) -> bool:
    """Whether ``certify`` has something to do without being told: the recipe's certificates, or one that fits."""
    planned = target.recipe.get("evaluation", {}).get("certificates")
    return bool(planned) or default_certificate(target) is not None


def lipschitz_refusal(target: Subject) -> str:
    """Why nothing is proved of a model, or of the robust half of a mix, by its layers; empty if something is."""
    if isinstance(target.model, MixedClassifier):
        return lipschitz_refusal(Subject(target.run, target.model.robust, target.dataset))
    try:
        batch = probe_batch(target.dataset, 1)
        with LipschitzCertificate().admitted(target.model, batch, 1):  # the pairwise bounds refuse nothing
            exact_forward(target.model, tuple(batch.images.shape[1:]))
    except HauberkError as error:
        return error.message
    return ""
