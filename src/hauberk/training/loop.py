"""The training loop: ``fit`` trains, validates, selects, saves, and goes on where a killed run stopped."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.data.dataset import Dataset
from hauberk.data.source import Part, Source
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.runs import Run
from hauberk.training import checkpoints
from hauberk.training.awp import AWP
from hauberk.training.config import Training
from hauberk.training.distributed import World, world
from hauberk.training.ema import EMA
from hauberk.training.hook import Hook
from hauberk.training.machine import arrange, settings
from hauberk.training.optimizers import optimizer
from hauberk.training.precision import Bfloat16
from hauberk.training.progress import Clock, Progress, Timer
from hauberk.training.schedules import learning_rate
from hauberk.training.swa import SWA
from hauberk.training.validation import Judge, Score

CHECKPOINT = "training.pt"
REPORT_SECONDS = 0.5

Report = Callable[[Progress], None]


def fit(
    model: nn.Module,
    objective: Objective,
    dataset: Dataset,
    config: Training,
    run: Run,
    seed: int = 0,
    report: Report | None = None,
    extra: Sequence[Part] = (),
) -> nn.Module:
    """Train a model and return it with the best weights on the validation split.

    The best is that of highest robust validation accuracy (clean accuracy at a tie, or where no attack is given); with
    validation off it is the last.  The test split is never read.  With the same seed, machine and threads the weights
    are bit-identical, also after a kill at any moment: call ``fit`` again with the same arguments and it goes on from
    the last checkpoint in ``run.checkpoints``.  One row an epoch goes to ``metrics.jsonl``.  Under ``torchrun`` each
    process trains on its own rows of every batch, and only process 0 writes and reports.

    Args:
        model: the classifier, on the device to train on; changed in place.
        objective: what to minimise.
        dataset: its ``train`` and ``val`` splits are used.
        config: the recipe's training block.
        run: where checkpoints and metrics go.
        seed: of data order, augmentation, attacks and dropout; the initial weights are the caller's.
        report: called with the progress, at most twice a second and after every epoch.
        extra: splits of other data sets, each with its share of every batch.

    Returns:
        the same model, with the selected weights (their average where ``ema`` or ``swa`` is on), in eval mode.

    Raises:
        HauberkError: if the data or a checkpoint do not fit, another process is training in the run's folder, the disk
            is full, or the loss is not finite.
    """
    device = next(model.parameters()).device
    processes = world(device)
    with settings(config, device), run.training() if processes.rank == 0 else nullcontext():
        source = Source(dataset, extra, config.batch_size, seed, config.steps_per_epoch, device)
        judge = Judge(dataset.train, dataset.val, config, seed, device) if config.validate_every else None
        trainer = _Trainer(model, objective, source, judge, config, run, report, processes)
        trainer.resume()
        trainer.train()
        return trainer.selected()


@dataclass
class _Position:
    """Where training stands and what it remembers; saved in the checkpoint with the weights.

    Args:
        epoch: the current epoch, from 0.
        step: steps of the current epoch that are done.
        sums: of the loss terms over the rows of the current epoch, float64 scalars.
        rows: number of those rows.
        best: weights, score and epoch of the best validation so far.
        stale: validations since then.
        finished: nothing is left to do.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    rows: int = 0
    best: dict[str, Any] | None = None
    stale: int = 0
    finished: bool = False


class _Trainer:
    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        source: Source,
        judge: Judge | None,
        config: Training,
        run: Run,
        report: Report | None,
        processes: World,
    ) -> None:
        self.device = next(model.parameters()).device
        self.model, self.objective, self.config, self.run = model, objective, config, run
        self.source, self.seed, self.report, self.world = source, source.seed, report, processes
        self.judge = judge
        if config.batch_size < processes.size:
            raise HauberkError(
                f"a batch of {config.batch_size} cannot be shared by {processes.size} processes",
                "choose a larger batch_size, which counts the images of all processes together",
            )
        if config.channels_last:
            arrange(model, torch.channels_last)
        processes.align(model)
        self.view = Bfloat16(model) if config.precision == "bfloat16" else model
        self.hooks, self.awp = _hooks(model, config), AWP(model, config.awp, config.awp_start)
        self.optimizer = optimizer(model, config)
        self.steps_per_epoch = len(source.batches(0)) * objective.replays
        self.context = Context(torch.Generator(self.device), add=processes.sum)
        self.position = _Position()
        self.clock, self.report_timer = Clock(), Timer(REPORT_SECONDS)
        self.save_timer = Timer(60.0 * config.checkpoint_minutes)
        self.purpose = checkpoints.purpose(model, objective, source, config)

    # --- the loop ---------------------------------------------------------------------------------------------

    def train(self) -> None:
        while not self.position.finished:
            self._epoch()

    def _epoch(self) -> None:
        self.model.train()
        batches = self.source.batches(self.position.epoch)
        for index in batches[self.position.step :]:
            self._step(index)
            self.position.step += 1
            if self.report_timer.due():
                self._tell({})
            if self.position.step < len(batches) and self.save_timer.due():
                self._save()
        self._close_epoch()

    def _step(self, index: Tensor) -> None:
        """The optimiser steps on this process's rows of a batch, each with random numbers of its own."""
        total, own = len(index), self.world.rows(len(index))
        self._key(self._done, own.start, total)
        batch = self._load(index, own)
        for done in range(self._done, self._done + self.objective.replays):
            if done > self._done:
                self._key(done, own.start, total)
            self._update(batch, done, total)
            if self.clock.steps == 1:
                self._check_memory()

    def _update(self, batch: Batch, done: int, total: int) -> None:
        """One optimiser step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(done)
        self.optimizer.zero_grad(set_to_none=True)

        def evaluate() -> Loss:
            loss = self.objective(self.view, batch, self.context)
            loss.total.backward()  # type: ignore[no-untyped-call]
            self.world.average(self.model, self.world.weight(total))
            return loss

        loss = self.awp(evaluate, self.context) if self.config.awp else evaluate()
        if self.config.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        for hook in self.hooks:
            hook.after_step(self.model)
        self._count({"loss": loss.total.detach(), **loss.terms}, len(batch))

    def _close_epoch(self) -> None:
        """Validate, log and save; the row is logged first, so that a kill in between costs a rewrite and no row."""
        position = self.position
        terms = self._means(everywhere=True)
        for hook in self.hooks:
            hook.after_epoch(self.model, (position.epoch + 1) / self.config.epochs, self._images)
        score = self._validate()
        if self.world.rank == 0:
            done = (position.epoch + 1) * self.steps_per_epoch
            rate = {"learning_rate": self._learning_rate(done - 1), "images_per_second": self.clock.images_per_second}
            columns = {} if score is None else score.row()
            self.run.log({"epoch": position.epoch, "step": done} | terms | columns | rate)
            self._tell(columns)
        stop = bool(self.config.patience) and position.stale >= self.config.patience
        stop = stop or (score is not None and score.collapsed)
        position.finished = stop or position.epoch + 1 == self.config.epochs
        position.epoch, position.step, position.sums, position.rows = position.epoch + 1, 0, {}, 0
        self._save()

    def _validate(self) -> Score | None:
        """Score the candidate and keep its weights if they are the best so far."""
        config, position = self.config, self.position
        last = position.epoch + 1 == config.epochs
        if self.judge is None or not (last or (position.epoch + 1) % config.validate_every == 0):
            return None
        candidate = self.candidate
        score = self.judge(candidate, self.world, position.best)
        if position.best is None or score.key > tuple(position.best["score"]):
            weights = {name: value.detach().clone() for name, value in candidate.state_dict().items()}
            record = {"score": list(score.key), "epoch": position.epoch, "one_step": score.one_step}
            position.best = record | {"weights": weights}
            position.stale = 0
        else:
            position.stale += 1
        return score

    @property
    def candidate(self) -> nn.Module:
        """The model that is judged: what a hook offers, or the trained one."""
        return next((found for hook in self.hooks if (found := hook.candidate()) is not None), self.model)

    def selected(self) -> nn.Module:
        """The model with the weights that were chosen."""
        best = self.position.best
        self.model.load_state_dict(self.candidate.state_dict() if best is None else best["weights"])
        self.model.zero_grad(set_to_none=True)
        arrange(self.model, torch.contiguous_format)
        return self.model.eval()

    @property
    def _done(self) -> int:
        """Optimiser steps before the present batch."""
        return self.position.epoch * self.steps_per_epoch + self.position.step * self.objective.replays

    # --- one step's parts -------------------------------------------------------------------------------------

    def _key(self, done: int, offset: int, total: int) -> None:
        """Give the step random numbers of its own: they depend on seed and step, so a resumed run draws the same.

        Every process draws for the whole batch (see ``Context.randomness``); what a network draws by itself, dropout
        say, comes from torch's global generator, which is keyed by process too.
        """
        self.context.generator.manual_seed(_hash(self.seed, done, "objective"))
        torch.manual_seed(_hash(self.seed, done, f"network {self.world.rank}"))
        self.context.epoch = self.position.epoch
        self.context.progress = done / (self.steps_per_epoch * self.config.epochs)
        self.context.offset, self.context.total = offset, total if self.world.size > 1 else None

    def _load(self, index: Tensor, own: slice) -> Batch:
        """This process's rows; the whole batch is augmented first, so that a row does not depend on the processes."""
        batch = self.source.batch(index)

        def augment() -> Tensor:
            images = self.config.augmentation(batch.images, self.context.generator, self.context.progress)
            if self.config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            return images[own]

        self.context.augment = augment
        return Batch(augment(), batch.labels[own], batch.ids[own])

    def _images(self) -> Iterator[Batch]:
        """The batches of the epoch without augmentation."""
        return map(self.source.batch, self.source.batches(self.position.epoch))

    def _learning_rate(self, done: int) -> float:
        config = self.config
        return learning_rate(config.schedule, config.lr, done, self.steps_per_epoch * config.epochs, config.warmup)

    def _count(self, terms: dict[str, Tensor], rows: int) -> None:
        """Add up on the device; nothing waits for a number here."""
        for name, value in terms.items():
            before = self.position.sums.get(name)
            weighted = value.double() * rows
            self.position.sums[name] = weighted if before is None else before + weighted
        self.position.rows += rows
        self.clock.count(rows * self.world.size)

    def _means(self, everywhere: bool) -> dict[str, float]:
        """Means over the epoch so far, of this process or of all.

        Raises:
            HauberkError: if the loss is not finite.
        """
        names = list(self.position.sums)
        values = torch.stack([*self.position.sums.values(), torch.tensor(float(self.position.rows)).to(self.device)])
        if everywhere:
            values = self.world.sum(values)
        means = dict(zip(names, (values[:-1] / values[-1]).tolist(), strict=True))
        if not math.isfinite(means["loss"]):
            raise HauberkError(
                f"the loss became {means['loss']} in epoch {self.position.epoch}",
                "lower lr, set gradient_clip: 1.0 or use float32; then remove the checkpoint or choose another run "
                "folder",
            )
        return means

    def _tell(self, validation: dict[str, float]) -> None:
        if self.report is None or self.world.rank != 0:
            return
        done, steps = self._done, self.steps_per_epoch * self.config.epochs
        self.report(
            Progress(
                epoch=self.position.epoch,
                epochs=self.config.epochs,
                step=done,
                steps=steps,
                terms=self._means(everywhere=False),
                validation=validation,
                images_per_second=self.clock.images_per_second,
                eta=self.clock.eta(steps - done),
            )
        )

    # --- checkpoints ------------------------------------------------------------------------------------------

    def _check_memory(self) -> None:
        """Raise unless the objective's memory, which process 0 alone saves, is that of every process."""
        if self.world.size == 1:
            return
        content = io.BytesIO()
        torch.save(self.context.state, content)
        if not self.world.agree(content.getvalue(), self.device):
            raise HauberkError(
                f"the memory of {type(self.objective).__name__} differs between processes",
                "let the objective keep only what context.whole returns, or train in one process",
            )

    def _save(self) -> None:
        self._check_memory()
        if self.world.rank != 0:
            return
        if self.position.rows:
            self._means(everywhere=False)  # never save weights after a loss that is not finite
        content = {
            "position": vars(self.position),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": self.context.state,
        } | {hook.name: hook.state_dict() for hook in self.hooks}
        checkpoints.save(self._checkpoint, self.purpose, content)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one; rows that were logged after it are dropped."""
        content = checkpoints.load(self._checkpoint, self.purpose, self.device)
        if content is not None:
            self.position = _Position(**content["position"])
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.context.state = content["state"]
            for hook in self.hooks:
                hook.load_state_dict(content[hook.name])
        if self.world.rank == 0:
            self.run.sweep()
            self.run.keep_metrics([r for r in self.run.metrics() if r.get("epoch", -1) < self.position.epoch])

    @property
    def _checkpoint(self) -> Path:
        return self.run.checkpoints / CHECKPOINT


def _hooks(model: nn.Module, config: Training) -> list[Hook]:
    ema = [EMA(model, config.ema)] if config.ema else []
    return [*ema, *([SWA(model, config.swa)] if config.swa else [])]


def _hash(seed: int, step: int, purpose: str) -> int:
    digest = hashlib.blake2b(f"{seed}|{step}|{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
