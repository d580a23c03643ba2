"""Check a run again from its records; the checks compute with numpy and scipy alone.

This package shares no code with the code that made the records: an assessor reads these few files and the records, and
needs no model.  It imports ``records``, ``reading`` and ``errors`` only to open, join and name records.
"""

from __future__ import annotations

from hauberk.verify.derive import kept_margin, lipschitz, local_lipschitz, mixed_margin, smoothing
from hauberk.verify.files import verify_hashes
from hauberk.verify.paths import verify_mix
from hauberk.verify.proofs import verify_part
from hauberk.verify.run import verify_files, verify_folder, verify_once, verify_run
from hauberk.verify.verdict import Verdict, ledger

__all__ = [
    "Verdict",
    "kept_margin",
    "ledger",
    "lipschitz",
    "local_lipschitz",
    "mixed_margin",
    "smoothing",
    "verify_files",
    "verify_folder",
    "verify_hashes",
    "verify_mix",
    "verify_once",
    "verify_part",
    "verify_run",
]

