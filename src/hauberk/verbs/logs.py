"""The smoothing certificates of a run as a certification log, in the layout of the field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hauberk import records, registry
from hauberk.certificates import SmoothingCertificate
from hauberk.certification_log import written
from hauberk.errors import HauberkError
from hauberk.records import Part
from hauberk.report.collect import subject_key, told_apart
from hauberk.runs import Run
from hauberk.storage import atomic_write

CHOICES = ("split", "predictor", "method", "seed")


def certified(run: Run, wanted: Mapping[str, str]) -> Part:
    """The selected smoothing certificate; results outside the plan of their votes do not count as certificates.

    Args:
        run: with records of certificates.
        wanted: ``split``, ``predictor``, ``method`` (see ``typed``) and ``seed``, where the run has several.

    Raises:
        HauberkError: if there is none, or there are several to choose from.
    """
    every = records.group(told_apart(records.read_all(run.records, "certificate")))
    parts = [p for p in every if p.unit["method"]["name"] == "smoothing" and p.facts["proof"] == "probabilistic"]
    found = [p for p in parts if all(_about(p)[name] == value for name, value in wanted.items())]
    if not found:
        known = "; ".join(sorted({", ".join(_about(p).values()) for p in parts})) or "none"
        raise HauberkError(
            f"expected a smoothing certificate with these settings in {run.path}, found {known}",
            "make one: hauberk certify RUN --method smoothing,sigma=0.25",
        )
    for name in CHOICES:
        values = sorted({_about(p)[name] for p in found})
        if len(values) > 1:
            raise HauberkError(
                f"{run.path} has certificates of several {name}s: {'; '.join(values)}", f"name one: --{name}"
            )
    return found[0]


def _about(part: Part) -> dict[str, str]:
    predictor, _, split = subject_key(part)
    return {"split": split, "predictor": predictor, "method": typed(method_of(part)), "seed": str(part.unit["seed"])}


def method_of(part: Part) -> SmoothingCertificate:
    """How a smoothing certificate was made."""
    found: SmoothingCertificate = registry.build(dict(part.unit["method"]), "certificate")
    return found


def typed(method: SmoothingCertificate) -> str:
    """A method as it is typed for ``certify``: ``smoothing,noise=gaussian:0.25,n0=100,n=1000,...``."""
    spec = registry.spec(method)
    noise = spec.pop("noise")
    shown = {"noise": f"{noise['name']}:{noise['sigma']}"} | {k: v for k, v in spec.items() if v is not None}
    return ",".join([str(shown.pop("name")), *(f"{key}={value}" for key, value in shown.items())])


def write_log(part: Part, path: Path) -> Path:
    """Write a certificate as a log; radii are rounded down, so that they stay certified.

    Returns:
        its path.
    """
    columns = (part.column(name) for name in ("id", "label", "prediction", "radius"))
    atomic_write(path, written(*columns).encode())
    return path
