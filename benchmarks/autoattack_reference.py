"""Run the published AutoAttack (pyautoattack 0.2.0) on a run's model and keep every image's verdict.

    python benchmarks/autoattack_reference.py RUN --threat linf:8/255 --images 1000 --seed 0 --out FILE.json

The verdicts are what ``benchmarks/autoattack_compare.py`` holds Hauberk's own against.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import torch
from pyautoattack import AutoAttack

from hauberk import api, registry

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Stages(logging.Handler):
    """The reference says how many images each attack left in its log alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(("initial accuracy", "robust accuracy after")) or "WARNING" in text.upper():
            self.lines.append(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--threat", default="linf:8/255")
    parser.add_argument("--version", default="standard")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    subject = api.subject(options.run)
    threat = registry.build(options.threat, "threat")
    batch = api.evaluation_batch(subject.dataset, "test", options.images)
    stages = Stages()
    logger = logging.getLogger("auto-attack")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(stages)
    attack = AutoAttack(
        subject.model, norm=NORMS[threat.norm], eps=threat.eps, version=options.version, seed=options.seed
    )
    started = time.perf_counter()
    found, _ = attack.run_standard_evaluation(batch.images, batch.labels, batch_size=options.batch)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        decisions = torch.cat([subject.model(part).argmax(1) for part in found.split(250)])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({
        "reference": "pyautoattack 0.2.0",
        "run": Path(options.run).name,
        "weights": subject.run.info["hashes"]["weights"],
        "threat": options.threat,
        "version": options.version,
        "seed": options.seed,
        "batch": options.batch,
        "threads": options.threads,
        "torch": torch.__version__,
        "seconds": round(seconds, 2),
        "log": stages.lines,
        "ids": batch.ids.tolist(),
        "right": (decisions == batch.labels).int().tolist(),
    }) + "\n")  # fmt: skip
    print(f"{options.run}: {(decisions == batch.labels).float().mean():.4f} in {seconds:.1f} s")


if __name__ == "__main__":
    main()
