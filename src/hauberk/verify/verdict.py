"""The results of verification for one evaluation, and for a whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from hauberk.errors import HauberkError

# errors that a damaged or hostile record may raise in a check
MALFORMED = (
    HauberkError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, RecursionError,
    AssertionError, pa.ArrowException, yaml.YAMLError,
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """The outcome for one evaluation, or for one question about the whole run.

    Args:
        predictor: the predictor of the records.
        method: the name of the checked method or files.
        rows: how many rows were checked.
        problems: one sentence for each contradiction.
        checked: claims that were checked, see ``claims``.
        trusted: claims that were taken on trust.
    """

    predictor: str
    method: str
    rows: int
    problems: tuple[str, ...]
    checked: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()


def ledger(verdicts: Iterable[Verdict]) -> tuple[list[str], list[str]]:
    """The claims that were checked and those that were taken on trust, each once.

    A checked claim is not listed as trusted, and a claim that is listed with details in parentheses is not listed
    without them.
    """
    found = list(verdicts)
    checked = list(dict.fromkeys(claim for v in found for claim in v.checked))
    trusted = list(dict.fromkeys(claim for v in found for claim in v.trusted))

    def told(claim: str, claims: list[str]) -> bool:
        return any(other.startswith(f"{claim} (") for other in claims)

    on_trust = [c for c in trusted if c not in checked and not told(c, checked + trusted)]
    return [c for c in checked if not told(c, checked)], on_trust


def guarded(check: Callable[..., Iterable[str]], *arguments: Any) -> list[str]:
    """The problems that a check finds; a record that it cannot read is a problem, and not a traceback."""
    try:
        with np.errstate(all="ignore"):  # infinite logits and the like: their results are checked
            return list(check(*arguments))
    except MALFORMED as error:
        return [f"the record cannot be read as what it claims to be ({one_line(error)})"]


def one_line(error: BaseException, most: int = 160) -> str:
    """An error as one short line without control characters."""
    text = error.message if isinstance(error, HauberkError) else f"{type(error).__name__}: {error}"
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def samples(ids: Iterable[Any], most: int = 3) -> str:
    """Some sample ids for a sentence, for example ``samples 1, 2, 3 and 5 more``."""
    found = [str(i) for i in ids]
    head, rest = ", ".join(found[:most]), len(found) - most
    name = "sample" if len(found) == 1 else "samples"
    return f"{name} {head}" + (f" and {rest} more" if rest > 0 else "")
