"""Names to import paths, with the facts that ``hauberk list`` and ``hauberk explain`` show.

Nothing here imports a method: an entry is loaded when it is built.  ``build(spec)`` and ``spec(obj)`` are the
only way between a plain description (what a recipe holds) and an object, and ``build(spec(x)) == x``.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

from hauberk import trust
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import specs
    from hauberk.specs import Plan
else:
    specs = Later("hauberk.specs")

Kind = Literal["threat", "loss", "attack", "certificate", "objective", "defence", "model", "dataset"]
Spec = dict[str, Any]

CODE = {"hauberk.models.own:own": "source"}  # the setting that names code from outside the package


@dataclass(frozen=True)
class Entry:
    """One registered method.

    Args:
        kind: which family it belongs to.
        name: the name a recipe uses, unique over all kinds.
        path: ``module:attribute``, imported on first use.
        summary: one line for tables.
        reference: paper and equation.
        facts: what else a table shows, for example norms, knowledge, cost.
    """

    kind: Kind
    name: str
    path: str
    summary: str
    reference: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        """Import the class or builder."""
        module, attribute = self.path.split(":")
        target: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return target


_ENTRIES: dict[str, Entry] = {}


def register(kind: Kind, name: str, path: str, summary: str, reference: str = "", **facts: str) -> None:
    """Add a method; a third party calls this with its own ``module:attribute``.

    Raises:
        HauberkError: if the name is taken by another path.
    """
    if name in _ENTRIES and _ENTRIES[name].path != path:
        raise HauberkError(f"the name {name!r} is already registered for {_ENTRIES[name].path}", "choose another name")
    _ENTRIES[name] = Entry(kind, name, path, summary, reference, facts)


def entries(kind: Kind | None = None) -> list[Entry]:
    """All entries of one kind (or of all), in the order of registration."""
    return [e for e in _ENTRIES.values() if kind in (None, e.kind)]


def entry(name: str, kind: Kind | None = None) -> Entry:
    """The entry of that name.

    Raises:
        HauberkError: if there is none; the message names the nearest.
    """
    found = _ENTRIES.get(name) if isinstance(name, str) else None
    if found is not None and kind in (None, found.kind):
        return found
    known = [e.name for e in entries(kind)]
    raise HauberkError(
        f"there is no {kind or 'method'} called {name!r}",
        suggestion(str(name), known) or f"known: {', '.join(known)}",
    )


def suggestion(word: str, known: list[str]) -> str:
    """``did you mean ...?`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def kinds() -> tuple[Kind, ...]:
    """The families of methods."""
    return get_args(Kind)


def number(text: str | float) -> float:
    """A number written as in the literature: ``8/255``, ``0.5`` or ``2e-3``."""
    try:
        return float(Fraction(text)) if isinstance(text, str) and "/" in text else float(text)
    except (ValueError, ZeroDivisionError) as error:
        raise HauberkError(f"expected a number such as 8/255 or 0.03, got {text!r}", "for example 8/255") from error


def build(description: Spec | str, kind: Kind | None = None, **context: Any) -> Any:
    """Make the object that a spec describes.

    The whole description is checked as data first, see ``check``; only then is anything built.

    Args:
        description: ``{"name": ..., field: value, ...}``, or a bare name, or for a threat ``"linf:8/255"``.
            Values that are themselves specs are built first.
        kind: the family expected; another one is an error.
        context: arguments that the recipe does not hold, such as a model's ``input_shape``; those it asks for are used.

    Raises:
        HauberkError: as ``check``.
    """
    plan = check(description, kind, tuple(context))
    known = specs.parameters(plan.target)
    return plan.make({key: value for key, value in context.items() if key in known})


def check(description: Spec | str, kind: Kind | None = None, given: tuple[str, ...] = ()) -> Plan:
    """Look at a description and all that is in it, and build nothing.

    Args:
        description: as for ``build``.
        kind: the family expected.
        given: names of arguments that the caller adds when it builds.

    Raises:
        HauberkError: on an unknown name or key (naming the nearest valid one), a value of another type or out of range,
            a part where it does not belong, a setting that is missing, or code that the user does not trust.
    """
    specs.check_plain(description, "a spec")
    return _planned(description, kind, given)


def _planned(description: Any, kind: Kind | None = None, given: tuple[str, ...] = ()) -> Plan:
    if isinstance(description, str):
        description = _shorthand(description)
    if not isinstance(description, Mapping) or "name" not in description:
        raise HauberkError(
            f"a spec needs a 'name', got {specs.short(description)}", "for example {name: pgd, steps: 10}"
        )
    found = entry(str(description["name"]), kind)
    values = {key: _value(value) for key, value in description.items() if key != "name"}
    plan = specs.Plan(found.name, found.kind, found.load(), values)
    valid = specs.parameters(plan.target)
    for key in values:
        if key not in valid:
            raise HauberkError(
                f"{found.name} has no setting {key!r}",
                suggestion(key, list(valid)) or (f"valid: {', '.join(valid)}" if valid else "it has none"),
            )
    missing = [key for key, needed in valid.items() if needed and key not in (*values, *given)]
    if missing:
        raise plan.problem(f"the setting {missing[0]} is missing")
    plan = plan.fitted()
    if found.path in CODE:
        trust.require(str(plan.arguments[CODE[found.path]]))
    return plan


def settings(name: str, kind: Kind | None = None) -> list[str]:
    """The names of a method's settings."""
    return list(specs.parameters(entry(name, kind).load()))


def spec(obj: Any) -> Spec:
    """The plain description of a registered object; ``build(spec(x)) == x``.

    A configuration (attack, objective, certificate, threat) is described by its fields; a model by the call
    that built it, which its builder keeps in ``module.spec``.
    """
    kept = getattr(obj, "spec", None)
    if isinstance(kept, dict):
        return kept
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        raise HauberkError(f"{type(obj).__name__} has no spec", "only registered objects do")
    path = f"{type(obj).__module__}:{type(obj).__qualname__}"
    name = next((e.name for e in _ENTRIES.values() if e.path == path), None)
    if name is None:
        raise HauberkError(f"{path} is not registered", "call hauberk.registry.register first")
    return {"name": name} | {f.name: describe(getattr(obj, f.name)) for f in dataclasses.fields(obj) if f.init}


def describe(value: Any) -> Any:
    """Plain values for YAML and JSON: a registered object by its spec, any other dataclass by its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        path = f"{type(value).__module__}:{type(value).__qualname__}"
        if any(e.path == path for e in _ENTRIES.values()):
            return spec(value)
        return {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    return value


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return _planned(value) if "name" in value else {key: _value(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_value(v) for v in value)
    if isinstance(value, str):
        return _shorthand_value(value)
    return value


def _shorthand_value(value: str) -> Any:
    name, separator, rest = value.partition(":")
    if separator and name in _ENTRIES and _ENTRIES[name].kind == "threat":
        return _planned(value)
    numerator, slash, denominator = value.partition("/")
    if slash and numerator.strip().isdigit() and denominator.strip().isdigit() and rest == "":
        return number(value)
    return value


def _shorthand(text: str) -> Spec:
    name, separator, budget = text.partition(":")
    return {"name": name.lower(), "eps": number(budget)} if separator else {"name": name}


register("threat", "linf", "hauberk.threats:Linf", "each pixel moves by at most eps", "Madry et al. 2018")
register("threat", "l2", "hauberk.threats:L2", "the Euclidean length of the change is at most eps")
register("threat", "l1", "hauberk.threats:L1", "the sum of absolute changes is at most eps")

register("loss", "detector_joint", "hauberk.defences.detector:DetectorJoint",
         "fool the classifier and its detector at once", "Metzen et al. 2017, Section 3.3")
register("loss", "alpha_down", "hauberk.defences.adaptive_mixed:AlphaDown",
         "fool an adaptive mix and push its robust model's weight down", "Bai et al. 2024, Section 4.2")

register("attack", "fgsm", "hauberk.attacks.fgsm:FGSM", "one step along the gradient", "Goodfellow et al. 2015",
         norms="L1 L2 Linf", knowledge="white box", cost="2 passes")
register("attack", "n_fgsm", "hauberk.attacks.n_fgsm:NFGSM", "one step from strong noise, for fast training",
         "de Jorge et al. 2022, Algorithm 1", norms="Linf", knowledge="white box", cost="2 passes")
register("attack", "pgd", "hauberk.attacks.pgd:PGD", "projected gradient ascent with restarts and targets",
         "Madry et al. 2018", norms="L1 L2 Linf", knowledge="white box", cost="2 passes a step")
register("attack", "friendly_pgd", "hauberk.attacks.friendly_pgd:FriendlyPGD",
         "PGD that stops tau steps after the first error, for training", "Zhang et al. 2020, Algorithm 1",
         norms="L1 L2 Linf", knowledge="white box", cost="2 passes a step")
register("attack", "apgd", "hauberk.attacks.apgd:APGD", "step-size-free projected gradient ascent",
         "Croce & Hein 2020, Algorithm 1; 2021 for L1", norms="L1 L2 Linf", knowledge="white box",
         cost="2 passes a step")
register("attack", "fab", "hauberk.attacks.fab:FAB", "the nearest misclassified point by linearised boundaries",
         "Croce & Hein 2020 (FAB), Algorithm 1", norms="L1 L2 Linf", knowledge="white box",
         cost="up to 3 passes a step and target, K + 1 without targets")
register("attack", "square", "hauberk.attacks.square:Square", "random search over squares, by scores alone",
         "Andriushchenko et al. 2020, Algorithm 1", norms="L1 L2 Linf", knowledge="scores", cost="1 pass a query")
register("attack", "ddn", "hauberk.attacks.ddn:DDN", "the nearest misclassified point, direction and norm decoupled",
         "Rony et al. 2019, Algorithm 1", norms="L2", knowledge="white box", cost="2 passes a step")
register("attack", "fmn", "hauberk.attacks.fmn:FMN", "the nearest misclassified point, with a budget that adapts",
         "Pintor et al. 2021, Algorithm 1", norms="L1 L2 Linf", knowledge="white box", cost="2 passes a step")
register("attack", "deepfool", "hauberk.attacks.deepfool:DeepFool", "steps to the nearest linearised boundary",
         "Moosavi-Dezfooli et al. 2016, Algorithm 2", norms="L2 Linf", knowledge="white box", cost="K passes a step")
register("attack", "carlini_wagner", "hauberk.attacks.carlini_wagner:CarliniWagner",
         "distance plus a hinge on the margin, minimised", "Carlini & Wagner 2017, Section V", norms="L2",
         knowledge="white box", cost="2 passes a step")
register("attack", "transfer", "hauberk.attacks.transfer:Transfer", "points found on another model",
         "Papernot et al. 2016", norms="L1 L2 Linf", knowledge="decisions", cost="2 passes, and those of the source")
register("attack", "part", "hauberk.attacks.part:PartAttack", "points found on a part of a defence, tried on the whole",
         "Bai et al. 2024, Sections 4.2 and 5.1.1", norms="L1 L2 Linf", knowledge="white box",
         cost="5 passes, and those of the part")
register("attack", "autoattack", "hauberk.attacks.autoattack:AutoAttack",
         "an ensemble of attacks on survivors: fast, standard, plus, rand or custom", "Croce & Hein 2020, Section 5",
         norms="L1 L2 Linf", knowledge="white box", cost="standard about 11,000 passes, fast 2,000")

register("certificate", "lipschitz", "hauberk.certificates.lipschitz:LipschitzCertificate",
         "logit margin over the pairwise Lipschitz bound", "Tsuzuku et al. 2018; Singla et al. 2022, Prop. 1",
         norm="L1 L2 Linf", proof="deterministic")
register("certificate", "smoothing", "hauberk.certificates.smoothing:SmoothingCertificate",
         "sigma times the normal quantile of a Clopper-Pearson bound", "Cohen et al. 2019, Theorem 1",
         norm="L2", proof="probabilistic")
register("certificate", "local_lipschitz", "hauberk.certificates.local_lipschitz:LocalLipschitz",
         "the margin of the probabilities at the worst points that APGD finds", "Bai et al. 2024, Eq. 12, corrected",
         norm="that of the threat", proof="estimate")
register("certificate", "mixed_margin", "hauberk.certificates.mixed:MixedCertificate",
         "the robust model keeps the margin (1 - alpha) / alpha in the ball", "Bai et al. 2024, Lemma 3.2",
         norm="that of the base", proof="that of the base")

register("objective", "standard", "hauberk.objectives.standard:Standard", "cross-entropy on clean images")
register("objective", "gaussian_augmentation", "hauberk.objectives.gaussian_augmentation:GaussianAugmentation",
         "cross-entropy under Gaussian noise", "Cohen et al. 2019, Section 3.3")
register("objective", "pgd_adversarial", "hauberk.objectives.pgd_adversarial:PGDAdversarial",
         "cross-entropy on attacked images", "Madry et al. 2018, Eq. 2.1")
register("objective", "trades", "hauberk.objectives.trades:TRADES",
         "clean cross-entropy plus beta times the divergence to the attacked output", "Zhang et al. 2019, Eq. 3")
register("objective", "detector", "hauberk.objectives.detector:Detector",
         "binary cross-entropy of a detector head on clean and attacked images", "Metzen et al. 2017, Section 3.2")
register("objective", "adaptive_smoothing", "hauberk.objectives.adaptive_smoothing:AdaptiveSmoothing",
         "a mixing network learns clean from attacked images", "Bai et al. 2024, Eq. 8")
register("objective", "iaat", "hauberk.objectives.iaat:IAAT",
         "cross-entropy on attacked images, each within a budget of its own", "Balaji et al. 2019, Algorithm 2")
register("objective", "certificate_regularisation",
         "hauberk.objectives.certificate_regularisation:CertificateRegularisation",
         "cross-entropy less the certified radius", "Singla et al. 2022")
register("objective", "gloro", "hauberk.objectives.gloro:GloRo",
         "cross-entropy with a logit for 'not robust'; TRADES, top-k and affinity forms",
         "Leino et al. 2021; Leino & Fredrikson 2021")
register("objective", "emma", "hauberk.objectives.emma:EMMA",
         "worst-case logit differences, each within a radius of its own", "Hu et al. 2023")
register("objective", "logit_annealing", "hauberk.objectives.logit_annealing:LogitAnnealing",
         "a margin loss whose reward fades", "Lai et al. 2025")
register("objective", "hkr", "hauberk.objectives.hkr:HKR",
         "hinge loss less the transport distance of the classes", "Serrurier et al. 2021")

register("defence", "mixed", "hauberk.defences.mixed:mixed", "probabilities of an accurate and a robust model, mixed",
         "Bai et al. 2024, Eq. 5", proof="mixed_margin")
register("defence", "adaptive_mixed", "hauberk.defences.adaptive_mixed:adaptive_mixed",
         "two models mixed with a weight that a network chooses for each image", "Bai et al. 2024, Section 4",
         proof="mixed_margin")
register("defence", "mixed_nuts", "hauberk.defences.mixed_nuts:mixed_nuts",
         "a one-hot accurate model mixed with the bent logits of a robust one", "Bai et al. 2024 (MixedNUTS)")
register("defence", "smoothed", "hauberk.defences.smoothed:smoothed", "the majority vote under Gaussian noise",
         "Cohen et al. 2019, Eq. 1", proof="smoothing")

register("defence", "detected", "hauberk.defences.detector:detected", "a classifier with a head that rejects attacks",
         "Metzen et al. 2017")
register("defence", "gradient_mixed", "hauberk.defences.locally_biased:gradient_mixed",
         "two models mixed class by class, weighted by the lengths of their gradients", "Bai et al. 2024, Eq. 4")
register("defence", "locally_biased", "hauberk.defences.locally_biased:locally_biased",
         "a model moved towards the class that a direction oracle names",
         "Anderson & Sojoudi 2022; Bai et al. 2024, Eq. 1-3")
register("defence", "nearest_neighbour", "hauberk.defences.nearest_neighbour:nearest_neighbour",
         "the class of the nearest stored image", "Cover & Hart 1967")
register("defence", "resized", "hauberk.defences.resized:resized", "a classifier that sees its images at another size")

register("model", "small_cnn", "hauberk.models.small_cnn:small_cnn", "3x3 convolutions with batch norm and ReLU")
register("model", "resnet18", "hauberk.models.resnet:resnet18", "ResNet-18 with a 3x3 stem for small images",
         "He et al. 2016")
register("model", "lip_convnet", "hauberk.models.lip_convnet:lip_convnet",
         "1-Lipschitz AOL convolutions with MaxMin", "Prach & Lampert 2022")
register("model", "lip_mlp", "hauberk.models.lip_mlp:lip_mlp", "orthogonal dense layers with MaxMin, for small images",
         "Anil et al. 2019; Trockman & Kolter 2021")
register("model", "lip_convnet_n", "hauberk.models.lip_convnet_n:lip_convnet_n",
         "LipConvnet-5 to 40: SOC or other 1-Lipschitz convolutions", "Singla & Feizi 2021; Singla et al. 2022")
register("model", "li_resnet", "hauberk.models.li_resnet:li_resnet",
         "linear residual convolutions, trained against their bound", "Hu et al. 2023")
register("model", "cnn_6c2f", "hauberk.models.cnn_6c2f:cnn_6c2f",
         "six plain convolutions and two dense layers, trained against their bound", "Leino et al. 2021")

register("model", "own", "hauberk.models.own:own", "a model of your own, from module:factory")
register("model", "run", "hauberk.runs:saved", "the trained model of a run directory")

register("dataset", "digits", "hauberk.data.digits:digits", "8x8 grey digits, embedded in scikit-learn",
         "Alpaydin & Kaynak 1998")
register("dataset", "cifar10", "hauberk.data.cifar:cifar10", "32x32 colour, 10 classes", "Krizhevsky 2009")
register("dataset", "cifar100", "hauberk.data.cifar:cifar100", "32x32 colour, 100 classes", "Krizhevsky 2009")
register("dataset", "mnist", "hauberk.data.idx:mnist", "28x28 grey digits", "LeCun et al. 1998")
register("dataset", "fashion_mnist", "hauberk.data.idx:fashion_mnist", "28x28 grey clothes", "Xiao et al. 2017")
register("dataset", "medmnist", "hauberk.data.medmnist:medmnist", "any MedMNIST set, by flag", "Yang et al. 2023")
register("dataset", "npz", "hauberk.data.npz:npz", "arrays of your own in one .npz file")
register("dataset", "image_folder", "hauberk.data.folder:image_folder", "one folder a class, PNG, JPEG or WebP")
