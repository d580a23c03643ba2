"""I write a paper: a training method of your own, trained, attacked and compared with the plain one on equal terms.

Run it: ``python examples/add_objective.py`` (seconds, no download).  Nothing in Hauberk is changed: the method is a
frozen dataclass, one line registers it, and from then on recipes, run directories, records and reports know it by its
name.  To make it a part of the library instead, see ``CONTRIBUTING.md``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

import hauberk
from hauberk import recipes, registry
from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.report import write_report
from hauberk.report.collect import load, subjects
from hauberk.threats import CONFIG

RECIPE = """
name: squeezing
data: {name: digits}
model: {name: small_cnn, widths: [16, 32], strides: [1, 2]}
objective: {name: logit_squeezing, weight: 0.0}
training: {epochs: 10, batch_size: 64, lr: 0.1, validation_images: 100, threads: 1}
evaluation:
  images: 100
  attacks:
    - {name: pgd, threat: "linf:0.1", steps: 10}
    - {name: apgd, threat: "linf:0.1", steps: 20, loss: margin}
"""


@dataclass(frozen=True, config=CONFIG)
class LogitSqueezing(Objective):
    r"""Cross-entropy plus the squared length of the logits, :math:`\mathrm{CE}(z, y) + w\,\|z\|_2^2`.

    Args:
        weight: w; 0 is plain cross-entropy.
    """

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:  # noqa: ARG002
        """The loss of one batch; terms ``ce``, ``squared_length`` and ``accuracy``."""
        logits: Tensor = model(batch.images)
        natural = nn.functional.cross_entropy(logits, batch.labels)
        length = logits.square().sum(1).mean()
        terms = {
            "ce": natural.detach(),
            "squared_length": length.detach(),
            "accuracy": accuracy(logits, batch.labels),
        }
        return Loss(natural + self.weight * length, terms)


registry.register(
    "objective", "logit_squeezing", f"{__name__}:LogitSqueezing", "cross-entropy plus the squared length of the logits"
)


def main() -> None:
    """Train with and without the method, attack both, and print what the records say."""
    torch.set_num_threads(1)
    check_objective(LogitSqueezing())
    print("check_objective: every rule holds")
    folder = Path(tempfile.mkdtemp(prefix="hauberk-"))
    (folder / "squeezing.yaml").write_text(RECIPE)
    paths = []
    for weight in (0.0, 0.05):
        recipe = recipes.read(folder / "squeezing.yaml", [f"objective.weight={weight}"])
        run = hauberk.train(recipe, folder / f"weight_{weight:g}")
        paths.append(hauberk.evaluate(run).path)
    for path in paths:
        measured = subjects(part for facts in load([path]) for part in facts.parts)[0]
        attacked = measured.attacked[0].accuracy
        print(
            f"{path.name:12} clean {100 * measured.clean.value:.0f} %, under attack at most "
            f"{100 * attacked.value:.0f} % [{100 * attacked.low:.0f}, {100 * attacked.high:.0f}]"
        )
    print("one seed and 100 images: an illustration, not a result")
    print(f"report: {write_report(paths, folder / 'report.html')}")


if __name__ == "__main__":
    main()
