"""``verify`` derives what the certificates proved, and refuses every record that was tampered with."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from torch import nn

from hauberk import verify
from hauberk.certificates import Certificate, LipschitzCertificate, MixedCertificate, SmoothingCertificate
from hauberk.conformance import LinearOracle
from hauberk.defences import MixedClassifier
from hauberk.evaluation.units import Setting, Work, certificate_records, mix_records
from hauberk.records import Part, atomic_write, group, read_all

VOTES = SmoothingCertificate(sigma=0.05, n0=20, n=400, alpha=0.01)
SETTING = Setting("oracle", "test", ("a", "b"), tile=8)
METHODS: dict[str, Certificate] = {
    "lipschitz": LipschitzCertificate(),
    "smoothing": VOTES,
    "mixed_lipschitz": MixedCertificate(),
    "mixed_smoothing": MixedCertificate(VOTES),
}
ORACLE = LinearOracle.random((1, 3, 4), 2, seed=3)


def model_of(name: str) -> nn.Module:
    if not name.startswith("mixed"):
        return ORACLE.layers
    return MixedClassifier(ORACLE.layers, ORACLE.layers, 0.75, 1.0, 80.0).eval()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    made = {}
    for name, certificate in METHODS.items():
        folder = tmp_path_factory.mktemp(name)
        certificate_records(model_of(name), ORACLE.batch(16, seed=1), certificate, SETTING, Work(folder))
        (made[name],) = group(read_all(folder))
    return made


def changed(part: Part, **columns: Callable[[list[Any]], list[Any]]) -> Part:
    table = part.table
    for name, change in columns.items():
        index = table.schema.get_field_index(name)
        values = change(table.column(name).to_pylist())
        table = table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return dataclasses.replace(part, table=table)


def described(part: Part, edit: Callable[[dict[str, Any], dict[str, Any]], None]) -> Part:
    unit, facts = copy.deepcopy(dict(part.unit)), copy.deepcopy(dict(part.facts))
    edit(unit, facts)
    return dataclasses.replace(part, unit=unit, facts=facts)


def certified_row(part: Part) -> int:
    return int(np.argmax(part.column("radius") > 0))


@pytest.mark.parametrize("name", METHODS)
def test_what_was_proved_is_derived_again(name: str, good: dict[str, Part]) -> None:
    verdict = verify.verify_part(good[name])
    assert verdict.problems == ()
    assert verdict.rows == 16
    assert (good[name].column("radius") > 0).sum() >= 3
    assert verdict.predictor == good[name].unit["predictor"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("factor", [1.001, 1.0000001, 0.99])
def test_a_tampered_radius_is_found(name: str, factor: float, good: dict[str, Part]) -> None:
    row = certified_row(good[name])
    bad = changed(good[name], radius=lambda values: [v * (factor if i == row else 1) for i, v in enumerate(values)])
    problems = verify.verify_part(bad).problems
    assert len(problems) == 1
    assert f"sample {bad.table.column('id')[row]}" in problems[0]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -1.0])
def test_a_radius_that_is_no_number_is_found(name: str, value: float | None, good: dict[str, Part]) -> None:
    bad = changed(good[name], radius=lambda values: [value, *values[1:]])
    assert len(verify.verify_part(bad).problems) == 1


@pytest.mark.parametrize("name", METHODS)
def test_a_tampered_prediction_is_found(name: str, good: dict[str, Part]) -> None:
    row = certified_row(good[name])
    bad = changed(good[name], prediction=lambda values: [1 - v if i == row else v for i, v in enumerate(values)])
    assert len(verify.verify_part(bad).problems) == 1
    idle = changed(good[name], prediction=lambda values: [-1 if i == row else v for i, v in enumerate(values)])
    assert "abstains with radius" in verify.verify_part(idle).problems[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_row_that_should_abstain_may_not_be_certified(name: str, good: dict[str, Part]) -> None:
    def spoil(values: list[str]) -> list[str]:
        row = json.loads(values[certified_row(good[name])])
        for key in row.keys() & {"logits", "counts0", "counts"}:
            row[key] = [1.0] * len(row[key]) if key == "logits" else [sum(row[key]) // 2] * len(row[key])
        return [json.dumps(row) if i == certified_row(good[name]) else v for i, v in enumerate(values)]

    assert verify.verify_part(changed(good[name], evidence=spoil)).problems


@pytest.mark.parametrize("name", ["smoothing", "mixed_smoothing"])
@pytest.mark.parametrize("claimed", [0.001, 0.02, 0.0])
def test_a_wrong_failure_probability_is_found(name: str, claimed: float, good: dict[str, Part]) -> None:
    bad = described(good[name], lambda unit, facts: facts.update(failure_probability=claimed))
    assert any("failure probability" in p for p in verify.verify_part(bad).problems)


@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_kind_of_proof_is_found(name: str, good: dict[str, Part]) -> None:
    other = "deterministic" if "smoothing" in name else "probabilistic"
    bad = described(good[name], lambda unit, facts: facts.update(proof=other))
    assert any(f"claims to be {other}" in p for p in verify.verify_part(bad).problems)
    fitting = 0.0 if other == "deterministic" else 0.01
    both = described(bad, lambda unit, facts: facts.update(failure_probability=fitting))
    assert any(f"claims to be {other}" in p for p in verify.verify_part(both).problems)


@pytest.mark.parametrize("name", METHODS)
def test_another_norm_is_found(name: str, good: dict[str, Part]) -> None:
    bad = described(good[name], lambda unit, facts: facts.update(norm="linf"))
    assert any("linf" in p for p in verify.verify_part(bad).problems)


@pytest.mark.parametrize("name", ["smoothing", "mixed_smoothing"])
@pytest.mark.parametrize(("key", "value"), [("sigma", 0.5), ("alpha", 0.3), ("n", 200), ("n0", 19)])
def test_evidence_must_be_that_of_the_method_asked_for(
    name: str, key: str, value: float, good: dict[str, Part]
) -> None:
    bad = described(good[name], lambda unit, facts: facts["shared"].update({key: value}))
    assert any(f"was asked for {key}" in p for p in verify.verify_part(bad).problems)


def test_more_votes_than_draws_prove_nothing(good: dict[str, Part]) -> None:
    row = certified_row(good["smoothing"])

    def stuff(values: list[str]) -> list[str]:
        votes = json.loads(values[row])
        votes["counts"] = [c + 400 for c in votes["counts"]]
        return [json.dumps(votes) if i == row else v for i, v in enumerate(values)]

    assert verify.verify_part(changed(good["smoothing"], evidence=stuff)).problems


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_lipschitz_constant_must_be_positive(value: float, good: dict[str, Part]) -> None:
    def edit(unit: dict[str, Any], facts: dict[str, Any]) -> None:
        facts["shared"]["pairwise"] = [[0.0, value], [value, 0.0]]

    assert verify.verify_part(described(good["lipschitz"], edit)).problems


@pytest.mark.parametrize("name", ["mixed_lipschitz", "mixed_smoothing"])
def test_the_weight_of_the_mix_must_be_that_of_its_name(name: str, good: dict[str, Part]) -> None:
    bad = described(good[name], lambda unit, facts: facts["shared"].update(mix_alpha=0.75000001))
    assert any("not that of its predictor" in p for p in verify.verify_part(bad).problems)


def test_a_model_that_decides_otherwise_in_its_own_precision_is_not_certified(good: dict[str, Part]) -> None:
    row = certified_row(good["lipschitz"])

    def disagree(values: list[str]) -> list[str]:
        found = json.loads(values[row])
        found["deployed"] = 1 - found["deployed"]
        return [json.dumps(found) if i == row else v for i, v in enumerate(values)]

    assert len(verify.verify_part(changed(good["lipschitz"], evidence=disagree)).problems) == 2


def test_an_unknown_method_is_not_passed(good: dict[str, Part]) -> None:
    bad = described(good["lipschitz"], lambda unit, facts: unit["method"].update(name="trust_me"))
    assert "no independent derivation" in verify.verify_part(bad).problems[0]


def test_lipschitz_by_hand() -> None:
    shared = {"pairwise": [[0, 2, 4], [2, 0, 1], [4, 1, 0]]}
    assert verify.lipschitz({"logits": [5, 3, 2]}, shared) == (0, pytest.approx(0.75))
    assert verify.lipschitz({"logits": [5, 5, 2]}, shared) == (0, 0.0)
    assert verify.lipschitz({"logits": [5, float("nan"), 2]}, shared) == (-1, 0.0)
    top, radius = verify.lipschitz({"logits": [5, 3, 2]}, shared, 0.3)
    left = np.array([2.0, 3.0]) - np.array([2.0, 4.0]) * radius
    assert top == 0
    assert (1 - np.exp(-left.min())) / (1 + np.exp(-left).sum()) == pytest.approx(0.3, abs=1e-9)


def test_smoothing_by_hand() -> None:
    """100 of 100 votes at alpha 0.001: the bound is 0.001^(1/100) = 0.93325, whose quantile is 1.50073."""
    shared = {"sigma": 2.0, "n0": 3, "n": 100, "alpha": 0.001}
    assert verify.smoothing({"counts0": [0, 3], "counts": [0, 100]}, shared) == (1, pytest.approx(3.0015, abs=1e-3))
    assert verify.smoothing({"counts0": [3, 0], "counts": [0, 100]}, shared) == (-1, 0.0)
    assert verify.smoothing({"counts0": [3, 0], "counts": [60, 40]}, shared) == (-1, 0.0)


def test_a_mix_by_hand() -> None:
    shared = {"pairwise": [[0, 1], [1, 0]], "base": "lipschitz", "mix_alpha": 0.8}
    top, radius = verify.mixed_margin({"logits": [3.0, 0.0]}, shared)
    assert (top, radius) == (0, pytest.approx(3.0 - 2 * np.arctanh(0.25)))  # tanh(gap / 2) = 1/4
    assert verify.mixed_margin({"logits": [0.5, 0.0]}, shared) == (-1, 0.0)
    for alpha in (0.0, 0.49, 0.5):
        assert verify.mixed_margin({"logits": [3.0, 0.0]}, shared | {"mix_alpha": alpha}) == (-1, 0.0)


def test_the_alpha_path_agrees_with_the_certificates(good: dict[str, Part], tmp_path: Path) -> None:
    model, batch = model_of("mixed_lipschitz"), ORACLE.batch(16, seed=1)
    radii = [0.0, 0.02, 0.05, 0.1]
    mix_records(model, batch, MixedCertificate(), radii, SETTING, Work(tmp_path))
    (mix,) = group(read_all(tmp_path))
    verdict = verify.verify_mix(mix, [good["mixed_lipschitz"]])
    assert (verdict.problems, verdict.rows) == ((), 16)
    paths = mix.table.column("certified_alpha").to_pylist()
    assert any(a is not None and a == a and a < 0.75 for row in paths for a in row)
    radius = good["mixed_lipschitz"].column("radius")
    for row, alphas in enumerate(paths):  # a radius is certified at alpha 0.75 exactly where the path says so
        for eps, alpha in zip(radii, alphas, strict=True):
            assert (alpha is not None and alpha < 0.75) == (radius[row] > eps)
    eager = changed(mix, certified_alpha=lambda rows: [[0.6] * 4 for _ in rows])
    assert verify.verify_mix(eager, [good["mixed_lipschitz"]]).problems
    wrong = changed(good["mixed_lipschitz"], prediction=lambda values: [1 - v if v >= 0 else v for v in values])
    assert verify.verify_mix(mix, [wrong]).problems


def test_hashes_of_a_run(good: dict[str, Part], tmp_path: Path) -> None:
    import hashlib

    records = tmp_path / "records"
    certificate_records(ORACLE.layers, ORACLE.batch(16, seed=1), LipschitzCertificate(), SETTING, Work(records))
    files = sorted(records.glob("*.parquet"))
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    info = {"predictor": "p", "hashes": {"records": hashes}}
    atomic_write(tmp_path / "run.json", json.dumps(info).encode())
    assert verify.verify_hashes(tmp_path).problems == ()
    assert [v.problems for v in verify.verify_folder(records)] == [()]
    files[0].write_bytes(files[0].read_bytes() + b"x")
    assert "has changed" in verify.verify_hashes(tmp_path).problems[0]
    files[0].rename(records / "other.parquet")
    assert len(verify.verify_hashes(tmp_path).problems) == 2


def test_it_shares_no_formula_with_what_it_checks() -> None:
    source = Path(verify.__file__).read_text()
    imported = [line for line in source.splitlines() if line.startswith(("import hauberk", "from hauberk"))]
    assert imported == ["from hauberk.records import Part, group, read_all"]
    assert "torch" not in source
