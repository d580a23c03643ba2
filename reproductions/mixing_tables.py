"""Mixing networks in the settings A to D, their loss and their scale: Tables 2, 3, 6 and 7 of Bai et al. 2024, small.

    python reproductions/mixing_tables.py data FOLDER     # once: data/cifar100_300.npz, FOLDER holds read_data.py
    python reproductions/mixing_tables.py 2 3 6 7         # train what is missing, measure what is missing, render
    python reproductions/mixing_tables.py 2 3 6 7 --render

The base models are runs of ``hauberk train {standard,pgd}_cifar10_small`` in ``runs/small_cifar10`` and of
``{standard,pgd}_cifar100_small`` in ``runs/small_cifar100``.  Every mix is led to the same clean accuracy on validation
images; test images are only measured.  Each cell is the verdicts of one model under one attack, kept as a text of 0 and
1 in the order of the images, so all intervals can be computed again, paired over images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import hauberk
from hauberk import recipes, registry
from hauberk.attacks import APGD, PGD, Attack, AutoAttack
from hauberk.batch import Batch
from hauberk.classifier import frozen, logits_of, weights_hash
from hauberk.defences import MixedClassifier
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier, AlphaDown
from hauberk.evaluation import calibration
from hauberk.evaluation.alpha_steps import enough_of, largest, right_intervals, softmax
from hauberk.evaluation.metrics import Bools, Floats
from hauberk.verbs import sweep
from image_sets import cifar100, reader_of
from mixing_tables_text import RENDERED, verdicts
from store import Store, bits, unbits

THREAT = registry.build("linf:8/255", "threat")
WIDTH = 0.1
FAR = 16.0  # a shift of the logit beyond which the sigmoid is 0 or 1
LOSSES = Path("recipes/tables/mixing_loss_cifar10.yaml")


@dataclass(frozen=True)
class Pair:
    """Two base models, and what their mixes are led to.

    Args:
        data: name of the data set in run and recipe names.
        clean: wanted clean accuracy on validation images; None is midway between the base models'.
        images: test images of Tables 2 and 3.
    """

    data: str
    clean: float | None
    images: int

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return Path("runs") / f"small_{self.data}"

    def run(self, kind: str) -> Path:
        """A run of the recipe ``<kind>_<data>_small``."""
        return self.folder / f"{kind}_{self.data}_small-seed0"


CIFAR10 = Pair("cifar10", 0.732, 1000)  # the clean accuracy of results/adaptive_smoothing/tradeoff.md
CIFAR100 = Pair("cifar100", None, 500)


# --- attacks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attacks:
    """The attacks of all tables, with their numbers of steps."""

    pgd_steps: int = 20
    apgd_steps: int = 50
    targets: int = 3

    @property
    def pgd(self) -> Attack:
        """PGD-20 with the step 2.5 eps / steps."""
        return PGD(THREAT, steps=self.pgd_steps)

    @property
    def suite(self) -> AutoAttack:
        """Setting C: cross-entropy, then the targeted difference of logits on what is left."""
        n = self.apgd_steps
        return self._after(APGD(THREAT, steps=n), APGD(THREAT, steps=n, loss="dlr", targets=self.targets))

    @property
    def adaptive(self) -> AutoAttack:
        """What setting D adds: the same two with a loss that pushes alpha down too."""
        n, down = self.apgd_steps, AlphaDown(base="dlr")
        return self._after(APGD(THREAT, steps=n, loss=AlphaDown()), APGD(THREAT, down, steps=n, targets=self.targets))

    def _after(self, *attacks: Attack) -> AutoAttack:
        return AutoAttack(THREAT, version="custom", attacks=attacks)

    def described(self) -> dict[str, Any]:
        """Plain values for the file."""
        named = {"PGD": self.pgd, "C": self.suite, "added in D": self.adaptive}
        return {name: registry.spec(attack) for name, attack in named.items()}


def kept(model: nn.Module, batch: Batch, attack: Attack | None, rows: Bools | None = None) -> Bools:
    """Which images stay right under an attack (None: clean); rows that are already lost are not attacked."""
    if attack is None:
        with frozen(model):
            return (logits_of(model, batch).argmax(1) == batch.labels).numpy()
    right = np.ones(len(batch), dtype=bool) if rows is None else rows.copy()
    if right.any():
        mask = torch.from_numpy(right)
        right[right] = ~attack(model, batch.select(mask), 0).success.numpy()
    return right


# --- a file of cells ----------------------------------------------------------------------------------------------


class Cells(Store):
    """One table's file: setting, models and verdicts."""

    def __init__(self, path: Path, setting: dict[str, Any]) -> None:
        super().__init__(path)
        self.describe(setting=setting)

    def right(self, model: str, column: str, compute: Callable[[], Bools]) -> Bools:
        """The verdicts of a cell, computed if they are not there."""
        return unbits(self.cell(f"{model} / {column}", lambda: bits(compute())))


# --- models -------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Two base models with their validation logits and a batch of test images."""

    pair: Pair
    attacks: Attacks
    images: int

    def __post_init__(self) -> None:
        self.accurate, self.robust = (hauberk.subject(self.pair.run(kind)) for kind in ("standard", "pgd"))
        self.val = hauberk.evaluation_batch(self.robust.dataset, "val", 1000)
        self.test = hauberk.evaluation_batch(self.robust.dataset, "test", self.images)
        self.labels = self.val.labels.numpy()
        self.g, self.h = (softmax(self._said(s.model)) for s in (self.accurate, self.robust))
        self.bases_clean = [float((p.argmax(1) == self.labels).mean()) for p in (self.g, self.h)]
        wanted = sum(self.bases_clean) / 2 if self.pair.clean is None else self.pair.clean
        self.wanted = round(wanted, 3)

    def _said(self, model: nn.Module) -> Floats:
        with frozen(model):
            return logits_of(model, self.val).double().numpy()

    def setting(self, **more: Any) -> dict[str, Any]:
        """What all cells of a file share."""
        return {
            "data": self.pair.data, "split": "test", "images": self.images, "first ids": "0 to images - 1",
            "threat": "linf:8/255", "seed": 0, "attacks": self.attacks.described(),
            "wanted clean accuracy on validation": self.wanted, "validation images": len(self.val),
        } | more  # fmt: skip

    def constant(self) -> tuple[MixedClassifier, dict[str, Any]]:
        """The mix with one weight at the wanted clean accuracy."""
        found = calibration.alpha_for_clean(self.g, self.h, self.labels, self.wanted)
        model = MixedClassifier(self.accurate.model, self.robust.model, found.alpha, 1.0, 1.0).eval()
        facts = {"alpha": found.alpha, "validation clean": found.clean_accuracy.value}
        return model, facts | {"weights": weights_hash(model)}

    def scores(self, network: AdaptiveMixedClassifier) -> Floats:
        """The standardised scores of the validation images."""
        scale, shift = network.logit
        with frozen(network):
            told = [network.outputs(part.images)["alpha_logit"][:used] for part, used in self.val.tiles(64)]
        return (torch.cat(told).double().numpy() - shift) / scale

    def ranged(self, network: AdaptiveMixedClassifier) -> tuple[nn.Module, dict[str, Any]]:
        """The network with the range of width 0.1 that leads to the wanted clean accuracy."""
        scale, shift = network.logit
        u = 1.0 / (1.0 + np.exp(-(scale * self.scores(network) + shift)))
        # no attacked images are asked: only the estimate of robust accuracy, unused here, would need them
        found = calibration.alpha_range(
            self.g, self.h, self.labels, u, u, np.zeros_like(u), width=WIDTH, wanted=self.wanted
        )
        model = remade(network, alpha_min=found.alpha_min, alpha_max=found.alpha_max)
        facts = {"alpha range": [found.alpha_min, found.alpha_max], "validation clean": found.clean_accuracy.value}
        return model, facts | {"sigmoids on validation": spread(u), "weights": weights_hash(model)}

    def shifted(self, network: AdaptiveMixedClassifier, scale: float) -> tuple[nn.Module, dict[str, Any]]:
        """The network in the full range (0, 1) with a scale of its score and the shift to the wanted clean accuracy."""
        low, high = right_intervals(self.g, self.h, self.labels)
        scores = scale * self.scores(network)
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = [np.log(np.clip(e, 0, 1)) - np.log1p(-np.clip(e, 0, 1)) - scores + FAR for e in (low, high)]
        at, right = largest(ends[0], ends[1], enough_of(self.wanted, len(low)), 2 * FAR)
        shift = at - FAR
        model = remade(network, alpha_min=0.0, alpha_max=1.0, logit=[scale, shift])
        u = 1.0 / (1.0 + np.exp(-(scores + shift)))
        facts = {"scale": scale, "shift": shift, "validation clean": right / len(low)}
        return model, facts | {"alpha on validation": spread(u), "weights": weights_hash(model)}


def spread(values: Floats) -> list[float]:
    """The 5, 50 and 95 % quantiles."""
    return [round(float(q), 4) for q in np.quantile(values, [0.05, 0.5, 0.95])]


def remade(network: AdaptiveMixedClassifier, **changes: Any) -> AdaptiveMixedClassifier:
    """The network with another range or another factor and shift of its score."""
    model: AdaptiveMixedClassifier = registry.build(network.spec | changes, "defence")
    model.load_state_dict(network.state_dict())
    return model.eval()


def trained(recipe: recipes.Recipe, path: Path) -> tuple[AdaptiveMixedClassifier, dict[str, Any]]:
    """The network of a recipe, trained if it is not there yet, and where it comes from."""
    run = hauberk.train(recipe, path)
    model = run.load_model()
    assert isinstance(model, AdaptiveMixedClassifier)
    steps = recipe.training.epochs * recipe.training.steps_per_epoch
    return model, {"run": path.name, "recipe": recipe.name, "steps": steps, "network": weights_hash(model.mixing)}


# --- the tables ---------------------------------------------------------------------------------------------------


def settings_table(number: int, pair: Pair, options: argparse.Namespace) -> None:
    """Table 2 or 3: networks trained in A, B and C, each under A, B, C and D."""
    bench = Bench(pair, options.attacks, options.images or pair.images)
    cells = Cells(options.out / f"table_{number}.json", bench.setting(table=number, width=WIDTH))
    plan: dict[str, Attack | None] = {"clean": None, "PGD-20": options.attacks.pgd, "C": options.attacks.suite}
    for name, subject in (("g", bench.accurate), ("h", bench.robust)):
        cells.model(name, run=subject.run.path.name, weights=weights_hash(subject.model))
        for column, attack in plan.items():
            cells.right(name, column, partial(kept, subject.model, bench.test, attack))
    model, facts = bench.constant()
    cells.model("constant", **facts)
    for column, attack in plan.items():
        cells.right("constant", column, partial(kept, model, bench.test, attack))
    named = {k.upper(): (f"mixing_{k}_{pair.data}_small", pair.run(f"mixing_{k}")) for k in "abc"}
    if number == 2 and options.longer:
        named["longer"] = ("mixing_cifar10_small", pair.folder / "mixing_cifar10_last-seed0")
    for name, (recipe, path) in named.items():
        setting = ["training.validate_every=0"] if name == "longer" else []
        network, origin = trained(recipes.read(recipe, setting), path)
        measured(cells, name, bench, *bench.ranged(network), origin)
    cells.write()


def measured(
    cells: Cells, name: str, bench: Bench, model: nn.Module, facts: dict[str, Any], origin: dict[str, Any]
) -> None:
    """The columns clean, A, B, C and D of one network."""
    assert isinstance(model, AdaptiveMixedClassifier)
    cells.model(name, **origin, **facts)
    test, attacks = bench.test, bench.attacks
    cells.right(name, "clean", lambda: kept(model, test, None))
    cells.right(name, "A", lambda: kept(model.parts()["gray_box"].eval(), test, attacks.pgd))
    cells.right(name, "B", lambda: kept(model, test, attacks.pgd))
    standing = cells.right(name, "C", lambda: kept(model, test, attacks.suite))
    cells.right(name, "D", lambda: kept(model, test, attacks.adaptive, standing))


def losses_table(options: argparse.Namespace) -> None:
    """Table 6: the constants of the loss, PGD-20 at the same clean accuracy, by a shift and by a range."""
    bench = Bench(CIFAR10, options.attacks, options.images or 500)
    cells = Cells(options.out / "table_6.json", bench.setting(table=6, width=WIDTH))
    few = bench.val.select(slice(0, bench.images))
    model, facts = bench.constant()
    cells.model("constant", **facts)
    both(cells, "constant", model, bench.test, options.attacks.pgd)
    planned = sweep.cells(sweep.read(LOSSES), CIFAR10.folder)
    wanted = [c for c in planned if options.products is None or c.recipe.objective["product"] in options.products]
    kinds = ("shift", "range") if options.products is None else ("shift",)
    for kind, cell in ((kind, cell) for kind in kinds for cell in wanted):
        network, origin = trained(cell.recipe, cell.path)
        constants = {k: getattr(registry.build(cell.recipe.objective), k) for k in ("ce", "bce", "product")}
        label = "ce {ce:g}, bce {bce:g}, product {product:g}, ".format(**constants) + kind
        mix, found = bench.shifted(network, 2.0) if kind == "shift" else bench.ranged(network)
        cells.model(label, **constants, kind=kind, **origin, **found)
        both(cells, label, mix, bench.test, options.attacks.pgd)
        if kind == "shift":  # what Table 7 chooses by
            cells.right(label, "validation PGD-20", partial(kept, mix, few, options.attacks.pgd))
    cells.write()


def both(cells: Cells, name: str, model: nn.Module, batch: Batch, pgd: Attack) -> None:
    """The columns clean and PGD-20."""
    cells.right(name, "clean", lambda: kept(model, batch, None))
    cells.right(name, "PGD-20", lambda: kept(model, batch, pgd))


def scales_table(options: argparse.Namespace) -> None:
    """Table 7: the factor of the sigmoid at evaluation, for the network of Table 6 that is best on validation."""
    bench = Bench(CIFAR10, options.attacks, options.images or 500)
    source = json.loads((options.out / "table_6.json").read_text())
    tried = [key for key in source["cells"] if key.endswith("/ validation PGD-20")]
    best = max(tried, key=lambda key: (verdicts(source, key).sum(), -tried.index(key))).split(" / ")[0]
    facts = source["models"][best]
    cells = Cells(options.out / "table_7.json", bench.setting(table=7, network=facts["run"], chosen=best))
    network = hauberk.subject(CIFAR10.folder / facts["run"]).model
    model, found = bench.constant()
    cells.model("constant", **found)
    both(cells, "constant", model, bench.test, options.attacks.pgd)
    for scale in (0.5, 1.0, 2.0, 4.0):
        mix, found = bench.shifted(network, scale)
        cells.model(f"scale {scale:g}", **found)
        both(cells, f"scale {scale:g}", mix, bench.test, options.attacks.pgd)
    cells.write()


def write_data(folder: Path) -> None:
    """Write data/cifar100_300.npz from a folder whose ``read_data.py`` loads CIFAR-100 with 300 images a class."""
    cifar100(reader_of(folder), Path("data"))


TABLES: dict[int, Callable[[argparse.Namespace], None]] = {
    2: lambda options: settings_table(2, CIFAR10, options),
    3: lambda options: settings_table(3, CIFAR100, options),
    6: losses_table,
    7: scales_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", help="data FOLDER, or numbers of tables")
    parser.add_argument("--out", type=Path, default=Path("results/adaptive_smoothing/paper"))
    parser.add_argument("--render", action="store_true", help="write the texts from the files alone")
    parser.add_argument("--longer", action="store_true", help="Table 2: also the last weights of mixing_cifar10_small")
    parser.add_argument("--products", type=float, nargs="+", help="Table 6: these c_prod alone, by shift alone")
    parser.add_argument("--images", type=int, help="test images, for a trial")
    parser.add_argument("--steps", type=int, help="steps of every attack, for a trial")
    options = parser.parse_args()
    if options.what[0] == "data":
        write_data(Path(options.what[1]))
        return
    torch.set_num_threads(1)
    few = options.steps
    options.attacks = Attacks() if few is None else Attacks(few, few, 1)
    for number in map(int, options.what):
        if not options.render:
            TABLES[number](options)
        store = Store(options.out / f"table_{number}.json")
        text, store.data["summary"] = RENDERED[number](store.data)
        store.put(".md", text + "\n")
        store.write()


if __name__ == "__main__":
    main()
