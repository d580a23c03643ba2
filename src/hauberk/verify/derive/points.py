"""Class and budget from the worst points that a search found; an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def local_lipschitz(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    """Class, and the whole budget if no point on record brings a rival nearer than the margin; an estimate."""
    clean = np.asarray(row["clean"], dtype=np.float64)
    table = np.vstack([clean, np.asarray(row["points"], dtype=np.float64)])
    if not np.isfinite(table).all():
        return -1, 0.0
    top = int(np.argmax(clean))
    ahead = table[:, [top]] - table
    ahead[:, top] = np.inf
    return top, float(shared["eps"]) if (ahead > margin).all() else 0.0
