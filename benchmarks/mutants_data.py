"""Wrong versions of how data is read, chosen and made floats."""

from __future__ import annotations

from mutant import Mutant, group

MEMORY = "tests/evaluation/test_memory.py"
ORDER = "tests/data/test_choice.py"
CHOSEN = "tests/evaluation/test_chosen_images.py"

DATA: list[Mutant] = [
    *group(
        "memory", "evaluation/units.py", MEMORY,
        ("torch.split(samples.order(), size)[index::count]", "(samples.order(),)"),
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
    *group("memory", "api.py", MEMORY, ("Selection(part, chosen(", "part.select(chosen(")),
    *group(
        "choice", "data/choice.py", ORDER,
        ("str(sample).encode()", "hex(sample).encode()"),
        ("members.sort(key=hashes.__getitem__)", "members.sort()"),
        ("(r * n // len(members), -(-(r + 1) * n // len(members)),", "(r * n // len(members), n,"),
        ("(r * n // len(members), -(-(r + 1) * n // len(members)),", "(0, -(-(r + 1) * n // len(members)),"),
        ("(r * n // len(members), -(-(r + 1) * n // len(members)),", "(0, (2 * r + 1) * n // (2 * len(members)),"),
        ("hashes[place], place))", "b'', place))"),
        ("return ids[:images].argsort()", "return ids.argsort()[:images]"),
        ("return proportional_order(ids, labels)[:images]", "return proportional_order(ids[:images], labels[:images])"),
    ),
    *group(
        "choice", "evaluation/units.py", CHOSEN,
        ("samples.ids[samples.order()[: setting.gallery]]", "samples.ids.sort().values[: setting.gallery]"),
        ("torch.split(samples.order(), size)", "torch.split(samples.ids.argsort(), size)"),
    ),
    *group("choice", "evaluation/keys.py", CHOSEN, ('else {"choice": setting.choice}', "else {}")),
    *group("choice", "runs.py", CHOSEN, ('{"choice": "first"} | plan', "plan")),
    *group("choice", "recipes.py", CHOSEN, ('choice: Choice = "hashed"', 'choice: Choice = "first"')),
    *group(
        "choice", "api.py", CHOSEN,
        ("plan.images, plan.choice)", "plan.images)"),
        ("plan.gallery, plan.choice,", "plan.gallery, 'first',"),
        ("if images is not None and images > len(part):", "if False:"),
    ),
]  # fmt: skip
