"""What the tables of ``mixing_tables.py`` say: Markdown and intervals, from the verdicts alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hauberk.comparison import above
from hauberk.evaluation.metrics import Bools, Floats
from hauberk.report import words
from hauberk.report.words import share as text
from hauberk.statistics import Interval, student
from store import less as difference
from store import plain, table, unbits
from store import share as accuracy

Content = dict[str, Any]
Summary = dict[str, Any]


def verdicts(content: Content, key: str) -> Bools:
    """The verdicts of a cell, True where the image is right."""
    return unbits(content["cells"][key])


def share(content: Content, key: str) -> Interval:
    """Accuracy with Wilson's interval."""
    return accuracy(content["cells"][key])


def less(content: Content, one: str, other: str) -> Interval:
    """Difference of two accuracies, paired over images."""
    return difference(verdicts(content, one), verdicts(content, other))


def points(value: Interval) -> str:
    """A difference in points with its interval."""
    return f"{words.points(value)} points"


def above_the_line(content: Content, clean: str, robust: str) -> Floats:
    """Robust accuracy beyond the line between g and h at the same clean accuracy, by image."""

    def outcomes(*keys: str) -> tuple[Floats, Floats]:
        first, second = (verdicts(content, key).astype(np.float64) for key in keys)
        return first, second

    return above([outcomes(clean, robust)], [outcomes(f"{base} / clean", f"{base} / C") for base in "gh"])


def verdict(value: Interval) -> str:
    """Whether a difference is above 0, below, or cannot be told."""
    if value.low > 0.0:
        return "so it does"
    return "so the opposite holds" if value.high < 0.0 else "which is no difference beyond doubt"


def _summary(content: Content, differences: dict[str, Interval]) -> Summary:
    return {
        "accuracy": {key: plain(share(content, key), 5) for key in content["cells"]},
        "paired differences": {name: plain(value, 5) for name, value in differences.items()},
    }


# --- Tables 2 and 3 -----------------------------------------------------------------------------------------------

ROWS = {
    "A": "trained in A (gray-box PGD)",
    "B": "trained in B (white-box PGD)",
    "C": "trained in C (white-box APGD)",
    "longer": "trained in C, longer",
}


def settings(content: Content) -> tuple[str, Summary]:
    """Table 2 or 3."""
    setting, models = content["setting"], content["models"]
    number, n = setting["table"], setting["images"]
    published = (
        "CIFAR-10"
        if number == 2
        else "CIFAR-100, of which 300 training images a class were at hand: "
        "nothing here compares with published numbers"
    )
    names = [name for name in ROWS if f"{name} / D" in content["cells"]]
    steps = models[names[0]]["steps"]
    lines = [
        f"# Table {number}: mixing networks trained in three settings ({published.split(',')[0]})",
        "",
        f"Percent of the first {n} test images of {published}, with 95 % intervals. Linf 8/255. The base models are "
        "the small nets of the recipes; the paper's are far larger. Every mix was led to "
        f"{100 * setting['wanted clean accuracy on validation']:.1f} % clean accuracy on "
        f"{setting['validation images']} validation images, a mixing network by its range of width {setting['width']}.",
        "",
        *table(("Base model", "Clean", "PGD-20", "C"), (
            [title, *(text(share(content, f"{name} / {c}")) for c in ("clean", "PGD-20", "C"))]
            for name, title in (("g", "g, standard training"), ("h", "h, adversarial training"))
        )),
        "",
    ]  # fmt: skip
    columns = [text(share(content, f"constant / {c}")) for c in ("clean", "PGD-20", "PGD-20", "C", "C")]
    heights = {name: above_the_line(content, f"{name} / clean", f"{name} / D") for name in names}
    heights["constant"] = above_the_line(content, "constant / clean", "constant / C")
    height = words.points(student(heights["constant"])[0])
    rows = [["one weight", f"{models['constant']['alpha']:.3f}", *columns, height]]
    for name in names:
        low, high = models[name]["alpha range"]
        columns = [text(share(content, f"{name} / {c}")) for c in ("clean", "A", "B", "C", "D")]
        height = words.points(student(heights[name])[0])
        rows.append([ROWS[name], f"{low:.3f} to {high:.3f}", *columns, height])
    lines += table(("Mix", "alpha", "Clean", "A", "B", "C", "D", "D above the line"), rows)
    gains = {name: student(heights[name] - heights["constant"])[0] for name in names}
    said, differences = _settings_claims(content, names, gains)
    lines += ["", *_settings_notes(content, steps, names), "", "## What the paper says, and what holds here", "", *said]
    return "\n".join(lines), _summary(content, differences)


def _settings_notes(content: Content, steps: int, names: list[str]) -> list[str]:
    notes = [
        "- **A**: PGD-20 that gets no gradient through alpha. **B**: PGD-20 with it. **C**: APGD, 50 steps of "
        "cross-entropy, then 50 steps towards each of the three likeliest wrong classes. **D**: C, and the same two "
        "with the loss that pushes alpha down; the worst of both, image by image. With one weight there is no alpha to "
        "attack, so A is B and D is C. B holds no points of A, and can come out "
        "above it. An image counts as lost if any point on the way is misclassified.",
        "- *Above the line*: beyond the robust accuracy of tossing a coin between g and h at the same clean accuracy.",
        f"- A, B and C networks: {steps} optimiser steps each, last weights, no choice among them. Each is one "
        "training with one seed: the intervals are over images, not over trainings.",
    ]
    for name in names:
        told = models_spread(content["models"][name])
        notes.append(f"- The network {ROWS[name]}: its sigmoid on clean validation images is {told}.")
    if "longer" in names:
        notes.append(
            f"- The longer one is `mixing_cifar10_small` with its last weights ({content['models']['longer']['steps']} "
            "steps of twice the batch, attacks of ten steps), no part of the comparison at equal steps."
        )
    return notes


def models_spread(facts: dict[str, Any]) -> str:
    """The 5, 50 and 95 % quantiles of the sigmoid."""
    low, middle, high = facts["sigmoids on validation"]
    return f"{low:.2f}, {middle:.2f}, {high:.2f} (5, 50, 95 % quantiles)"


def _settings_claims(
    content: Content, names: list[str], gains: dict[str, Interval]
) -> tuple[list[str], dict[str, Interval]]:
    found: dict[str, Interval] = {}

    def gap(one: str, other: str) -> Interval:
        found[f"{one} - {other}"] = value = less(content, one, other)
        return value

    said = []
    if "A" in names:
        own, base = gap("A / A", "h / PGD-20"), gap("A / clean", "h / clean")
        holds = "holds" if own.low <= 0.0 <= own.high or own.low > 0 else "does not hold"
        said.append(
            f"- *A network trained in A keeps h's accuracy under A at a higher clean accuracy*: {points(own)} under A, "
            f"{points(base)} clean, against h. The claim {holds} at this size."
        )
    for other in ("A", "B"):
        if {"C", other} <= set(names):
            value, clean = gap("C / C", f"{other} / C"), gap("C / clean", f"{other} / clean")
            said.append(
                f"- *Training in C defends better against C than training in {other}*: {points(value)} under C, "
                f"{verdict(value)}; clean {points(clean)}."
            )
    for name in names:
        value, clean = gap(f"{name} / D", "constant / C"), gap(f"{name} / clean", "constant / clean")
        weak = gap(f"{name} / A", "constant / PGD-20")
        said.append(
            f"- *{ROWS[name].replace('trained', 'The network trained', 1)}, against one weight*: {points(value)} under "
            f"D, {points(weak)} under A, {points(clean)} clean; D above the line {points(gains[name])}. "
            f"{_against_constant(value, gains[name])}"
        )
    found |= {f"{name} - one weight, D above the line": gain for name, gain in gains.items()}
    for name in names:
        gap(f"{name} / D", f"{name} / C")
        gap(f"{name} / D", "h / C")
    return said, found


def _against_constant(value: Interval, gain: Interval) -> str:
    if value.low > 0.0 and gain.low > 0.0:
        return "The network beats one weight under attacks that see alpha."
    if value.low > 0.0:
        return (
            "The network keeps more than one weight under attacks that see alpha; with clean accuracy counted in, by "
            "the line, the two cannot be told apart."
        )
    if value.high < 0.0:
        return "The paper's gain does not show at this size: one weight is better under attacks that see alpha."
    return "The paper's gain does not show at this size: network and one weight cannot be told apart."


# --- Table 6 ------------------------------------------------------------------------------------------------------


def losses(content: Content) -> tuple[str, Summary]:
    """Table 6."""
    setting, models = content["setting"], content["models"]
    labels = [name for name in models if name != "constant" and f"{name} / PGD-20" in content["cells"]]
    pairs = sorted({(models[m]["ce"], models[m]["bce"]) for m in labels})
    products = sorted({models[m]["product"] for m in labels})
    constant, alpha = share(content, "constant / PGD-20"), models["constant"]["alpha"]
    lines = [
        "# Table 6: the constants of the mixing network's loss",
        "",
        f"PGD-20 accuracy in percent of the first {setting['images']} test images of CIFAR-10, with 95 % intervals, "
        "and clean accuracy behind the stroke. Linf 8/255, training and attack in setting B, "
        f"{models[labels[0]]['steps']} optimiser steps a network. All are led to "
        f"{100 * setting['wanted clean accuracy on validation']:.1f} % clean accuracy on "
        f"{setting['validation images']} validation images. One weight for all images, alpha {alpha:.3f}: "
        f"{text(constant)} / {100 * share(content, 'constant / clean').value:.1f}.",
    ]
    differences: dict[str, Interval] = {}
    for kind, title in (
        ("shift", "By a shift of the sigmoid's input, alpha anywhere in (0, 1), as in the paper"),
        ("range", f"By a range of alpha of width {setting['width']}"),
    ):
        rows = []
        for product in products:
            row = []
            for ce, bce in pairs:
                name = f"ce {ce:g}, bce {bce:g}, product {product:g}, {kind}"
                if name not in labels:
                    row.append("not measured")
                    continue
                row.append(
                    f"{text(share(content, f'{name} / PGD-20'))} / {100 * share(content, f'{name} / clean').value:.1f}"
                )
                differences[name] = less(content, f"{name} / PGD-20", "constant / PGD-20")
            rows.append([f"{product:g}", *row])
        head = ["c_prod", *(f"c_CE {ce:g}, c_BCE {bce:g}" for ce, bce in pairs)]
        lines += ["", f"## {title}", "", *table(head, rows)]
    lines += ["", *_losses_claims(content, differences)]
    return "\n".join(lines), _summary(content, differences)


def _losses_claims(content: Content, differences: dict[str, Interval]) -> list[str]:
    said = []
    for kind in ("shift", "range"):
        mine = {name: value for name, value in differences.items() if name.endswith(kind)}
        if not mine:
            continue
        above, below = sum(v.low > 0 for v in mine.values()), sum(v.high < 0 for v in mine.values())
        best = max(mine, key=lambda name: mine[name].value)
        paper = f"ce 0, bce 1.5, product 0.2, {kind}"
        sentence = (
            f"- By {kind}: of {len(mine)} networks {above} beat one weight beyond doubt and {below} lose to it; the "
            f"best on these images is {best.removesuffix(', ' + kind)}, {points(mine[best])} against one weight."
        )
        if paper in mine and best != paper:
            gap = less(content, f"{best} / PGD-20", f"{paper} / PGD-20")
            sentence += f" It is {points(gap)} from the paper's best, (0, 1.5, 0.2), {_told(gap)}."
        elif paper in mine:
            sentence += " The paper's best constants are the best here too."
        said.append(sentence)
        said += _product_claim(content, kind, differences)
    tails = [facts["alpha on validation"][0] for facts in content["models"].values() if facts.get("kind") == "shift"]
    said.append(
        "- By shift, tails count: the score is clipped in training alone, as in the authors' code, so at evaluation "
        "some clean images lie far out. One validation image in twenty gets an alpha of about "
        f"{np.median(tails):.2f} or less (median over networks, {min(tails):.2f} to {max(tails):.2f}), and an attack "
        "that leads there meets g alone. A range bounds this."
    )
    said.append(
        "- The best of twelve on the same images flatters itself; Table 7 goes on from the one that validation chose. "
        "Each network is one short training with one seed: the intervals are over images, not over trainings."
    )
    return said


def _product_claim(content: Content, kind: str, differences: dict[str, Interval]) -> list[str]:
    """Whether a small c_prod helps: accuracy with 0.2 less that with 0, the mean over the other constants."""
    ones = [f"{n} / PGD-20" for n in differences if n.endswith(f"product 0.2, {kind}")]
    others = [key.replace("product 0.2", "product 0") for key in ones]
    if not ones or not set(others) <= set(content["cells"]):
        return []
    with_it, without = (np.mean([verdicts(content, key) for key in keys], 0) for keys in (ones, others))
    gap = differences[f"c_prod 0.2 - c_prod 0, {kind}"] = difference(with_it, without)
    pairs = f"mean over {len(ones)} pairs of the other constants"
    return [f"- *A small c_prod helps* (by {kind}): 0.2 against 0, {pairs}, {points(gap)}, {verdict(gap)}."]


def _told(gap: Interval) -> str:
    return "which the images tell apart" if gap.low > 0.0 else "which the images do not tell apart"


# --- Table 7 ------------------------------------------------------------------------------------------------------


def scales(content: Content) -> tuple[str, Summary]:
    """Table 7."""
    setting, models = content["setting"], content["models"]
    names = [name for name in models if name != "constant"]
    lines = [
        "# Table 7: the factor of the sigmoid's input at evaluation",
        "",
        f"Percent of the first {setting['images']} test images of CIFAR-10, with 95 % intervals. Linf 8/255, setting "
        "B. The network is that of Table 6 with most validation images right under PGD-20 "
        f"({setting['chosen'].removesuffix(', shift')}); for each "
        "factor the shift leads to "
        f"{100 * setting['wanted clean accuracy on validation']:.1f} % clean accuracy on "
        f"{setting['validation images']} validation images.",
        "",
    ]
    rows = []
    for name in names:
        facts = models[name]
        alphas = ", ".join(f"{q:.2f}" for q in facts["alpha on validation"])
        accuracies = [text(share(content, f"{name} / {column}")) for column in ("clean", "PGD-20")]
        rows.append([f"{facts['scale']:g}", f"{facts['shift']:.3f}", alphas, *accuracies])
    accuracies = [text(share(content, f"constant / {column}")) for column in ("clean", "PGD-20")]
    rows.append(["one weight", "", f"{models['constant']['alpha']:.3f}", *accuracies])
    lines += table(("Factor", "Shift", "alpha on clean validation images", "Clean", "PGD-20"), rows)
    differences = {}
    for name in names:
        if name != "scale 2":
            differences[f"{name} - scale 2"] = less(content, f"{name} / PGD-20", "scale 2 / PGD-20")
    against = less(content, "scale 2 / PGD-20", "constant / PGD-20")
    best = max(names, key=lambda name: share(content, f"{name} / PGD-20").value)
    apart = [name.removesuffix(" - scale 2") for name, v in differences.items() if v.low > 0.0 or v.high < 0.0]
    verdict_ = (
        f"beyond doubt other than factor 2: {', '.join(apart)}" if apart else "none differs from factor 2 beyond doubt"
    )
    lines += [
        "",
        "Alpha is shown by its 5, 50 and 95 % quantiles. The score is clipped in training alone, as in the authors' "
        "code, so at evaluation it spreads further than in training, and a factor spreads it more.",
        "",
        f"- *A factor of 2 is best*: here it is {best.removeprefix('scale ')}; {verdict_}. "
        + "; ".join(f"{name}: {points(value)}" for name, value in differences.items())
        + ".",
        f"- Factor 2 against one weight: {points(against)}.",
    ]
    return "\n".join(lines), _summary(content, differences | {"scale 2 - constant": against})


RENDERED: dict[int, Callable[[Content], tuple[str, Summary]]] = {2: settings, 3: settings, 6: losses, 7: scales}
