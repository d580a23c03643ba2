"""Top-k and affinity certificates: their radii, their names, and that verify derives them and sees a forged one."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hauberk import registry
from hauberk.certificates import Affinity, LipschitzCertificate, MixedCertificate, TopK
from hauberk.certificates.evidence import Constants, LogitMargins
from hauberk.certificates.top_k import affinity_radius, top_k_radius
from hauberk.classifier import predictor_name
from hauberk.cli.options import described
from hauberk.conformance import LinearOracle, check_certificate
from hauberk.errors import HauberkError
from hauberk.records import part
from hauberk.verify import verify_part
from hauberk.verify.derive import affinity, top_k

SETS = ((0, 1), (1, 2, 3))


@pytest.mark.parametrize("certificate", [TopK(k=1), TopK("linf", 1), Affinity(sets=((0, 1),)), TopK("l1", 1)])
def test_the_contract(certificate: LipschitzCertificate) -> None:
    check_certificate(certificate)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 3), level=st.booleans())
def test_verify_derives_the_same_radii(seed: int, k: int, level: bool) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=4).round(1 if level else 12)
    speeds = np.abs(generator.normal(size=(4, 4))) * (generator.random((4, 4)) > 0.2)
    speeds = np.triu(speeds, 1) + np.triu(speeds, 1).T
    seen = LogitMargins(tuple(logits.tolist()), Constants(speeds), rounding=0.01 * float(generator.random()))
    for mine, derived, more in (
        (top_k_radius(seen, k), top_k, {"k": k}), (affinity_radius(seen, SETS), affinity, {"sets": SETS}),
    ):  # fmt: skip
        found = derived(seen.row(), seen.shared() | more)
        assert found[0] == seen.top
        assert mine == pytest.approx(found[1], rel=1e-9)


def test_a_level_pair_at_the_border_proves_nothing() -> None:
    shared = {"pairwise": (1.0 - np.eye(4)).tolist(), "k": 1, "sets": [[0], [1, 2]]}
    row = {"logits": [1.0, 1.0, 0.0, -1.0], "rounding": 0.01}
    assert top_k(row, shared) == affinity(row, shared) == (0, 0.0)
    assert top_k(row, shared | {"k": 2})[1] == pytest.approx(0.99)


def found_of(certificate: LipschitzCertificate) -> tuple:
    oracle = LinearOracle.random((1, 3, 3), 5, seed=1)
    return oracle, oracle.batch(12, seed=1), certificate(oracle.layers.eval(), oracle.batch(12, seed=1))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_of_a_linear_model_the_set_stays_up_to_its_nearest_border(k: int) -> None:
    oracle, batch, found = found_of(TopK("l2", k))
    weight = oracle.layers[1].weight.detach().double()
    logits = oracle.layers(batch.images).detach().double()
    for row, z in enumerate(logits):
        order = z.argsort(descending=True).tolist()
        pairs = itertools.product(order[:k], order[k:])
        nearest = min(float((z[j] - z[i]) / (weight[j] - weight[i]).norm()) for j, i in pairs)
        assert float(found.radius[row]) == pytest.approx(nearest, rel=1e-4)
    assert torch.equal(found.prediction, logits.argmax(1))
    assert found.predictor == f"top_k(k={k}, {predictor_name(oracle.layers)})"


def on_record(certificate: LipschitzCertificate, **changed: object) -> list[str]:
    _, batch, found = found_of(certificate)
    unit = {"predictor": found.predictor, "method": registry.spec(certificate)}
    facts = {"norm": found.norm, "proof": found.kind, "failure_probability": 0.0, "classes": list("01234"),
             "shape": [1, 3, 3], "shared": json.loads(json.dumps(found.shared))}  # fmt: skip
    columns = {
        "id": found.ids.tolist(), "label": batch.labels.tolist(), "prediction": found.prediction.tolist(),
        "radius": changed.get("radius", found.radius.tolist()), "evidence": [json.dumps(row) for row in found.rows],
    }  # fmt: skip
    return list(verify_part(part("certificate", unit, facts, columns)).problems)


@pytest.mark.parametrize("certificate", [TopK(k=2), TopK("linf", 3), Affinity(sets=((0, 1, 2), (3, 4)))])
def test_verify_sees_a_larger_radius(certificate: LipschitzCertificate) -> None:
    assert on_record(certificate) == []
    _, _, found = found_of(certificate)
    forged = found.radius.tolist()
    row = int(found.radius.argmax())
    forged[row] *= 1.01
    assert any("larger than the evidence allows" in problem for problem in on_record(certificate, radius=forged))


def test_it_says_nothing_of_one_class() -> None:
    _, _, found = found_of(TopK(k=2))
    certificate, seen = TopK(k=2), found.evidence[0]
    assert certificate.margin(seen, 0.0) == -1.0
    assert certificate.radius(seen, 0.1) == 0.0
    with pytest.raises(ValidationError, match="mix"):
        MixedCertificate(TopK())
    with pytest.raises(HauberkError, match="gather them again"):
        TopK("linf", 2).radius(seen)
    with pytest.raises(HauberkError, match=r"1\.\.4"):
        TopK(k=5).radius(seen)
    with pytest.raises(ValidationError, match="sets"):
        Affinity()


def test_the_command_line_takes_nested_sets() -> None:
    assert described("affinity,sets=[[3,5],[4,9]],norm=linf") == {
        "name": "affinity", "sets": [[3, 5], [4, 9]], "norm": "linf",
    }  # fmt: skip
    assert registry.build(described("top_k,k=2"), "certificate") == TopK(k=2)
