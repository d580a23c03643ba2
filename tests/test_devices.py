"""Devices: what each word means, what records say of them, and that proofs stay on the CPU."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import hauberk
from hauberk import devices
from hauberk.certificates import LipschitzCertificate, SmoothingCertificate
from hauberk.conformance import LinearOracle
from hauberk.devices import arithmetic, device_of, place, resolved, said
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting, unit_of
from hauberk.noises import Gaussian
from hauberk.recipes import Evaluation, Plan, parse
from hauberk.records import Part, part
from hauberk.verbs import certify, samples
from hauberk.verify.facts import form_problems
from hauberk.verify.plans import plan_key

SETTING = Setting("none", "test", ("a", "b"))


def test_auto_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, name in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolved("auto").type == name
    assert resolved("cpu").type == "cpu"


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, precision, message in (
        ("cuda", "float32", "no GPU"), ("mps", "float32", "no float64"), ("cpu", "tf32", "a precision of GPUs"),
    ):  # fmt: skip
        with pytest.raises(HauberkError, match=message):
            said(device, precision)
    assert said("auto") == "device: cpu, float32"


def test_a_model_is_where_its_parameters_or_buffers_are() -> None:
    for model in (nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)):
        assert device_of(model).type == "cpu"
        place(model.to("meta"), "cpu")  # what stands nowhere yet is for the contract to refuse
        assert device_of(model).type == "cpu"
    assert device_of(nn.Flatten()).type == "cpu"
    model = nn.Linear(2, 2)
    place(model, "cpu")
    assert device_of(model).type == "cpu"


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_products_are_rounded_as_asked_and_settings_restored(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    switches, value = devices._switches(precision)  # type: ignore[arg-type]
    before = [getattr(holder, name) for holder, name in switches]
    with arithmetic(precision):  # type: ignore[arg-type]
        assert [getattr(holder, name) for holder, name in switches] == [value, value]
    assert [getattr(holder, name) for holder, name in switches] == before


def test_a_key_names_device_and_precision_unless_they_are_the_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model, method = LinearOracle.random((1, 2, 2), 2), {"name": "fgsm"}
    usual = unit_of(model, "net", method, SETTING)
    assert {"device", "precision"}.isdisjoint(usual)  # as in records from before there were devices
    monkeypatch.setattr("hauberk.evaluation.keys.device_of", lambda _: torch.device("cuda", 1))
    assert unit_of(model, "net", method, SETTING) == usual | {"device": "cuda"}
    rounded = dataclasses.replace(SETTING, precision="tf32")
    assert unit_of(model, "net", method, rounded) == usual | {"device": "cuda", "precision": "tf32"}


def test_a_recipe_that_is_kept_names_no_device() -> None:
    assert isinstance(Evaluation(), Plan)
    kept = Evaluation(device="cuda", precision="tf32").model_dump(mode="json")
    assert {"device", "precision"}.isdisjoint(kept)
    assert kept == Evaluation().model_dump(mode="json")
    names = {"data": "digits", "model": "small_cnn", "objective": "standard"}
    recipe = {"name": "a"} | {key: {"name": name} for key, name in names.items()}
    with pytest.raises(HauberkError, match="a recipe must not name a device"):
        parse(recipe | {"evaluation": {"device": "cuda"}})


def record(kind: str = "certificate", proof: str = "deterministic", **told: str) -> Part:
    unit = {"predictor": "net", "method": {"name": "lipschitz"}, "seed": 0, "tile": 1, "dtype": "float32", **told}
    facts = {"dataset": "none", "split": "test", "classes": ["a", "b"], "shape": [1, 1, 1], "proof": proof}
    columns = {"id": [0], "label": [0], "prediction": [0], "radius": [0.0], "evidence": ["{}"]}
    return part(kind, unit, facts, columns)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (record(), None),
        (record(proof="probabilistic", device="cuda"), None),
        (record(device="cuda"), "bounds on rounding hold on the CPU"),
        (record(proof="probabilistic", device="cuda", precision="tf32"), "nothing is certified so"),
        (record(proof="probabilistic", device="abacus"), "no device and precision"),
        (record(proof="probabilistic", precision="float8"), "no device and precision"),
    ],
)
def test_verify_knows_where_a_proof_may_be_made(found: Part, problem: str | None) -> None:
    problems = list(form_problems(found))
    assert problems == [] if problem is None else any(problem in p for p in problems)


def test_the_plan_of_another_device_is_another_plan() -> None:
    keys = [plan_key(p.kind, p.unit, p.facts) for p in (record(), record(device="cuda"), record(precision="tf32"))]
    assert len(set(keys)) == 3


def test_proofs_are_made_on_the_cpu_and_votes_where_the_plan_says(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = hauberk.subject(shutil.copytree(tiny_run, tmp_path / "run"))
    moved: list[str] = []
    monkeypatch.setattr(samples, "said", lambda *_: "")
    monkeypatch.setattr(samples, "place", lambda model, device: moved.append(device))
    monkeypatch.setattr(certify, "place", lambda model, device: moved.append(device))
    votes = SmoothingCertificate(Gaussian(0.25), n0=4, n=16)
    hauberk.certify(target, [LipschitzCertificate(), votes], Plan(images=4, device="cuda"))
    assert moved == ["cuda", "cpu", "cuda"]
    with pytest.raises(HauberkError, match="certificates are not computed in tf32"):
        hauberk.certify(target, [votes], Plan(images=4, precision="tf32"))
