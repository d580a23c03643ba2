"""Wrong versions of the central formulas: each must be caught by the tests named beside it.

Run it with ``make mutants``.  Every mutant is one textual change to a copy of ``src``; the tests named for it then run
against the copy.  A survivor, or an old text that does not occur exactly once, makes the exit status 1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest
from mutant import Mutant
from mutants_adversarial import ADVERSARIAL
from mutants_attacks import ATTACKS
from mutants_certified import CERTIFIED
from mutants_comparison import COMPARISON
from mutants_core import CORE
from mutants_data import DATA
from mutants_denoised import DENOISED
from mutants_door import DOOR
from mutants_draws import DRAWS
from mutants_evaluation import EVALUATION
from mutants_executors import EXECUTORS
from mutants_frozen import FROZEN
from mutants_gate import GATE
from mutants_generated import GENERATED
from mutants_hycas import HYCAS
from mutants_keys import KEYS
from mutants_layers import LAYERS
from mutants_lipschitz import LIPSCHITZ_NETWORKS
from mutants_logs import LOGS
from mutants_misuse import MISUSE
from mutants_mixing import MIXING
from mutants_mmcert import MMCERT
from mutants_noises import NOISES
from mutants_purifiers import PURIFIERS
from mutants_random import RANDOM
from mutants_regularisers import REGULARISERS
from mutants_report import REPORT
from mutants_requirements import REQUIREMENTS
from mutants_safety import SAFETY
from mutants_sequential import SEQUENTIAL
from mutants_storage import STORAGE
from mutants_terminal import TERMINAL
from mutants_training import TRAINING
from mutants_variants import VARIANTS
from mutants_verify import VERIFIED

ROOT = Path(__file__).resolve().parents[2]
PYTEST = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
PYTEST += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported before the fork
FAULT = 99

MUTANTS: list[Mutant] = [
    *ADVERSARIAL,
    *KEYS,
    *CORE,
    *CERTIFIED,
    *COMPARISON,
    *ATTACKS,
    *EVALUATION,
    *MIXING,
    *NOISES,
    *LAYERS,
    *LIPSCHITZ_NETWORKS,
    *DATA,
    *SAFETY,
    *STORAGE,
    *VERIFIED,
    *FROZEN,
    *GATE,
    *GENERATED,
    *HYCAS,
    *MISUSE,
    *REPORT,
    *DENOISED,
    *DOOR,
    *TRAINING,
    *DRAWS,
    *VARIANTS,
    *EXECUTORS,
    *TERMINAL,
    *REQUIREMENTS,
    *MMCERT,
    *SEQUENTIAL,
    *LOGS,
    *RANDOM,
    *REGULARISERS,
    *PURIFIERS,
]


def problems(mutants: list[Mutant]) -> list[str]:
    """Old texts that do not occur exactly once."""
    found = []
    for m in mutants:
        count = (ROOT / "src" / "hauberk" / m.file).read_text().count(m.old)
        if count != 1:
            found.append(f"{m.file}: expected once, found {count} times: {m.old!r}")
    return found


def start(copy: Path, tests: str, log: Path) -> int:
    """Run the named tests against a copy of the sources in a forked process, and return its id.

    Forking spares each mutant the import of torch, which takes longer than most of the tests.
    """
    child = os.fork()
    if child:
        return child
    with log.open("w") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
        sys.path.insert(0, str(copy))
        status = FAULT
        try:
            origin = importlib.import_module("hauberk").__file__ or ""
            if origin.startswith(str(copy)):
                status = int(pytest.main([*PYTEST, *(str(ROOT / t) for t in tests.split())]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def finish(child: int, status: int, log: Path) -> bool:
    """Whether some test failed; anything but a clean pass or failure of tests ends the run."""
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):
        raise SystemExit(f"process {child} could not run the tests (exit {code}):\n{log.read_text()[-3000:]}")
    return code == 1


class Bench:
    """Copies of ``src``, one for each mutant that is tried at the same time.

    Args:
        folder: where the copies and the logs go.
        workers: how many.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.running = folder, dict[int, tuple[Mutant, Path, str, float]]()
        self.free = [folder / str(index) for index in range(workers)]
        self.survivors: list[Mutant] = []
        for copy in self.free:
            shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))

    def log(self, copy: Path) -> Path:
        """Where the tests of a copy write."""
        return self.folder / f"{copy.name}.log"

    def whole(self, tests: str) -> bool:
        """Whether the tests pass while nothing is broken."""
        copy = self.free[0]
        child = start(copy, tests, self.log(copy))
        return not finish(*os.waitpid(child, 0), self.log(copy))

    def begin(self, mutant: Mutant) -> None:
        """Break a free copy and run the mutant's tests on it; waits until a copy is free."""
        while not self.free:
            self.reap()
        copy = self.free.pop()
        path = copy / "hauberk" / mutant.file
        original = path.read_text()
        path.write_text(original.replace(mutant.old, mutant.new))
        child = start(copy, mutant.tests, self.log(copy))
        self.running[child] = (mutant, copy, original, time.monotonic())

    def reap(self) -> None:
        """Wait for one mutant, tell its fate and mend its copy."""
        child, status = os.wait()
        mutant, copy, original, started = self.running.pop(child)
        dead = finish(child, status, self.log(copy))
        (copy / "hauberk" / mutant.file).write_text(original)
        self.free.append(copy)
        if not dead:
            self.survivors.append(mutant)
        word, name = "killed  " if dead else "SURVIVED", " ".join(mutant.old.split())
        seconds = time.monotonic() - started
        print(f"{word} {seconds:5.1f} s  {mutant.group:12} {mutant.file}: {name[:80]}", flush=True)


def main() -> int:
    """Run all mutants, or those whose group or file is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="groups or files to run; all by default")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if not arguments.only or m.group in arguments.only or m.file in arguments.only]
    if not chosen:
        print(f"no mutant is in {', '.join(arguments.only)}: name a group or a file of src/hauberk")
        return 1
    broken = problems(chosen)
    if broken:
        print("\n".join(broken))
        return 1
    started = time.monotonic()
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    for name in ("torch", "scipy.stats", "scipy.optimize", "hypothesis", "pydantic", "pyarrow.parquet"):
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.workers)
        if not bench.whole(" ".join(sorted({t for m in chosen for t in m.tests.split()}))):
            print(bench.log(Path(folder) / "0").read_text()[-3000:], "\nthe tests must pass before anything is broken")
            return 1
        for mutant in chosen:
            bench.begin(mutant)
        while bench.running:
            bench.reap()
    dead = len(chosen) - len(bench.survivors)
    print(f"{dead} of {len(chosen)} mutants killed in {time.monotonic() - started:.0f} s")
    return 1 if bench.survivors else 0


if __name__ == "__main__":
    sys.exit(main())
