"""Formulas in the terminal: by hand, and of every method that explain knows."""

import inspect

import pytest

from hauberk import registry
from hauberk.cli.formulas import formula, readable


@pytest.mark.parametrize(
    ("latex", "shown"),
    [
        (r"\|x\|_2^2", "‖x‖₂²"),
        (r"\tfrac1N\sum_i c_i\,[r_i \ge \epsilon]", "1/N∑ᵢ cᵢ [rᵢ ≥ ϵ]"),
        (r"\frac{a + b}{2}", "(a + b)/2"),
        (r"\sqrt{k_h k_w}", "√(kₕ k_w)"),
        (r"\max_{j \ne y} z_j", "max_(j ≠ y) zⱼ"),
        (r"\min_c \{p : p < 1\}", "min_c {p : p < 1}"),
        (r"\underline{p_A}", "p̲_A"),
        (r"\bar x - \overline{\|P_i\|}", "x̄ - ‖P̄ᵢ‖"),
        (r"W^\top W^{-1} a^{1/m}", "Wᵀ W⁻¹ a^(1/m)"),
        (r"\binom{n}{k}", "C(n, k)"),
        (r"\mathrm{softmax}(z) + 2\log p", "softmax(z) + 2 log p"),
        (r"y = \begin{cases} x & x > 0 \\ 0 & \text{otherwise}\end{cases}", "y = { x    x > 0; 0    otherwise"),
        (r"a\ b", "a b"),
    ],
)
def test_by_hand(latex: str, shown: str) -> None:
    assert formula(latex) == shown


def test_a_docstring() -> None:
    text = "See ``MaxMin``.\n\n.. math::\n    a = b_1, \\\\\n    c\n\nof :math:`\\sigma` only.\n\n.. math:: x\n\nEnd"
    assert readable(text) == "See `MaxMin`.\n\n    a = b₁,\n    c\n\nof σ only.\n\n    x\n\nEnd"


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: f"{entry.kind} {entry.name}")
def test_nothing_of_latex_is_left(entry: registry.Entry) -> None:
    text = readable(inspect.getdoc(entry.load()) or "")
    assert "\\" not in text.replace("\\0", "") and ":math:" not in text and ".. math" not in text
