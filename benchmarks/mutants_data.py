"""Wrong versions of how data is read, chosen and made floats."""

from __future__ import annotations

from mutant import Mutant, group

MEMORY = "tests/evaluation/test_memory.py"

DATA: list[Mutant] = [
    *group(
        "memory", "evaluation/units.py", MEMORY,
        ("torch.split(samples.ids.argsort(), size)[index::count]", "(samples.ids.argsort(),)"),
    ),
    *group("memory", "records.py", MEMORY, ("in torch.split(order, HASHED_ROWS)", "in (order,)")),
    *group(
        "memory", "mixing.py", MEMORY,
        ("torch.split(torch.arange(len(samples)), UNIT_TILES * plan.tile)", "(torch.arange(len(samples)),)"),
    ),
    *group(
        "memory", "training/validation.py", MEMORY,
        ("for start in range(first, end, TILES_AT_ONCE):", "for start in range(first, end, 2 * TILES_AT_ONCE):"),
        ("min(start + TILES_AT_ONCE, end) * TILE", "end * TILE"),
    ),
    *group("memory", "api.py", MEMORY, ("samples = evaluation_split(data", "samples = evaluation_batch(data")),
]  # fmt: skip
