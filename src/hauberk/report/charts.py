"""Charts of a report: Altair writes Vega-Lite, and a page holds one library that draws all charts.

Colours are CSS custom properties (``var(--certified)``): the page sets their values for light, dark and print.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import vl_convert

from hauberk.errors import HauberkError
from hauberk.later import Later
from hauberk.report.board import Board
from hauberk.report.mixing import Dot, Mix
from hauberk.report.subject import Attacked, Curve, Level, one_axis
from hauberk.report.training import Trained
from hauberk.report.votes import Voted
from hauberk.report.words import NORMS
from hauberk.statistics import Interval

if TYPE_CHECKING:
    import altair as alt
else:
    alt = Later("altair")  # the import takes a second of processor time, and most verbs draw nothing

Spec = dict[str, Any]
Row = dict[str, float | str]

ATTACKED, CERTIFIED, GAP = "var(--attacked)", "var(--certified)", "var(--gap)"
ESTIMATED = "var(--estimated)"
INK, MUTED, RULE, PAPER = "var(--ink)", "var(--muted)", "var(--rule)", "var(--paper)"
FONT = "system-ui, sans-serif"
HEIGHT = 300
COLOURS = 8
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")


@functools.cache
def library() -> str:
    """Vega, Vega-Lite (of Altair's version) and Vega-Embed as one script that sets ``window.vegaEmbed``.

    Raises:
        HauberkError: if the script could end the element that holds it.
    """
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    if "</script" in script.lower() or "<!--" in script or "\r" in script:
        raise HauberkError(
            "the Vega bundle cannot be written into a page", "install another version of vl-convert-python"
        )
    return f"(() => {{\n{script}\n}})();"


def epsilon_axis(norm: str) -> tuple[float, str]:
    """The factor from pixel units to the axis, and the axis title; the axis of linf counts 255ths."""
    if norm == "linf":
        return 255.0, "budget ε in ℓ∞, in 255ths of the pixel range"
    if norm == "elements":
        return 1.0, "elements of each modality that may change"
    if norm == "levels":
        return 1.0, "levels of 8 bits by which all pixels may change in sum"
    return 1.0, f"budget ε in {NORMS.get(norm, norm)}, pixel values from 0 to 1"


def accuracy_against_epsilon(clean: Interval, attacked: Sequence[Attacked], curve: Curve | None) -> Spec:
    """Both bounds against the budget; a measurement is drawn as a point, because it holds at its own budget alone.

    Args:
        clean: accuracy without attack, drawn at eps 0.
        attacked: measured points of one norm, upper bounds.
        curve: the certificate in the same norm, a lower bound, or None.

    Returns:
        a Vega-Lite specification; the gap between both bounds is drawn at the measured budgets, where both bounds are
        about the same images.

    Raises:
        HauberkError: if the rows are of several predictors or norms.
    """
    _, norm = one_axis([*attacked, *([curve] if curve else [])])
    factor, title = epsilon_axis(norm)
    rows = {"clean": [_row(Level(0.0, clean), factor)]}
    end = max([*(a.eps for a in attacked), *(step.eps for step in (curve.steps if curve else ()))] or [1.0])
    end = 1.06 * end or 1.0
    x = alt.X("x:Q", title=title, scale=alt.Scale(domain=[0, end * factor], nice=False))
    layers: list[alt.Chart] = []
    if curve:
        same = [a for a in attacked if a.images == curve.images]
        rows["gap"] = [_gap(a, curve, factor) for a in same]
        layers += [_open(x)] if same else []
        rows["certified"] = [_row(level, factor) for level in _closed(list(curve.steps), end)]
        layers.append(_staircase("certified", x, CERTIFIED, 2.5))
    rows["measured"] = [_row(Level(a.eps, a.accuracy), factor) for a in attacked]
    layers += [*_measured("clean", x, INK, "circle"), *_measured("measured", x, ATTACKED, "diamond")]
    return styled(alt.LayerChart(layer=layers), rows, f"Accuracy against the budget in {NORMS.get(norm, norm)}")


def overlay(board: Board) -> Spec:
    """All classifiers in one norm: points for measurements, and staircases for certificates.

    Each classifier has the colour and the shape of its place on the page; the script marks the budget in ``chosen``.

    Returns:
        a Vega-Lite specification.
    """
    factor, title = epsilon_axis(board.norm)
    lines = sorted(board.lines, key=lambda line: line.number)
    rows: dict[str, list[Row]] = {"measured": [], "certified": [], "chosen": [{"x": board.eps * factor}]}
    for line in lines:
        own = [a for a in line.subject.attacked if a.norm == board.norm]
        if own or line.curve:
            points = [Level(0.0, line.subject.clean), *(Level(a.eps, a.accuracy) for a in own)]
            rows["measured"] += [_row(p, factor) | {"who": str(line.number)} for p in points]
    # the axis needs a length even if no budget is above 0
    end = 1.04 * max([board.eps * factor, *(float(row["x"]) for row in rows["measured"])]) or 1.0
    for line in lines:
        if line.curve:
            steps = _closed(thinned([s for s in line.curve.steps if s.eps * factor < end]), end / factor)
            rows["certified"] += [_row(s, factor) | {"who": str(line.number)} for s in steps]
    x = alt.X("x:Q", title=title, scale=alt.Scale(domain=[0, end], nice=False))
    named = [str(line.number) for line in lines]
    tint = alt.Color("who:N", legend=None, scale=alt.Scale(domain=named, range=[colour(line.number) for line in lines]))
    shape = alt.Shape("who:N", legend=None, scale=alt.Scale(domain=named, range=[form(line.number) for line in lines]))
    measured, certified, chosen = (alt.Chart(alt.NamedData(n)) for n in ("measured", "certified", "chosen"))
    return styled(alt.LayerChart(layer=[
        chosen.mark_rule(color=MUTED, strokeDash=[2, 3]).encode(x),
        certified.mark_line(interpolate="step-after", strokeWidth=2.5, clip=True).encode(
            x, _share_axis(), tint, order="x:Q"
        ),
        measured.mark_line(strokeWidth=1, strokeDash=[1, 4]).encode(x, _share_axis(), tint, order="x:Q"),
        measured.mark_rule(strokeWidth=1.5).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), tint),
        measured.mark_point(size=70, filled=True, opacity=1).encode(x, _share_axis(), tint, shape),
    ]), rows, f"Every classifier against the budget in {NORMS.get(board.norm, board.norm)}", 215)  # fmt: skip


def colour(number: int) -> str:
    """The colour of a classifier, by its place on the page."""
    return f"var(--c{(number - 1) % COLOURS})"


def form(number: int) -> str:
    """The shape of a classifier's points, by its place on the page; no two classifiers share both colour and shape."""
    return SHAPES[(number - 1 + (number - 1) // COLOURS) % len(SHAPES)]


def thinned(steps: Sequence[Level], most: int = 200) -> list[Level]:
    """Fewer steps of a falling staircase, never above it: a step that replaces several has the lowest accuracy."""
    if len(steps) <= most:
        return list(steps)
    kept = [k * (len(steps) - 1) // (most - 1) for k in range(most)]
    last = [*(k - 1 for k in kept[1:]), len(steps) - 1]
    return [Level(steps[k].eps, steps[end].accuracy) for k, end in zip(kept, last, strict=True)]


def accuracy_against_radius(curve: Curve) -> Spec:
    """The exact staircase of one certificate with its pointwise interval.

    Returns:
        a Vega-Lite specification.
    """
    _, norm = one_axis([curve])
    factor, title = epsilon_axis(norm)
    title = title.replace("budget ε", "radius")
    end = max(level.eps for level in curve.steps) * 1.04 or 1.0
    rows = {"steps": [_row(level, factor) for level in _closed(list(curve.steps), end)]}
    x = alt.X("x:Q", title=title, scale=alt.Scale(domain=[0, end * factor], nice=False))
    colour = MUTED if curve.proof == "estimate" else CERTIFIED
    band = _area("steps", x, colour, opacity=0.18)
    name = "Estimated" if curve.proof == "estimate" else "Certified"
    line = _staircase("steps", x, colour, 2.5, dash=curve.proof == "estimate")
    description = f"{name} accuracy against the radius in {NORMS.get(norm, norm)}"
    return styled(alt.LayerChart(layer=[band, line]), rows, description)


def radii(rows: Sequence[Voted], norm: str) -> Spec:
    """Certified accuracy of smoothed classifiers against the radius, logs dashed; all rows are of one norm.

    Returns:
        a Vega-Lite specification.
    """
    factor, title = epsilon_axis(norm)
    end = 1.04 * max(step.eps for row in rows for step in row.curve.steps) or 1.0
    steps = [
        _row(level, factor) | {"who": str(row.number), "kind": "log" if row.log else "own"}
        for row in rows for level in _closed(thinned(row.curve.steps), end)
    ]  # fmt: skip
    x = alt.X("x:Q", title=title.replace("budget ε", "radius"), scale=alt.Scale(domain=[0, end * factor], nice=False))
    numbers = list(dict.fromkeys(row.number for row in rows))
    tints = alt.Scale(domain=[str(k) for k in numbers], range=[colour(k) for k in numbers])
    line = alt.Chart(alt.NamedData("steps")).mark_line(interpolate="step-after", strokeWidth=2, clip=True).encode(
        x, _share_axis(), alt.Color("who:N", legend=None, scale=tints), order="x:Q",
    )  # fmt: skip
    own, logs = (line.transform_filter(f"datum.kind === '{kind}'") for kind in ("own", "log"))
    dashed = logs.encode(strokeDash=alt.value([5, 3]))
    said = f"Certified accuracy of smoothed classifiers against the radius in {NORMS.get(norm, norm)}"
    return styled(alt.LayerChart(layer=[own, dashed]), {"steps": steps}, said)


def plane(mix: Mix) -> Spec:
    """The accuracy-robustness plane of a mix: the page's script fills its data sets.

    ``path`` holds the certified and ``guess`` the estimated accuracy along alpha.  ``here`` and ``there`` hold their
    points at the chosen alpha, and ``dots`` holds the measurements.  A thin line joins the two models alone.

    Returns:
        a Vega-Lite specification with those data sets empty.
    """
    clean = [mix.clean_accuracy(k / 100).value for k in range(101)] + [d.clean.value for d in mix.dots]
    robust = [mix.certified_accuracy(1.0, e).high for e in mix.eps] + [d.attacked.high for d in mix.dots]
    robust += [e.accuracy(1.0).value for e in mix.estimates]
    low = max(0.0, min([*clean, *(d.clean.low for d in mix.dots)]) - 0.03)
    high = min(1.0, max([*clean, *(d.clean.high for d in mix.dots)]) + 0.02)
    end = min(1.0, max(robust, default=1.0) + 0.03)
    x = alt.X("x:Q", title="accuracy against the adversary", axis=_percent_axis(),
              scale=alt.Scale(domain=[0, end], nice=False))  # fmt: skip
    y = alt.Y("y:Q", title="clean accuracy", axis=_percent_axis(), scale=alt.Scale(domain=[low, high], nice=False))
    dots = alt.Chart(alt.NamedData("dots")).encode(x, y)
    constant, other = (dots.transform_filter(f"datum.kind {sign} 'other'") for sign in ("!==", "==="))
    alone = dots.transform_filter("datum.kind === 'accurate' || datum.kind === 'robust'")
    return styled(alt.LayerChart(layer=[
        alone.mark_line(color=MUTED, strokeWidth=1, opacity=0.6).encode(order="alpha:Q"),
        *_along(("guess", "there"), x, y, ESTIMATED, dash=True),
        *_along(("path", "here"), x, y, CERTIFIED, dash=False),
        dots.mark_rule(color=ATTACKED, opacity=0.5).encode(alt.X("xlow:Q"), alt.X2("xhigh:Q"), y),
        dots.mark_rule(color=ATTACKED, opacity=0.5).encode(x, alt.Y("ylow:Q"), alt.Y2("yhigh:Q")),
        _spot(constant, "diamond"),
        _spot(other, "square"),
        _label(dots, "datum.kind === 'mix'", "left", 14),
        *_others(dots, [slot(d, mix.dots) for d in mix.dots if d.alpha is None], end),
        _label(dots, "datum.kind === 'accurate'", "left", -12),
        _label(dots, "datum.kind === 'robust'", "right", 14),
    ]), {}, "Clean accuracy against robust accuracy for every weight of the mix")  # fmt: skip


def along_training(trained: Trained) -> Spec:
    """Accuracy against the epoch: solid on validation images, dashed on training images, coloured under attack."""
    rows: list[Row] = [
        {"epoch": p.epoch, "value": p.value, "line": line.column, "images": line.images,
         "kind": "attacked" if line.attacked else "clean"}
        for line in trained.lines for p in line.points
    ]  # fmt: skip
    dash = alt.Scale(domain=["validation", "training"], range=[[1, 0], [5, 4]])
    tints = alt.Scale(domain=["attacked", "clean"], range=[ATTACKED, INK])
    drawn = alt.Chart(alt.NamedData("epochs")).mark_line(strokeWidth=2).encode(
        alt.X("epoch:Q", title="epoch", scale=alt.Scale(nice=False)), _share_axis(),
        alt.Color("kind:N", legend=None, scale=tints), alt.StrokeDash("images:N", legend=None, scale=dash),
        detail="line:N", order="epoch:Q",
    )  # fmt: skip
    layers = [drawn]
    if trained.best is not None:
        chosen = alt.Chart(alt.NamedData("chosen")).mark_rule(color=MUTED, strokeWidth=1)
        layers.append(chosen.encode(x="epoch:Q"))
    said = "Accuracy on training and validation images, clean and attacked, against the epoch"
    best: list[Row] = [] if trained.best is None else [{"epoch": trained.best}]
    return styled(alt.LayerChart(layer=layers), {"epochs": rows, "chosen": best}, said)


def _along(names: tuple[str, str], x: alt.X, y: alt.Y, colour: str, dash: bool) -> list[alt.Chart]:
    """A line along alpha and its disc at the chosen alpha."""
    line, disc = (alt.Chart(alt.NamedData(n)) for n in names)
    stroke = [5, 4] if dash else [1, 0]
    return [
        line.mark_line(color=colour, strokeWidth=2.5, strokeDash=stroke).encode(x, y, order="alpha:Q"),
        disc.mark_point(filled=True, size=170, color=colour, stroke=PAPER, strokeWidth=2, opacity=1).encode(x, y),
    ]


def slot(dot: Dot, dots: Iterable[Dot]) -> int:
    """The line above its dot for the name of a mix of another kind, so that near names do not cover each other."""
    rivals = [d for d in dots if d.alpha is None and (d.norm, d.eps) == (dot.norm, dot.eps)]
    return rivals.index(dot) if dot in rivals else 0


def _others(dots: alt.Chart, slots: Iterable[int], end: float) -> list[alt.Chart]:
    """The names of mixes of another kind, which are long and therefore extend towards the middle of the chart."""
    found = []
    for k in sorted(set(slots)):
        here = f"datum.kind === 'other' && datum.slot === {k}"
        found.append(_label(dots, f"{here} && datum.x <= {end / 2}", "left", -12 - 14 * k))
        found.append(_label(dots, f"{here} && datum.x > {end / 2}", "right", -12 - 14 * k))
    return found


def _spot(chart: alt.Chart, shape: str, colour: str = ATTACKED) -> alt.Chart:
    marked: alt.Chart = chart.mark_point(shape=shape, size=90, filled=True, color=colour, opacity=1)
    return marked


def _label(dots: alt.Chart, condition: str, align: Literal["left", "right"], shift: float) -> alt.Chart:
    """The names of the selected dots, each kind on its own side, so that near names do not cover each other."""
    aside = 7 if align == "left" else -7
    chosen = dots.transform_filter(condition).mark_text(align=align, dx=aside, dy=shift, color=INK, fontSize=12)
    encoded: alt.Chart = chosen.encode(text="label:N")
    return encoded


def styled(chart: alt.LayerChart, rows: Mapping[str, list[Row]], description: str, height: int = HEIGHT) -> Spec:
    """The chart with the report's size, fonts and colours, and the rows of its named data (too many for Altair)."""
    found: Spec = chart.properties(
        width="container", height=height, background="transparent", description=description,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        padding={"left": 0, "right": 4, "top": 6, "bottom": 0},
    ).configure_view(stroke=None).configure_axis(
        labelColor=MUTED, titleColor=MUTED, gridColor=RULE, domainColor=RULE, tickColor=RULE, labelFont=FONT,
        titleFont=FONT, labelFontSize=12, titleFontSize=12, titleFontWeight="normal", titlePadding=8, tickCount=6,
        labelFlush=False,
    ).configure_text(font=FONT).to_dict()  # fmt: skip
    return found | {"datasets": dict(rows)} if rows else found


def _row(level: Level, factor: float) -> Row:
    return {
        "x": level.eps * factor,
        "value": level.accuracy.value,
        "low": level.accuracy.low,
        "high": level.accuracy.high,
    }


def _closed(levels: list[Level], end: float) -> list[Level]:
    """The staircase continued to the end of the axis."""
    return [*levels, Level(end, levels[-1].accuracy)]


def _gap(attacked: Attacked, curve: Curve, factor: float) -> Row:
    """Both bounds at one budget; the lower end is cut, because abstentions may lift it above the attacked accuracy."""
    high = attacked.accuracy.value
    return {"x": attacked.eps * factor, "low": min(curve.at(attacked.eps).value, high), "high": high}


def _open(x: alt.X) -> alt.Chart:
    """The interval between both bounds at a measured budget."""
    encoded: alt.Chart = alt.Chart(alt.NamedData("gap")).mark_rule(color=GAP, strokeWidth=9).encode(
        x, alt.Y("low:Q"), alt.Y2("high:Q")
    )  # fmt: skip
    return encoded


def _share_axis() -> alt.Y:
    return alt.Y("value:Q", title="accuracy", axis=_percent_axis(), scale=alt.Scale(domain=[0, 1]))


def _percent_axis() -> alt.Axis:
    return alt.Axis(format=".0%")


def _area(name: str, x: alt.X, colour: str, opacity: float = 1.0) -> alt.Chart:
    chart = alt.Chart(alt.NamedData(name)).mark_area(interpolate="step-after", color=colour, opacity=opacity)
    encoded: alt.Chart = chart.encode(x, alt.Y("low:Q", title="accuracy"), alt.Y2("high:Q"))
    return encoded


def _staircase(name: str, x: alt.X, colour: str, width: float, dash: bool = False) -> alt.Chart:
    mark = alt.Chart(alt.NamedData(name)).mark_line(
        interpolate="step-after", color=colour, strokeWidth=width, strokeDash=[5, 4] if dash else [1, 0], clip=True
    )
    encoded: alt.Chart = mark.encode(x, _share_axis(), order="x:Q")
    return encoded


def _measured(name: str, x: alt.X, colour: str, shape: str) -> list[alt.Chart]:
    base = alt.Chart(alt.NamedData(name))
    return [
        base.mark_rule(color=colour, strokeWidth=1.5).encode(x, alt.Y("low:Q"), alt.Y2("high:Q")),
        _spot(base, shape, colour).encode(x, _share_axis()),
    ]
