"""Handling of Ctrl-C while the libraries are loaded, before a verb has begun."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process with one line during the block.

    An exception is not enough: it would be raised within some library's import, and end as a traceback, as another
    error or not at all.  Nothing changes where Ctrl-C is ignored, where another handler is set, or in another thread.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not (ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    os.write(2, b"error: stopped before anything was begun\n")
    os._exit(INTERRUPTED)
