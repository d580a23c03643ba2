"""Certification logs from elsewhere, shown beside runs: their stated settings, and whether their radii agree."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauberk import reading, records, registry
from hauberk.certification_log import CertificationLog, read_log
from hauberk.errors import HauberkError
from hauberk.noises import Noise
from hauberk.records import Part
from hauberk.report.ladder import Ladder, ladder

PROOF = "log"  # beside the proofs of certificates: others state it, and nothing of it is derived here
KEYS = ("name", "called", "sigma", "noise", "n", "alpha")
SIGMA = re.compile(r"sigma[_=](\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Log:
    """A log with the settings that its user states.

    Args:
        name: its name on the page.
        path: the file.
        content: SHA-256 of the file.
        noise: the noise of the certificates.
        n: votes of an image; None if it is not stated.
        alpha: failure probability of an image; None if it is not stated.
        told: the content of the log, with one row for each image.
    """

    name: str
    path: Path
    content: str
    noise: Noise
    n: int | None
    alpha: float | None
    told: CertificationLog

    @property
    def ladder(self) -> Ladder | None:
        """The comparison of the radii with n and alpha, if both are stated."""
        return None if self.n is None or self.alpha is None else ladder(self.told, self.noise, self.n, self.alpha)

    @property
    def notes(self) -> list[str]:
        """The remarks that a reader needs before trusting the log, in sentences."""
        wrong = contradiction(self.ladder)
        said = [*self.told.notes, *([f"contradicts what is stated: {wrong}"] if wrong else [])]
        return [f"{self.path}: {note}" for note in said]

    @property
    def part(self) -> Part:
        """The log in the form of a certificate's records, to be counted alike; it is never stored among the records."""
        method = {"name": "smoothing", "noise": registry.spec(self.noise), "n": self.n, "alpha": self.alpha}
        unit = {"predictor": self.name, "weights": "", "method": method, "data": self.content, "seed": 0}
        facts = {"norm": self.noise.norm, "proof": PROOF, "failure_probability": self.alpha or float("nan"),
                 "shared": {}}  # fmt: skip
        return records.part("certificate", unit, facts, {
            "id": self.told.ids, "label": self.told.labels, "prediction": self.told.predictions,
            "radius": self.told.radii,
        })  # fmt: skip


def load_log(spec: Mapping[str, Any]) -> Log:
    """Read a log that is described as ``{"name": FILE, "sigma": 0.25, "n": 100000, "alpha": 0.001}``.

    ``noise`` replaces ``sigma`` if the noise is not Gaussian, and ``called`` is a name for people.  If sigma is not
    stated, it is taken from a file name such as ``sigma_0.25``.

    Raises:
        HauberkError: if the noise is not known, a value is impossible, or the file is no log.
    """
    path = Path(str(spec["name"]))
    for key in spec:
        if key not in KEYS:
            near = registry.suggestion(key, list(KEYS[1:]))
            raise HauberkError(f"a log has no setting {key!r}", near or f"it has {', '.join(KEYS[1:])}")
    if not path.is_file():
        raise HauberkError(f"there is no log {path}", "a log is a file with a line for each image")
    noise = registry.build(_noise(path, spec), "noise")
    stated = {key: spec[key] for key in ("n", "alpha") if key in spec}
    registry.build({"name": "smoothing", "noise": registry.spec(noise), **stated}, "certificate")  # are they possible?
    content = hashlib.sha256(reading.content(path)).hexdigest()
    return Log(
        str(spec.get("called", path.name)), path, content, noise, stated.get("n"), stated.get("alpha"), read_log(path)
    )


def _noise(path: Path, spec: Mapping[str, Any]) -> Any:
    if "noise" in spec and "sigma" in spec:
        raise HauberkError(f"{path} was given both a noise and a sigma", "give one of the two")
    named = SIGMA.search(path.name)
    if "noise" in spec:
        return spec["noise"]
    if "sigma" not in spec and named is None:
        raise HauberkError(f"which noise was {path} certified under?", f"for example --log {path},sigma=0.25")
    return {"name": "gaussian", "sigma": spec["sigma"] if "sigma" in spec or named is None else float(named[1])}


def contradiction(found: Ladder | None) -> str:
    """The contradictions between the radii and the stated n and alpha, in sentences; empty if there are none."""
    if found is None or not found.apart:
        return ""
    stated = f"{found.n:,} votes at alpha = {found.alpha:g}"
    said = f"{found.apart} of its {found.radii} radii are none that any count of {stated} gives"
    if found.beyond:
        said += f", {found.beyond} of them larger than the largest possible, {found.most:.4g}"
    others = " and ".join(f"alpha = {alpha:g}" for alpha in found.fitting)
    rest = f"All of them fit {others}" if others else "No usual alpha fits: sigma, n or the bound may be another one"
    return f"{said}. {rest}."
