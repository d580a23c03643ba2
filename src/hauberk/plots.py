"""Figures of the lecture companion and of notebooks: decision regions, landscapes, curves, points and images.

Every function returns an Altair chart; :func:`figure` puts one or several into the colours and fonts of the project.
A notebook shows what it returns, and ``.save("figure.png")`` writes it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image

from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    import altair as alt
    from torch import Tensor
else:
    alt = Later("altair")

Row = Mapping[str, Any]
Box = tuple[float, float, float, float]

PALETTE = ("#2563a8", "#c2571a", "#2f7d4f", "#8a4fa3", "#a08416", "#b23a5b", "#4a6b7c", "#6d5a44")
TINTS = ("#cfe0f2", "#f7dcc6", "#cfe8d6", "#e6d6ee", "#efe6bd", "#f2d0da", "#d6e0e6", "#e0d8ce")
ABSTAIN = "#9a9a9a"
INK, MUTED, RULE = "#222222", "#5f6368", "#e3e3e3"
FONT = "system-ui, sans-serif"
HEAT = ((49, 54, 149), (171, 217, 233), (255, 255, 191), (253, 174, 97), (165, 0, 38))


def regions(
    classify: Callable[[Tensor], Tensor], box: Box, points: Tensor | None = None, labels: Tensor | None = None,
    *, title: str = "", size: int = 230, resolution: int = 240,
) -> alt.LayerChart:  # fmt: skip
    """The regions of the plane that a classifier gives to each class, with points over them.

    Args:
        classify: from points, (N, 2), to classes, (N,); -1 is drawn grey, as an abstention.
        box: left, right, bottom and top of the plane.
        points: shape (M, 2).
        labels: the classes of the points, shape (M,).
        title: above the panel.
        size: of the panel in pixels.
        resolution: cells along each side.

    Raises:
        HauberkError: if the classes, or the labels, are not one for each point.
    """
    found = _square(classify(grid(box, resolution)), resolution).long()
    table = torch.tensor([_rgb(tint) for tint in (*TINTS, ABSTAIN)], dtype=torch.uint8)  # on the CPU: a colour table
    chosen = torch.where(found < 0, len(TINTS), found % len(TINTS)).cpu()
    layers = [_raster(table[chosen], box, size)]
    if points is not None:
        if labels is not None and len(labels) != len(points):
            raise HauberkError(f"there are {len(labels)} labels for {len(points)} points", "give one label a point")
        classes = torch.zeros(len(points), device=points.device) if labels is None else labels
        rows: list[dict[str, Any]] = [
            {"x": float(x), "y": float(y), "class": str(int(label))}
            for (x, y), label in zip(points.tolist(), classes.tolist(), strict=True)
        ]
        names = sorted({row["class"] for row in rows}, key=int)
        tint = alt.Scale(domain=names, range=[PALETTE[int(name) % len(PALETTE)] for name in names])
        layers.append(
            alt.Chart(alt.InlineData(values=rows)).mark_circle(size=22, opacity=0.9, clip=True).encode(
                _x(box), _y(box), alt.Color("class:N", scale=tint, legend=None)
            )
        )  # fmt: skip
    return alt.LayerChart(layer=layers).properties(width=size, height=size, title=title)


def landscape(
    value: Callable[[Tensor], Tensor] | Tensor, box: Box, *, ends: tuple[float, float] | None = None,
    axes: tuple[str, str] = ("", ""), title: str = "", size: int = 230, resolution: int = 120,
) -> alt.LayerChart:  # fmt: skip
    """A number over the plane, from blue (low) to red (high); what is not finite is grey.

    Args:
        value: from points, (N, 2), to numbers, (N,); or the numbers themselves, (rows from below, columns).
        box: left, right, bottom and top.
        ends: the numbers of full blue and full red; the least and the largest number if None.
        axes: titles of the axes.
        title: above the panel; the ends of the colours stand beneath it.
        size: of the panel in pixels.
        resolution: cells along each side, where ``value`` is a function.

    Raises:
        HauberkError: if the numbers are of another shape, or none of them is finite.
    """
    found = value if isinstance(value, torch.Tensor) else _square(value(grid(box, resolution)), resolution)
    found = found.detach().float().cpu()
    finite = found.isfinite()
    if found.ndim != 2 or not finite.any():
        raise HauberkError(
            f"expected numbers of shape (rows, columns), some of them finite, got {tuple(found.shape)}",
            "give a function of points, or one number a cell",
        )
    low, high = ends or (float(found[finite].min()), float(found[finite].max()))
    found = torch.where(finite, found, low)
    share = ((found - low) / max(high - low, 1e-12)).clamp(0, 1) * (len(HEAT) - 1)
    table = torch.tensor(HEAT, dtype=torch.float32)  # on the CPU: a colour table
    below = share.floor().clamp(max=len(HEAT) - 2).long()
    mixed = table[below] + (share - below)[..., None] * (table[below + 1] - table[below])
    mixed[~finite] = torch.tensor(_rgb(ABSTAIN), dtype=torch.float32)  # on the CPU: a colour
    said = alt.TitleParams(title, subtitle=f"blue {low:.3g}, red {high:.3g}")
    layers = [_raster(mixed.to(torch.uint8), box, size, axes)]
    return alt.LayerChart(layer=layers).properties(width=size, height=size, title=said)


def curves(
    rows: Sequence[Row], x: str, y: str, series: str | None = None, *, band: tuple[str, str] | None = None,
    title: str = "", percent: bool = False, steps: bool = False,
) -> alt.LayerChart:  # fmt: skip
    """Lines through points, one line for each series.

    Args:
        rows: one mapping for each point.
        x: the column along, whose name is the title of the axis too.
        y: the column upwards, likewise.
        series: the column that names the line.
        band: the columns of an interval, drawn as a band.
        title: above the chart.
        percent: whether y is a share, drawn in percent from 0 to 1.
        steps: whether the value holds from a point to the one before, as certified accuracy does.

    Raises:
        HauberkError: if a row lacks a column.
    """
    _check_rows(rows, x, y, series, *(band or ()))
    share: dict[str, Any]
    share = {"axis": {"format": ".0%"}, "scale": {"domain": [0, 1]}} if percent else {"scale": {"zero": False}}
    encoded = alt.Chart(alt.InlineData(values=[dict(row) for row in rows])).encode(
        alt.X(f"{x}:Q", scale=alt.Scale(nice=False)), **_series(rows, series)
    )
    between: Literal["step-before", "linear"] = "step-before" if steps else "linear"
    layers = [encoded.mark_line(interpolate=between, strokeWidth=2).encode(alt.Y(f"{y}:Q", **share), order=f"{x}:Q")]
    if band:
        area = encoded.mark_area(interpolate=between, opacity=0.15)
        low = alt.Y(f"{band[0]}:Q", title=y, stack=None, **share)
        layers.insert(0, area.encode(low, alt.Y2(f"{band[1]}:Q")))
    return alt.LayerChart(layer=layers).properties(width=460, height=260, title=title)


def scatter(
    rows: Sequence[Row], x: str, y: str, series: str | None = None, *, title: str = "", size: int = 300
) -> alt.LayerChart:
    """Points in a plane whose axes have no common scale; settings as in :func:`curves`."""
    _check_rows(rows, x, y, series)
    flat = alt.Scale(zero=False)
    points = alt.Chart(alt.InlineData(values=[dict(row) for row in rows])).mark_circle(size=30, opacity=0.75).encode(
        alt.X(f"{x}:Q", scale=flat), alt.Y(f"{y}:Q", scale=flat), **_series(rows, series)
    )  # fmt: skip
    return alt.LayerChart(layer=[points]).properties(width=size, height=size, title=title)


def bars(
    rows: Sequence[Row], name: str, value: str, series: str | None = None, *, title: str = "", percent: bool = False
) -> alt.LayerChart:
    """One bar for each row, side by side where a name has several series; settings as in :func:`curves`."""
    _check_rows(rows, name, value, series)
    names = list(dict.fromkeys(row[name] for row in rows))
    aside = {} if series is None else {"yOffset": alt.YOffset(f"{series}:N", sort=None)}
    shown = alt.X(f"{value}:Q", axis=alt.Axis(format=".0%", tickMinStep=0.01) if percent else alt.Axis())
    drawn = alt.Chart(alt.InlineData(values=[dict(row) for row in rows])).mark_bar().encode(
        shown, alt.Y(f"{name}:N", sort=names, title=None), **_series(rows, series), **aside
    )  # fmt: skip
    return alt.LayerChart(layer=[drawn]).properties(width=460, title=title)


def pictures(images: Tensor, titles: Sequence[str] = (), *, columns: int = 8, size: int = 84) -> alt.LayerChart:
    """Images side by side, each under its title.

    Args:
        images: values in [0, 1], shape (N, C, H, W) with one or three channels.
        titles: one for each image, or none.
        columns: images in a row.
        size: of an image in pixels.

    Raises:
        HauberkError: if there is no image, their shape is another one, or there are more titles than images.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise HauberkError(f"images have shape {tuple(images.shape)}", "give (N, C, H, W) with one or three channels")
    if len(titles) > len(images):
        raise HauberkError(f"there are {len(titles)} titles for {len(images)} images", "give one title an image")
    levels = (images.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    said = [*titles, *[""] * (len(levels) - len(titles))]
    step, tall = size + 14, size + (30 if titles else 8)
    rows = [
        {"x": (k % columns) * step, "y": -(k // columns) * tall, "title": name, "url": _url(image)}
        for k, (image, name) in enumerate(zip(levels, said, strict=True))
    ]
    wide, high = min(columns, len(rows)), -(-len(rows) // columns)
    placed = alt.Chart(alt.InlineData(values=rows)).encode(
        alt.X("x:Q", scale=alt.Scale(domain=[-step / 2, (wide - 0.5) * step], nice=False, zero=False), axis=None),
        alt.Y("y:Q", scale=alt.Scale(domain=[-(high - 0.5) * tall, tall / 2], nice=False, zero=False), axis=None),
    )
    layers = [placed.mark_image(width=size, height=size).encode(url="url:N")]
    if titles:
        layers.append(placed.mark_text(dy=-size / 2 - 9, fontSize=11, color=INK).encode(text="title:N"))
    return alt.LayerChart(layer=layers).properties(width=wide * step, height=high * tall)


def figure(*charts: alt.LayerChart, columns: int = 4) -> alt.ConcatChart:
    """One chart or several, in rows of ``columns``, in the colours and fonts of the project."""
    joined = alt.concat(*charts, columns=columns).resolve_scale(color="independent", x="independent", y="independent")
    plain: alt.ConcatChart = joined.configure(font=FONT, background="white").configure_view(stroke=None)
    styled: alt.ConcatChart = plain.configure_axis(
        labelColor=MUTED, titleColor=MUTED, gridColor=RULE, domainColor=RULE, tickColor=RULE, titleFontWeight="normal",
        labelFontSize=11, titleFontSize=12, labelFlush=False,
    ).configure_title(
        color=INK, subtitleColor=MUTED, fontWeight="normal", fontSize=13, subtitleFontSize=11, anchor="start"
    ).configure_legend(
        symbolOpacity=1, labelFontSize=12, titleFontWeight="normal", titleColor=MUTED, labelLimit=320
    )  # fmt: skip
    return styled


def grid(box: Box, resolution: int) -> Tensor:
    """The centres of the cells of a box, row by row from below, shape (resolution squared, 2)."""
    left, right, bottom, top = box
    share = (torch.arange(resolution) + 0.5) / resolution  # on the CPU: a figure's coordinates
    across, up = left + (right - left) * share, bottom + (top - bottom) * share
    return torch.stack([across.repeat(resolution), up.repeat_interleave(resolution)], 1)


def _square(values: Tensor, resolution: int) -> Tensor:
    """What a function said of the points of a grid, (rows from below, columns)."""
    if values.numel() != resolution**2:
        raise HauberkError(
            f"expected one number for each of {resolution**2} points, got shape {tuple(values.shape)}",
            "give a function from points (N, 2) to numbers (N,), such as lambda points: net(points).argmax(1)",
        )
    return values.reshape(resolution, resolution)


def _check_rows(rows: Sequence[Row], *columns: str | None) -> None:
    """Raise unless every row has the columns; none is named where one is None."""
    for number, row in enumerate(rows):
        for column in columns:
            if column is not None and column not in row:
                raise HauberkError(f"row {number} has no column {column!r}", f"it has: {', '.join(map(str, row))}")


def _raster(levels: Tensor, box: Box, size: int, axes: tuple[str, str] = ("", "")) -> alt.Chart:
    """Colours, (rows from below, columns, 3), as one image that fills the panel."""
    middle = {"x": (box[0] + box[1]) / 2, "y": (box[2] + box[3]) / 2, "url": _url(levels.flip(0), size)}
    mark = alt.Chart(alt.InlineData(values=[middle])).mark_image(width=size, height=size, aspect=False)
    drawn: alt.Chart = mark.encode(_x(box, axes[0]), _y(box, axes[1]), url="url:N")
    return drawn


def _x(box: Box, title: str = "") -> alt.X:
    scale = alt.Scale(domain=list(box[:2]), nice=False, zero=False)
    return alt.X("x:Q", scale=scale, title=title or None, axis=alt.Axis(grid=False, tickCount=4))


def _y(box: Box, title: str = "") -> alt.Y:
    scale = alt.Scale(domain=list(box[2:]), nice=False, zero=False)
    return alt.Y("y:Q", scale=scale, title=title or None, axis=alt.Axis(grid=False, tickCount=4))


def _series(rows: Sequence[Row], series: str | None) -> dict[str, Any]:
    """The colours of the lines, in the order in which the rows name them."""
    if series is None:
        return {"color": alt.value(PALETTE[0])}
    names = list(dict.fromkeys(str(row[series]) for row in rows))
    tints = [PALETTE[k % len(PALETTE)] for k in range(len(names))]
    return {"color": alt.Color(f"{series}:N", scale=alt.Scale(domain=names, range=tints), title=None)}


def _rgb(colour: str) -> list[int]:
    return [int(colour[k : k + 2], 16) for k in (1, 3, 5)]


def _url(levels: Tensor, least: int = 168) -> str:
    """Levels, (H, W, C), as a PNG in a data URL, whole pixels enlarged so that browsers do not blur them."""
    drawn = Image.fromarray(levels.squeeze(-1).contiguous().numpy())
    factor = max(1, -(-least // drawn.width))
    drawn = drawn.resize((drawn.width * factor, drawn.height * factor), Image.Resampling.NEAREST)
    held = io.BytesIO()
    drawn.save(held, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()
