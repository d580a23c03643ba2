"""The command line: each verb has one thin file, and only this package writes to a terminal."""

# This file imports only modules that Python itself has loaded: a file in the current folder can shadow any other.
import os
import sys


def main() -> None:
    """Run a verb; an error gives one clear message and a non-zero exit code, never a traceback."""
    leave_current_folder()
    from hauberk.cli.interrupts import INTERRUPTED, ending_at_once

    if sys.argv[1:] == ["--version"]:
        from hauberk import __version__

        sys.stdout.write(f"hauberk {__version__}\n")
        return
    with ending_at_once():
        from contextvars import copy_context

        from hauberk.cli.app import asked, build
        from hauberk.cli.console import error_line
        from hauberk.cli.failures import failed
        from hauberk.cli.plugins import load_plugins

    path = list(sys.path)
    try:
        refuse_controls(sys.argv)
        with ending_at_once():
            load_plugins()
            app = build(asked(sys.argv[1:]))
        code = copy_context().run(app, standalone_mode=False)  # the command's trust ends with it
    except Exception as error:
        sys.exit(failed(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        sys.path[:] = path
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code and prints nothing
        error_line("stopped; what was finished is kept", "the same command goes on from there")
    if code:
        sys.exit(code)


def refuse_controls(arguments: list[str]) -> None:
    """Raise if an argument holds control characters of a terminal, as a file name matched by ``*`` may."""
    from hauberk.errors import HauberkError

    for argument in arguments:
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in argument.replace("\n", "").replace("\t", "")):
            raise HauberkError(f"the argument {argument!r} holds control characters", "rename the file")


def leave_current_folder() -> None:
    """Remove the current folder from ``sys.path`` where it precedes the standard library and could shadow it."""
    library = os.path.realpath(os.path.dirname(os.__file__))  # noqa: PTH120
    places = [os.path.realpath(place or ".") for place in sys.path]
    first = places.index(library) if library in places else 0
    sys.path[:] = [p for i, p in enumerate(sys.path) if i > first or not is_current_folder(p)]


def is_current_folder(place: str) -> bool:
    """Whether an entry of ``sys.path`` is the folder that the command was typed in."""
    try:
        return os.path.realpath(place or ".") == os.path.realpath(".")
    except OSError:  # the current folder is gone
        return not place
