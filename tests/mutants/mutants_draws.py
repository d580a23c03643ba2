"""Wrong versions of what attacks and judges random models."""

from __future__ import annotations

from mutant import Mutant, group

EOT = "tests/attacks/test_eot.py"
PAGE = "tests/report/test_random_models.py"
SWEEP = "tests/evaluation/test_sweep_records.py"

DRAWS: list[Mutant] = [
    *group(
        "draws", "attacks/query.py", EOT,
        ("        number = 0 if self.fixed else int(", "        number = int("),
        ("mean = mean + self._logits(self._net(rows, nth), points) / self.eot",
         "mean = mean + self._logits(self._net(rows), points) / self.eot"),
        ('if self.mean == "logits" and self.eot > 1:', "if False:"),
    ),
    *group(
        "draws", "attacks/eot.py", EOT,
        ("self.fixed, False\n", "self.fixed, True\n"),
        ("        if query.random:\n            query.eot", "        if True:\n            query.eot"),
        ('return (Poll("vote", self.votes), max(self.votes, self.tries)) if random',
         'return (Poll("vote", self.draws), max(self.votes, self.tries)) if random'),
        ("if self.inner.threat != self.threat:", "if False:"),
    ),
    *group(
        "draws", "attacks/judging.py", EOT,
        ("vote(draws[:, : poll.draws])", "vote(draws)"),
        ('if poll.rule == "mean" else vote', 'if False else vote'),
        ("    poll = model.poll if isinstance(model, Polled) else poll\n", ""),
        ("        if n < poll.draws:\n", "        if True:\n"),
    ),
    *group(
        "draws", "attacks/eot_sweep.py", EOT,
        ("self.draws[whole - 1] >= self.least and", ""),
        ("not any(broken[-A_ROUND:])", "not any(broken[-1:])"),
        ("not rest and whole", "whole"),
        (" or self.settled(broken):", ":"),
    ),
    *group("draws", "evaluation/preflight.py", EOT, ("attack.draws * forwards + kept", "forwards + kept")),
    *group(
        "draws", "evaluation/units.py", SWEEP,
        ("and work.shard[1] == 1:", "and True:"),
        ("stages_of(self.attack)[: self.most])\n        ]", "stages_of(self.attack))\n        ]"),
    ),
    *group(
        "draws", "verify/together.py", SWEEP,
        ('    return quiet and suite["draws"]', '    return suite["draws"]'),
        (' and suite["draws"][number // A_ROUND - 1] >= suite["least"]', ""),
        ("any(n > number for n in stages)", "False"),
    ),
    *group(
        "draws", "evaluation/repeated.py", "tests/evaluation/test_repeated.py",
        ("special.comb(right, tries) / special.comb(drawn.shape[1], tries)", "(right / drawn.shape[1]) ** tries"),
        ("    if not 1 <= tries", "    if not 0 <= tries"),
        ("        return wilson(", "        return mean_interval(chances) if chances.size else wilson("),
    ),
    *group(
        "draws", "report/random_models.py", PAGE,
        ("held = correct(part) & ~part", "held = ~part"),
        ("(right if not found else before) - left", "before - left"),
        ('rows[row["id"]]["success"]:', 'True:'),
        ("if n == most and most", "if most"),
        ('part.column("logit_margin")[right] < 0', 'part.column("logit_margin")[right] > 0'),
    ),
    *group(
        "draws", "report/words.py", PAGE,
        ('if wrong and "autoattack rand" not in suites:', "if wrong:"),
        ("for s in sweeps if not s.settled]", "for s in sweeps if s.settled]"),
    ),
    *group("draws", "verify/attacks.py", SWEEP, ("d[: self.voting or None]", "d")),
]  # fmt: skip
