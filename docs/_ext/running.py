"""The directives ``run`` and ``file``: a page's commands are executed while the site is built.

Blocks of one page run in order in one fresh folder, without the user's settings.  A command that ends with another exit
code than the page says fails the build, so that a page cannot promise what does not work.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MINUTES = 5


def folder(env: Any) -> Path:
    """The scratch folder of the page that is read."""
    held = env.temp_data.get("hauberk_folder")
    if held is None:
        held = env.temp_data["hauberk_folder"] = tempfile.TemporaryDirectory(prefix="hauberk-page-")
    return Path(held.name)


class Run(SphinxDirective):
    """Run the body, show it and what it printed.

    Options: ``:python:`` the body is Python, not shell; ``:lines: N`` shows the first N lines of output; ``:quiet:``
    shows no output; ``:exit: N`` is the exit code that is expected.
    """

    has_content = True
    option_spec: ClassVar = {
        "python": directives.flag, "lines": directives.positive_int, "quiet": directives.flag,
        "exit": directives.nonnegative_int,
    }  # fmt: skip

    def run(self) -> list[nodes.Node]:
        """The nodes of the command and of its output."""
        code = "\n".join(self.content)
        python = "python" in self.options
        command = [sys.executable, "-c", code] if python else ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(
            command, cwd=folder(self.env), env=environment(), text=True, check=False, timeout=60 * MINUTES,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode != self.options.get("exit", 0):
            raise ExtensionError(f"{self.get_location()}: exit code {done.returncode}\n{code}\n{done.stdout}")
        shown: list[nodes.Node] = [nodes.literal_block(code, code, language="python" if python else "bash")]
        output = self._output(done.stdout)
        if output and "quiet" not in self.options:
            shown.append(nodes.literal_block(output, output, language="text", classes=["output"]))
        return shown

    def _output(self, text: str) -> str:
        lines = [line.rstrip() for line in ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")]
        lines = [line.rpartition("\r")[2].replace(f"{folder(self.env)}/", "") for line in lines]
        most = self.options.get("lines", len(lines))
        return "\n".join(lines[:most] + (["..."] if len(lines) > most else [])).strip("\n")


class File(SphinxDirective):
    """Write the body into the page's folder under the name given, and show it."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The node of the file."""
        path = folder(self.env) / self.arguments[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(self.content)
        path.write_text(text + "\n")
        language = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}.get(path.suffix, "text")
        box = nodes.container(literal_block=True, classes=["literal-block-wrapper"])
        box += nodes.caption("", self.arguments[0])
        box += nodes.literal_block(text, text, language=language)
        return [box]


def environment() -> dict[str, str]:
    """What a command sees: the interpreter of the build first, one thread, no colours, nobody's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HAUBERK_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        "PYTHONPATH": "",
    }  # fmt: skip


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both directives."""
    app.add_directive("run", Run)
    app.add_directive("file", File)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
