"""Evidence that all rows share is computed once and stored once, however many classes there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hauberk import records
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, MixedCertificate
from hauberk.defences import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.evaluation.alpha_path import mix_records
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.layers.lipschitz import ModelBounds
from hauberk.records import INLINE, group, part, read, read_all, write
from hauberk.report.bundle import write_bundle
from hauberk.report.collect import subjects
from hauberk.runs import Run
from hauberk.verify import verify_folder

K = 120
SETTING = Setting("none", "test", tuple(map(str, range(K))), tile=8)


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, K)).eval()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(24, 3, 2, 2, generator=generator)
    return Batch(images, net(0)(images).argmax(1), torch.arange(24))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the pairwise bounds were computed."""
    calls: list[int] = []
    bound = ModelBounds.pairwise

    def pairwise(self: ModelBounds, norm: str = "l2") -> torch.Tensor:
        calls.append(1)
        return bound(self, norm)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelBounds, "pairwise", pairwise)
    return calls


def certified(folder: Path) -> None:
    certificate_records(net(0), batch(), LipschitzCertificate(), SETTING, Work(folder))


def mixed(folder: Path) -> None:
    model = MixedClassifier(net(1), net(0), 0.9, 1.0, 2.0).eval()
    mix_records(model, batch(), MixedCertificate(LipschitzCertificate()), (0.0, 0.01, 0.1), SETTING, Work(folder))


@pytest.mark.parametrize("verb", [certified, mixed])
def test_shared_evidence_is_computed_and_stored_once(verb, counted: list[int], tmp_path: Path) -> None:
    verb(tmp_path)
    assert len(counted) == 1
    assert len(list(tmp_path.glob("array-*"))) == 1
    parts = read_all(tmp_path)
    assert len(parts) == 3
    assert all(p.facts["shared"]["pairwise"] is parts[0].facts["shared"]["pairwise"] for p in parts)
    (joined,) = group(parts)
    assert joined.table.num_rows == 24
    assert not any(v.problems for v in verify_folder(tmp_path))
    if verb is certified:
        assert [len(s.certified) for s in subjects(parts)] == [1]
        assert joined.column("radius").max() > 0.0


def test_a_bundle_takes_the_arrays_along(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"name": "many", "data": {"name": "none"}})
    certified(run.records)
    bundle = write_bundle(run, tmp_path / "bundle")
    assert write_bundle(run, bundle) == bundle
    names = sorted(p.name.partition("-")[0] for p in (bundle / "records").iterdir() if p.suffix == ".parquet")
    assert names == ["array", "certificate", "fingerprint"]
    assert set(Run.open(bundle).info["hashes"]["records"]) == {p.name for p in (bundle / "records").glob("*.parquet")}
    assert not any(v.problems for v in verify_folder(bundle / "records"))


def test_an_array_that_is_gone_or_changed_is_not_believed(tmp_path: Path) -> None:
    certified(tmp_path)
    (path,) = tmp_path.glob("array-*")
    one = next(iter(tmp_path.glob("certificate-*")))
    whole = read(path)
    halved = part("array", whole.unit, {}, {"id": whole.column("id"), "values": [
        0.5 * np.asarray(v) for v in whole.table.column("values").to_pylist()]})  # fmt: skip
    path.unlink()
    with pytest.raises(HauberkError, match="is missing"):
        read(one)
    write(tmp_path, halved)
    with pytest.raises(HauberkError, match="do not match the hash in its name"):
        read(one)


@pytest.mark.parametrize("name", ["../../secret", "0" * 15, "g" * 16, 7, None, "A" * 16])
def test_an_array_is_named_by_its_hash_alone(name: object, tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match="names the array"):
        records._array(tmp_path, name)


def test_a_few_classes_stay_in_the_record(tmp_path: Path) -> None:
    values = np.zeros((3, 3))
    made = part("certificate", {}, {"shared": {"pairwise": values}}, {"id": [1]})
    assert made.facts["shared"]["pairwise"] == values.tolist()
    write(tmp_path, made)
    assert [p.name.partition("-")[0] for p in tmp_path.iterdir()] == ["certificate"]
    assert K * K > INLINE
