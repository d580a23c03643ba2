"""The one exception a user sees: what was expected, what came, what to do next."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

HERE = str(Path(__file__).parent)
STANDARD = sysconfig.get_path("stdlib")
MOST = 200  # torch lists every kernel that it has in some of its messages


class HauberkError(Exception):
    """An error that teaches.

    Args:
        message: what was expected and what came, in one sentence.
        hint: the next thing to do, in one sentence.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\n  {hint}" if hint else message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[HauberkError], tuple[str, str]]:  # it may come from another process
        return type(self), (self.message, self.hint)


def reason(error: BaseException) -> str:
    """What an error of a library says: its first line, at most ``MOST`` characters."""
    said = next(iter(str(error).strip().splitlines()), "").strip()
    return said if len(said) <= MOST else f"{said[:MOST]}..."


def first_line(error: BaseException) -> str:
    """``ValueError: what it says``; see ``reason``."""
    return f"{type(error).__name__}: {reason(error)}".removesuffix(": ")


def own_line(error: BaseException) -> str:
    """``file:line`` of the user's own code in which an error arose, empty where there was none.

    That is the innermost line below Hauberk's that belongs neither to Hauberk nor to an installed library.
    """
    files = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    below = next((i for i, (file, _) in enumerate(files) if file.startswith(HERE)), len(files))
    own = [(file, line) for file, line in files[below:] if not _library(file)]
    return f"{Path(own[-1][0]).name}:{own[-1][1]}" if own else ""


def _library(file: str) -> bool:
    installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
    return bool(installed) or file.startswith((HERE, STANDARD, "<"))
