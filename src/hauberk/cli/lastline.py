"""The last line of a terminal, which is rewritten in place, and which process may do so."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

ERASE = "\r\x1b[2K"  # back to the beginning of the line, and empty it
USUAL_WIDTH = 80


class LastLine:
    """A line on stderr that is rewritten: on a terminal that obeys, and by one process at a time.

    Of several processes that write to one terminal the first draws, and the others write plain lines.  Nothing is
    changed that a kill would leave behind: the cursor is not hidden, and no thread draws.
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
        """Put a text into the line, which fits into it."""
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
        """Leave the line as it stands, begin another, and let another process draw."""
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
    """Whether stderr is a terminal that takes a line back, and whose user has not asked for plain text."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    return not plain and sys.stderr.isatty()


def width() -> int:
    """Columns of the terminal as it is now."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_WIDTH
    except (OSError, ValueError):
        return USUAL_WIDTH


def _in_foreground() -> bool:
    """Whether the shell has this process in the foreground; what runs in the background does not draw."""
    with suppress(OSError, AttributeError, ValueError):  # no terminal of its own, or no such system
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    return True


def _claimed() -> int | None:
    """An open file that holds the terminal's lock, which ends with this process; None if another process has it."""
    try:
        import fcntl

        terminal = os.open(os.ttyname(sys.stderr.fileno()), os.O_RDWR | os.O_NOCTTY)
    except (ImportError, OSError, ValueError):
        return os.open(os.devnull, os.O_RDONLY)  # there are no such locks: nobody is asked
    try:
        fcntl.flock(terminal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(terminal)
        return None
    except OSError:
        pass
    return terminal
