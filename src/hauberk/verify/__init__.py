"""Check a run again from its records, with numpy and scipy alone.

This package shares no code with the code that made the records: an assessor reads these few files and the records, and
needs no model.  It imports ``records`` only to open the files.
"""

from __future__ import annotations

from pathlib import Path

from hauberk.records import group, read_all
from hauberk.verify.derive import kept_margin, lipschitz, local_lipschitz, mixed_margin, smoothing
from hauberk.verify.files import verify_hashes
from hauberk.verify.paths import verify_mix
from hauberk.verify.proofs import verify_part
from hauberk.verify.verdict import Verdict

__all__ = [
    "Verdict",
    "kept_margin",
    "lipschitz",
    "local_lipschitz",
    "mixed_margin",
    "smoothing",
    "verify_folder",
    "verify_hashes",
    "verify_mix",
    "verify_part",
]


def verify_folder(records: Path) -> list[Verdict]:
    """Derive every certificate of a folder again; reading also checks each part's key against its content."""
    certificates = group(read_all(records, "certificate"))
    mixes = group(read_all(records, "mix"))
    return [verify_part(p) for p in certificates] + [verify_mix(m, certificates) for m in mixes]
