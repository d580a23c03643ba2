import copy
import os
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.classifier import logits_of, weights_hash
from hauberk.data import Augmentation
from hauberk.data.dataset import Dataset
from hauberk.data.split import Split
from hauberk.errors import HauberkError
from hauberk.objectives.base import Loss, Objective
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.runs import Run
from hauberk.threats import Linf
from hauberk.training import loop
from hauberk.training.config import Training
from hauberk.training.distributed import World
from hauberk.training.loop import fit
from hauberk.training.validation import Score

ATTACK = PGD(Linf(0.05), steps=2)
SETTINGS = {
    "epochs": 3,
    "batch_size": 32,
    "lr": 0.05,
    "ema": 0.9,
    "augmentation": Augmentation(crop=1),
    "validation_attack": ATTACK,
    "threads": 1,
}


def test_it_learns_and_returns_the_same_module_ready_to_use(network, dataset, run):
    model = network()
    found = fit(model, Standard(), dataset, Training(**SETTINGS | {"epochs": 12, "ema": 0.0}), run)
    assert found is model
    assert not any(m.training for m in found.modules())
    assert all(p.is_contiguous() and p.requires_grad and p.grad is None for p in found.parameters())
    val = dataset.val.batch()
    assert float((logits_of(found, val).argmax(1) == val.labels).float().mean()) > 0.9


def test_same_seed_same_bits_and_another_seed_other_ones(network, dataset, tmp_path):
    hashes = []
    for i, seed in enumerate((0, 0, 1)):
        run = Run.create(tmp_path / str(i), {"name": "x", "data": {"name": "digits"}})
        hashes.append(weights_hash(fit(network(), PGDAdversarial(ATTACK), dataset, Training(**SETTINGS), run, seed)))
    assert hashes[0] == hashes[1] != hashes[2]


def test_one_row_an_epoch_and_progress_in_order(network, dataset, run):
    seen = []
    fit(network(), PGDAdversarial(ATTACK), dataset, Training(**SETTINGS), run, report=seen.append)
    rows = run.metrics()
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["step"] for row in rows] == [3, 6, 9]
    assert {"loss", "ce_adversarial", "validation_accuracy", "validation_robust_accuracy"} <= set(rows[0])
    closing = [p for p in seen if p.validation]
    assert [p.step for p in closing] == [3, 6, 9] and closing[-1].eta == 0.0
    assert closing[0].terms["loss"] == rows[0]["loss"]
    assert all(p.images_per_second > 0 and p.steps == 9 for p in seen)


def test_an_epoch_may_be_some_steps_alone(network, dataset, run):
    seen = []
    settings = SETTINGS | {"steps_per_epoch": 2}
    fit(network(), PGDAdversarial(ATTACK), dataset, Training(**settings), run, report=seen.append)
    assert [row["step"] for row in run.metrics()] == [2, 4, 6]


def test_short_epochs_see_other_images_each(network, dataset, run, monkeypatch):
    seen, plain = [], Standard.__call__

    def watched(self, model, batch, context):
        seen.append(set(batch.ids.tolist()))
        progress.append(context.progress)
        return plain(self, model, batch, context)

    progress = []
    monkeypatch.setattr(Standard, "__call__", watched)
    fit(network(), Standard(), dataset, Training(**SETTINGS | {"steps_per_epoch": 2}), run)
    assert [len(ids) for ids in seen] == [32] * 6
    assert progress == [pytest.approx(k / 6) for k in range(6)]
    seen = seen[::2]
    assert len(set.union(*seen)) > 45


def test_another_view_is_a_fresh_augmentation_of_the_same_images(network, dataset, run):
    seen = []

    class Watching(Objective):
        def __call__(self, model, batch, context):
            seen.append((batch, context.view(), context.view()))
            return Loss(nn.functional.cross_entropy(model(batch.images), batch.labels), {})

    config = Training(**SETTINGS | {"epochs": 1, "augmentation": Augmentation(flip=True)})
    fit(network(), Watching(), dataset, config, run)
    assert len(seen) == 3
    for batch, *views in seen:
        plain = dataset.train.batch(batch.ids).images  # ids are places here
        for view in (batch.images, *views):
            kept, mirrored = ((view == images).flatten(1).all(1) for images in (plain, plain.flip(3)))
            assert bool((kept | mirrored).all()) and 0 < int(mirrored.sum()) < 32
        assert not torch.equal(views[0], views[1]) and not torch.equal(views[0], batch.images)


def test_squares_are_cut_late_in_training(network, dataset, run, monkeypatch):
    seen = []

    def watched(self, images, generator, progress=0.0):
        seen.append(progress)
        return images

    monkeypatch.setattr(Augmentation, "__call__", watched)
    fit(network(), Standard(), dataset, Training(**SETTINGS | {"steps_per_epoch": 2}), run)
    assert seen == [pytest.approx(k / 6) for k in range(6)]


def test_the_library_prints_nothing(network, dataset, run, capfd):
    fit(network(), Standard(), dataset, Training(**SETTINGS), run)
    assert capfd.readouterr() == ("", "")


def test_global_state_is_given_back(network, dataset, run):
    model = network()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    seen = []
    config = Training(**SETTINGS | {"threads": 2, "epochs": 1, "validate_every": 0})
    fit(model, Standard(), dataset, config, run, report=lambda _: seen.append(torch.get_num_threads()))
    assert set(seen) == {2}
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


# --- selection ------------------------------------------------------------------------------------------------


def scripted(monkeypatch, scores):
    """Let validation answer from a script and remember the weights it saw."""
    weights, answers = [], iter(scores)

    def judged(self, model, *arguments):
        weights.append(copy.deepcopy(model.state_dict()))
        return next(answers)

    monkeypatch.setattr(loop.Judge, "__call__", judged)
    return weights


def same(model: nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_the_best_robust_score_is_returned_not_the_last(network, dataset, run, monkeypatch):
    weights = scripted(monkeypatch, [Score(0.5, 0.3), Score(0.6, 0.6), Score(0.9, 0.5)])
    assert same(fit(network(), Standard(), dataset, Training(**SETTINGS), run), weights[1])


def test_the_earlier_one_wins_at_a_full_tie(network, dataset, run, monkeypatch):
    weights = scripted(monkeypatch, [Score(0.5, 0.3), Score(0.5, 0.3), Score(0.4, 0.3)])
    assert same(fit(network(), Standard(), dataset, Training(**SETTINGS), run), weights[0])


def test_patience_stops_training(network, dataset, run, monkeypatch):
    scripted(monkeypatch, [Score(0.5, 0.3), Score(0.5, 0.4), Score(0.5, 0.4), Score(0.5, 0.2)])
    fit(network(), Standard(), dataset, Training(**SETTINGS | {"epochs": 9, "patience": 2}), run)
    assert [row["epoch"] for row in run.metrics()] == [0, 1, 2, 3]


def test_a_collapse_stops_training_with_the_weights_before_it(network, dataset, run, monkeypatch):
    scores = [Score(0.5, 0.3), Score(0.5, 0.4), Score(0.9, 0.1, 0.9, collapsed=True), Score(0.9, 0.9)]
    weights = scripted(monkeypatch, scores)
    assert same(fit(network(), Standard(), dataset, Training(**SETTINGS | {"epochs": 9}), run), weights[1])
    assert [row.get("collapsed") for row in run.metrics()] == [None, None, 1.0]


def test_validation_happens_every_k_epochs_and_at_the_end(network, dataset, run, monkeypatch):
    scripted(monkeypatch, [Score(0.5, 0.1), Score(0.5, 0.2), Score(0.5, 0.3)])
    fit(network(), Standard(), dataset, Training(**SETTINGS | {"epochs": 5, "validate_every": 2}), run)
    assert [row["epoch"] for row in run.metrics() if "validation_accuracy" in row] == [1, 3, 4]


def test_without_validation_the_last_average_is_returned(network, dataset, run):
    config = Training(**SETTINGS | {"validate_every": 0, "validation_attack": None})
    found = fit(network(), Standard(), dataset, config, run)
    content = torch.load(run.checkpoints / "training.pt", weights_only=True)["content"]
    assert same(found, content["ema"]["model"]) and not same(found, content["model"])


def test_the_test_split_is_never_read(network, dataset, run):
    class Untouchable(Split):
        def __getattribute__(self, name):
            if name in ("images", "labels", "ids", "batch", "__len__"):
                raise AssertionError("training read the test split")
            return super().__getattribute__(name)

    test = object.__new__(Untouchable)
    with pytest.raises(AssertionError, match="read the test split"):
        _ = test.images
    closed = object.__new__(Dataset)
    for name, value in (vars(dataset) | {"test": test}).items():
        object.__setattr__(closed, name, value)
    fit(network(), Standard(), closed, Training(**SETTINGS), run)


# --- precision, clipping, faults ------------------------------------------------------------------------------


class Spy(nn.Module):
    """Remembers the type its layers compute in, apart for train and eval mode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: set[tuple[bool, bool, torch.dtype]] = set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.inner[0](images)
        self.seen.add((self.training, torch.is_grad_enabled(), hidden.dtype))
        return self.inner[1:](hidden)


def test_bfloat16_trains_finitely_and_evaluation_is_float32(network, dataset, run):
    model = Spy(network())
    config = Training(**SETTINGS | {"precision": "bfloat16", "validation_attack": ATTACK, "ema": 0.0, "epochs": 5})
    validated = []

    def report(progress):
        if progress.validation:
            validated.append(progress.terms["loss"])

    found = fit(model, Standard(), dataset, config, run, report=report)
    assert model.seen >= {(True, True, torch.bfloat16), (False, False, torch.float32)}
    assert all(dtype == torch.float32 for training, _, dtype in model.seen if not training)
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in found.parameters())
    assert validated[-1] < validated[0]


class Steep(Objective):
    """A loss whose gradient is a thousand times too long."""

    def __call__(self, model, batch, context):
        total = 1000.0 * nn.functional.cross_entropy(model(batch.images), batch.labels)
        return Loss(total, {})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_clipping_bounds_a_step(network, dataset, run, optimizer):
    start = network(norm=False)
    config = Training(
        epochs=1, batch_size=96, lr=0.01, optimizer=optimizer, momentum=0.0, nesterov=False, weight_decay=0.0,
        schedule="constant", warmup=0.0, gradient_clip=0.5, validate_every=0,
    )  # fmt: skip
    found = fit(copy.deepcopy(start), Steep(), dataset, config, run)
    pairs = zip(found.parameters(), start.parameters(), strict=True)
    moved = torch.cat([(a - b).detach().flatten() for a, b in pairs])
    if optimizer == "sgd":
        assert float(moved.norm()) == pytest.approx(0.01 * 0.5, rel=1e-3)
    assert bool(moved.isfinite().all()) and float(moved.norm()) > 0


class Poison(Objective):
    """Becomes infinite in the second epoch."""

    def __call__(self, model, batch, context):
        total = nn.functional.cross_entropy(model(batch.images), batch.labels)
        return Loss(total * (float("inf") if context.epoch == 1 else 1.0), {})


def test_a_loss_that_is_not_finite_stops_with_the_next_thing_to_do(network, dataset, run):
    with pytest.raises(HauberkError, match="epoch 1"):
        fit(network(), Poison(), dataset, Training(**SETTINGS | {"checkpoint_minutes": 1e-9}), run)
    content = torch.load(run.checkpoints / "training.pt", weights_only=True)["content"]
    assert content["position"]["epoch"] == 1 and content["position"]["step"] == 0
    assert all(bool(v.isfinite().all()) for v in content["model"].values())


def test_an_empty_validation_split_is_an_error(network, dataset, run):
    empty = Dataset("blobs", dataset.classes, dataset.train, dataset.val.select(slice(0, 0)), dataset.test)
    with pytest.raises(HauberkError, match="validate_every: 0"):
        fit(network(), Standard(), empty, Training(**SETTINGS), run)


def test_other_settings_do_not_continue_a_run(network, dataset, run):
    fit(network(), Standard(), dataset, Training(**SETTINGS), run)
    with pytest.raises(HauberkError, match="its lr was"):
        fit(network(), Standard(), dataset, Training(**SETTINGS | {"lr": 0.01}), run)
    with pytest.raises(HauberkError, match="its objective was"):
        fit(network(), Standard(label_smoothing=0.1), dataset, Training(**SETTINGS), run)
    fit(network(), Standard(), dataset, Training(**SETTINGS | {"threads": 2, "checkpoint_minutes": 1.0}), run)


# --- resume ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counting(Objective):
    """Keeps how often each sample was seen, and lets the weights depend on it."""

    def __call__(self, model, batch: Batch, context) -> Loss:
        counts = context.state.setdefault("counts", torch.zeros(96))
        counts[batch.ids] += 1
        adversarial = PGDAdversarial(ATTACK)(model, batch, context)
        weight = 1.0 + 0.1 * counts[batch.ids].mean()
        return Loss(adversarial.total * weight, adversarial.terms)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resuming_at_every_step_gives_the_same_bits(network, dataset, tmp_path, in_pieces, optimizer):
    """Stopped after 1, 2, 3 ... steps, over and over, the run ends with the weights and rows of an undisturbed one."""
    config = Training(**SETTINGS | {"checkpoint_minutes": 1e-9, "optimizer": optimizer, "lr": 0.01})
    whole = Run.create(tmp_path / "whole", {"name": "x", "data": {"name": "digits"}})
    expected = fit(network(), Counting(), dataset, config, whole, seed=4)

    broken = Run.create(tmp_path / "broken", {"name": "x", "data": {"name": "digits"}})
    found = in_pieces(lambda: fit(network(), Counting(), dataset, config, broken, seed=4))
    assert weights_hash(found) == weights_hash(expected)
    drop = "images_per_second"
    rows = [[{k: v for k, v in row.items() if k != drop} for row in r.metrics()] for r in (whole, broken)]
    assert rows[0] == rows[1]
    counts = torch.load(broken.checkpoints / "training.pt", weights_only=True)["content"]["state"]["counts"]
    assert torch.equal(counts, torch.full((96,), 3.0))


def test_memory_that_differs_between_processes_is_refused_after_the_first_step(network, dataset, run, monkeypatch):
    class Apart(World):
        """Two processes of which the other one is not asked."""

        def average(self, model, weight): ...

        def align(self, model): ...

        def sum(self, values):
            return values

        def agree(self, content, device):
            return b"counts" not in content

    monkeypatch.setattr(loop, "world", lambda device: Apart(0, 2))
    fit(network(), Standard(), dataset, Training(**SETTINGS | {"epochs": 1}), run)
    with pytest.raises(HauberkError, match="memory of Counting differs"):
        fit(network(), Counting(), dataset, Training(**SETTINGS), Run.create(run.path / "other", {}))
    assert not (run.path / "other" / "checkpoints" / "training.pt").exists()


def test_a_finished_run_answers_at_once(network, dataset, run, monkeypatch):
    first = weights_hash(fit(network(), Standard(), dataset, Training(**SETTINGS), run))
    monkeypatch.setattr(loop._Trainer, "_step", lambda *_: pytest.fail("trained again"))
    assert weights_hash(fit(network(), Standard(), dataset, Training(**SETTINGS), run)) == first
    assert [row["epoch"] for row in run.metrics()] == [0, 1, 2]


class Interrupted(Exception):
    pass


def test_a_row_logged_after_the_checkpoint_is_not_doubled(network, dataset, run, monkeypatch):
    save = loop._Trainer._save

    def dying(self):
        if self.position.epoch == 2 and self.position.step == 0:
            raise Interrupted
        save(self)

    monkeypatch.setattr(loop._Trainer, "_save", dying)
    with pytest.raises(Interrupted):
        fit(network(), Standard(), dataset, Training(**SETTINGS), run)
    assert [row["epoch"] for row in run.metrics()] == [0, 1]
    monkeypatch.undo()
    fit(network(), Standard(), dataset, Training(**SETTINGS), run)
    assert [row["epoch"] for row in run.metrics()] == [0, 1, 2]


def test_a_second_training_in_the_same_folder_is_refused(network, dataset, run):
    with run.training(), pytest.raises(HauberkError, match=rf"another process \(pid {os.getpid()}\) is training in"):
        fit(network(), Standard(), dataset, Training(epochs=1, batch_size=16), run)
    assert not list(run.checkpoints.iterdir())
    fit(network(), Standard(), dataset, Training(epochs=1, batch_size=16), run)
    assert [p.name for p in run.checkpoints.iterdir()] == ["training.pt"]
