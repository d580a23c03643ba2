"""What records show beside their numbers: how images were chosen, one class alone, one answer alone, abstentions."""

from __future__ import annotations

import numpy as np
import pytest

from hauberk.records import Part, part
from hauberk.report.observations import observed

CLASSES = ("cat", "dog", "owl")
UNIT = {"predictor": "net", "method": {"name": "smoothing"}, "seed": 0}
FACTS = {"classes": list(CLASSES)}


def rows(kind: str, labels: list[int], answers: list[int], stage: int = 0, **facts: str) -> Part:
    name = "clean_prediction" if kind == "attack" else "prediction"
    columns = {"id": list(range(len(labels))), "label": labels, name: answers}
    return part(kind, UNIT | {"stage": stage}, FACTS | facts, columns)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["attack", "certificate"])
def test_nothing_is_said_of_ordinary_rows(kind: str) -> None:
    assert observed([rows(kind, [0, 1, 2], [0, 1, 1])], CLASSES) == ()


@pytest.mark.parametrize("kind", ["attack", "certificate"])
@pytest.mark.parametrize(("label", "name"), [(0, "cat"), (2, "owl")])
def test_images_of_one_class_are_said(kind: str, label: int, name: str) -> None:
    (said,) = observed([rows(kind, [label] * 20, [0, 1] * 10)], CLASSES)
    assert said == f"All 20 images are of one class, {name}: nothing here is about the other 2."


@pytest.mark.parametrize("kind", ["attack", "certificate"])
@pytest.mark.parametrize(("answer", "name"), [(1, "dog"), (0, "cat"), (15, "class 15")])
def test_one_answer_for_every_image_is_said(kind: str, answer: int, name: str) -> None:
    (said,) = observed([rows(kind, [0, 1, 2, 1], [answer] * 4)], CLASSES)
    assert said == f"The model answers {name} for every image: its accuracy is the share of that class."


def test_one_image_shows_neither() -> None:
    assert observed([rows("attack", [1], [1])], CLASSES) == ()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([0, -1, 2, 1], "The smoothing certificate abstains on 1 of 4 images; an abstention counts as wrong."),
        ([-1, -1, 2, 1], "abstains on 2 of 4 images"),
        ([-1] * 4, "abstains on all 4 images"),
    ],
)
def test_abstentions_are_counted_in_words(answers: list[int], words: str) -> None:
    (said,) = observed([rows("certificate", [0, 1, 2, 1], answers)], CLASSES)
    assert words in said
    (said,) = observed([rows("attack", [0, 1, 2, 1], answers)], CLASSES)
    assert said.startswith("The model abstains")


def test_one_answer_among_abstentions_is_said_too() -> None:
    said = observed([rows("certificate", [0, 1, 2, 1], [1, -1, 1, 1])], CLASSES)
    assert len(said) == 2 and "answers dog for every image" in said[0]


def test_the_choice_is_said_once() -> None:
    found = [rows(kind, [0, 1, 2], [0, 1, 1], choice="hashed") for kind in ("attack", "certificate")]
    assert observed(found, CLASSES) == ("The images are taken in proportion to the classes, by hashes of their ids.",)


def test_a_model_that_draws_by_itself_is_said() -> None:
    said = observed([rows("attack", [0, 1, 2], [0, 1, 1], randomness="global")], CLASSES)
    assert said == ("The model draws random numbers by itself, so that its rows cannot be repeated one by one.",)


def test_later_stages_of_a_suite_see_survivors_alone() -> None:
    assert observed([rows("attack", [0, 0], [0, 0], stage=1)], CLASSES) == ()


def test_large_numbers_are_written_for_people() -> None:
    labels = np.zeros(2000, int).tolist()
    assert "All 2,000 images" in observed([rows("attack", labels, [0, 1] * 1000)], CLASSES)[0]
