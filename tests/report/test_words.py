"""What a page says in words."""

from types import SimpleNamespace

from hauberk.report import words


def test_the_page_says_which_function_is_proved() -> None:
    def said(proof: str, frozen: bool) -> str:
        return words.proved(SimpleNamespace(proof=proof, frozen=frozen))  # type: ignore[arg-type]

    assert "frozen predictor" in said("deterministic", True)
    assert "evaluated in float64" in said("deterministic", False)
    assert "frozen" not in said("deterministic", False)
    assert said("probabilistic", True) == said("estimate", False) == ""
