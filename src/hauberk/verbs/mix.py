"""Mixes of two models: chosen on validation data from saved logits, and written as one run."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hauberk import registry
from hauberk.attacks import APGD, Attack, AutoAttack
from hauberk.batch import Batch
from hauberk.certificates import MixedCertificate
from hauberk.classifier import check_classifier, frozen, logits_of, predictor_name
from hauberk.data.files import read_npz
from hauberk.defences import MixedClassifier
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier
from hauberk.devices import arithmetic, device_of, place
from hauberk.errors import HauberkError
from hauberk.evaluation import calibration
from hauberk.evaluation.alpha_path import mix_records
from hauberk.evaluation.alpha_steps import margin, softmax
from hauberk.evaluation.calibration import AlphaRange, CleanAlpha, Mixability, RobustAlpha, Scales
from hauberk.evaluation.fingerprint import answers, probes
from hauberk.evaluation.keys import revisions
from hauberk.evaluation.nuts import Nuts, nuts
from hauberk.evaluation.sense import check_sense
from hauberk.evaluation.signing import sign
from hauberk.evaluation.units import UNIT_TILES
from hauberk.evaluation.work import Report, Work
from hauberk.identity import structure
from hauberk.recipes import Plan
from hauberk.records import content_hash, data_hash, write_once
from hauberk.runs import Run
from hauberk.storage import atomic_write
from hauberk.subjects import Subject
from hauberk.threats import Threat
from hauberk.verbs import wishes
from hauberk.verbs.certify import default_certificate
from hauberk.verbs.samples import PROBED, evaluation_samples, probe_batch, setting_of
from hauberk.verbs.wishes import Kind as Kind

RADII = tuple(round(0.05 * k, 2) for k in range(41))
CALIBRATION = Plan(split="val", images=1000)


@dataclass(frozen=True)
class Mixture:
    """How two models are mixed with one weight.

    Args:
        alpha: weight of the robust model in [0, 1].
        accurate_scale: factor on the accurate model's logits.
        robust_scale: factor on the robust model's logits.
    """

    alpha: float
    accurate_scale: float = 1.0
    robust_scale: float = 1.0

    @property
    def spec(self) -> registry.Spec:
        """The defence without its bases."""
        return {"name": "mixed", **asdict(self)}


# --- writing one --------------------------------------------------------------------------------------------------


def mix(
    accurate: Subject,
    robust: Subject,
    how: Mixture | registry.Spec,
    out: Path | None = None,
    plan: Plan = Plan(),
    report: Report | None = None,
) -> Run:
    """Mix two models into one and save it as a run; a mix with one weight gets its alpha path recorded.

    The path is certified where the robust model has a deterministic certificate.

    Args:
        accurate: the accurate model.
        robust: the robust model.
        how: weight and scales, or the spec of another mix (``mixed_nuts``) without its bases.
        out: the run directory; by default ``runs/mix-<alpha>``.
        plan: split, number of images, seed and tile of the alpha path, which is made on the CPU.
        report: called after each unit.

    Raises:
        HauberkError: if the two were made for different data.
    """
    check_pair(accurate, robust)
    spec = how.spec if isinstance(how, Mixture) else dict(how)
    model: nn.Module = registry.build(spec, "defence", accurate=accurate.model, robust=robust.model).eval()
    bases = {"accurate": accurate.recipe["name"], "robust": robust.recipe["name"]}
    run = _written(model, spec, bases, robust, out, plan)
    if type(model) is not MixedClassifier:
        return run
    started = time.monotonic()
    base = default_certificate(robust)
    certificate = MixedCertificate(base) if base is not None and base.kind == "deterministic" else None
    samples, setting = setting_of(robust, plan.model_copy(update={"device": "cpu"}))  # as every proof
    place(model, "cpu")
    done = mix_records(model, samples, certificate, RADII, setting, Work(run.records, report=report))
    sign(run, "mix_seconds", started, done, samples.ids)
    return run


def check_pair(accurate: Subject, robust: Subject) -> None:
    """Raise unless both keep the contract on the same data and have the same number of logits."""
    if accurate.dataset.name != robust.dataset.name or accurate.dataset.classes != robust.dataset.classes:
        raise HauberkError(
            f"the models are for different data: {accurate.dataset.name} and {robust.dataset.name}",
            "mix two models of one dataset",
        )
    few = probe_batch(robust.dataset, PROBED)
    outputs = [check_classifier(s.model, few.to(device_of(s.model))) for s in (accurate, robust)]
    if outputs[0] != outputs[1]:
        raise HauberkError(
            f"the accurate model has {outputs[0]} logits, but the robust model has {outputs[1]}",
            "mix two models for the same classes",
        )


def bases(network: Subject) -> tuple[Subject, Subject]:
    """The accurate and the robust model inside a trained mixing network."""
    model = _network(network)
    return tuple(Subject(network.run, base, network.dataset) for base in (model.accurate, model.robust))  # type: ignore[return-value]


def scales_of(network: Subject) -> tuple[float, float]:
    """The factors on the accurate and the robust model's logits in a mixing network."""
    model = _network(network)
    return model.accurate_scale, model.robust_scale


def narrow(
    network: Subject, alpha_min: float, alpha_max: float, out: Path | None = None, plan: Plan = Plan()
) -> Run:
    """Save a trained mixing network with another range of weights.

    Args:
        network: a run whose model is ``adaptive_mixed``.
        alpha_min: least weight of the robust model.
        alpha_max: largest one.
        out: the run directory.
        plan: only its seed is kept.
    """
    model = _network(network)
    spec = model.spec | {"alpha_min": alpha_min, "alpha_max": alpha_max}
    narrowed: nn.Module = registry.build(spec, "defence")
    narrowed.load_state_dict(model.state_dict())
    short = {key: value for key, value in spec.items() if key not in ("accurate", "robust")}
    return _written(narrowed.eval(), short, {"network": network.recipe["name"]}, network, out, plan)


def _written(
    model: nn.Module, spec: registry.Spec, bases: Mapping[str, str], like: Subject, out: Path | None, plan: Plan
) -> Run:
    name = f"mix-{spec.get('alpha', spec.get('alpha_min')):g}"
    recipe = {"name": name, "data": like.recipe["data"], "model": spec, "bases": dict(bases)}
    run = Run.create(out or Path("runs") / name, recipe)
    run.save_model(model, {"dataset": recipe["data"], "classes": list(like.dataset.classes)}, seed=plan.seed,
                   notes=list(like.dataset.notes))  # fmt: skip
    return run


def _network(subject: Subject) -> AdaptiveMixedClassifier:
    if isinstance(subject.model, AdaptiveMixedClassifier):
        return subject.model
    raise HauberkError(
        f"{subject.run.path} is not a mixing network but {type(subject.model).__name__}",
        "train one first: hauberk train mixing_cifar10_small",
    )


# --- choosing one ---------------------------------------------------------------------------------------------------

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Logits:
    """The logits of both models on validation images, from which every choice is made without further model calls.

    Args:
        labels: (N,).
        accurate: logits of the accurate model, unscaled, (N, K).
        robust: those of the robust model, (N, K).
        accurate_attacked: the accurate model's at its own points of smallest probability margin, (N, K).
        robust_attacked: likewise of the robust model, (N, K).
        clean_sigmoids: of a mixing network at the images, (N,); empty without one.
        attacked_sigmoids: at the robust model's worst points, (N,).
    """

    labels: NDArray[np.int64]
    accurate: Table
    robust: Table
    accurate_attacked: Table
    robust_attacked: Table
    clean_sigmoids: Table
    attacked_sigmoids: Table


def default_attack(threat: Threat) -> AutoAttack:
    """Cross-entropy and the targeted difference of logits; it keeps the points of smallest margin, broken or not."""
    attacks = (APGD(threat, steps=50), APGD(threat, steps=50, loss="dlr", targets=3))
    return AutoAttack(threat, version="custom", attacks=attacks)


def gather(
    accurate: Subject, robust: Subject, attack: Attack, plan: Plan = CALIBRATION, network: Subject | None = None,
    folder: Path = Path("runs/.calibration"),
) -> Logits:  # fmt: skip
    """Run both models on validation images, clean and each attacked by itself; the logits are saved for later calls.

    Args:
        accurate: the accurate model.
        robust: the robust model.
        attack: what attacks each of them.
        plan: number of images, seed and tile; its split is ``val``.
        network: a trained mixing network over the two.
        folder: where the logits are kept, under a name that their origin decides; ``runs/*`` does not name it.

    Raises:
        HauberkError: if asked to choose on the test split.
    """
    if plan.split != "val":
        raise HauberkError("a mix must not be chosen on test data", "calibrate on the validation split")
    check_pair(accurate, robust)
    check_sense(attack, shape=robust.dataset.input_shape)
    if not len(robust.dataset.val):
        raise HauberkError(
            "there are no validation images to choose on", "hold some out with val_size, or give --alpha"
        )
    samples = evaluation_samples(robust.dataset, "val", plan.images, plan.choice)
    for subject in (accurate, robust):
        seen = int(torch.isin(samples.ids, torch.as_tensor(subject.dataset.train.ids)).sum())
        if seen:
            raise HauberkError(
                f"{subject.run.path} was trained on {seen} of these {len(samples)} validation images",
                "mix models that were trained with the same val_size",
            )
    subjects = [accurate, robust, *([] if network is None else [network])]
    for subject in subjects:
        place(subject.model, plan.device)
    where = device_of(robust.model).type
    origin: dict[str, object] = {} if where == "cpu" else {"device": where, "precision": plan.precision}
    origin |= {
        "models": [predictor_name(s.model) for s in subjects], "attack": registry.spec(attack), "seed": plan.seed,
        "tile": plan.tile, "data": data_hash(samples), "structures": [structure(s.model) for s in subjects],
        "revisions": revisions(attack), "answers": [_answers(s, folder) for s in subjects],
    }  # fmt: skip
    path = folder / f"logits-{content_hash(origin)}.npz"
    if not path.exists():
        units = torch.split(torch.arange(len(samples)), UNIT_TILES * plan.tile)
        batches = (samples.select(rows).batch().to(device_of(robust.model)) for rows in units)
        _save(path, _joined([_asked(accurate.model, robust.model, attack, b, plan, network) for b in batches]))
    return Logits(**read_npz(path, [f.name for f in fields(Logits)]))


def _answers(subject: Subject, folder: Path) -> str:
    """Which function was asked; its fingerprint is kept beside the logits."""
    data = subject.dataset
    first = data.test.select(slice(1)).batch().to(device_of(subject.model))
    asked = answers(subject.model, first.images, probes(data.test), folder)
    for new in asked.new:
        write_once(folder, new)
    return asked.id


def _asked(
    accurate: nn.Module, robust: nn.Module, attack: Attack, batch: Batch, plan: Plan, network: Subject | None
) -> Logits:
    def worst(model: nn.Module) -> Batch:
        with arithmetic(plan.precision):
            found = attack(model, batch, plan.seed, plan.tile)
        return Batch(found.probability_margin_point, batch.labels, batch.ids)

    def said(model: nn.Module, where: Batch) -> Table:
        with frozen(model):
            return logits_of(model, where, plan.tile).double().cpu().numpy()

    own, other = worst(accurate), worst(robust)
    empty = np.zeros(0)
    clean, attacked = (empty, empty) if network is None else (_sigmoids(network, w, plan.tile) for w in (batch, other))
    return Logits(
        batch.labels.cpu().numpy(), said(accurate, batch), said(robust, batch), said(accurate, own),
        said(robust, other), clean, attacked,
    )  # fmt: skip


def _joined(parts: list[Logits]) -> Logits:
    return Logits(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Logits)})


def _sigmoids(network: Subject, batch: Batch, tile: int) -> Table:
    model = _network(network)
    with frozen(model):
        found = [model.outputs(part.images)["alpha_logit"][:used] for part, used in batch.tiles(tile)]
    return np.concatenate([f.double().sigmoid().cpu().numpy() for f in found])


def _save(path: Path, logits: Logits) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f.name: getattr(logits, f.name) for f in fields(Logits)})
    atomic_write(path, buffer.getvalue())


def mixability(logits: Logits) -> Mixability:
    """Whether the pair's confidence gaps let a mix help, see ``calibration.mixability``."""
    g, own = softmax(logits.accurate), softmax(logits.accurate_attacked)
    h, other = softmax(logits.robust), softmax(logits.robust_attacked)
    return calibration.mixability(g, own, h, other, logits.labels)


Choice = CleanAlpha | RobustAlpha | Scales | Nuts | AlphaRange


def choose(
    logits: Logits,
    kind: Kind,
    *,
    clean: float | None = None,
    robust: float | None = None,
    keep: float | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
    width: float = 0.1,
) -> tuple[registry.Spec, Choice]:
    """The mix for a target of clean or estimated robust accuracy, and its predicted accuracies.

    Args:
        logits: from ``gather``.
        kind: ``alpha`` chooses one weight, ``scales`` also the scales, ``nuts`` the settings of MixedNUTS, ``range``
            the range of a mixing network's weights.
        clean: wanted clean accuracy, for ``alpha`` and ``range``.
        robust: wanted estimated robust accuracy, for ``alpha``, ``scales`` and ``nuts``.
        keep: instead of it, the share of the robust model's own accuracy under attack that has to stay.
        scales: factors on both models' logits, for ``alpha``, and the network's own for ``range``.
        width: of the range.

    Raises:
        HauberkError: if the wish does not fit the kind, or nothing grants it.
    """
    labels, (sharp, hot) = logits.labels, scales
    g, h = softmax(sharp * logits.accurate), softmax(hot * logits.robust)
    margins = margin(softmax(hot * logits.robust_attacked), labels)
    wish = wishes.wished(kind, clean, robust, keep, float((margins > 0.0).mean()))
    found: Choice
    if kind == "nuts":
        found = nuts(logits.accurate, logits.robust, logits.robust_attacked, labels, wish)
        names = ("alpha", "scale", "shift", "power", "surrogate_alpha")
        return {"name": "mixed_nuts"} | {n: getattr(found, n) for n in names}, found
    if kind == "scales":
        found = calibration.scales(logits.accurate, logits.robust, logits.robust_attacked, labels, wish)
        return Mixture(found.alpha, found.accurate_scale, found.robust_scale).spec, found
    if kind == "range":
        found = calibration.alpha_range(
            g, h, labels, logits.clean_sigmoids, logits.attacked_sigmoids, margins, width, wish
        )
        return {"alpha_min": found.alpha_min, "alpha_max": found.alpha_max}, found
    found = (
        calibration.alpha_for_robust(margins, wish)
        if clean is None
        else calibration.alpha_for_clean(g, h, labels, wish)
    )
    return Mixture(found.alpha, sharp, hot).spec, found
