"""Certified radius <= true radius <= size of any successful attack, with no violation, where the truth is known.

And records do not depend on batch size, order or shards.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from hauberk.attacks import APGD, FGSM, PGD, Attack
from hauberk.batch import Batch
from hauberk.certificates import Certificate, LipschitzCertificate, MixedCertificate, SmoothingCertificate
from hauberk.conformance import LinearOracle
from hauberk.defences import MixedClassifier, SmoothedClassifier, smoothed
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records, certificate_records
from hauberk.evaluation.work import INLINE, Work
from hauberk.executors import Executor, Processes
from hauberk.models import small_cnn
from hauberk.noises import Gaussian
from hauberk.records import Part, group, read_all
from hauberk.threats import L1, L2, Linf, norm_equivalence

SHAPES = ((1, 3, 5), (3, 4, 4), (1, 6, 2))
ATTACKS = [
    FGSM(L1(0.3)), FGSM(L2(0.15)), FGSM(Linf(0.05)),
    PGD(L1(0.3), steps=6), PGD(L2(0.15), steps=8, restarts=2), PGD(Linf(0.05), steps=8, targeted=True),
    APGD(L2(0.15), steps=12), APGD(Linf(0.05), steps=12, loss="margin"),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_nothing_is_broken_below_its_true_radius(attack: Attack) -> None:
    broken = 0
    for seed, shape in enumerate(SHAPES):
        for classes in (2, 3, 7):
            oracle = LinearOracle.random(shape, classes, seed)
            batch = oracle.batch(64, seed)
            found = attack(oracle, batch, seed)
            true = oracle.true_radius(batch.images, attack.threat.norm)
            assert torch.equal(found.clean_prediction, batch.labels)
            assert bool((found.distance[found.success] >= true[found.success] * (1 - 1e-5) - 1e-6).all())
            broken += int(found.success.sum())
    assert broken > 100


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_lipschitz_radii_in_every_norm_stay_below_the_true_ones(norm: str, classes: int) -> None:
    for seed, shape in enumerate(SHAPES):
        oracle = LinearOracle.random(shape, classes, seed)
        batch = oracle.batch(64, seed)
        found = LipschitzCertificate()(oracle.layers, batch)
        factor = norm_equivalence("l2", norm, batch.images[0].numel())
        assert bool((found.radius * factor <= oracle.true_radius(batch.images, norm)).all())


def test_smoothed_radii_stay_below_the_true_ones() -> None:
    certificate = SmoothingCertificate(Gaussian(0.15), n0=20, n=250, alpha=1e-4)
    certified = 0
    for seed, shape in enumerate(SHAPES):
        oracle = LinearOracle.random(shape, 2, seed)
        batch = oracle.batch(200, seed)
        found = certificate(oracle, batch, seed)
        true = oracle.true_radius(batch.images, "l2")
        sure = found.radius > 0
        assert bool((found.radius <= true).all())
        assert bool((found.prediction == batch.labels)[sure].all())
        certified += int(sure.sum())
    assert certified > 100


@pytest.mark.parametrize(
    ("certificate", "sigma"),
    [
        (LipschitzCertificate(), None),
        (MixedCertificate(), None),
        (SmoothingCertificate(Gaussian(0.1), 20, 300, 1e-4), 0.1),
    ],
    ids=["lipschitz", "mixed", "smoothing"],
)
def test_the_whole_chain_on_one_predictor(certificate: Certificate, sigma: float | None) -> None:
    """The same object is attacked and certified; an abstention at an attacked point is no class and so no break."""
    oracle = LinearOracle.random((1, 3, 5), 2, seed=8)
    batch = oracle.batch(48, seed=8)
    model: torch.nn.Module = oracle.layers
    if isinstance(certificate, MixedCertificate):
        model = MixedClassifier(oracle.layers, oracle.layers, 0.8, 1.0, 60.0).eval()
    if sigma is not None:
        model = SmoothedClassifier(oracle.layers, Gaussian(sigma), bank=8, votes=300, alpha=1e-4).eval()
    found = certificate(model, batch)
    assert bool((found.radius > 0).any())
    for attack in (PGD(L2(0.15), steps=8), FGSM(L2(0.3), loss="margin")):
        rival = attack(model, batch)
        broken = rival.success & (rival.prediction != -1)
        assert bool(broken.any())
        right = found.prediction == batch.labels
        assert not bool((broken & right & (rival.distance * (1 + 1e-6) < found.radius)).any())


# --- records do not show how the work was cut -----------------------------------------------------------------


def tables(folder: Path) -> dict[str, Part]:
    return {part.kind: part for part in group(read_all(folder))}


def work(
    folder: Path, batches: list[Batch], tile: int, shards: int = 1, executor: Executor = INLINE
) -> dict[str, Part]:
    oracle = LinearOracle.random((1, 4, 4), 3, seed=1)
    setting = Setting("oracle", "test", ("a", "b", "c"), seed=4, tile=tile, gallery=0)
    certificate = SmoothingCertificate(Gaussian(0.1), n0=10, n=70, alpha=0.01)
    for batch in batches:
        for i in range(shards):
            attack_records(oracle, batch, PGD(L2(0.2), steps=3), setting, Work(folder, (i, shards), executor=executor))
            certificate_records(oracle, batch, certificate, setting, Work(folder, (i, shards), executor=executor))
    return tables(folder)


def cut(batch: Batch, size: int, order: torch.Tensor | None = None) -> list[Batch]:
    rows = torch.arange(len(batch)) if order is None else order
    return [batch.select(index) for index in rows.split(size)]


@pytest.fixture(scope="module")
def whole_batch() -> Batch:
    oracle = LinearOracle.random((1, 4, 4), 3, seed=1)
    batch = oracle.batch(70, seed=2)
    labels = batch.labels.clone()
    labels[::9] = (labels[::9] + 1) % 3
    return Batch(batch.images, labels, batch.ids * 3 + 11)


@pytest.fixture(scope="module")
def whole(whole_batch: Batch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    return work(tmp_path_factory.mktemp("whole"), [whole_batch], 64)


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("shuffled", [False, True])
def test_batch_size_and_order_leave_no_trace(
    size: int, shuffled: bool, whole: dict[str, Part], whole_batch: Batch, tmp_path: Path
) -> None:
    order = torch.randperm(70, generator=torch.Generator().manual_seed(size)) if shuffled else None
    found = work(tmp_path, cut(whole_batch, size, order), 64)
    for kind in ("attack", "certificate"):
        assert found[kind].table.equals(whole[kind].table)
    ids = found["attack"].column("id")
    assert (np.diff(ids) > 0).all()
    assert len(ids) == 70


def test_the_order_of_images_does_not_change_the_units(whole_batch: Batch, tmp_path: Path) -> None:
    order = torch.randperm(70, generator=torch.Generator().manual_seed(3))
    for name, batch in (("straight", whole_batch), ("shuffled", whole_batch.select(order))):
        work(tmp_path / name, [batch], 16)
    names = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("straight", "shuffled")]
    assert names[0] == names[1]
    # certificates in units of one tile and two blocks of votes for each, attacks of four tiles, a plan, a fingerprint
    assert len(names[0]) == 5 * (1 + 2) + 2 + 1 + 1


def test_shards_share_the_work(whole_batch: Batch, tmp_path: Path) -> None:
    setting = Setting("oracle", "test", ("a", "b", "c"), tile=4, gallery=0)
    oracle = LinearOracle.random((1, 4, 4), 3, seed=1)
    done = [
        {p.key for p in attack_records(oracle, whole_batch, FGSM(L2(0.1)), setting, Work(tmp_path, (i, 3)))}
        for i in range(3)
    ]
    assert [len(keys) for keys in done] == [2, 2, 1]
    assert len(set.union(*done)) == 5


def test_two_shards_leave_no_trace(whole_batch: Batch, tmp_path: Path) -> None:
    once = work(tmp_path / "once", [whole_batch], 16)
    shards = work(tmp_path / "shards", [whole_batch], 16, shards=2)
    for kind in ("attack", "certificate"):
        assert shards[kind].table.equals(once[kind].table)
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == 5 * (1 + 2) + 2 + 1 + 1


@pytest.mark.parametrize(("size", "shards"), [(7, 1), (64, 4)])
def test_processes_of_any_batches_and_shards_leave_no_trace(
    size: int, shards: int, whole: dict[str, Part], whole_batch: Batch, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(size))
    found = work(tmp_path, cut(whole_batch, size, order), 64, shards, Processes(workers=2))
    for kind in ("attack", "certificate"):
        assert found[kind].table.equals(whole[kind].table)


def test_what_changes_a_result_changes_its_key(whole_batch: Batch, tmp_path: Path) -> None:
    oracle = LinearOracle.random((1, 4, 4), 3, seed=1)
    base = small_cnn((1, 4, 4), 3, (0.5,), (0.2,), widths=(2,), strides=(1,), batch_norm=False)
    few = whole_batch.select(slice(0, 4))
    keys = set()
    models = [
        oracle,
        LinearOracle.random((1, 4, 4), 3, seed=2),
        MixedClassifier(oracle, oracle, 0.84, 1.0, 1.0).eval(),
        MixedClassifier(oracle, oracle, 0.84000001, 1.0, 1.0).eval(),
        MixedClassifier(oracle, oracle, 0.84, 1.0, 1.00000001).eval(),
        *(smoothed(base, Gaussian(0.1), bank=2, votes=votes).eval() for votes in (5, 6)),
    ]
    for model in models:
        for attack in (FGSM(L2(0.2)), FGSM(L2(0.3)), FGSM(Linf(0.2)), FGSM(L2(0.2), loss="margin")):
            for seed, tile in ((0, 4), (1, 4), (0, 8)):
                setting = Setting("oracle", "test", ("a", "b", "c"), seed=seed, tile=tile, gallery=0)
                keys |= {p.key for p in attack_records(model, few, attack, setting, Work(tmp_path))}
    assert len(keys) == 7 * 4 * 3
