"""The command line: one thin file a verb; only this room speaks to a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from hauberk.errors import HauberkError
from hauberk.registry import load_plugins

INTERRUPTED = 130


def main() -> None:
    """Run a verb; an error is one clear message and a non-zero exit code, never a traceback."""
    from hauberk.cli.app import app
    from hauberk.cli.console import error_line

    sys.path.append(str(Path.cwd()))  # module:factory is found in the current folder, after everything installed
    try:
        load_plugins()
        app(standalone_mode=True)
    except HauberkError as error:
        error_line(error.message, error.hint)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer turns Ctrl-C into this code, without a word
            error_line("stopped; what was finished is kept", "the same command goes on from there")
        raise
    except MemoryError:
        error_line("out of memory", "use a smaller --tile or batch size")
        sys.exit(1)
    except OSError as error:
        error_line(f"{error.filename or 'file system'}: {error.strerror}", "what was finished is kept")
        sys.exit(1)
