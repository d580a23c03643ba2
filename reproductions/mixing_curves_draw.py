"""Small charts for the Markdown pages: lines, dots and intervals as an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import vl_convert

FONT = "Helvetica, Arial, sans-serif"
COLOURS = ("#1b6ca8", "#c0392b", "#1e8449", "#8e44ad", "#d68910", "#2c3e50", "#17a2b8", "#7f8c8d")
INK, MUTED, RULE = "#222222", "#555555", "#dddddd"


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    Args:
        name: in the legend.
        x: abscissae.
        y: ordinates.
        low: lower ends of the intervals of y, or none.
        high: upper ends.
        xlow: lower ends of the intervals of x, or none.
        xhigh: upper ends.
        dots: mark the points.
        joined: join the points, in the order given.
        dashed: with a broken line.
        panel: which of several charts side by side.
        step: as a staircase.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    xlow: Sequence[float] = ()
    xhigh: Sequence[float] = ()
    dots: bool = True
    joined: bool = True
    dashed: bool = False
    panel: str = ""
    step: bool = False


@dataclass(frozen=True)
class Axes:
    """Titles of the axes and whether they are shares.

    Args:
        x: title.
        y: title.
        x_percent: abscissae are shares.
        y_end: end of the ordinate; none fits the data.
        width: of a panel.
        height: of a panel.
        columns: panels in a row.
    """

    x: str
    y: str
    x_percent: bool = False
    y_end: float | None = None
    width: int = 460
    columns: int = 3
    height: int = 320


def draw(lines: Sequence[Line], axes: Axes, description: str) -> str:
    """The chart as SVG text, one panel after another."""
    names = list(dict.fromkeys(line.name for line in lines))
    panels = list(dict.fromkeys(line.panel for line in lines))
    made = [_panel([line for line in lines if line.panel == panel], panel, names, axes) for panel in panels]
    chart = alt.concat(*made, columns=axes.columns).properties(background="white", description=description)
    chart = chart.configure_view(stroke=None).configure_axis(
        labelColor=MUTED, titleColor=INK, gridColor=RULE, domainColor=RULE, tickColor=RULE, labelFont=FONT,
        titleFont=FONT, labelFontSize=12, titleFontSize=12, titleFontWeight="normal", titlePadding=8,
        labelFlush=False, labelOverlap=True,
    ).configure_legend(
        labelFont=FONT, titleFont=FONT, labelFontSize=12, labelLimit=400, orient="bottom", columns=2, title=None,
        symbolType="stroke", symbolStrokeWidth=3,
    ).configure_title(font=FONT, fontSize=13, fontWeight="normal", color=INK)  # fmt: skip
    svg: str = vl_convert.vegalite_to_svg(chart.to_json())
    return svg + "\n"


def _panel(lines: Sequence[Line], title: str, names: Sequence[str], axes: Axes) -> alt.LayerChart | alt.FacetChart:
    colour = alt.Color("name:N", scale=alt.Scale(domain=list(names), range=list(COLOURS[: len(names)])))
    x = alt.X("x:Q", title=axes.x, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=8))
    if axes.x_percent:
        x = x.axis(format=".0%", tickCount=6)
    scale = alt.Scale(nice=True) if axes.y_end is None else alt.Scale(domain=[0, axes.y_end])
    y = alt.Y("y:Q", title=axes.y, axis=alt.Axis(format=".0%"), scale=scale)
    layers = []
    for line in lines:
        rows = _rows(line)
        base = alt.Chart(alt.InlineData(values=rows))
        if line.joined:
            stroke = [5, 4] if line.dashed else [1, 0]
            mark = base.mark_line(
                strokeWidth=2, strokeDash=stroke, interpolate="step-after" if line.step else "linear"
            )  # fmt: skip
            layers.append(mark.encode(x, y, colour, order="order:Q"))
        if line.low:
            rule = base.mark_rule(strokeWidth=1.2, opacity=0.6)
            layers.append(rule.encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), colour))
        if line.xlow:
            rule = base.mark_rule(strokeWidth=1.2, opacity=0.6)
            layers.append(rule.encode(alt.X("xlow:Q"), y, alt.X2("xhigh:Q"), color=colour))
        if line.dots:
            layers.append(base.mark_point(filled=True, size=45, opacity=1).encode(x, y, colour))
    return alt.layer(*layers).properties(width=axes.width, height=axes.height, title=title)


def _rows(line: Line) -> list[dict[str, float | str]]:
    found: list[dict[str, float | str]] = []
    for k, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        row: dict[str, float | str] = {"name": line.name, "x": x, "y": y, "order": k}
        for key, ends in (("low", line.low), ("high", line.high), ("xlow", line.xlow), ("xhigh", line.xhigh)):
            if ends:
                row[key] = ends[k]
        found.append(row)
    return found
