"""Links of a page to files of the repository.

The pages of ``docs/`` are also read in the repository, where a link leads to a file or a folder.  On the site a link to
a page that the site has leads there, a link to another file offers the file, and a link to a folder becomes plain text.
Pages of the repository that belong to the site (``PAGES``) are copied into ``docs/project`` first.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

PAGES = {
    "CONTRIBUTING.md": "project/contributing",
    "CHANGELOG.md": "project/changelog",
    "results/README.md": "project/results",
}
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def rewritten(text: str, here: Path, page: Path, docs: Path) -> str:
    """A page's text with its links led to where they are on the site.

    Args:
        text: Markdown.
        here: the folder that its relative links start from.
        page: the folder of the page on the site.
        docs: the folder of the site's sources.
    """
    root = docs.parent

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        path = (here / target).resolve()
        if not path.is_relative_to(root):
            return words
        name = path.relative_to(root).as_posix()
        if name == "README.md":
            return f"[{words}]({os.path.relpath(docs / 'index.md', page)})"
        if name in PAGES:
            return f"[{words}]({os.path.relpath(docs / (PAGES[name] + '.md'), page)}{anchor})"
        if path.is_dir():
            return words
        if path.suffix == ".md" and not path.is_relative_to(docs):
            return words
        return f"[{words}]({os.path.relpath(path, page)}{anchor})"

    return LINK.sub(link, text)


def copied(app: Sphinx) -> None:
    """The pages of the repository that belong to the site."""
    docs = Path(app.srcdir)
    for name, where in PAGES.items():
        source, target = docs.parent / name, docs / f"{where}.md"
        text = rewritten(source.read_text(), source.parent, target.parent, docs)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """A page's own links, when it is read."""
    if name in PAGES.values() or name.startswith(("reference/", "lecture/")):
        return
    page = Path(app.srcdir) / f"{name}.md"
    if page.exists():
        source[0] = rewritten(source[0], page.parent, page.parent, Path(app.srcdir))


def setup(app: Sphinx) -> dict[str, bool]:
    """Before the pages are read, and for each."""
    app.connect("builder-inited", copied)
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
