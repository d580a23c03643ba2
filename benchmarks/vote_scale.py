"""What records cost at size: many images, many blocks of votes, and a model that is never asked.

    python benchmarks/vote_scale.py --images 100000 --output results

Every block is given counts by a stub in place of the passes of a net, so that what is timed is the plan, the records,
their merge, ``verify`` and the page.  With the block that chooses the class there are eleven for each image.
Wall-clock and processor seconds, the largest memory of the process, and the largest number of files of records.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hauberk import verify
from hauberk.certificates import SmoothingCertificate, votes
from hauberk.evaluation.work import Step
from hauberk.noises import Gaussian
from hauberk.recipes import Evaluation
from hauberk.records import RecordKind, group, read_all
from hauberk.report import write_report
from hauberk.runs import environment
from hauberk.subjects import subject
from hauberk.verbs.certify import certify

CLASSES, N = 10, 128 * 2**9
KINDS: tuple[RecordKind, ...] = ("votes", "certificate")
NET = '''
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 10)).eval()
'''


def counted(*given: Any) -> Tensor:
    """Four votes of five for one class, the others for the next one, in place of ``noisy_votes``."""
    _, _, _, count, (_, sample, _), _ = given
    found = torch.zeros(CLASSES, dtype=torch.int64)
    found[sample % CLASSES] = count - count // 5
    found[(sample + 1) % CLASSES] = count // 5
    return found


def images_of(folder: Path, count: int) -> Path:
    """Tiny pictures, all different."""
    numbers = np.arange(count, dtype=np.uint32).view(np.uint8).reshape(count, 2, 2)
    np.savez(folder / "images.npz", images=numbers, labels=np.arange(count) % CLASSES)
    return folder / "images.npz"


def measure(folder: Path, images: int) -> dict[str, Any]:
    """Seconds of each step, memory, and the records on disk."""
    (folder / "stub_net.py").write_text(NET)
    sys.path.insert(0, str(folder))
    # the one call that asks the net
    votes.noisy_votes = counted  # type: ignore[assignment]
    found = subject("stub_net:build", folder / "run", str(images_of(folder, images)))
    certificate, run = SmoothingCertificate(Gaussian(0.25), n0=128, n=N), folder / "run"
    most = 0

    def counting(_: Step) -> None:
        nonlocal most
        most = max(most, len(list((run / "records").glob("*.parquet"))))

    steps: dict[str, Callable[[], object]] = {
        "votes and certificates": lambda: certify(found, [certificate], Evaluation(), report=counting),
        "merge": lambda: [group(read_all(run / "records", kind)) for kind in KINDS],
        "verify": lambda: verify.verify_run(run),
        "report": lambda: write_report([run], folder / "page.html"),
    }
    seconds, processor = {}, {}
    for name, work in steps.items():
        began, spent = time.perf_counter(), time.process_time()
        work()
        seconds[name] = round(time.perf_counter() - began, 1)
        processor[name] = round(time.process_time() - spent, 1)
        print(f"{name}: {seconds[name]} s, processor {processor[name]} s", flush=True)
    sizes = [path.stat().st_size for path in (run / "records").rglob("*") if path.is_file()]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "images": images, "blocks": 11, "seconds": seconds, "processor_seconds": processor,
        "all_seconds": round(sum(seconds.values()), 1), "all_processor_seconds": round(sum(processor.values()), 1),
        "peak_gib": round(memory, 2), "files": len(sizes), "most_files": most,
        "megabytes": round(sum(sizes) / 2**20, 1), "environment": environment(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), options.images)
    print(found)
    if options.output is not None:
        (options.output / "vote_scale.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
