"""Wrong versions of the rules that bound a vote's probability: randomised, by looks, and what stops early."""

from __future__ import annotations

from mutant import Mutant, group

RULES = "tests/certificates/test_rules.py"

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
        ("poll.seen(blocks, setting.seed, i)", "poll.seen(blocks)"),
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
]  # fmt: skip
