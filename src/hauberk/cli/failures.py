"""The failures of verbs: each gives one clear message with a next step and an exit code."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path

from hauberk.cli.console import error_line
from hauberk.errors import HauberkError, first_line, own_line

TOO_LITTLE = ("out of memory", "use a smaller --tile or batch size")


def failed(error: BaseException) -> int:
    """Write the message of an error, and return the exit code; an unexpected error is saved with its traceback."""
    usage = getattr(error, "format_message", None)  # click's own errors, wherever typer keeps that package
    if isinstance(error, HauberkError):
        error_line(error.message, error.hint)
    elif callable(usage):
        return _misused(error, str(usage()))
    elif isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        error_line(*TOO_LITTLE)
    elif own_line(error):
        error_line(f"your own code fails: {own_line(error)}: {first_line(error)}", "correct it, then run this again")
    elif isinstance(error, OSError) and error.strerror:
        error_line(f"{error.filename or 'file system'}: {error.strerror}", "what was finished is kept")
    else:
        error_line(f"unexpected {first_line(error)}", f"a fault of Hauberk: please report it with {_saved(error)}")
    return 1


def _misused(error: BaseException, said: str) -> int:
    """Report wrong usage: an unknown option or verb, a missing argument, a value of another type."""
    context = getattr(error, "ctx", None)
    path = "hauberk" if context is None else context.command_path.replace("__main__.py", "hauberk")
    if type(error).__name__ == "NoArgsIsHelpError":
        print(said)
    else:
        error_line(said.strip().rstrip("."), f"see: {path} --help")
    return 2


def _saved(error: BaseException) -> str:
    """Save the traceback, and return the path of its file, or other words if it cannot be saved."""
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="hauberk-error-", suffix=".txt")
        with os.fdopen(handle, "w") as file:
            file.write(text)
    except OSError:
        return "what was done before it"
    return str(Path(name))
