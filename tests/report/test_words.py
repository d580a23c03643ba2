"""What a page says in words."""

from types import SimpleNamespace

import pytest

from hauberk import registry
from hauberk.report import markdown, words
from hauberk.statistics import Interval, wilson


def test_the_page_says_which_function_is_proved() -> None:
    def said(proof: str, frozen: bool) -> str:
        return words.proved(SimpleNamespace(proof=proof, frozen=frozen))  # type: ignore[arg-type]

    assert "frozen predictor" in said("deterministic", True)
    assert "evaluated in float64" in said("deterministic", False)
    assert "frozen" not in said("deterministic", False)
    assert said("probabilistic", True) == said("estimate", False) == ""


@pytest.mark.parametrize(("rounding", "said"), [("near", "33.3"), ("up", "33.4"), ("down", "33.3")])
def test_a_share_is_rounded_to_its_safe_side_and_its_interval_outwards(rounding: words.Rounding, said: str) -> None:
    interval = wilson(100, 300)
    assert words.share(interval, rounding) == f"{said} (28.2 to 38.9)"
    assert 28.2 <= 100 * interval.low < 28.3
    assert 38.8 < 100 * interval.high <= 38.9


def test_a_difference_has_a_sign_and_a_table_no_bars_in_its_cells() -> None:
    assert words.points(Interval(0.0123, -0.004, 0.0286, 10)) == "+1.2 (-0.4 to +2.9)"
    assert words.points(Interval(-0.0, -0.114, 0.114, 10)) == "+0.0 (-11.4 to +11.4)"
    assert markdown.table(["a", "b"], [["1|2", "3"]]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"


def test_attacks_that_know_less_or_all_the_same_are_called_out() -> None:
    def said(*names: str) -> str:
        attacked = [SimpleNamespace(methods=[SimpleNamespace(name=n, settings={}) for n in names])]
        return " ".join(words._weak_attacks(SimpleNamespace(attacked=attacked, stochastic=False)))  # type: ignore[arg-type]

    assert "No attack followed the model's gradients" in said("square")
    assert "No attack without gradients" in said("apgd", "fab")
    assert said("apgd", "square") == ""
    assert "knows nothing of the rest" in said("part") and "Only" not in said("part")
    assert "knows nothing of the rest" not in said("part", "apgd")


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [8 / 255, 36 / 255, 0.5, 1 / 3, 1e-9, 12.0, 0.031372])
def test_a_threat_that_a_hint_names_is_that_very_one(norm: str, eps: float) -> None:
    assert registry.build(words.typed(norm, eps), "threat").eps == eps
