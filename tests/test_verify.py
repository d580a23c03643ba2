"""``verify`` derives what the certificates proved, and refuses every record that was tampered with."""

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from hauberk import verify
from hauberk.batch import Batch
from hauberk.certificates import Certificate, LipschitzCertificate, MixedCertificate, SmoothingCertificate
from hauberk.certificates.evidence import OfMix
from hauberk.certificates.local_lipschitz import LocalLipschitz
from hauberk.conformance import LinearOracle
from hauberk.defences import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.evaluation import indicators
from hauberk.evaluation.alpha_path import mix_records
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.noises import Gaussian
from hauberk.records import Part, group, read_all
from hauberk.storage import atomic_write
from hauberk.threats import Linf
from hauberk.verify import diagnoses
from hauberk.verify.facts import facts_problems
from hauberk.verify.proofs import statement_problems

VOTES = SmoothingCertificate(Gaussian(0.05), n0=20, n=400, alpha=0.01)
SETTING = Setting("oracle", "test", ("a", "b"), tile=8)
METHODS: dict[str, Certificate] = {
    "lipschitz": LipschitzCertificate(),
    "smoothing": VOTES,
    "mixed_lipschitz": MixedCertificate(),
    "mixed_smoothing": MixedCertificate(VOTES),
    "mixed_lipschitz_3_5": MixedCertificate(bound="theorem_3_5"),
    "mixed_smoothing_3_5": MixedCertificate(VOTES, "theorem_3_5"),
    "mixed_smoothing_a1": MixedCertificate(VOTES, "theorem_a1"),
}
ESTIMATES: dict[str, Certificate] = {
    "local": LocalLipschitz(Linf(0.004), steps=2),
    "mixed_local": MixedCertificate(LocalLipschitz(Linf(0.004), steps=2)),
    "mixed_local_3_5": MixedCertificate(LocalLipschitz(Linf(0.004), steps=2), "theorem_3_5"),
}
ORACLE = LinearOracle.random((1, 3, 4), 2, seed=3)


def model_of(name: str) -> nn.Module:
    if not name.startswith("mixed"):
        return ORACLE.layers
    return MixedClassifier(ORACLE.layers, ORACLE.layers, 0.75, 1.0, 80.0).eval()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    made = {}
    for name, certificate in (METHODS | ESTIMATES).items():
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
@pytest.mark.parametrize(
    ("key", "value"),
    [("noise", {"name": "gaussian", "sigma": 0.5}), ("noise", "laplace:0.25"), ("alpha", 0.3), ("n", 200), ("n0", 19)],
)
def test_evidence_must_be_that_of_the_method_asked_for(
    name: str, key: str, value: object, good: dict[str, Part]
) -> None:
    bad = described(good[name], lambda unit, facts: facts["shared"].update({key: value}))
    asked = "was asked for {'name'" if key == "noise" else f"was asked for {key}"
    assert any(asked in p for p in verify.verify_part(bad).problems)


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


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("mixed")])
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
    assert verify.lipschitz({"logits": [5, 3, 2], "rounding": 0.8}, shared) == (0, pytest.approx(0.55))
    for nonsense in (float("nan"), -0.1):
        assert verify.lipschitz({"logits": [5, 3, 2], "rounding": nonsense}, shared) == (-1, 0.0)
    assert verify.lipschitz({"logits": [5, 5, 2]}, shared) == (0, 0.0)
    assert verify.lipschitz({"logits": [5, float("nan"), 2]}, shared) == (-1, 0.0)
    top, radius = verify.lipschitz({"logits": [5, 3, 2]}, shared, 0.3)
    left = np.array([2.0, 3.0]) - np.array([2.0, 4.0]) * radius
    assert top == 0
    assert (1 - np.exp(-left.min())) / (1 + np.exp(-left).sum()) == pytest.approx(0.3, abs=1e-9)


def test_smoothing_by_hand() -> None:
    """100 of 100 votes at alpha 0.001: the bound is 0.001^(1/100) = 0.93325, whose quantile is 1.50047."""
    shared = {"sigma": 2.0, "n0": 3, "n": 100, "alpha": 0.001}
    assert verify.smoothing({"counts0": [0, 3], "counts": [0, 100]}, shared) == (1, pytest.approx(3.00095, abs=1e-5))
    assert verify.smoothing({"counts0": [3, 0], "counts": [0, 100]}, shared) == (-1, 0.0)
    assert verify.smoothing({"counts0": [3, 0], "counts": [60, 40]}, shared) == (-1, 0.0)


@pytest.mark.parametrize("bound", ["exact", "theorem_3_5"])
def test_a_mix_over_logits_with_rounding_is_derived_with_it(bound: str) -> None:
    shared = {"pairwise": [[0, 2, 4], [2, 0, 1], [4, 1, 0]], "base": "lipschitz", "mix_alpha": 0.8, "bound": bound}
    row = {"logits": [5.0, 3.0, 2.0], "rounding": 0.25}
    certificate = MixedCertificate(LipschitzCertificate(), bound)
    seen, unrounded = OfMix.read(row, shared), OfMix.read(row | {"rounding": 0.0}, shared)
    assert verify.mixed_margin(row, shared) == (0, pytest.approx(certificate.radius(seen), rel=1e-9))
    assert certificate.radius(seen) < certificate.radius(unrounded)


def test_a_mix_by_hand() -> None:
    shared = {"pairwise": [[0, 1], [1, 0]], "base": "lipschitz", "mix_alpha": 0.8}
    top, radius = verify.mixed_margin({"logits": [3.0, 0.0]}, shared)
    assert (top, radius) == (0, pytest.approx(3.0 - 2 * np.arctanh(0.25)))  # tanh(gap / 2) = 1/4
    assert verify.mixed_margin({"logits": [0.5, 0.0]}, shared) == (-1, 0.0)
    for alpha in (0.0, 0.49, 0.5):
        assert verify.mixed_margin({"logits": [3.0, 0.0]}, shared | {"mix_alpha": alpha}) == (-1, 0.0)


@pytest.mark.parametrize("bound", ["exact", "theorem_3_5"])
def test_a_mix_over_votes_by_hand(bound: str) -> None:
    """100 of 100 votes at alpha 0.001: p = 0.93325; at alpha 0.8 the vote must stay above 1/(2 * 0.8) = 0.625."""
    shared = {"sigma": 2.0, "n0": 3, "n": 100, "alpha": 0.001, "base": "smoothing", "mix_alpha": 0.8, "bound": bound}
    expected = {
        "exact": 2.0 * (1.500475 - 0.318639),
        "theorem_3_5": (0.933254 - 0.625) * 2.0 * np.sqrt(2 * np.pi),  # p falls by 1 / (sigma sqrt(2 pi)) at most
    }[bound]
    every = {"counts0": [0, 3], "counts": [0, 100]}
    assert verify.mixed_margin(every, shared) == (1, pytest.approx(expected, abs=1e-5))
    few = {"counts0": [0, 3], "counts": [28, 72]}
    assert verify.mixed_margin(few, shared) == (-1, 0.0)


def test_theorem_a1_by_hand() -> None:
    """As printed: sigma / 2 (Phi^-1(0.746603) - Phi^-1(0.253397)) = 2 * 0.663839."""
    shared = {"sigma": 2.0, "n0": 3, "n": 100, "alpha": 0.001, "base": "smoothing", "mix_alpha": 0.8}
    found = verify.mixed_margin({"counts0": [0, 3], "counts": [0, 100]}, shared | {"bound": "theorem_a1"})
    assert found == (1, pytest.approx(1.327679, abs=1e-5))
    few = {"counts0": [0, 3], "counts": [28, 72]}
    assert verify.mixed_margin(few, shared | {"bound": "theorem_a1"}) == (-1, 0.0)


def test_theorem_3_5_over_logits_by_hand() -> None:
    """Two classes: p = 1 / (1 + e^-3), each probability moves by K / 4 at most."""
    shared = {"pairwise": [[0, 2], [2, 0]], "base": "lipschitz", "mix_alpha": 0.8, "bound": "theorem_3_5"}
    top, radius = verify.mixed_margin({"logits": [3.0, 0.0]}, shared)
    assert (top, radius) == (0, pytest.approx((np.tanh(1.5) - 0.25) / (2 * 2 / 4)))
    assert verify.mixed_margin({"logits": [0.5, 0.0]}, shared) == (-1, 0.0)


def test_an_estimate_by_hand() -> None:
    """The margin falls to 0.5 - 0.4 at one point; each probability by itself to 0.5 and up to 0.45."""
    row = {"clean": [0.8, 0.1, 0.1], "points": [[0.5, 0.4, 0.1], [0.55, 0.0, 0.45]]}
    assert verify.local_lipschitz(row, {"eps": 0.3}) == (0, 0.3)
    assert verify.local_lipschitz(row, {"eps": 0.3}, 0.09) == (0, 0.3)
    assert verify.local_lipschitz(row, {"eps": 0.3}, 0.11) == (0, 0.0)
    assert verify.local_lipschitz(row | {"clean": [np.nan, 0.1, 0.1]}, {"eps": 0.3}) == (-1, 0.0)
    shared = {"eps": 0.3, "base": "local_lipschitz"}
    for alpha, exact, relaxed in ((1 / 1.04, 0.3, 0.3), (1 / 1.06, 0.3, 0.0), (1 / 1.12, 0.0, 0.0)):
        with_alpha = shared | {"mix_alpha": alpha}
        assert verify.mixed_margin(row, with_alpha) == (0, exact)
        assert verify.mixed_margin(row, with_alpha | {"bound": "theorem_3_5"}) == (0, relaxed)
    for bound in ("exact", "theorem_3_5"):  # the image itself has too small a margin
        assert verify.mixed_margin(row, shared | {"mix_alpha": 0.58, "bound": bound}) == (-1, 0.0)


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimate_is_derived_again_and_cannot_pass_for_a_proof(name: str, good: dict[str, Part]) -> None:
    assert verify.verify_part(good[name]).problems == ()
    radii = good[name].column("radius")
    assert 2 <= (radii > 0).sum() < 16
    row = int(np.argmax(radii == 0))
    for values in ([0.004 if i == row else v for i, v in enumerate(radii)], [v * 1.01 for v in radii]):
        assert verify.verify_part(changed(good[name], radius=lambda _, new=values: new)).problems
    for proof, failure in (("deterministic", 0.0), ("probabilistic", 0.01), ("deterministic", 1.0)):
        edit = {"proof": proof, "failure_probability": failure}
        bad = described(good[name], lambda unit, facts, edit=edit: facts.update(edit))
        assert any(f"claims to be {proof}" in p for p in verify.verify_part(bad).problems)
    norm = described(good[name], lambda unit, facts: facts.update(norm="l2"))
    assert any("claims radii in l2" in p for p in verify.verify_part(norm).problems)
    eps = described(good[name], lambda unit, facts: facts["shared"].update(eps=0.1))
    assert any("was asked for eps" in p for p in verify.verify_part(eps).problems)


@pytest.mark.parametrize("name", ["mixed_lipschitz_3_5", "mixed_smoothing_3_5", "mixed_smoothing_a1"])
def test_a_bound_is_not_another(name: str, good: dict[str, Part]) -> None:
    for bound in {"exact", "theorem_3_5", "theorem_a1"} - {METHODS[name].bound}:  # type: ignore[attr-defined]
        other = described(good[name], lambda unit, facts, bound=bound: unit["method"].update(bound=bound))
        problems = verify.verify_part(other).problems
        assert problems or (name, bound) == ("mixed_lipschitz_3_5", "theorem_a1")  # no bound of logits: read as 3.5


def test_records_from_before_there_were_bounds_are_exact(good: dict[str, Part]) -> None:
    old = described(good["mixed_smoothing"], lambda unit, facts: unit["method"].pop("bound"))
    assert verify.verify_part(old).problems == ()


def test_the_weight_of_an_adaptive_mix_is_the_least_of_its_range(good: dict[str, Part]) -> None:
    def named(weights: str) -> Part:
        predictor = f"adaptive_mixed({weights}, scales=1.0/80.0, ...)"
        return described(good["mixed_lipschitz"], lambda unit, facts: unit.update(predictor=predictor))

    assert verify.verify_part(named("alpha=0.75..0.99")).problems == ()
    for weights in ("alpha=0.7..0.75", "alpha=0.750001..0.99", "alpha=0.5..0.75, other=0.75.."):
        assert any("not that of its predictor" in p for p in verify.verify_part(named(weights)).problems)


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
    slightly = changed(mix, certified_alpha=lambda rows: [[None if a is None else a - 1e-6 for a in r] for r in rows])
    assert len(verify.verify_mix(slightly, []).problems) == sum(a is not None and a == a for r in paths for a in r)
    wrong = changed(good["mixed_lipschitz"], prediction=lambda values: [1 - v if v >= 0 else v for v in values])
    assert verify.verify_mix(mix, [wrong]).problems


def test_no_weight_certifies_a_label_that_is_not_the_robust_models(tmp_path: Path) -> None:
    batch = ORACLE.batch(16, seed=1)
    wrong = Batch(batch.images, torch.where(batch.ids < 12, 1 - batch.labels, batch.labels), batch.ids)
    assert 3 <= int((wrong.labels != batch.labels).sum()) < 16
    mix_records(model_of("mixed_lipschitz"), wrong, MixedCertificate(), [0.0, 0.02], SETTING, Work(tmp_path))
    (mix,) = group(read_all(tmp_path))
    assert verify.verify_mix(mix, []).problems == ()
    paths = mix.table.column("certified_alpha").to_pylist()
    for alphas, label, name in zip(paths, mix.column("label"), mix.column("id"), strict=True):
        spoiled = int(label) != int(batch.labels[batch.ids == int(name)])
        assert spoiled == all(a is None or a != a for a in alphas)
    sure = changed(mix, certified_alpha=lambda rows: [[1.0 if a is None or a != a else a for a in r] for r in rows])
    found = {p.split(":")[0] for p in verify.verify_mix(sure, []).problems}
    assert found >= {f"sample {i}" for i in batch.ids[batch.ids < 12].tolist()}


def test_votes_have_no_alpha_path(tmp_path: Path) -> None:
    """The mix that a vote certifies takes exact vote probabilities; what is measured of logits is not its path."""
    for name in ("mixed_smoothing", "mixed_local"):
        certificate = (METHODS | ESTIMATES)[name]
        with pytest.raises(HauberkError, match="deterministic certificate"):
            mix_records(model_of(name), ORACLE.batch(4), certificate, [0.0], SETTING, Work(tmp_path))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_path_is_held_against_exact_certificates_of_its_norm_alone(good: dict[str, Part], tmp_path: Path) -> None:
    model, batch = model_of("mixed_lipschitz"), ORACLE.batch(16, seed=1)
    mix_records(model, batch, MixedCertificate(), [0.05, 0.1], SETTING, Work(tmp_path))
    (mix,) = group(read_all(tmp_path))
    smaller = changed(good["mixed_lipschitz"], radius=lambda values: [0.0 for _ in values])
    assert verify.verify_mix(mix, [smaller]).problems
    paper = described(smaller, lambda unit, _: unit["method"].update(bound="theorem_3_5"))
    estimate = described(smaller, lambda _, facts: facts.update(proof="estimate"))
    elsewhere = described(smaller, lambda _, facts: facts.update(norm="linf"))
    assert verify.verify_mix(mix, [paper, estimate, elsewhere]).problems == ()


def test_an_estimate_dressed_as_a_proof_is_found(good: dict[str, Part]) -> None:
    dressed = described(good["mixed_lipschitz"], lambda _, facts: facts["shared"].update(base="local_lipschitz"))
    assert any("evidence is of" in p for p in statement_problems(dressed))


def test_hashes_of_a_run(good: dict[str, Part], tmp_path: Path) -> None:
    import hashlib

    records = tmp_path / "records"
    certificate_records(ORACLE.layers, ORACLE.batch(16, seed=1), LipschitzCertificate(), SETTING, Work(records))
    files = sorted(records.glob("*.parquet"))
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    info = {"hashes": {"records": hashes}}
    atomic_write(tmp_path / "recipe.yaml", b"name: oracle")
    atomic_write(tmp_path / "run.json", json.dumps(info).encode())
    assert verify.verify_hashes(tmp_path).problems == ()
    assert [v.problems for v in verify.verify_folder(records)] == [(), ()]
    assert [v.method for v in verify.verify_folder(records)] == ["lipschitz", "all together"]
    files[0].write_bytes(files[0].read_bytes() + b"x")
    assert "has changed" in verify.verify_hashes(tmp_path).problems[0]
    files[0].rename(records / "other.parquet")
    assert len(verify.verify_hashes(tmp_path).problems) == 3  # missing, not listed, and not readable


@pytest.mark.parametrize(("data", "name", "told"), [
    ({"name": "npz", "file": "birds.npz"}, "birds", False),  # its file tells the name
    ({"name": "image_folder"}, "birds", False),
    ({"name": "medmnist", "flag": "pathmnist", "size": 64}, "pathmnist_64", False),
    ({"name": "medmnist", "flag": "chestmnist", "rule": "any"}, "chestmnist-any", False),
    ({"name": "cifar100", "labels": "coarse"}, "cifar100-coarse", False),
    ({"name": "digits"}, "digits2", True),
    ({"name": "cifar10"}, "imagenet", True),
    ("mnist", "fashion_mnist", True),
])  # fmt: skip
def test_a_data_set_is_called_as_the_recipe_says(
    data: Any, name: str, told: bool, good: dict[str, Part]
) -> None:
    part = described(good["lipschitz"], lambda _, facts: facts.update(dataset=name))
    found = list(facts_problems(part, {"data": data}, {}, {}))
    assert any("the recipe about" in problem for problem in found) == told


def test_it_knows_every_check_of_a_diagnosis() -> None:
    """The limits stand there a second time on purpose; a check that is added must be added there too."""
    assert diagnoses.LIMITS == indicators.LIMITS


def test_it_shares_no_code_with_what_it_checks() -> None:
    files = sorted(Path(verify.__file__).parent.glob("*.py"))
    assert len(files) > 4
    for source in (path.read_text() for path in files):
        imported = re.findall(r"^ *(?:import|from) (hauberk[.a-z_]*)", source, re.MULTILINE)
        allowed = ("hauberk.records", "hauberk.reading", "hauberk.errors", "hauberk.verify")
        assert all(name.startswith(allowed) for name in imported)
        assert "import torch" not in source
        assert "from torch" not in source
