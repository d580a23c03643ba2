"""Wrong versions of how certification logs are read, written and judged."""

from __future__ import annotations

from mutant import Mutant, group

FORMAT = "tests/test_certification_log.py"

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
]
