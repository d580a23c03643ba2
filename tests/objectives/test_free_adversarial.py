"""Free adversarial training: Algorithm 1 step by step, and its perturbation across batches, kills and processes."""


import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.conformance import check_objective
from hauberk.data.dataset import Dataset
from hauberk.data.split import Split
from hauberk.objectives.base import Context
from hauberk.objectives.free_adversarial import MEMORY, FreeAdversarial
from hauberk.runs import Run
from hauberk.threats import L2, Linf
from hauberk.training import loop
from hauberk.training.config import Training
from hauberk.training.loop import fit


def noise(name: str, count: int, first: int) -> Split:
    generator = torch.Generator().manual_seed(first)
    images = torch.randint(60, 192, (count, 1, 3, 3), generator=generator)
    return Split(name, images.to(torch.uint8), torch.arange(count) % 2, torch.arange(first, first + count))


DATA = Dataset("noise", ("a", "b"), noise("train", 24, 0), noise("val", 8, 24), noise("test", 4, 0))
CONFIG = Training(
    epochs=2, batch_size=8, lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant", warmup=0.0,
    validate_every=0, threads=1, checkpoint_minutes=1e-9,
)  # fmt: skip


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.Softplus(), nn.Linear(5, 2))


def test_it_is_algorithm_1(tmp_path, monkeypatch):
    """Written down: m steps on a batch, one gradient for weights and perturbation, which goes on to the next batch."""
    batches, load, progress, plain = [], loop._Trainer._load, [], FreeAdversarial.__call__

    def asked(self, model, batch, context):
        progress.append(context.progress)
        return plain(self, model, batch, context)

    monkeypatch.setattr(FreeAdversarial, "__call__", asked)

    def watched(self, index, own):
        batches.append(load(self, index, own))
        return batches[-1]

    monkeypatch.setattr(loop._Trainer, "_load", watched)
    run = Run.create(tmp_path / "run", {})
    found = fit(net(), FreeAdversarial(Linf(0.1), replays=3, step_size=0.06), DATA, CONFIG, run)
    assert len(batches) == 6
    assert progress == pytest.approx([k / 18 for k in range(18)])
    assert [row["step"] for row in run.metrics()] == [9, 18]
    model, delta = net(), torch.zeros(8, 1, 3, 3)
    for batch in batches:
        for _ in range(3):
            delta.requires_grad_(True)
            loss = functional.cross_entropy(model(batch.images + delta), batch.labels)
            moved, *gradients = torch.autograd.grad(loss, [delta, *model.parameters()])
            delta = (delta.detach() + 0.06 * moved.sign()).clamp(-0.1, 0.1)  # the box is out of reach
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= 0.1 * gradient
    for mine, true in zip(found.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, true, atol=1e-5, rtol=0)
    kept = torch.load(run.checkpoints / "training.pt", weights_only=True)["content"]["state"][MEMORY]
    torch.testing.assert_close(kept, delta, atol=1e-6, rtol=0)


def test_resuming_at_every_step_gives_the_same_bits(tmp_path, in_pieces):
    objective = FreeAdversarial(L2(0.3), replays=2)
    whole, broken = (Run.create(tmp_path / name, {}) for name in ("whole", "broken"))
    expected = weights_hash(fit(net(), objective, DATA, CONFIG, whole, seed=4))
    found = in_pieces(lambda: fit(net(), objective, DATA, CONFIG, broken, seed=4))
    assert weights_hash(found) == expected


@pytest.mark.parametrize("threat", [Linf(0.3), L2(0.8)], ids=str)
def test_the_perturbation_stays_in_ball_and_box(network, batch, threat):
    context = Context(torch.Generator())
    seen = []
    network.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    for images in (batch.images, batch.images.flip(0), 1.0 - batch.images):
        FreeAdversarial(threat)(network, Batch(images, batch.labels, batch.ids), context).total.backward()
        points = seen[-1]
        assert bool(((points >= 0) & (points <= 1)).all())
        assert bool((threat.distance(points, images) <= threat.eps + 1e-6).all())
    assert not torch.equal(seen[-1], 1.0 - batch.images)
    assert bool((context.state[MEMORY] != 0).any())


def test_each_process_moves_its_own_rows_and_all_keep_them_all(network, batch):
    """Two processes, one after the other, on two batches; what they add up is the memory of both."""
    network.eval()
    whole, kept = Context(torch.Generator()), {}
    for images in (batch.images, batch.images.flip(0)):
        other, parts = Batch(images, batch.labels, batch.ids), []
        for own in (slice(0, 5), slice(5, 16)):
            context = Context(torch.Generator(), state=dict(kept), offset=own.start, total=16)
            context.add = lambda rows, parts=parts: parts.append(rows) or rows
            FreeAdversarial(L2(0.3))(network, other.select(own), context).total.backward()
        FreeAdversarial(L2(0.3))(network, other, whole).total.backward()
        torch.testing.assert_close(parts[0] + parts[1], whole.state[MEMORY])
        kept = dict(whole.state)


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.2)], ids=str)
def test_the_contract(threat):
    check_objective(FreeAdversarial(threat, replays=2))
