"""Keep the figures of the lecture's pages: the chart that ends a cell becomes a PNG beside the page."""

from __future__ import annotations

from typing import Any

import altair
from sphinx_gallery.scrapers import figure_rst

SCALE = 1.5


def charts(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The chart of a cell's last line as an image; called by sphinx-gallery after each cell.

    Args:
        block: the cell, its code and its line.
        block_vars: among others the variables of the page and the iterator over file names.
        gallery_conf: the settings of the gallery.

    Returns:
        reStructuredText.
    """
    found = block_vars["example_globals"].get("___")
    if block[0] != "code" or not isinstance(found, altair.TopLevelMixin):
        return ""
    block_vars["example_globals"]["___"] = None  # the next cell may end without a chart
    path = next(block_vars["image_path_iterator"])
    found.save(path, scale_factor=SCALE)
    alternative = getattr(found, "title", None)
    return figure_rst([path], gallery_conf["src_dir"], "" if alternative is altair.Undefined else str(alternative))
