"""Recorded votes against fresh ones: honest rows pass, forged ones do not."""

import numpy as np
import pytest

from hauberk.audit.votes import holm, vote_problems

N = 1000


def rows(probabilities: np.ndarray, seed: int) -> list[dict[str, list[int]]]:
    """Votes of two classes, drawn with these probabilities of the second."""
    generator = np.random.default_rng(seed)
    found = []
    for p in probabilities:
        first, second = int(generator.binomial(100, p)), int(generator.binomial(N, p))
        found.append({"counts0": [100 - first, first], "counts": [N - second, second]})
    return found


@pytest.mark.parametrize("seed", range(12))
def test_honest_votes_pass(seed: int) -> None:
    truth = np.random.default_rng(seed).uniform(0.6, 1.0, 500)
    assert list(vote_problems(range(500), rows(truth, 2 * seed), rows(truth, 2 * seed + 10**4))) == []


def test_one_forged_row_of_hundreds_is_found() -> None:
    truth = np.full(299, 0.8)
    recorded = rows(truth, 1)
    recorded[17] = {"counts0": [0, 100], "counts": [0, N]}
    (problem,) = vote_problems(range(299), recorded, rows(truth, 2))
    assert problem.startswith("sample 17:")


def test_a_little_more_everywhere_is_found() -> None:
    truth = np.full(299, 0.8)
    found = list(vote_problems(range(299), rows(truth + 0.02, 1), rows(truth, 2)))
    assert any("over all 299" in problem for problem in found)


def test_rows_that_share_their_noise_are_not_tested_together() -> None:
    """They err together: an honest evaluation would be called forged, and a forged row is still found."""
    truth = np.full(299, 0.8)
    assert list(vote_problems(range(299), rows(truth + 0.02, 1), rows(truth, 2), apart=False)) == []
    recorded = rows(truth, 1)
    recorded[17] = {"counts0": [0, 100], "counts": [0, N]}
    assert list(vote_problems(range(299), recorded, rows(truth, 2), apart=False))


def test_votes_for_another_class_are_found() -> None:
    recorded = rows(np.full(20, 0.9), 1)
    swapped = [{name: votes[::-1] for name, votes in row.items()} for row in recorded]
    assert list(vote_problems(range(20), swapped, rows(np.full(20, 0.9), 2)))


def test_the_class_on_record_is_compared() -> None:
    """A third class, told to have won, and half of the votes for the first as they are."""
    recorded = [{"counts0": [40, 0, 60], "counts": [500, 0, 500]}]
    assert list(vote_problems([7], recorded, [{"counts0": [50, 50, 0], "counts": [500, 500, 0]}]))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.02], 0.05).tolist() == [True, True, True]
    assert holm([0.01, 0.06, 0.02], 0.05).tolist() == [True, False, True]
    assert holm([0.02, 0.03, 0.06], 0.05).tolist() == [False, False, False]  # 3 x 0.02 is too much already
    assert holm([], 0.05).tolist() == []
