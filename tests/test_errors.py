"""What errors of libraries look like in ours: one line of bounded length."""

import pytest
import torch
from torch import nn

from hauberk.certificates.gate import check_walked
from hauberk.errors import MOST, HauberkError, first_line, reason


@pytest.mark.parametrize(
    ("text", "said"),
    [("", ""), ("\n one \n two", "one"), ("x" * MOST, "x" * MOST), ("x" * 9_000, "x" * MOST + "...")],
)
def test_a_reason_is_one_line_of_bounded_length(text: str, said: str) -> None:
    assert reason(RuntimeError(text)) == said
    assert first_line(RuntimeError(text)) == (f"RuntimeError: {said}" if said else "RuntimeError")


def with_weight(weight: torch.Tensor) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    model[1].weight = nn.Parameter(weight)
    return model


WEIGHTS = {"sparse": torch.eye(3, 4).to_sparse(), "complex": torch.eye(3, 4, dtype=torch.complex64)}


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_no_bound_knows_are_refused_in_a_sentence(weight: torch.Tensor) -> None:
    with pytest.raises(HauberkError) as caught:
        check_walked(with_weight(weight))
    assert "complex or sparse" in caught.value.message
