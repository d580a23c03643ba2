"""What became of each image, on four images and three attacks written down by hand."""

import numpy as np
from tests.report.conftest import COMMON, FACTS

from hauberk import records
from hauberk.evaluation.by_class import UNKNOWN
from hauberk.report.outcomes import clean_rows, outcomes, reached

IDS, LABELS, CLEAN = [7, 8, 9, 10], [0, 1, 0, 1], [0, 0, 0, 1]  # the second image is wrong before any attack


def attack(eps: float, stage: int, prediction, success, nearest) -> records.Part:
    n, threat = len(IDS), {"name": "l2", "eps": eps}
    unit = {"predictor": "net", "weights": "w" * 16, "threat": threat, "method": {"name": "apgd", "threat": threat},
            "suite": {"name": "autoattack", "version": "standard"}, "stage": stage, **COMMON}  # fmt: skip
    numbers = {name: np.zeros(n) for name in ("distance", "loss", "logit_margin", "probability_margin")}
    return records.part("attack", unit, {**FACTS, "stochastic": False}, {
        "id": IDS, "label": LABELS, "clean_prediction": CLEAN, "prediction": prediction, "success": success,
        "nearest": nearest, "forwards": [1] * n, "backwards": [1] * n, "stopped": ["steps"] * n, **numbers,
    })  # fmt: skip


FAR = np.inf
PARTS = [
    attack(0.25, 1, [0, 0, 0, 3], [False, False, False, True], [FAR, FAR, FAR, 0.25]),
    attack(0.25, 0, [0, 0, 0, 2], [False, False, False, True], [FAR, FAR, FAR, 0.25]),
    attack(0.5, 0, [0, 0, 1, 1], [False, False, True, False], [0.4, FAR, 0.2, FAR]),
]


def test_only_what_was_right_and_withstood_everything_stands() -> None:
    seen = outcomes(PARTS, 0.25)
    assert seen.ids.tolist() == IDS
    assert seen.labels.tolist() == LABELS
    assert seen.right.tolist() == [True, False, True, True]
    assert seen.survived.tolist() == [True, True, False, False]  # a wider attack found a point within the budget
    assert seen.standing.tolist() == [True, False, False, False]
    assert seen.nearest.tolist() == [0.4, FAR, 0.2, 0.25]


def test_the_answer_after_is_that_of_the_first_stage_that_broke_it() -> None:
    assert outcomes(PARTS, 0.25).after.tolist() == [0, 0, UNKNOWN, 2]
    assert outcomes(PARTS, 0.5).after.tolist() == [UNKNOWN, 0, 1, UNKNOWN]  # found with another budget alone


def test_what_is_reached_counts_every_budget_of_the_norm() -> None:
    ids = np.array(IDS)
    assert reached(ids, PARTS, 0.25).tolist() == [False, False, True, True]
    assert reached(ids, PARTS, 0.4).tolist() == [True, False, True, True]


def test_clean_answers_come_from_the_first_part_that_has_the_image() -> None:
    ids, labels, answers = clean_rows(PARTS)
    assert (ids.tolist(), labels.tolist(), answers.tolist()) == (IDS, LABELS, CLEAN)
