"""The site is built without a warning and without a network: every how-to runs, and two pages of the lecture."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = "plot_03|plot_15"
OUTSIDE = re.compile(r"""<(?:script|link|img)[^>]+(?:src|href)=["'](?:https?:)?//[^"']+["'][^>]*>""")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx_gallery")
    built = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-b", "html",
         "-d", str(built / "doctrees"), str(ROOT / "docs"), str(built / "html")],
        env=os.environ | {"HAUBERK_LECTURE": PAGES, "OMP_NUM_THREADS": "1"}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return built / "html"


def test_nothing_is_loaded_from_elsewhere(site):
    """A reader without a network sees the whole page, formulas included."""
    for page in ("index.html", "reference/methods/trades.html", "lecture/index.html", "how-to/own_model.html"):
        text = (site / page).read_text()
        assert not [tag for tag in OUTSIDE.findall(text) if "canonical" not in tag], page
    assert (site / "_static" / "katex" / "fonts" / "KaTeX_Main-Regular.woff2").exists()


def test_every_method_has_its_page_with_its_equation(site):
    from hauberk import registry

    for entry in registry.entries():
        assert (site / "reference" / "methods" / f"{entry.name}.html").exists(), entry.name
    page = (site / "reference" / "methods" / "trades.html").read_text()
    assert r"\mathrm{CE}" in page


def test_a_how_to_shows_what_its_commands_printed(site):
    page = (site / "how-to" / "own_model.html").read_text()
    assert "output" in page
    assert "hauberk evaluate" in page


def test_a_page_of_the_lecture_has_its_figure_and_its_notebook(site):
    name = next(p.stem for p in (ROOT / "examples" / "lecture").glob("plot_03*.py"))
    assert f"{name}.ipynb" in (site / "lecture" / f"{name}.html").read_text()
    assert list((site / "_images").glob(f"sphx_glr_{name}_001.png"))
