"""Losses against values written out by hand."""

import math

import pytest
import torch

from hauberk.attacks.losses import attack_loss, target_classes, targeted_loss

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, -1.0]])
LABELS = torch.tensor([0, 0])


def test_cross_entropy() -> None:
    expected = [math.log(math.exp(2) + 1 + math.e) - 2, math.log(1 + math.exp(3) + math.exp(-1)) - 0]
    torch.testing.assert_close(attack_loss("ce", LOGITS, LABELS), torch.tensor(expected))


def test_margin_is_positive_where_misclassified() -> None:
    assert attack_loss("margin", LOGITS, LABELS).tolist() == [-1.0, 3.0]
    assert targeted_loss("margin", LOGITS, torch.tensor([0, 0]), torch.tensor([1, 1])).tolist() == [-2.0, 3.0]


def test_divergence_from_the_clean_output() -> None:
    clean = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, -1.0]])
    p, q = clean.softmax(1), LOGITS.softmax(1)
    expected = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(attack_loss("kl", LOGITS, LABELS, clean), expected)
    assert float(expected[1]) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="clean logits"):
        attack_loss("kl", LOGITS, LABELS)


@pytest.mark.parametrize("name", ["ce", "kl"])
def test_a_target_is_raised(name: str) -> None:
    value = targeted_loss(name, LOGITS, torch.tensor([0, 0]), torch.tensor([2, 1]))
    torch.testing.assert_close(value, LOGITS.log_softmax(1)[[0, 1], [2, 1]])


def test_the_targeted_difference_of_logits_ratio_by_hand() -> None:
    five = torch.tensor([[5.0, 1.0, 3.0, 0.5, 2.0]])
    value = targeted_loss("dlr", five, torch.tensor([0]), torch.tensor([2]))
    assert value.tolist() == pytest.approx([(3 - 5) / (5 - (2 + 1) / 2)])
    three = targeted_loss("dlr", LOGITS, torch.tensor([0, 0]), torch.tensor([1, 1]))  # there is no fourth logit
    assert three.tolist() == [-2.0, 3.0]


def test_wrong_classes_in_the_order_of_likelihood() -> None:
    assert target_classes(LOGITS, LABELS, 0).tolist() == [2, 1]
    assert target_classes(LOGITS, LABELS, 1).tolist() == [1, 2]
