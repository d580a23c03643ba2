"""Wrong versions of the rules that bound a vote's probability: randomised, by looks, and what stops early."""

from __future__ import annotations

from mutant import Mutant, group

RULES = "tests/certificates/test_rules.py"
STOP = "tests/cli/test_cli.py::test_a_budget_ends_a_certificate_and_the_same_command_goes_on"
BUDGET = "tests/evaluation/test_budget.py"

SEQUENTIAL: list[Mutant] = [
    *group(
        "sequential", "confidence.py", "tests/test_confidence.py",
        ("(1.0 - u) * more + u *", "u * more + (1.0 - u) *"),
        ("return 0.0 if u >= alpha else", "return 0.0 if u >= 0.0 else"),
        ("if u > 2.0 * alpha else 0.5", "if u > alpha else 1.0"),
        ("alpha / u if u", "alpha if u"),
        ("if not 0.0 <= u <= 1.0:", "if False:"),
    ),
    *group(
        "sequential", "certificates/evidence.py", RULES,
        ("alpha / max(1, len(self.looks))", "alpha"),  # peeking
        ("return anytime_lower(votes, n, alpha)", "return clopper_pearson_lower(votes, n, alpha)"),
        ("return n in self.looks", "return n <= self.n"),
        ("return randomised_lower(votes, n, alpha, u)", "return randomised_lower(votes, n, alpha, min(u, 0.5))"),
        ("self.plan.lower(votes, self.n, alpha, self.u)", "self.plan.lower(votes, self.n, alpha)"),
        ('{"u": self.u} if', "{} if"),
    ),
    *group(
        "sequential", "certificates/votes.py", RULES,
        ("list(looks) != sorted(set(looks) & set(ends)) or", ""),
        (" or looks[-1:] != (n,)", ""),
        ("1.0 - float(stream(seed, sample, LUCK).random())", "1.0 - float(stream(0, sample, LUCK).random())"),
        ("1.0 - float(stream(seed, sample, LUCK).random())", "1.0 - float(stream(seed, 0, LUCK).random())"),
        ("return not (self.plan.judges(seen.n) and self.settled(seen))", "return not self.settled(seen)"),
    ),
    *group(
        "sequential", "certificates/smoothing.py", RULES,
        ('if self.looks and self.rule != "looks":', "if False:"),
        ("check_looks(self.looks, self.n)", "pass"),
    ),
    *group(
        "sequential", "evaluation/sense.py", "tests/evaluation/test_sense.py",
        ('if certificate.rule == "looks":', "if False:"),
    ),
    *group(
        "sequential", "evaluation/voting.py", RULES,
        ("poll.concluded(blocks, setting.seed, i)", "poll.concluded(blocks, 0, 0)"),
        ('":".join([plan.rule, *map(str, plan.looks)])', "plan.rule"),
    ),
    *group(
        "sequential", "verify/polls.py", RULES,
        ('evidence.get("u") != _luck(part.unit["seed"], row["id"])', "False"),
        ('":".join([shared["rule"], *map(str, shared.get("looks", ()))])', 'first["rule"]'),
    ),
    *group(
        "sequential", "verify/proofs.py", RULES,
        ('if probabilistic and asked.get("looks") and', "if False and"),
    ),
    *group(
        "sequential", "verify/derive/votes.py", RULES,
        ("alpha / looks)", "alpha)"),
        ("if drawn in looks and max(looks) == planned else None", ""),
        ("+ u * stats.binom.pmf", "+ stats.binom.pmf"),
        ("min(found, math.pow(max(0.5, alpha), 1.0 / total))", "found"),
    ),
    *group(
        "sequential", "certificates/votes.py", BUDGET,
        ("if b.purpose == \"counts\" and self.plan.judges(b.stop)]", "if b.purpose == \"counts\"]"),
        ("or b.stop <= max(ends)]", "or True]"),
    ),
    *group(
        "sequential", "evaluation/work.py", BUDGET,
        ("self._waiting.append if later", "self._waiting.appendleft if later"),
        ("self._work.budget.check()\n        if self", "pass\n        if self"),
        ("self._work.budget.check()\n        self._busy", "pass\n        self._busy"),
        ("if not task.ready(ids[rows].tolist()):", "if False:"),
    ),
    *group(
        "sequential", "evaluation/units.py", BUDGET,
        ("self.votes[i].plan.n) == self.votes[i].n for", "self.votes[i].n) == self.votes[i].n for"),
    ),
    *group(
        "sequential", "records.py", BUDGET,
        ("a == b or a[0] < b[0] for", "True for"),
        ("        union[key] = item\n", ""),
    ),
    *group(
        "sequential", "verbs/certify.py", STOP,
        ("info[\"stopped\"] |= {name: said} if said else {}", "pass"),
        ("if k != name}", "}"),
        ("done, samples.ids, stopped)", "done, samples.ids)"),
    ),
    *group(
        "sequential", "evaluation/forecast.py", "tests/evaluation/test_forecast.py",
        ("stats.binom.sf(least - 1, certificate.n, shares)", "(shares * certificate.n >= least + 150)"),
        ("SHAPES[second] + votes - counts", "SHAPES[second] + counts"),
        ("np.trapezoid(2.0 * grid * curve, grid)", "np.trapezoid(grid * curve, grid)"),
        ("proved > 0.0 and proved >= radius", "proved >= radius"),
    ),
    *group(
        "sequential", "evaluation/forecast.py", "tests/cli/test_cli.py::test_a_dry_run_estimates_and_leaves_nothing",
        ("int(counts[label])", "int(counts)"),
    ),
    *group(
        "sequential", "executors/processes.py", BUDGET,
        ("while until is None or time.monotonic() < until:", "while True:"),
    ),
]  # fmt: skip
