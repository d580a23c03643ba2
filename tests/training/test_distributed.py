"""Two processes under torchrun train like one; the pieces of it are checked without processes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from hauberk.objectives.base import Context
from hauberk.training.distributed import World

# threads that share a core with others wait for each other at every barrier
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SCRIPT = textwrap.dedent("""
    import sys
    import torch
    from torch import nn
    from hauberk.attacks.pgd import PGD
    from hauberk.data import Augmentation, Dataset, Split
    from hauberk.errors import HauberkError
    from hauberk.noises import Gaussian
    from hauberk.objectives.base import Loss, Objective
    from hauberk.objectives.consistency import Consistency
    from hauberk.objectives.free_adversarial import FreeAdversarial
    from hauberk.objectives.gaussian_augmentation import GaussianAugmentation
    from hauberk.objectives.hkr import HKR
    from hauberk.objectives.iaat import IAAT
    from hauberk.objectives.pgd_adversarial import PGDAdversarial
    from hauberk.objectives.trades import TRADES
    from hauberk.runs import Run
    from hauberk.threats import L2, Linf
    from hauberk.training.config import Training
    from hauberk.training.distributed import leave
    from hauberk.training.loop import fit

    def split(name, count, first):
        generator = torch.Generator().manual_seed(first)
        images = torch.randint(0, 256, (count, 2, 6, 6), generator=generator).to(torch.uint8)
        return Split(name, images, images.flatten(1).long().sum(1) % 3, torch.arange(first, first + count))

    def network(norm, act=nn.Softplus):
        layers = [nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), act()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 3))

    dataset = Dataset("noise", ("a", "b", "c"), split("train", 95, 0), split("val", 150, 95), split("test", 3, 0))
    for name, objective, norm in (
        ("trades", TRADES(PGD(L2(0.5), loss="kl", steps=2), beta=2.0), False),
        ("adversarial", PGDAdversarial(PGD(Linf(0.1), steps=2), clean_fraction=0.5), False),
        ("noise", GaussianAugmentation(Gaussian(0.25)), False),
        ("norm", GaussianAugmentation(Gaussian(0.25)), True),
        ("consistency", Consistency(PGD(Linf(0.1), steps=2)), False),
        ("iaat", IAAT(L2(0.2), steps=2, warmup=1), False),
        ("free", FreeAdversarial(L2(0.2), replays=2), False),
        ("swa", GaussianAugmentation(Gaussian(0.25)), True),
        ("awp", PGDAdversarial(PGD(L2(0.2), steps=2)), False),
        ("hkr", HKR(soft=True, lipschitz="walk"), False),
    ):
        torch.manual_seed(0)
        config = Training(
            epochs=2, batch_size=19, lr=0.05, ema=0.5 * (name != "swa"), swa=0.1 * (name == "swa"),
            awp=0.1 * (name == "awp"), augmentation=Augmentation(crop=1, flip=True), threads=1,
            validation_attack=PGD(L2(0.2), steps=2), gradient_clip=1.0,
        )
        run = Run.create(f"{sys.argv[1]}/{name}", {"name": "x", "data": {"name": "digits"}})
        model = fit(network(norm, nn.ReLU if name == "hkr" else nn.Softplus), objective, dataset, config, run, seed=1)
        import os
        torch.save(model.state_dict(), f"{sys.argv[1]}/{name}-{os.environ.get('RANK', '0')}.pt")

    class Selfish(Objective):
        def __call__(self, model, batch, context):
            context.state["ids"] = batch.ids
            return Loss(nn.functional.cross_entropy(model(batch.images), batch.labels), {})

    run = Run.create(f"{sys.argv[1]}/selfish", {"name": "x", "data": {"name": "digits"}})
    try:
        fit(network(False), Selfish(), dataset, config, run)
        said = "trained"
    except HauberkError as error:
        said = error.message
    with open(f"{sys.argv[1]}/selfish-{os.environ.get('RANK', '0')}.txt", "w") as handle:
        handle.write(said)
    leave()
""")

ALIKE = ["trades", "adversarial", "noise", "consistency", "iaat", "free", "hkr", "awp"]


def weights(folder: Path, name: str, rank: int) -> torch.Tensor:
    state = torch.load(folder / f"{name}-{rank}.pt", weights_only=True)
    return torch.cat([value.double().flatten() for value in state.values()])


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    single, double = tmp_path_factory.mktemp("single"), tmp_path_factory.mktemp("double")
    script = single / "train.py"
    script.write_text(SCRIPT)
    # standalone: the launcher finds a free port itself
    launch = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    for command in ([str(script), str(single)], [*launch, str(script), str(double)]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
    return single, double


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_train_like_one(folders, name):
    one, two = weights(folders[0], name, 0), weights(folders[1], name, 0)
    start = torch.linalg.vector_norm(one)
    assert float(torch.linalg.vector_norm(one - two) / start) < 1e-4
    assert float((one - two).abs().max()) < 1e-4


def test_two_processes_share_the_memory_of_samples_and_rows(folders):
    one, two = (
        {
            name: torch.load(folder / name / "checkpoints" / "training.pt", weights_only=True)["content"]["state"]
            for name in ("iaat", "free")
        }
        for folder in folders
    )
    assert sorted(one["iaat"]["iaat"]) == sorted(two["iaat"]["iaat"]) == list(range(95))
    assert two["iaat"]["iaat"] == pytest.approx(one["iaat"]["iaat"], abs=1e-4)
    assert len(set(one["iaat"]["iaat"].values())) > 3
    torch.testing.assert_close(two["free"]["free_adversarial"], one["free"]["free_adversarial"], atol=1e-3, rtol=0)


def test_memory_of_one_process_alone_is_refused_by_all(folders):
    assert (folders[0] / "selfish-0.txt").read_text() == "trained"
    said = {(folders[1] / f"selfish-{rank}.txt").read_text() for rank in (0, 1)}
    assert said == {"the memory of Selfish differs between processes"}


@pytest.mark.parametrize("name", [*ALIKE, "norm", "swa"])
def test_both_processes_hold_the_same_weights(folders, name):
    assert torch.equal(weights(folders[1], name, 0), weights(folders[1], name, 1))


def test_process_0_alone_writes_the_rows(folders):
    for folder in folders:
        assert (folder / "trades" / "metrics.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(("total", "size"), [(19, 2), (7, 3), (8, 4), (5, 5)])
def test_rows_are_a_partition_and_weights_sum_to_one(total, size):
    slices = [World(rank, size).rows(total) for rank in range(size)]
    assert [i for s in slices for i in range(total)[s]] == list(range(total))
    assert sum(World(rank, size).weight(total) for rank in range(size)) == pytest.approx(1.0)


@pytest.mark.parametrize(("other", "alike"), [(b"memory", True), (b"another", False)])
def test_processes_agree_where_their_content_is_the_same(other, alike, monkeypatch):
    device, said = torch.device("cpu"), []
    monkeypatch.setattr(World, "sum", lambda self, values: said.append(values) or values)
    World(1, 2).agree(other, device)
    (theirs, _), spoken = said, iter((said[0], torch.tensor([int(not alike)])))
    monkeypatch.setattr(World, "sum", lambda self, values: values + next(spoken))
    assert World(0, 2).agree(b"memory", device) == alike
    assert theirs.numel() == 1


def test_a_row_draws_the_same_numbers_in_any_layout():
    def draw(offset, rows, total):
        context = Context(torch.Generator().manual_seed(3), offset=offset, total=total)
        randomness = context.randomness(rows)
        return torch.cat([randomness.uniform(2, 2).flatten(1), randomness.normal(3)], 1)

    whole = draw(0, 10, None)
    assert torch.equal(torch.cat([draw(0, 4, 10), draw(4, 3, 10), draw(7, 3, 10)]), whole)
    with pytest.raises(ValueError, match="batch of 10"):
        draw(7, 4, 10)


def test_a_norm_in_eval_mode_keeps_its_statistics_to_the_last_bit(monkeypatch):
    """Three processes of equal shares: a third of a number, three times, is not always the number."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: flat.mul_(3.0))
    kept, moving = torch.nn.BatchNorm1d(1000).eval(), torch.nn.BatchNorm1d(1000).train()
    before = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    for norm in (kept, moving):
        norm.running_mean.copy_(before)
    World(0, 3).average(torch.nn.ModuleList([kept, moving]), 1 / 3)
    assert torch.equal(kept.running_mean, before)
    assert not torch.equal(moving.running_mean, before)
    torch.testing.assert_close(moving.running_mean, before)
