"""The site: Sphinx reads the pages of this folder, the scripts of the lecture, and the docstrings.

Nothing here needs a network; a warning is an error (``make docs``).  The environment variable ``HAUBERK_LECTURE``
chooses which pages of the lecture run, for example ``plot_01``; all of them run without it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))

import hauberk  # noqa: E402

project = "Hauberk"
author = copyright = "The Hauberk developers"
version = release = hauberk.__version__

extensions = [
    "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.katex", "myst_parser", "sphinx_design",
    "sphinx_copybutton", "sphinx_gallery.gen_gallery", "reference_pages", "repository_links", "running",
]  # fmt: skip
exclude_patterns = ["_build", "_ext", "_static", "lecture/*.py", "lecture/*.ipynb", "lecture/*.md5", "lecture/*.json"]
language = "en"
smartquotes = False

# Markdown
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4

# formulas: the script comes with sphinxcontrib-katex, its style and fonts (KaTeX 0.16.22) from this folder
html_static_path = ["_static"]
katex_css_path = "katex/katex.min.css"
katex_options = "throwOnError: false"

# docstrings
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"Hauberk {release}"
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = "$ "


# the lecture
sphinx_gallery_conf = {
    "examples_dirs": ["../examples/lecture"],
    "gallery_dirs": ["lecture"],
    "filename_pattern": os.environ.get("HAUBERK_LECTURE", "plot_"),
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("charts.charts",),
    "capture_repr": (),
    "reset_modules": (),
    "abort_on_example_error": True,
    "min_reported_time": 0,
    "remove_config_comments": True,
    "download_all_examples": True,
    "show_signature": False,
}
