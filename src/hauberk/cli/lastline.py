"""The last line of a terminal, which one process at a time rewrites in place."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

ERASE = "\r\x1b[2K"  # back to the beginning of the line, and empty it
USUAL_WIDTH = 80


class LastLine:
    """A line on stderr that one process at a time rewrites, on a terminal that can erase a line.

    If several processes write to one terminal, the first draws, and the others write plain lines.  A killed process
    leaves nothing changed: the cursor is not hidden, and no thread draws.
    """

    def __init__(self) -> None:
        self._drawn = False
        self._claim: int | None = None

    def mine(self) -> bool:
        """Whether this process may draw."""
        if not obeys() or not _in_foreground():
            return False
        if self._claim is None:
            self._claim = _claimed()
        return self._claim is not None

    def draw(self, text: str) -> None:
        """Write a text into the line; the text must fit."""
        sys.stderr.write(f"{ERASE}{text}")
        sys.stderr.flush()
        self._drawn = True

    def clear(self) -> None:
        """Empty the line, so that something else can be written."""
        if self._drawn:
            self._drawn = False
            sys.stderr.write(ERASE)
            sys.stderr.flush()

    def keep(self) -> None:
        """Keep the line as it is, begin another, and let another process draw."""
        if self._drawn:
            self._drawn = False
            sys.stderr.write("\n")
            sys.stderr.flush()
        self.leave()

    def leave(self) -> None:
        """Let another process draw."""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None


LAST = LastLine()


def obeys() -> bool:
    """Whether stderr is a terminal that can erase a line, and its user has not asked for plain text."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    return not plain and sys.stderr.isatty()


def width() -> int:
    """Columns of the terminal as it is now."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_WIDTH
    except (OSError, ValueError):
        return USUAL_WIDTH


def _in_foreground() -> bool:
    """Whether this process runs in the foreground of the terminal; a background process does not draw."""
    with suppress(OSError, AttributeError, ValueError):  # no terminal of its own, or no such system
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    return True


def _claimed() -> int | None:
    """An open file with the terminal's lock, which ends with this process; None if another process has the lock."""
    try:
        import fcntl

        terminal = os.open(os.ttyname(sys.stderr.fileno()), os.O_RDWR | os.O_NOCTTY)
    except (ImportError, OSError, ValueError):
        return os.open(os.devnull, os.O_RDONLY)  # without such locks every process may draw
    try:
        fcntl.flock(terminal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(terminal)
        return None
    except OSError:
        pass
    return terminal
