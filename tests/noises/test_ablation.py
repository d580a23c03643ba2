"""Ablation: what is kept and what is not, on every axis, and every sub-sample as often as any other."""

from itertools import combinations

import pytest
import torch
from scipy import stats

from hauberk.errors import HauberkError
from hauberk.noises import Ablation
from hauberk.noises.ablation import Axis
from hauberk.randomness import Consecutive, stream

IMAGE = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) + 0.1


def draws(step: Ablation, image: torch.Tensor, rows: int) -> torch.Tensor:
    return step.noisy(image, Consecutive(stream(0, 0, "test"), rows))


@pytest.mark.parametrize(
    ("axis", "parts", "elements"),
    [("channels", (2, 1), (24, 24)), ("rows", (1, 3), (6, 18)), ("columns", (2, 4), (8, 16))],
)
def test_of_each_modality_as_many_elements_are_kept_as_it_says(
    axis: Axis, parts: tuple[int, int], elements: tuple[int, int]
) -> None:
    step = Ablation(axis, (4, 6), parts, (3, 5))
    assert step.elements == elements
    found = draws(step, IMAGE, 7)
    assert found.shape == (7, 3, 4, 6)
    assert bool(((found == 0) | (found == IMAGE)).all())
    dimension = {"channels": 1, "rows": 2, "columns": 3}[axis]
    for part, kept in zip(found.split(parts, dim=dimension), (3, 5), strict=True):
        seen = part != 0
        assert bool((seen == seen[:, :1]).all())  # an element is there in all of its channels, or in none
        assert (seen[:, 0].sum((1, 2)) == kept).all()


def test_every_sub_sample_is_as_likely_as_any_other() -> None:
    step = Ablation("columns", (1, 6), (4, 2), (2, 1))
    found = draws(step, torch.ones(1, 1, 6), 12_000).flatten(1)
    left = [sum(2**i for i in pair) for pair in combinations(range(4), 2)]
    codes = (found @ (2.0 ** torch.arange(6))).int().tolist()
    counts = [codes.count(a + b) for a in left for b in (16, 32)]
    assert sum(counts) == 12_000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_images_have_a_draw_each_and_a_row_does_not_depend_on_the_others() -> None:
    step = Ablation("rows", (4, 6), (2, 2), (3, 3))
    batch = torch.stack([IMAGE, IMAGE + 1.0])
    found = step.noisy(batch, Consecutive(stream(0, 0, "test"), 2))
    assert torch.equal(found[:1], draws(step, IMAGE, 1))
    assert not torch.equal(found[0] != 0, found[1] != 0)


def test_an_image_with_other_parts_is_refused() -> None:
    for step in (Ablation("channels", (4, 6), (2, 2), (1, 1)), Ablation("rows", (6, 4), (3, 3), (1, 1))):
        with pytest.raises(HauberkError, match="this one has 3x4x6"):
            draws(step, IMAGE, 1)


@pytest.mark.parametrize(
    ("axis", "parts", "kept"),
    [("rows", (2, 3), (1, 1)), ("columns", (3, 3), (1,)), ("columns", (3, 3), (13, 1)), ("channels", (), ())],
)
def test_what_cannot_be_is_refused(axis: Axis, parts: tuple[int, ...], kept: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"as many|add up|expected to keep"):
        Ablation(axis, (4, 6), parts, kept)
