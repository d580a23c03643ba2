"""Figures show what they were given: the colours of a panel are read back from the drawn PNG."""

import base64
import io

import numpy as np
import pytest
import torch
import vl_convert
from PIL import Image

from hauberk import plots
from hauberk.errors import HauberkError


def drawn(chart):
    png = vl_convert.vegalite_to_png(plots.figure(chart).to_dict(), scale=1)
    return np.array(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def embedded(chart):
    """The image that a panel holds in its first layer."""
    spec = chart.to_dict()
    (rows,) = [rows for rows in spec["datasets"].values() if "url" in rows[0]] if "datasets" in spec else [[]]
    if not rows:
        rows = spec["layer"][0]["data"]["values"]
    return np.array(Image.open(io.BytesIO(base64.b64decode(rows[0]["url"].partition(",")[2])))).astype(int)


def tint(name):
    return [int(name[k : k + 2], 16) for k in (1, 3, 5)]


def test_regions_puts_each_class_on_its_side():
    """Class 1 lies above the line y = 0, and the grey of an abstention right of x = 0.5."""

    def classify(points):
        return torch.where(points[:, 0] > 0.5, -1, (points[:, 1] > 0).long())

    image = embedded(plots.regions(classify, (-1, 1, -1, 1)))
    high, wide = image.shape[:2]
    assert image[high // 4, wide // 4].tolist() == tint(plots.TINTS[1])
    assert image[3 * high // 4, wide // 4].tolist() == tint(plots.TINTS[0])
    assert image[high // 2, wide - 5].tolist() == tint(plots.ABSTAIN)


def test_landscape_goes_from_blue_to_red_upwards():
    image = embedded(plots.landscape(lambda points: points[:, 1], (0, 1, 0, 1)))
    assert image[0, 0].tolist() == pytest.approx(plots.HEAT[-1], abs=12)
    assert image[-1, 0].tolist() == pytest.approx(plots.HEAT[0], abs=12)


def test_what_is_not_finite_is_grey_and_sets_no_end_of_the_colours():
    numbers = torch.tensor([[0.0, 1.0], [float("nan"), float("inf")]])
    chart = plots.landscape(numbers, (0, 1, 0, 1))
    image = embedded(chart)
    assert [image[0, 0].tolist(), image[0, -1].tolist()] == [tint(plots.ABSTAIN)] * 2
    assert image[-1, 0].tolist() == list(plots.HEAT[0]) and image[-1, -1].tolist() == list(plots.HEAT[-1])
    assert "red 1" in chart.to_dict()["title"]["subtitle"]


GAPS = [{"x": 1, "y": 2}, {"x": 2}]
NANS = torch.full((2, 2), float("nan"))
BOX = (0, 1, 0, 1)
MISUSES = {
    "titles": (lambda: plots.pictures(torch.zeros(1, 1, 2, 2), ["a", "b"]), "2 titles for 1 images"),
    "no image": (lambda: plots.pictures(torch.zeros(0, 1, 2, 2)), "one or three channels"),
    "nothing finite": (lambda: plots.landscape(NANS, BOX), "some of them finite"),
    "one axis": (lambda: plots.landscape(torch.zeros(4), BOX), r"\(rows, columns\)"),
    "logits": (lambda: plots.regions(lambda p: torch.zeros(len(p), 3), BOX), "one number for each"),
    "labels": (lambda: plots.regions(lambda p: p[:, 0], BOX, torch.zeros(2, 2), torch.zeros(3)), "3 labels for 2"),
    "curves": (lambda: plots.curves(GAPS, "x", "y"), "row 1 has no column 'y'"),
    "band": (lambda: plots.curves(GAPS, "x", "x", band=("y", "y")), "row 1 has no column 'y'"),
    "scatter": (lambda: plots.scatter(GAPS, "x", "x", "kind"), "row 0 has no column 'kind'"),
    "bars": (lambda: plots.bars(GAPS, "y", "x"), "row 1 has no column 'y'"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_what_does_not_fit_is_one_sentence(name):
    call, said = MISUSES[name]
    with pytest.raises(HauberkError, match=said):
        call()


def test_the_cells_of_the_grid_are_centres_row_by_row():
    assert plots.grid((0, 2, 0, 4), 2).tolist() == [[0.5, 1], [1.5, 1], [0.5, 3], [1.5, 3]]


def test_pictures_keep_the_levels():
    images = torch.tensor([[[[0.0, 1.0], [0.5, 0.2]]]])
    image = embedded(plots.pictures(images, ["one"]))
    assert image[0, 0] == 0
    assert image[0, -1] == 255
    assert image[-1, 0] == 128
    with pytest.raises(HauberkError, match="one or three channels"):
        plots.pictures(torch.zeros(1, 2, 2, 2))


ROWS = [{"epoch": k, "accuracy": 0.1 * k, "low": 0.1 * k - 0.05, "high": 0.1 * k + 0.05, "net": n}
        for k in range(4) for n in ("one", "two")]  # fmt: skip


@pytest.mark.parametrize("chart", [
    lambda: plots.curves(ROWS, "epoch", "accuracy", "net", band=("low", "high"), percent=True, steps=True),
    lambda: plots.scatter(ROWS, "epoch", "accuracy", "net"),
    lambda: plots.bars(ROWS, "net", "accuracy", percent=True),
])  # fmt: skip
def test_charts_are_drawn_in_the_colours_of_the_series(chart):
    seen = {tuple(c) for c in drawn(chart()).reshape(-1, 3).tolist()}
    assert tuple(tint(plots.PALETTE[0])) in seen


def test_the_axis_of_bars_reads_as_numbers():
    """An empty format would write 200 as 2e+2; ticks closer than one percent would repeat themselves."""
    for percent, axis in ((False, {}), (True, {"format": ".0%", "tickMinStep": 0.01})):
        layer = plots.bars(ROWS, "net", "epoch", percent=percent).to_dict()["layer"][0]
        assert layer["encoding"]["x"]["axis"] == axis
