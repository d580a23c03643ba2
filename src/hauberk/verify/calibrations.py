"""The part of a test split that choices were made on: none of its images may be reported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hauberk.records import Part
from hauberk.verify.verdict import samples

CALIBRATED = "calibrated"  # how a recipe names data with such a part
SALT = "calibration"


def calibration_problems(part: Part, recipe: Mapping[str, Any]) -> Iterator[str]:
    """Whether a record names the calibration part of its recipe, and holds no test image of that part."""
    data, told = recipe.get("data"), part.facts.get("calibration")
    asked = data.get("images") if isinstance(data, Mapping) and data.get("name") == CALIBRATED else None
    if told is None:
        if asked is not None:
            yield f"its recipe keeps {asked} test images for calibration, and it does not say which"
        return
    if not isinstance(told, Mapping) or set(told) != {"images", "border"} or type(told["images"]) is not int:
        yield f"its calibration part is {told!r:.80}"
    elif re.fullmatch("[0-9a-f]{64}", str(told["border"])) is None:
        yield f"the border of its calibration part is {told['border']!r:.80}, no hash"
    elif "data" in recipe and told["images"] != asked:
        yield f"its calibration part has {told['images']} images, that of the recipe {asked}"
    elif part.facts["split"] == "test" and part.kind != "diagnosis":
        seen = [i for i in part.table.column("id").to_pylist() if _hash(i) <= told["border"]]
        if seen:
            yield f"{samples(seen)}: of the part that choices were made on"


def _hash(sample: int) -> str:
    return hashlib.sha256(f"{SALT}|{sample}".encode()).hexdigest()
