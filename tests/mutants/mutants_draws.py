"""Wrong versions of what attacks and judges random models."""

from __future__ import annotations

from mutant import Mutant, group

EOT = "tests/attacks/test_eot.py"
PAGE = "tests/report/test_random_models.py"
SWEEP = "tests/evaluation/test_sweep_records.py"

DRAWS: list[Mutant] = [
    *group(
        "random_models", "attacks/query.py", EOT,
        ("        number = 0 if self.fixed else int(", "        number = int("),
        ("mean = mean + self._logits(self._net(rows, nth), points) / self.eot",
         "mean = mean + self._logits(self._net(rows), points) / self.eot"),
        ('if self.mean == "logits" and self.eot > 1:', "if False:"),
    ),
    *group(
        "random_models", "attacks/eot.py", EOT,
        ("self.fixed, False\n", "self.fixed, True\n"),
        ("        if query.random:\n            query.eot", "        if True:\n            query.eot"),
        ('return (Poll("vote", self.votes), max(self.votes, self.tries)) if random',
         'return (Poll("vote", self.draws), max(self.votes, self.tries)) if random'),
        ("if self.inner.threat != self.threat:", "if False:"),
    ),
    *group(
        "random_models", "attacks/judging.py", EOT,
        ("vote(draws[:, : poll.draws])", "vote(draws)"),
        ('if poll.rule == "mean" else vote', 'if False else vote'),
        ("    poll = model.poll if isinstance(model, Polled) else poll\n", ""),
        ("        if n < poll.draws:\n", "        if True:\n"),
    ),
    *group(
        "random_models", "attacks/eot_sweep.py", EOT,
        ("self.draws[whole - 1] >= self.least and", ""),
        ("not any(broken[-A_ROUND:])", "not any(broken[-1:])"),
        ("not rest and whole", "whole"),
        (" or self.settled(broken):", ":"),
    ),
    *group("random_models", "evaluation/preflight.py", EOT, ("attack.draws * forwards + kept", "forwards + kept")),
    *group(
        "random_models", "evaluation/units.py", SWEEP,
        ("and work.shard[1] == 1:", "and True:"),
        ("stages_of(self.attack)[: self.most])\n        ]", "stages_of(self.attack))\n        ]"),
    ),
    *group(
        "random_models", "verify/together.py", SWEEP,
        ('    return quiet and suite["draws"]', '    return suite["draws"]'),
        (' and suite["draws"][number // A_ROUND - 1] >= suite["least"]', ""),
        ("any(n > number for n in stages)", "False"),
    ),
    *group(
        "random_models", "evaluation/repeated.py", "tests/evaluation/test_repeated.py",
        ("special.comb(right, tries) / special.comb(drawn.shape[1], tries)", "(right / drawn.shape[1]) ** tries"),
        ("    if not 1 <= tries", "    if not 0 <= tries"),
        ("        return wilson(", "        return mean_interval(chances) if chances.size else wilson("),
    ),
    *group(
        "random_models", "report/random_models.py", PAGE,
        ("(right if not found else before) - left", "before - left"),
        ('rows[row["id"]]["success"]:', 'True:'),
        ("if n == most and most", "if most"),
        ("one[i] and not other[i]", "not other[i]"),
        ("found.get(i, True) and stands", "stands"),
        ('part.column("logit_margin")[right] < 0', 'part.column("logit_margin")[right] > 0'),
    ),
    *group(
        "random_models", "report/words.py", PAGE,
        ('if wrong and "autoattack rand" not in suites:', "if wrong:"),
        ('if f.name == "noise_share"][:1]', 'if f.name == "black_box"][:1]'),
        ("for s in sweeps if not s.settled]", "for s in sweeps if s.settled]"),
    ),
    *group(
        "random_models", "evaluation/random_checks.py", "tests/evaluation/test_random_checks.py",
        ("logits.double() - logits.double().mean(2, keepdim=True)", "logits.double()"),
        ("centred.mean(0).var(0).mean()) - noise / len(logits)", "centred.mean(0).var(0).mean())"),
        ("centred.mean(0).var(0)", "centred.mean(0).var(1)"),
        ("noise = float(centred.var(0).mean())", "noise = float(centred.var(1).mean())"),
        ("if share < LITTLE", "if share > LITTLE"),
        ("draws=MORE)", "draws=1)"),
    ),
    *group(
        "random_models", "defences/polled.py", "tests/defences/test_polled.py",
        ('1 if rule == "single" else draws', "draws"),
        ("if known.declared and not known.stochastic:", "if False:"),
        ("    if isinstance(base, Decides):", "    if False:"),
        ('"majority" if self.poll.draws > 1', '"majority" if self.poll.draws > 0'),
    ),
    *group(
        "random_models", "classifier.py", "tests/defences/test_polled.py",
        ('        if model.poll.rule == "mean":', "        if False:"),
        ("for n in range(model.poll.draws)]", "for n in range(1)]"),
    ),
    *group(
        "random_models", "attacks/gradients.py", "tests/defences/test_polled.py",
        ('poll is not None and poll.rule == "mean" and', "poll is not None and"),
    ),
    *group(
        "random_models", "verbs/attack.py", "tests/verbs/test_evaluate.py",
        ('[AutoAttack(threat, version="rand")] if version != "rand" else []', "[]"),
    ),
    *group(
        "random_models", "verbs/evaluate.py", "tests/verbs/test_evaluate.py",
        ('version or "rand") if random', 'version or "rand") if False'),
        ('if random and version not in (None, "rand"):', "if False:"),
    ),
    *group("random_models", "verify/diagnoses.py", "tests/evaluation/test_random_checks.py",
           (' and "noise_share" in names:', ":")),
    *group("random_models", "verify/attacks.py", SWEEP, ("d[: self.voting or None]", "d")),
]  # fmt: skip
