"""Wrong versions of how certification logs are read, written and judged."""

from __future__ import annotations

from mutant import Mutant, group

FORMAT = "tests/test_certification_log.py"
JUDGED = "tests/report/test_logs.py"
WRITTEN = "tests/verbs/test_logs.py"

LOGS: list[Mutant] = [
    *group(
        "logs", "certification_log.py", FORMAT,
        ("    if not 0.0 <= value < math.inf:", "    if not 0.0 <= value:"),
        ('    if value and int(row["predict"]) < 0:', "    if False:"),
        ("elif at == filled[-1] and len(values)", "elif len(values)"),
        ("        elif len(values) != len(names):", "        elif False:"),
        ("        elif tuple(v.lower() for v in values) == names:", "        elif False:"),
        ("        if at == len(lines):", "        if False:"),
        ("    if not least <= value <= LARGEST:", "    if not least <= value:"),
        ("    if told == [str(total) for total in totals]:", "    if True:"),
        ("    if told == [str(total) for total in totals]:", "    if False:"),
        ("        if told[known] != told[k]:", "        if False:"),
        ("exact.quantize(step, ROUND_DOWN)", "exact"),
        ("10.0 ** max(", "10.0 ** min("),
        ("    if missing:", "    if False:"),
        ("    if len(set(names)) < len(names):", "    if False:"),
    ),
    *group(
        "logs", "verbs/logs.py", WRITTEN,
        (' and p.facts["proof"] == "probabilistic"]', "]"),
        ("        if len(values) > 1:", "        if False:"),
        ("if all(_about(p)[name] == value for name, value in wanted.items())", "if True"),
    ),
    *group("logs", "cli/export.py", WRITTEN,
           ("        if threat is not None or target is not None:", "        if False:"),
           ("    if method is not None or seed is not None:", "    if False:"),
           ('if (method.rule, method.rival) == ("fixed", "rest"):', "if True:")),
    *group(
        "logs", "report/ladder.py", JUDGED,
        ("(least > n) | (proved > high", "(proved > high"),
        ("| (proved > high * (1 + SLACK))", ""),
        ("(0.5 if timed else 1.0)", "1.0"),
        ("(0.5 if timed else 1.0)", "0.5"),
        (".astype(np.int64) + 1", ".astype(np.int64)"),
        ("if not _apart(noise, n, level, low, high).any()", "if True"),
        ("counts[low > most", "counts[high > most"),
    ),
    *group(
        "logs", "report/logs.py", JUDGED,
        ('if "noise" in spec and "sigma" in spec:', "if False:"),
        ("        if key not in KEYS:", "        if False:"),
        ('    if "sigma" not in spec and named is None:', "    if False:"),
        ("    if found is None or not found.apart:", "    if found is None or not found.beyond:"),
        ('**stated}, "certificate")', '}, "certificate")'),
    ),
    *group(
        "logs", "report/votes.py", JUDGED,
        (' and p.unit["method"].get("goal") is None]', "]"),
        ('p.facts["proof"] == "probabilistic"', "True"),
        ("radius[group & right].sum()", "radius[group].sum()"),
        ("~right & ~abstained", "~right"),
        ("noise.probability(r)", "noise.cdf(r)"),
        ('"on_trust": row.log is not None', '"on_trust": False'),
    ),
]
