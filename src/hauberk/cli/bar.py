"""A progress bar that fits into one line of a terminal, with details beside it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

SHORTEST, LONGEST = 8, 40  # columns of the bar itself


def fitted(label: str, share: float | None, details: Sequence[str], columns: int) -> str:
    """Label, bar, percentage and details in one line.

    Args:
        label: the name of the work; it is cut where it does not fit.
        share: share of the work that is done, in [0, 1]; None if it is unknown, and then there is no bar.
        details: the most important first; those that do not fit are left out.
        columns: width of the terminal; the last column stays empty, because some terminals break the line there.
    """
    from rich.cells import cell_len, set_cell_size  # here, because it takes a tenth of a second

    room = columns - 1
    percent = "" if share is None else f"{100 * share:3.0f}%"
    label = label if cell_len(label) + 2 + len(percent) <= room else set_cell_size(label, max(1, room - 7)) + "…"
    used = cell_len(label) + 2 + len(percent)
    kept: list[str] = []
    for detail in details:
        if used + 2 + cell_len(detail) + (2 + SHORTEST if kept else 0) > room:
            break
        used += 2 + cell_len(detail)
        kept.append(detail)
    free = min(LONGEST, room - used - 2)
    bar = _bar(share, free) if share is not None and free >= SHORTEST else ""
    parts = [part for part in (label, bar, percent, *kept) if part]
    return set_cell_size("  ".join(parts), room) if room < 7 else "  ".join(parts)


def _bar(share: float, columns: int) -> str:
    """The bar alone: bold for the part that is done, dim for the rest."""
    from rich.console import Console
    from rich.progress_bar import ProgressBar

    console = Console(file=sys.stderr, width=columns, force_terminal=True, no_color=True, legacy_windows=False)
    bar = ProgressBar(1.0, share, width=columns, style="dim", complete_style="bold", finished_style="bold")
    with console.capture() as drawn:
        console.print(bar, end="")
    return drawn.get()
