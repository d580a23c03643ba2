"""The words of a report: how it writes a share, a budget and a proof, and what was and was not tested."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from hauberk import registry
from hauberk.report.random_facts import NO_RANDOM, Sweep
from hauberk.report.subject import Attacked, Curve, HalfBroken, Judgement, Method, Subject
from hauberk.statistics import Interval
from hauberk.threats import epsilon as epsilon  # templates call it
from hauberk.verify.wrapped import core

Rounding = Literal["down", "up", "near"]

NORMS = {"l1": "ℓ₁", "l2": "ℓ₂", "linf": "ℓ∞", "elements": "elements of each modality",
         "levels": "levels of 8 bits in all"}
COUNTED = ("elements", "levels")  # radii are whole numbers

SHAPES = {
    "circle": "●", "square": "■", "triangle-up": "▲", "diamond": "◆", "triangle-down": "▼", "cross": "✚",
    "triangle-right": "▶", "triangle-left": "◀",
}  # fmt: skip
NO_CHECK = "no check judges an attack on a model without gradients"
BEHIND = 0.05  # share of images by which AutoAttack may fall behind a sweep without a remark
MOST_CLASSES = 10  # classes of a table in sight; the rest is folded

GLOSSARY = {
    "Clean accuracy": "Share of images classified right when nobody interferes.",
    "Attacked accuracy": "Share of images that stay right under every attack that was run: an upper bound, because a "
    "stronger attack may break more.",
    "Attack success rate": "Of the images that were right, the share that some attack turned wrong.",
    "Certified accuracy": "Share of images that are right and proved to stay right under any change within the budget: "
    "a lower bound, whatever the attack.",
    "Certified radius": "How far an image may be changed with the prediction proved not to change; 0 where nothing is "
    "proved.",
    "Average certified radius": "Mean certified radius over all images; wrong and abstained ones count 0.",
    "Abstained": "Share of images for which the certificate gave no decision; they count as wrong.",
    "Balanced accuracy": "Mean of the accuracies of all classes, each counting alike, however many images it has. Its "
    "interval is made of Wilson's limits of the classes, as squares of their distances add up (Zou and Donner 2008).",
    "Worst class": "The class with the lowest accuracy. It is picked after looking, so its interval is widened to hold "
    "for all classes together.",
    "Gap": "Between certified and attacked accuracy nothing is known: the true robust accuracy lies there.",
    "Budget ε": "The largest change the attacker may make, in the stated norm, with pixel values from 0 to 1.",
    "ℓ∞, ℓ₂, ℓ₁": "How a change is measured: its largest single pixel value, its Euclidean length, the sum of its "
    "absolute values.",
    "Deterministic proof": "Holds for certain, from the weights of the model.",
    "Probabilistic proof": "Rests on random samples; for each image it fails with at most the stated probability.",
    "Vote probability": "How often the base of a smoothed classifier answers its class under noise. A radius proves "
    "that it is at least p_A.",
    "Log, on trust": "Certificates that somebody states without the votes behind them, so that nothing here derives "
    "them again.",
    "Estimate": "Neither a proof nor an attack; it bounds nothing.",
    "α": "Weight of the robust model in a mixed classifier: 0 is the accurate model alone, 1 the robust one alone.",
    "Sound, questionable, broken": "What the checks say of an evaluation: no symptom of a failing attack, one that a "
    "better attack should rule out, or one that makes the attacked accuracy worthless.",
    "95 % interval": "Where the value would plausibly lie on other images of the same kind: Wilson's interval for "
    "shares, bootstrap for means. It says nothing about stronger attacks.",
}


def class_name(k: int, classes: Sequence[str]) -> str:
    """The name of a class; a model may have more outputs than the data has classes, and -1 is an abstention."""
    if k == -1:
        return "no decision"
    return classes[k] if 0 <= k < len(classes) else f"class {k}"


def percent(value: float, rounding: Rounding = "near") -> str:
    """A share in percent with one decimal; bounds are rounded to the safe side."""
    if math.isnan(value):
        return "–"
    tenths = value * 1000.0
    slack = 1e-7  # a share such as 0.29 is stored a little above or below itself
    chosen = {"down": math.floor(tenths + slack), "up": math.ceil(tenths - slack), "near": round(tenths)}[rounding]
    return f"{chosen / 10:.1f} %"


def span(interval: Interval) -> str:
    """The ends of an interval in percent, rounded outwards."""
    low, high = percent(interval.low, "down").removesuffix(" %"), percent(interval.high, "up")
    return f"{low} to {high}"


def share(interval: Interval, rounding: Rounding = "near") -> str:
    """``53.1 (50.0 to 56.2)``: percent with its interval; a bound is rounded to its safe side, an interval outwards."""
    return f"{percent(interval.value, rounding).removesuffix(' %')} ({span(interval).removesuffix(' %')})"


def points(interval: Interval) -> str:
    """``+1.5 (-0.2 to +3.2)``: a difference of shares in points with its interval."""
    value, low, high = (100.0 * v + 0.0 for v in (interval.value, interval.low, interval.high))  # no -0
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def count(interval: Interval) -> str:
    """A share as a count, for example ``61 of 100``."""
    return "none" if interval.n == 0 else f"{round(interval.value * interval.n)} of {interval.n}"


def length(value: float) -> str:
    """A radius with three decimals, rounded down."""
    return "–" if math.isnan(value) else f"{math.floor(value * 1000 + 1e-7) / 1000:.3f}"


def number(value: float) -> str:
    """A number in few digits."""
    return f"{value:.4g}"


def typed(norm: str, eps: float) -> str:
    """A threat in the form that gives exactly this budget when it is typed: ``linf:8/255``."""
    exact = (text for text in (epsilon(eps), f"{round(eps * 255)}/255") if registry.number(text) == eps)
    return f"{norm}:{next(exact, repr(eps))}"


def budget(norm: str, eps: float) -> str:
    """Norm and budget together."""
    if norm in COUNTED:
        return f"{epsilon(eps)} {NORMS[norm]}"
    return f"{NORMS.get(norm, norm)}, ε = {epsilon(eps)}"


def changes(norm: str, eps: float) -> str:
    """A threat in plain words: ``changes of at most 8/255 in ℓ∞``."""
    if norm in COUNTED:
        return f"changes of at most {budget(norm, eps)}"
    return f"changes of at most {epsilon(eps)} in {NORMS.get(norm, norm)}"


def attack(name: str) -> str:
    """An attack as the field writes it: the name of its class."""
    entry = next((e for e in registry.entries("attack") if e.name == name), None)
    return entry.path.split(":")[1] if entry else name


def swept(sweep: Sweep) -> str:
    """Whether the accuracy of a random model had stopped falling."""
    last = sweep.stages[-1]
    if sweep.settled:
        return (
            f"The sweep ended by its rule with {last.draws} draws and {last.steps} steps: no further image fell in the "
            "last round, or none was left."
        )
    return (
        f"Images still fell with {last.draws} draws and {last.steps} steps, where the sweep ended: the accuracy had "
        "not stopped falling, and more draws and steps may break more."
    )


def judged(judgement: Judgement) -> str:
    """The overall result of the checks of an evaluation, in words."""
    place = budget(judgement.norm, judgement.eps)
    where = f"{attack(judgement.attack)} at {place} was checked on {judgement.images} images"
    said = {
        "sound": "nothing suggests that it failed for reasons of its own, such as masked gradients.",
        "questionable": "something suggests that a better attack would find more:",
        "broken": "the attacked accuracy here must not be believed:",
    }
    return f"{where}: {said[judgement.verdict]}"


def attacks(methods: Iterable[Method]) -> str:
    """The attacks of a suite, each once."""
    return listed(sorted({attack(m.name) for m in methods}))


def inside(methods: Iterable[Method]) -> str:
    """The innermost attacks of wrapped attacks, each once."""
    return listed(sorted({attack(str(core({"name": m.name, **m.settings})["name"])) for m in methods}))


def half(found: HalfBroken) -> str:
    """The change that breaks half of the images, with its interval; an end that no search reached is named as such."""
    value, low, high = (
        number(x) if math.isfinite(x) else "beyond every search"
        for x in (found.eps50.value, found.eps50.low, found.eps50.high)
    )
    return f"{value} ({low} to {high})"


def settings(values: Mapping[str, Any]) -> str:
    """The fields of a method in one line."""
    shown = {k.replace("_", " "): v for k, v in values.items() if v is not None and v is not False}
    return ", ".join(f"{k} {_setting(v)}" for k, v in shown.items())


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes"
    if isinstance(value, Mapping):
        rest = settings({k: v for k, v in value.items() if k != "name"})
        return str(value.get("name", "")) + (f" ({rest})" if rest else "")
    if isinstance(value, list | tuple):
        return ", ".join(_setting(v) for v in value)
    return number(value) if isinstance(value, float) else str(value)


def proved(curve: Curve) -> str:
    """The function that a deterministic proof is about, in words; empty for other proofs."""
    if curve.proof != "deterministic":
        return ""
    if not curve.frozen:
        return "The proof is about the network evaluated in float64."
    return (
        "The proof is about the frozen predictor: the weights as the model computes them in its own precision, "
        "evaluated in float64. Where the model as it is deployed decides otherwise at the image, or is farther away "
        "than its rounding explains, there is no certificate."
    )


def proof(curve: Curve) -> str:
    """The kind of a proof and its probability of failure, in words."""
    if curve.proof == "deterministic":
        return "deterministic proof"
    if curve.proof == "probabilistic":
        return f"probabilistic proof, fails with probability at most {number(curve.failure_probability)} for each image"
    if curve.proof == "log":
        return "log, on trust"
    return "estimate, not a proof"


def listed(names: list[str], last: str = "and") -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def tested(subject: Subject) -> list[str]:
    """The attacks and certificates that were run, in plain sentences."""
    said = []
    for norm in subject.norms:
        own = [a for a in subject.attacked if a.norm == norm]
        if own:
            names = attacks(m for a in own for m in a.methods)
            budgets = listed([epsilon(a.eps) for a in own])
            images = max(a.accuracy.n for a in own)
            said.append(
                f"{images} images of the {subject.split} split were attacked with {names} "
                f"in {NORMS.get(norm, norm)} at ε = {budgets}."
            )
    if len({a.images for a in subject.attacked} | {c.images for c in subject.certified}) > 1:
        said.append("Not every attack and certificate saw the same images; each number states how many it is about.")
    for curve in subject.certified:
        said.append(
            f"{curve.right.n} images were certified in {NORMS.get(curve.norm, curve.norm)} by {curve.method} "
            f"({proof(curve)})."
        )
    said += [f.reason for j in subject.judgements for f in j.findings if f.name == "noise_share"][:1]
    for curve in subject.estimated:
        said.append(f"{curve.right.n} radii were estimated by {curve.method}; an estimate proves nothing.")
    return [*said, *subject.notes]


def not_tested(subject: Subject) -> list[str]:
    """The tests that were left out and could change the conclusions, in plain sentences."""
    said = []
    attacked = {a.norm for a in subject.attacked}
    if not attacked:
        said.append("No attack was run, so there is no upper bound beside the clean accuracy.")
    missing = [NORMS[n] for n in ("linf", "l2", "l1") if n not in attacked]
    if attacked and missing:
        said.append(f"Changes measured in {listed(missing, 'or')} were not attacked.")
    for norm in sorted(attacked):
        largest = max(a.eps for a in subject.attacked if a.norm == norm)
        said.append(f"Nothing beyond {budget(norm, largest)} was attacked.")
    said += _weak_attacks(subject)
    if subject.attacked and not subject.judgements:
        names = [m.name for a in subject.attacked for m in a.methods]
        first = subject.attacked[0]
        command = f"hauberk check RUN --threat {typed(first.norm, first.eps)} --diagnose"
        told = f"is not known: {NO_CHECK}" if without_gradients(names) else f"was not checked: {command} does it"
        said.append(f"Whether the attacks' failures can be believed {told}.")
    if not subject.certified:
        said.append("Nothing is proved: a stronger attack may lower every attacked accuracy here.")
    elif attacked - {c.norm for c in subject.certified}:
        bare = [NORMS.get(n, n) for n in sorted(attacked - {c.norm for c in subject.certified})]
        said.append(f"Nothing is proved in {listed(bare)}: a stronger attack may lower those accuracies.")
    said.append(
        "Only small changes of single pixels count here: rotation, blur, patches, new cameras, poisoned training data "
        "and stolen models are other questions."
    )
    return said


def _weak_attacks(subject: Subject) -> list[str]:
    if not subject.attacked:
        return []
    methods = [m for a in subject.attacked for m in a.methods]
    names = sorted({m.name for m in methods})
    said = []
    if names == ["part"]:
        said.append(
            "Every attack was found on a part of the classifier and knows nothing of the rest: these accuracies say "
            "nothing of an attack on the whole, which hauberk evaluate runs beside it."
        )
    elif len(names) == 1:
        said.append(f"Only {attack(names[0])} was run; several kinds of attack together usually break more images.")
    if all(_knowledge(n) == "white box" for n in names):
        said.append("No attack without gradients was run, so gradients that mislead an attacker would go unnoticed.")
    if without_gradients(names):
        said.append("No attack followed the model's gradients; one that does may break many images that these leave.")
    if subject.stochastic and all(m.settings.get("eot") == 1 for m in methods):
        said.append("The classifier is random, and no attack averaged over its randomness.")
    if subject.stochastic:
        said += _weak_on_random(subject)
    return said


def _weak_on_random(subject: Subject) -> list[str]:
    """The attacks that a random classifier should have met and did not meet."""
    drawn = [a for a in subject.attacked if a.random or a.draws != NO_RANDOM]
    if not drawn:  # a vote that decides by itself is attacked like a deterministic classifier
        return []
    suites = {m.suite for a in subject.attacked for m in a.methods}
    said = []
    wrong = sorted(s for s in suites if s.startswith("autoattack") and s.split()[-1] in ("standard", "plus", "fast"))
    if wrong and "autoattack rand" not in suites:
        names = listed([s.replace("autoattack", "AutoAttack") for s in wrong])
        said.append(f"The classifier is random: {names} is made for others, and AutoAttack rand was not run.")
    sweeps = [a.draws.sweep for a in drawn if a.draws.sweep is not None]
    if not sweeps:
        said.append("Whether more draws and steps break more of this random classifier was not tried (eot_sweep).")
    said += [swept(s) for s in sweeps if not s.settled]
    for missed in (a.draws.missed for a in drawn):
        if missed is not None and missed.value > BEHIND:
            said.append(
                f"AutoAttack rand leaves {percent(missed.value, 'up')} of the images standing that the sweep breaks: "
                "by itself it says too much for this classifier."
            )
    return said


def without_gradients(names: Iterable[str]) -> bool:
    """Whether all attacks that were run use scores or decisions alone, as on a model that gives no gradients."""
    known = [_knowledge(name) for name in names]
    return bool(known) and all(kind in ("scores", "decisions") for kind in known)


def _knowledge(name: str) -> str:
    entry = next((e for e in registry.entries("attack") if e.name == name), None)
    return entry.facts.get("knowledge", "") if entry else ""


def verdict(headline: Attacked, curve: Curve | None) -> str:
    """The sentence that joins both bounds, where both are about the same images."""
    where = budget(headline.norm, headline.eps)
    upper = percent(headline.accuracy.value, "up")
    if curve is None or curve.images != headline.images:
        return f"At {where} the robust accuracy on these images is at most {upper}."
    lower = next(level.accuracy for level in curve.levels if level.eps == headline.eps)
    if lower.value > headline.accuracy.value:  # a vote that abstains counts as an error, but certifies its limit
        return f"At {where} the certified accuracy is {percent(lower.value, 'down')}, the attacked one {upper}."
    ending = "" if curve.proof == "deterministic" else ", if every certificate holds"
    return (
        f"At {where} the true robust accuracy of this model on these {headline.accuracy.n} images lies between "
        f"{percent(lower.value, 'down')} (proved) and {upper} (attacked){ending}."
    )
