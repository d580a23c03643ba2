"""A bundle says the same as its run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hauberk.certificates import SmoothingCertificate
from hauberk.conformance import LinearOracle
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.noises import Gaussian
from hauberk.records import MEASURED, Part, group, read_all
from hauberk.report import bundle, summary
from hauberk.report.bundle import write_bundle
from hauberk.runs import Run
from hauberk.verify import verify_folder, verify_hashes


def test_a_bundle_says_the_same_as_its_run(tiny_run: Path, tmp_path: Path) -> None:
    bundle = write_bundle(Run.open(tiny_run), tmp_path / "bundle")
    assert write_bundle(Run.open(tiny_run), bundle) == bundle
    # a joined part has another key than its units, so the order of the names says nothing
    whole, small = (sorted(group(read_all(run / "records")), key=_about) for run in (tiny_run, bundle))
    names = [path.name for path in (bundle / "records").iterdir()]
    assert len(small) == len(whole) == sum(name.startswith(MEASURED) for name in names)
    beside = [path.name for path in (tiny_run / "records").glob("fingerprint-*")]  # they come along as they are
    assert beside
    assert sorted(beside) == sorted(name for name in names if name.startswith("fingerprint"))
    assert all(a.table.equals(b.table) for a, b in zip(whole, small, strict=True))
    assert not verify_hashes(bundle).problems
    assert all(not verdict.problems for verdict in verify_folder(bundle / "records"))
    assert not (bundle / "checkpoints").exists()
    run, copy = summary([tiny_run]), summary([bundle])
    assert np.array_equal(sorted(run), sorted(copy))
    assert Run.open(bundle).metrics() == Run.open(tiny_run).metrics()


def test_a_record_that_changed_is_not_signed_anew(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    path = next((run / "records").glob("attack-*"))
    table = pq.read_table(path)
    where = table.column_names.index("success")
    turned = pa.array([not broken for broken in table.column("success").to_pylist()])
    pq.write_table(table.set_column(where, table.schema.field("success"), turned), path)
    for change, said in ((lambda: None, "has changed since it was written"), (path.unlink, "is missing")):
        change()
        with pytest.raises(HauberkError, match=said):
            write_bundle(Run.open(run), tmp_path / "bundle")
        assert not (tmp_path / "bundle").exists()


def test_small_weights_come_along_where_they_are_asked_for(
    tiny_run: Path, tmp_path: Path, hauberk: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text, error = hauberk("bundle", tiny_run, "--weights", "-o", tmp_path / "bundle")
    assert code == 0, error
    assert text.splitlines()[-1] == f"next: hauberk verify {tmp_path / 'bundle'} --weights"
    code, text, _ = hauberk("verify", tmp_path / "bundle", "--weights", "--rows", 4)
    assert code == 0, text
    assert "0 evaluations with problems" in text
    names = ("model.safetensors", "config.json")
    assert sorted(path.name for path in (tmp_path / "bundle" / "checkpoints").iterdir()) == sorted(names)
    plain = write_bundle(Run.open(tiny_run), tmp_path / "plain")
    code, _, error = hauberk("bundle", plain, "--weights", "-o", tmp_path / "again")
    assert (code, "has no weights" in error, (tmp_path / "again").exists()) == (1, True, False)
    monkeypatch.setattr(bundle, "MOST_BYTES", 1000)
    code, _, error = hauberk("bundle", tiny_run, "--weights", "-o", tmp_path / "large")
    assert (code, "at most 0.001" in error, (tmp_path / "large").exists()) == (1, True, False)


def test_votes_come_along_in_one_file(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"name": "toy", "data": {"name": "digits"}})
    model, votes = LinearOracle.random((1, 3, 3), 4, 1), SmoothingCertificate(Gaussian(0.25), n0=10, n=250)
    work = Work(run.records)
    certificate_records(model, model.batch(4), votes, Setting("toy", "test", tuple("abcd"), tile=2), work)
    bundle = write_bundle(run, tmp_path / "bundle")
    counted, joined, plans = (
        len(list((where / "records").glob(f"{kind}-*")))
        for where, kind in ((run.path, "votes"), (bundle, "votes"), (bundle, "plan"))
    )
    assert (counted, joined, plans) == (6, 1, 1)
    assert all(not verdict.problems for verdict in verify_folder(bundle / "records"))


def _about(part: Part) -> str:
    """What a part is about, whatever its key."""
    return json.dumps([part.kind, {k: v for k, v in part.unit.items() if k != "data"}], sort_keys=True)
