"""Certification logs from elsewhere, to stand beside runs: what is stated of them, and what their radii say to it."""

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

PROOF = "log"  # beside those of certificates: said by others, and nothing of it is derived here
KEYS = ("name", "called", "sigma", "noise", "n", "alpha")
SIGMA = re.compile(r"sigma[_=](\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Log:
    """A log with what its user states of it.

    Args:
        name: what the page calls it.
        path: the file.
        content: SHA-256 of the file.
        noise: that was certified under.
        n: votes of an image; None where nobody says.
        alpha: failure probability of an image; None where nobody says.
        told: what it says of each image.
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
        """The radii held against n and alpha, where both are stated."""
        return None if self.n is None or self.alpha is None else ladder(self.told, self.noise, self.n, self.alpha)

    @property
    def notes(self) -> list[str]:
        """What its reader should know before believing it, in sentences."""
        wrong = contradiction(self.ladder)
        said = [*self.told.notes, *([f"contradicts what is stated: {wrong}"] if wrong else [])]
        return [f"{self.path}: {note}" for note in said]

    @property
    def part(self) -> Part:
        """The log as a report has certificates, to be counted like one; it is never put among the records."""
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

    ``noise`` stands in the place of ``sigma`` where it is not Gaussian, and ``called`` is a name for people.  A sigma
    that is not stated is taken from a file's name such as ``sigma_0.25``.

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
    """What is wrong with the stated n and alpha, in sentences; empty if the radii agree with them."""
    if found is None or not found.apart:
        return ""
    stated = f"{found.n:,} votes at alpha = {found.alpha:g}"
    said = f"{found.apart} of its {found.radii} radii are none that any count of {stated} gives"
    if found.beyond:
        said += f", {found.beyond} of them larger than the largest possible, {found.most:.4g}"
    others = " and ".join(f"alpha = {alpha:g}" for alpha in found.fitting)
    rest = f"All of them fit {others}" if others else "No usual alpha fits: sigma, n or the bound may be another one"
    return f"{said}. {rest}."
