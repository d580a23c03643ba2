"""The certificate contract, on linear classifiers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor, nn

from hauberk import registry
from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN, Certificate, Certificates
from hauberk.conformance.oracle import LinearOracle
from hauberk.conformance.rules import SHAPES, TILE, check_alike, require, same_rows, untouched
from hauberk.errors import HauberkError
from hauberk.records import Part, part
from hauberk.verify import verify_part


def _as_it_is(network: nn.Sequential) -> nn.Module:
    return network


def check_certificate(
    certificate: Certificate, around: Callable[[nn.Sequential], nn.Module] = _as_it_is, verified: bool = True
) -> None:
    """Every rule of the certificate contract, on linear classifiers.

    Args:
        certificate: registered, so that its evidence can be put on record.
        around: makes the model that the certificate treats from a linear ``nn.Sequential(Flatten, Linear)``; it must
            have the same decision regions (a mix of the network with itself, say).
        verified: False for a method that ``hauberk.verify`` has no derivation for.

    Raises:
        HauberkError: naming the broken rule.
    """
    for number, shape in enumerate(SHAPES):
        oracle = LinearOracle.random(shape, 2, seed=number)
        model, batch = around(oracle.layers).eval(), oracle.batch(16, seed=number)
        with untouched(model, certificate):
            found = certificate(model, batch, seed=1, tile=TILE)
        if not (found.norm == "l1" or found.norm == "l2" or found.norm == "linf"):  # noqa: PLR1714 - mypy reads it so
            raise HauberkError(
                f"the true radius of a linear classifier is known for L1, L2 and Linf, not for {found.norm}",
                "compare the certificate with a brute-force search, as tests/certificates/test_mmcert.py does",
            )
        _check_claims(certificate, found, batch, oracle.true_radius(batch.images, found.norm))
        blind = certificate(model, Batch(batch.images, 1 - batch.labels, batch.ids), seed=1, tile=TILE)
        require(same_rows(found, blind, torch.arange(16)), certificate, "labels are not read")
        if verified:
            problems = verify_part(_on_record(certificate, found, batch)).problems
            require(not problems, certificate, "hauberk.verify derives every row again", "; ".join(problems[:3]))
    several = LinearOracle.random(SHAPES[0], 3)
    check_alike(certificate, certificate, around(several.layers).eval(), several.batch(7))
    _check_closed(certificate, around)


def _check_claims(certificate: Certificate, found: Certificates, batch: Batch, true: Tensor) -> None:
    radius = found.radius
    sane = radius.dtype == torch.float64 and bool((radius.isfinite() & (radius >= 0)).all())
    require(sane, certificate, "radii are finite float64 numbers of at least 0")
    idle = bool((radius[found.prediction == ABSTAIN] == 0).all())
    require(idle, certificate, "where it abstains the radius is 0")
    require(bool((radius > 0).any()), certificate, "something is certified", "every radius of a linear model is 0")
    known = {"deterministic": 0.0, "probabilistic": found.failure_probability, "estimate": 1.0}
    require(found.kind in known, certificate, "kind is deterministic, probabilistic or estimate", str(found.kind))
    stated = found.failure_probability == 0.0 if found.kind == "deterministic" else found.failure_probability > 0.0
    require(stated, certificate, "the failure probability fits the kind of proof", str(found.failure_probability))
    wrong = (radius > true) | ((radius > 0) & (found.prediction != batch.labels))
    allowed = int(stats.binom.ppf(1 - 1e-6, len(true), known[found.kind]))
    require(int(wrong.sum()) <= allowed, certificate, "no radius exceeds the true one", f"{int(wrong.sum())} rows do")


def _on_record(certificate: Certificate, found: Certificates, batch: Batch) -> Part:
    unit = {"predictor": found.predictor, "method": registry.spec(certificate)}
    facts = {"norm": found.norm, "proof": found.kind, "failure_probability": found.failure_probability,
             "classes": ["0", "1"], "shape": list(batch.images.shape[1:]),
             "shared": json.loads(json.dumps(found.shared))}  # fmt: skip
    columns = {
        "id": found.ids.tolist(), "label": batch.labels.tolist(), "prediction": found.prediction.tolist(),
        "radius": found.radius.tolist(), "evidence": [json.dumps(row) for row in found.rows],
    }  # fmt: skip
    return part("certificate", unit, facts, columns)


def _check_closed(certificate: Certificate, around: Callable[[nn.Sequential], nn.Module]) -> None:
    """NaN, ties and train mode give radius 0 or an error."""
    oracle = LinearOracle.random(SHAPES[0], 3)
    batch = oracle.batch(5)
    weight, bias = (p.detach().clone() for p in oracle.layers.parameters())
    for trap in ("NaN", "a tie"):
        w, b = weight.clone(), bias.clone()
        if trap == "NaN":
            w[1, 0] = math.nan
        else:
            w[1], b[1], b[0] = w[0], b[0] + 9.0, b[0] + 9.0
        model = around(LinearOracle(w, b, SHAPES[0], centre=0.0).layers).eval()
        try:
            radius = certificate(model, batch, tile=TILE).radius
        except HauberkError:
            continue
        require(bool((radius == 0).all()), certificate, f"{trap} gives radius 0 or an error", f"{float(radius.max())}")
    try:
        certificate(around(oracle.layers).train(), batch, tile=TILE)
    except HauberkError:
        oracle.eval()
        return
    require(False, certificate, "a model in train mode is refused")
