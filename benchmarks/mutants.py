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
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTEST = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
PYTEST += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported before the fork
FAULT = 99


@dataclass(frozen=True)
class Mutant:
    """One wrong formula.

    Args:
        group: which part of the library it breaks.
        file: below ``src/hauberk``.
        old: text that occurs exactly once.
        new: what takes its place.
        tests: what must fail, as arguments of pytest.
    """

    group: str
    file: str
    old: str
    new: str
    tests: str


def _group(group: str, file: str, tests: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(group, file, old, new, tests) for old, new in changes]


THREATS = _group(
    "threats", "threats.py", "tests/test_threats.py",
    ("origins + budget).clamp_(0.0, 1.0)", "origins + budget).clamp_(-1.0, 1.0)"),
    ("low = self._bisect(origins, change, budget, low)", "low = low * 1.0"),
    ("low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)",
     "low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)"),
    ("low = (budget / _per_row(", "low = (2.0 * budget / _per_row("),
    ("start, stop = size, (size - room).clamp_min(0.0)", "start, stop = size, torch.zeros_like(size)"),
    ("/ slope[row, index].clamp_min(1.0)", "/ 1.0"),
    ("room = torch.where(change >= 0, 1.0 - flat, flat)", "room = torch.where(change >= 0, flat, 1.0 - flat)"),
    ("uniform.abs().clamp_max(0.5 - 2.0**-25)", "uniform.abs()"),
    ("self.project(origins + budget * (2.0 * uniform - 1.0)", "self.project(origins + budget * uniform"),
    ("flat.gather(1, index).sign())", "flat.gather(1, index))"),
    (".clamp_min(torch.finfo(gradient.dtype).tiny)", ".clamp_min(1e-6)"),
    ("return norms(points.double() - origins.double(), self.norm)", "return norms(points - origins, self.norm)"),
    ("exponent[target] - exponent[source])", "exponent[source] - exponent[target])"),
)  # fmt: skip

ATTACKS = [
    *_group(
        "attacks", "attacks/base.py", "tests/attacks/test_base.py",
        ("success=clean_wrong | self._changed(model, prediction, batch.labels)",
         "success=clean_wrong | query.misclassified"),
        ("return wrong & (prediction != ABSTAIN) if isinstance(model, Decides) else wrong", "return wrong"),
        ("(prediction != ABSTAIN) if isinstance(model, Decides) else wrong", "(prediction != ABSTAIN)"),
        ("adversarial = self.threat.project(found, batch.images)", "adversarial = found"),
        ("better = (current < self.best[name]) & inside", "better = (current > self.best[name]) & inside"),
        ("better = (current < self.best[name]) & inside", "better = current < self.best[name]"),
        ('"logit_margin": margins(logits, self.labels)', '"logit_margin": margins(logits, logits.argmax(1))'),
        ('"probability_margin": margins(logits.softmax(1), self.labels)',
         '"probability_margin": margins(logits, self.labels)'),
        ("adversarial = torch.where(clean_wrong[:, None, None, None], batch.images, adversarial)", "pass"),
        ("-value if self.targets is None else torch.full_like(value, torch.inf)", "-value"),
        ("!= self.labels) & inside & ~self.misclassified", "!= self.labels) & inside"),
        ("!= self.labels) & inside & ~self.misclassified", "!= self.labels) & ~self.misclassified"),
        ("query.value(batch.images)  # the image itself is a point of the threat", "pass"),
        ('PerSample(seed, batch.ids, "attack"', 'PerSample(seed, range(len(batch)), "attack"'),
        ('found = query.points["logit_margin"]', "pass"),
        ("self.forwards += 1\n        self.backwards += 1", "self.backwards += 1"),
    ),
    *_group(
        "attacks", "attacks/pgd.py", "tests/attacks/test_pgd.py",
        ("2.5 * self.threat.eps / self.steps", "1.0 * self.threat.eps / self.steps"),
        ("restart % wrong_classes", "0"),
        ("points + size * self.threat.steepest_step", "points - size * self.threat.steepest_step"),
    ),
    *_group(
        "attacks", "attacks/apgd.py", "tests/attacks/test_apgd.py",
        ("(0.22, 0.06, 0.03)", "(0.22, 0.06, 0.02)"),
        ("torch.full_like(loss, 2.0 * threat.eps)", "torch.full_like(loss, threat.eps)"),
        ("points = torch.where(_column(halved), best, points)", "pass"),
        ("few_rises = risen <= RHO", "few_rises = risen >= RHO"),
        ("(1 - momentum) * (points - previous)", "(momentum - 1) * (points - previous)"),
        ("self.threat.eps * direction / length", "self.threat.eps * direction"),
    ),
    *_group(
        "attacks", "attacks/losses.py", "tests/attacks/test_losses.py",
        ("return -margins(logits, labels)", "return margins(logits, labels)"),
        ("(clean.exp() * (clean - logits.log_softmax(1)))", "(clean.exp() * (logits.log_softmax(1) - clean))"),
    ),
]  # fmt: skip

LIPSCHITZ = [
    *_group(
        "lipschitz", "certificates/lipschitz.py", "tests/certificates/test_lipschitz.py",
        ("return gap / bound", "return 1.0001 * gap / bound"),
        ("(top - z - ROUNDING * (abs(top) + abs(z)), bounds[j])", "(top - z, bounds[j])"),
        ("return math.inf if gap > 0.0 else 0.0", "return math.inf"),
        ('shared["pairwise"][y]', 'shared["pairwise"][0]'),
        ("[gap - bound * radius for", "[gap - 0.5 * bound * radius for"),
        ("return probability * -math.expm1(-smallest)", "return -math.expm1(-smallest)"),
        ("if not smallest >= 0.0:", "if smallest < -1e9:"),
        ("if not all(map(math.isfinite, logits)):", "if False:"),
        ('return top if row.get("deployed", top) == top else ABSTAIN', "return top"),
        ('"pairwise": pairwise_bounds(exact, shape).tolist()',
         '"pairwise": (0.5 * pairwise_bounds(exact, shape)).tolist()'),
        ("self.margin(row, shared, r) * (1.0 - 1e-12)", "self.margin(row, shared, r) * 1.5"),
        ("plain = min(_reach(", "plain = max(_reach("),
    ),
    *_group(
        "lipschitz", "certificates/base.py", "tests/certificates/test_base.py",
        ("radius * (1.0 - relative)", "radius * (1.0 + relative)"),
        ("(middle, high) if margin_at(middle) > margin else (low, middle)",
         "(middle, high) if margin_at(middle) > 0 else (low, middle)"),
    ),
    *_group(
        "lipschitz", "layers/lipschitz.py", "tests/layers/test_lipschitz.py tests/test_conformance.py",
        ("math.sqrt(2.0), dtype=torch.float64)", "1.0, dtype=torch.float64)"),
        ("smallest = float(std.min())", "smallest = float(std.max())"),
    ),
]  # fmt: skip

SMOOTHING = [
    *_group(
        "smoothing", "noise.py", "tests/test_noise.py",
        ("ndtri(0.5 * (1.0 + margin))", "ndtri(0.5 * (1.0 - margin))"),
        ("float(self.sigma * (ndtri(probability)", "float(0.5 * self.sigma * (ndtri(probability)"),
        ("2.0 * ndtr(ndtri(probability) - radius / self.sigma) - 1.0",
         "ndtr(ndtri(probability) - radius / self.sigma)"),
        ("radius / self.sigma", "radius * self.sigma"),
        ("dtype=np.float32) * np.float32(self.sigma)", "dtype=np.float32) * np.float32(self.sigma**2)"),
        # Theorem A.1 as printed
        ("float(self.sigma * (ndtri(probability) - ndtri(0.5 * (1.0 + margin))))",
         "float(0.5 * self.sigma * (ndtri(probability / (1 + margin))"
         " - ndtri((1 - probability + margin) / (1 + margin))))"),
    ),
    *_group(
        "smoothing", "certificates/smoothing.py", "tests/certificates/test_smoothing.py",
        ('f"smoothing-{name}"', '"smoothing"'),
        ('clopper_pearson_lower(row["counts"][chosen], self.n, self.alpha)', 'row["counts"][chosen] / self.n'),
        ('torch.tensor(row["counts0"]).argmax()', 'torch.tensor(row["counts"]).argmax()'),
        ("return chosen if bound > 0.5 else ABSTAIN", "return chosen if bound > 0.0 else ABSTAIN"),
        ("[chosen], self.n, self.alpha)", '[chosen], sum(row["counts"]), self.alpha)'),
        ("return round_down(Gaussian(self.sigma).radius(bound, margin)) if",
         "return Gaussian(self.sigma).radius(bound) if"),
        ("if model.noise.sigma != self.sigma:", "if False:"),
    ),
    *_group(
        "smoothing", "defences/smoothed.py", "tests/defences/test_smoothed.py",
        ("clear = top.values[:, 0] > top.values[:, 1]", "clear = top.values[:, 0] >= top.values[:, 1]"),
        ("two_sided_binomial_p(first, second) <= self.alpha",
         "0.5 * two_sided_binomial_p(first, second) <= self.alpha"),
        ("[: min(tile, count - start)]", "[:tile]"),
        ('key = (seed, sample_id, "smoothed-decide")', 'key = (seed, 0, "smoothed-decide")'),
        ("return total - float(np.log(self.bank))", "return total"),
        ("int(top.indices[0]) if significant else -1", "int(top.indices[0])"),
    ),
]  # fmt: skip

MIXED = [
    *_group(
        "mixed", "certificates/mixed.py", "tests/certificates/test_mixed.py",
        ("return (1.0 - alpha) / alpha\n", "return 1.0 - alpha\n"),
        ("(1.0 + 1e-12) / (1.0 + margin)", "(1.0 - 1e-12) / (1.0 + margin)"),
        ('> required_margin(shared["mix_alpha"]) else', "> 0.0 else"),
        ("needed = (1.0 - alpha + margin) / alpha", "needed = (1.0 - alpha) / alpha"),
        ("needed = (1.0 - alpha + margin)", "needed = 0.5 * (1.0 - alpha + margin)"),
        ("radius) - (1.0 - alpha)", "radius) + (1.0 - alpha)"),
        ("[[scale * k for k in line]", "[[k for k in line]"),
        ('"mix_alpha": model.alpha}', '"mix_alpha": model.alpha, "alpha": model.alpha}'),
        ("if isinstance(self.base, MixedCertificate):", "if False:"),
    ),
    *_group(
        "mixed", "defences/mixed.py", "tests/defences/test_mixed.py tests/certificates/test_mixed.py",
        ("math.log1p(-alpha) + accurate", "math.log(alpha) + accurate"),
        ("return torch.logaddexp(\n        math.log1p(-alpha) + accurate.log_softmax(1),"
         " math.log(alpha) + robust.log_softmax(1)\n    )",
         "return ((1 - alpha) * accurate.softmax(1) + alpha * robust.softmax(1)).log()"),
        ("if self.alpha == 1.0:", "if False:"),
        ("mixed(alpha={self.alpha!r}", "mixed(alpha={self.alpha:.6g}"),
        ("if not (0.0 < accurate_scale < math.inf and 0.0 < robust_scale < math.inf):", "if False:"),
        ("return self.robust_scale * logits", "return self.accurate_scale * logits"),
    ),
]  # fmt: skip

METRICS = [
    *_group(
        "metrics", "evaluation/metrics.py", "tests/evaluation/test_metrics.py",
        ("return _share(c & (r >= eps))", "return _share(r >= eps)"),
        ("_share(c & (r >= eps))", "_share(c & (r > eps))"),
        ("np.where(c, r, 0.0)", "r[c]"),
        ("wilson(int((c & ~s).sum()), int(c.sum()))", "wilson(int((~s).sum()), len(c))"),
        ("return _share(c & s)", "return _share(s)"),
        ("np.logical_and.reduce(rows)", "np.logical_or.reduce(rows)"),
    ),
    *_group(
        "metrics", "statistics.py", "tests/test_statistics.py",
        ("stats.beta.ppf(alpha, successes, n - successes + 1)", "stats.beta.ppf(alpha, successes + 1, n - successes)"),
        ("2.0 * float(stats.binom.sf(max(a, b) - 1", "1.0 * float(stats.binom.sf(max(a, b) - 1"),
        ("stats.binom.sf(max(a, b) - 1, a + b", "stats.binom.sf(max(a, b), a + b"),
        ("centre = (share + z * z / (2 * n)) / shrink", "centre = share"),
        ("goal = -math.log(alpha)", "goal = -math.log(2 * alpha)"),
        ("(first - second, confidence, seed, draws)", "(second - first, confidence, seed, draws)"),
    ),
]  # fmt: skip

VERIFY = _group(
    "verify", "verify.py", "tests/test_verify.py",
    ("largest = float((gaps / speeds).min())", "largest = float((gaps / speeds).max())"),
    ("if recorded > radius * (1.0 + SLACK):", "if recorded > 2.0 * radius:"),
    ("if recorded < radius * (1.0 - 1e-6) - SLACK:", "if False:"),
    ("stats.binom.sf(votes - 1, total, p)", "stats.binom.sf(votes, total, p)"),
    ('if row["prediction"] != top:', "if False:"),
    ('if claimed != (float(asked["alpha"]) if probabilistic else 0.0):', "if False:"),
    ('if (part.facts["proof"] == "probabilistic") != probabilistic:', "if False:"),
    ("if probabilistic and shared[name] != asked[name]", "if False"),
    ('if first.sum() > shared["n0"] or second.sum() > shared["n"]:', "if False:"),
    ("least = (1.0 + margin) / 2.0", "least = 0.5"),
    ('if row.get("deployed", top) != top:', "if False:"),
    ('if part.facts["norm"] != "l2":', "if False:"),
    ("if says and not proved:", "if False:"),
    ("if not np.isfinite(recorded) or recorded < 0.0:", "if recorded < 0.0:"),
    ("if alpha < 0.5:", "if alpha < 0.0:"),
    ("if derive is None:", "if derive is None and False:"),
)  # fmt: skip

RANDOMNESS = [
    *_group(
        "randomness", "randomness.py", "tests/test_randomness.py",
        ('f"{seed}|{sample_id}|{purpose}"', 'f"{sample_id}|{purpose}"'),
        ('f"{seed}|{sample_id}|{purpose}"', 'f"{seed}|{purpose}"'),
        ('f"{seed}|{sample_id}|{purpose}"', 'f"{seed}|{sample_id}"'),
        ('f"{seed}|{sample_id}|{purpose}"', 'f"{seed}{sample_id}{purpose}"'),
        ("stream(seed, int(i), purpose) for i in ids", "stream(seed, i, purpose) for i in range(len(ids))"),
        ("slice(offset, offset + rows)", "slice(0, rows)"),
    ),
    *_group(
        "randomness", "batch.py", "tests/test_classifier.py",
        ("min(size, len(self) - start)", "size"),
        ("torch.arange(start, start + size).clamp_(max=len(self) - 1)",
         "torch.arange(start, min(start + size, len(self)))"),
    ),
    *_group(
        "randomness", "classifier.py", "tests/test_classifier.py",
        ("model(t.images)[:used]", "model(t.images)"),
        ("model.decide(t.images, t.ids, seed)", "model.decide(t.images, t.ids, 0)"),
    ),
    *_group(
        "randomness", "evaluation/units.py", "tests/test_invariant.py",
        ("ordered = batch.select(batch.ids.argsort())", "ordered = batch"),
        ("[index::count]", "[index:]"),
        ('"seed": setting.seed,', ""),
        ('"tile": setting.tile,', ""),
    ),
]  # fmt: skip

MUTANTS: list[Mutant] = [*THREATS, *ATTACKS, *LIPSCHITZ, *SMOOTHING, *MIXED, *METRICS, *VERIFY, *RANDOMNESS]


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
        print(f"{word} {seconds:5.1f} s  {mutant.group:10} {mutant.file}: {name[:80]}", flush=True)


def main() -> int:
    """Run all mutants, or those whose group or file is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="groups or files to run; all by default")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if not arguments.only or m.group in arguments.only or m.file in arguments.only]
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
