"""A run's smoothing certificates as a log: it reads back, and one certificate is chosen and never guessed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hauberk import records
from hauberk.certificates import SmoothingCertificate
from hauberk.certification_log import read_log
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian
from hauberk.records import Part
from hauberk.runs import Run
from hauberk.verbs.logs import certified, typed

N, ALPHA, SIGMA = 1000, 0.001, 0.5
METHOD = {"name": "smoothing", "sigma": SIGMA, "n0": 100, "n": N, "alpha": ALPHA}
FACTS = {"dataset": "digits", "split": "test", "classes": list("0123456789"), "shape": [1, 8, 8], "norm": "l2",
         "proof": "probabilistic", "failure_probability": ALPHA, "shared": {}}  # fmt: skip
Typed = Callable[..., tuple[int, str]]


def part(proof: str = "probabilistic", split: str = "test", seed: int = 0, **method: object) -> Part:
    draws = np.random.default_rng(seed)
    k = draws.binomial(N, draws.uniform(0.3, 1.0, 200))
    lower = stats.beta.ppf(ALPHA, k, N - k + 1)
    labels = draws.integers(0, 10, 200)
    answers = np.where(lower > 0.5, np.where(draws.uniform(size=200) < 0.8, labels, (labels + 1) % 10), -1)
    unit = {"predictor": "smoothed(Net[0123456789abcdef])", "weights": "w" * 16, "method": METHOD | method,
            "data": split, "seed": seed, "tile": 64, "dtype": "float32"}  # fmt: skip
    return records.part("certificate", unit, FACTS | {"proof": proof, "split": split}, {
        "id": np.arange(200), "label": labels, "prediction": answers, "evidence": ["{}"] * 200,
        "radius": np.where(answers >= 0, SIGMA * stats.norm.ppf(np.maximum(lower, 0.5)), 0.0),
    })  # fmt: skip


def run_of(folder: Path, *parts: Part) -> Path:
    run = Run.create(folder / "run", {"name": "digits"})
    for item in parts:
        records.write(run.records, item)
    return run.path


def test_an_exported_run_reads_back_and_fits_its_n_and_alpha(tmp_path: Path, typed: Typed) -> None:
    exact = part()
    path = run_of(tmp_path, exact)
    code, said = typed("export", path, "-o", tmp_path / "sigma_0.5.tsv")
    assert code == 0, said
    log = read_log(tmp_path / "sigma_0.5.tsv")
    for mine, theirs in (("ids", "id"), ("labels", "label"), ("predictions", "prediction")):
        assert np.array_equal(getattr(log, mine), exact.column(theirs))
    assert (log.radii <= exact.column("radius")).all()
    assert np.allclose(log.radii, exact.column("radius"), rtol=0.01)
    following = said.split("next: hauberk ")[1].split()
    assert f"{tmp_path}/sigma_0.5.tsv,noise=gaussian:0.5,n=1000,alpha=0.001" in following
    code, said = typed(*following, "-o", tmp_path / "page.html")
    assert code == 0
    assert "contradicts" not in said


def test_n_and_alpha_are_not_stated_where_other_bounds_gave_the_radii(tmp_path: Path, typed: Typed) -> None:
    path = run_of(tmp_path, part(rival="runner_up"))
    code, said = typed("export", path, "-o", tmp_path / "log.tsv")
    assert code == 0
    assert said.split("next: ")[1].split()[-1].endswith("log.tsv,noise=gaussian:0.5")


def test_one_certificate_is_chosen_and_none_is_guessed(tmp_path: Path) -> None:
    run = Run.open(run_of(tmp_path, part(), part(seed=1), part(n=500), part(split="val"), part("estimate", n=4)))
    with pytest.raises(HauberkError, match="several splits"):
        certified(run, {})
    with pytest.raises(HauberkError, match="several methods"):
        certified(run, {"split": "test"})
    method = typed(SmoothingCertificate(Gaussian(SIGMA), n0=100, n=N, alpha=ALPHA))
    with pytest.raises(HauberkError, match="several seeds"):
        certified(run, {"split": "test", "method": method})
    found = certified(run, {"split": "test", "method": method, "seed": "1"})
    assert found.table.equals(part(seed=1).table)


def test_an_estimate_is_no_certificate_of_a_log(tmp_path: Path, typed: Typed) -> None:
    path = run_of(tmp_path, part("estimate"), replace(part(), facts={**part().facts, "proof": "estimate"}, unit={
        **part().unit, "seed": 3}))  # fmt: skip
    code, said = typed("export", path, "-o", tmp_path / "log.tsv")
    assert code == 1
    assert "expected a smoothing certificate with these settings" in " ".join(said.split())
    assert not (tmp_path / "log.tsv").exists()


def test_settings_of_images_are_not_those_of_a_log(tmp_path: Path, typed: Typed) -> None:
    path = run_of(tmp_path, part())
    words = typed("export", path, "--threat", "linf:0.1", "-o", tmp_path / "log.tsv")[1].split()
    assert "a log holds certificates" in " ".join(words)
    assert "log" in " ".join(typed("export", path, "--seed", 1, "-o", tmp_path / "images.npz")[1].split())
    method = "smoothing,sigma=0.5,n=1000"
    assert typed("export", path, "--method", method, "--seed", 0, "-o", tmp_path / "log.tsv")[0] == 0
    assert typed("export", path, "--method", method, "--seed", 4, "-o", tmp_path / "no.tsv")[0] == 1
