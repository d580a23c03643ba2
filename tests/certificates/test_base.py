"""The certificate contract and the two helpers that round: down, and never up."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, LocalLipschitz, MixedCertificate, SmoothingCertificate
from hauberk.certificates.base import largest_radius, round_down
from hauberk.certificates.evidence import Constants, LogitMargins, OfMix, VoteCounts, VotePlan, WorstPoints
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian
from hauberk.threats import L2, Linf


@pytest.mark.parametrize("value", [1.0, 1e-300, 3.7e5, 0.1])
def test_rounding_goes_down(value: float) -> None:
    assert value * (1 - 1e-11) < round_down(value) < value


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, math.inf, -math.inf, math.nan])
def test_what_is_no_radius_is_zero(value: float) -> None:
    assert round_down(value) == 0.0


def test_the_largest_radius_never_fails_the_margin() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        slope, start, margin = generator.uniform(0.1, 5), generator.uniform(0, 1), generator.uniform(0, 1)

        def kept(r: float, slope: float = slope, start: float = start) -> float:
            return start - slope * r

        found = largest_radius(kept, margin, 10.0)
        if start <= margin:
            assert found == 0.0
        else:
            assert kept(found) > margin
            assert found == pytest.approx((start - margin) / slope, abs=1e-12)
    assert largest_radius(lambda r: 1.0, 0.5, 2.0) == 2.0
    assert largest_radius(lambda r: math.nan, 0.5, 2.0) == 0.0


def test_errors_at_the_boundary() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    batch = Batch(torch.rand(2, 1, 2, 2), torch.zeros(2).long(), torch.arange(2))
    certificate = LipschitzCertificate()
    assert certificate(model, batch).failure_probability == 0.0
    with pytest.raises(HauberkError, match="no images"):
        certificate(model, batch.select(slice(0, 0)))
    with pytest.raises(HauberkError, match="train mode"):
        certificate(model.train(), batch)
    with pytest.raises(HauberkError, match=r"\[0, 1\]"):
        certificate(model.eval(), Batch(batch.images * 2 + 1, batch.labels, batch.ids))


def test_evidence_of_another_norm_or_budget_is_refused() -> None:
    """Each kind of evidence says what it is about; a certificate of something else concludes nothing from it."""
    logits = LogitMargins((3.0, 1.0), Constants(1.0 - np.eye(2), "l2"))
    assert LipschitzCertificate("l2").radius(logits) == pytest.approx(2.0)
    points = WorstPoints(np.array([0.9, 0.1]), np.array([[0.8, 0.2]]), "linf", 0.1)
    assert LocalLipschitz(Linf(0.1)).radius(points) == 0.1
    votes = VoteCounts((10, 0), (400, 0), VotePlan(Gaussian(0.25), 10, 400, 0.01))
    strangers = [
        (LipschitzCertificate("linf"), logits, "for l2"), (LocalLipschitz(Linf(0.2)), points, "for in linf:0.1"),
        (LocalLipschitz(L2(0.1)), points, "searched for in linf"),
        (SmoothingCertificate(Gaussian(0.5), 10, 400, 0.01), votes, "by the plan"),
    ]  # fmt: skip
    for certificate, seen, said in strangers:
        with pytest.raises(HauberkError, match=said):
            certificate.radius(seen)
        with pytest.raises(HauberkError, match=said):
            MixedCertificate(certificate).radius(OfMix(seen, 0.9, None, ""))
