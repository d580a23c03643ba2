r"""Formulas of docstrings for a terminal: ``:math:`\|x\|_2^2``` becomes ‖x‖₂²."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from functools import cache
from typing import Any

from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db
from pylatexenc.latexwalker import LatexWalker
from pylatexenc.latexwalker import get_default_latex_context_db as get_parser_db
from pylatexenc.macrospec import MacroSpec

SUPERSCRIPTS = dict(zip("0123456789+-=()aijknpT⊤′*", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃⁱʲᵏⁿᵖᵀᵀ′*", strict=True))
SUBSCRIPTS = dict(zip("0123456789+-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))
MARKS = {"bar": "\u0304", "hat": "\u0302", "widehat": "\u0302", "tilde": "\u0303", "dot": "\u0307",
         "overline": "\u0304", "underline": "\u0332"}  # fmt: skip
SIGNS = {"|": "‖", "bot": "⊥", "top": "⊤", "ne": "≠", "mid": "|", "setminus": "∖", "pmod": "mod ", "bmod": "mod",
         "odot": "⊙", "ell": "ℓ", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "langle": "⟨",
         "rangle": "⟩", "preceq": "⪯", "arg": "arg ", "quad": "   ", "qquad": "      ", ";": " ", ",": " ", "!": "",
         " ": " "}  # fmt: skip
FONTS, FRACTIONS = ("mathrm", "mathbf", "text", "operatorname"), ("frac", "tfrac", "dfrac")
SIZES = [f"{size}{side}" for size in ("big", "Big", "bigg", "Bigg") for side in ("", "l", "r")]
SILENT = [*SIZES, "textstyle", "displaystyle", "left", "right"]
INLINE = re.compile(r":math:`([^`]*)`")
DISPLAYED = re.compile(r"^([ ]*)\.\. math::(.*(?:\n(?:[ ]*\n)*\1[ ]+\S.*)*)", re.MULTILINE)
SCRIPT = re.compile(r"(?<!\\)([_^])\s*(\{|\\[a-zA-Z]+|\\.|[^\s{])")
RELATION = re.compile(r" ?([=≤≥∈∼←→↦⊙≈≠<>]) ?")
FUNCTION = re.compile(r"(?<=[^\sA-Za-z(\[{|/_^√-])(?=(?:max|min|sup|log|ln|exp|arg|cos|sin|tanh)(?![a-z]))")
CASES = re.compile(r"\\begin\{cases\}(.*?)\\end\{cases\}", re.DOTALL)


def readable(text: str) -> str:
    """A docstring with its formulas in Unicode and its double backquotes as single ones.

    Args:
        text: reStructuredText as in this library's docstrings.
    """
    text = DISPLAYED.sub(lambda found: _shown(found[2], found[1] + "    "), text)
    text = INLINE.sub(lambda found: formula(found[1]), text)
    return text.replace("``", "`")


def formula(latex: str) -> str:
    r"""One formula on one line: ``\frac{a+b}{2}`` becomes (a+b)/2."""
    latex = CASES.sub(lambda found: "⦃ " + re.sub(r"\s*\\\\\s*", "; ", found[1].replace("&", "  ")).strip(), latex)
    latex = SCRIPT.sub(_marked, latex.replace("\\{", "⦃").replace("\\}", "⦄"))
    parser, printer = _rules()
    nodes = LatexWalker(latex, latex_context=parser, tolerant_parsing=True).get_latex_nodes()[0]
    found: str = printer.nodelist_to_text(nodes).replace("⦃", "{").replace("⦄", "}")  # visible braces
    found = re.sub(r"\s*\n\s*", " ", found)
    return FUNCTION.sub(" ", RELATION.sub(r" \1 ", found)).strip()


def _shown(latex: str, margin: str) -> str:
    """A displayed formula, with one line for each line of its source."""
    whole = CASES.sub(lambda found: found[0].replace("\\\\", "; "), latex.strip())
    lines = [formula(line) for line in whole.split("\\\\")]
    return textwrap.indent("\n".join(filter(None, lines)), margin)


def _marked(found: re.Match[str]) -> str:
    name = {"_": "lower", "^": "upper"}[found[1]]
    return f"\\{name}{{" if found[2] == "{" else f"\\{name}{{{found[2]}}}"


@cache
def _rules() -> tuple[Any, LatexNodes2Text]:
    """How macros are read, and how they are written."""
    arguments = dict.fromkeys([*MARKS, *FONTS, "lower", "upper", "sqrt"], "{")
    arguments |= dict.fromkeys([*FRACTIONS, "binom"], "{{")
    parser, printer = get_parser_db(), get_default_latex_context_db()
    parser.add_context_category("hauberk", prepend=True, macros=[MacroSpec(n, a) for n, a in arguments.items()])
    written = [MacroTextSpec(name, sign) for name, sign in SIGNS.items()]
    written += [MacroTextSpec(name, "") for name in SILENT]
    written += [MacroTextSpec(name, _over(mark)) for name, mark in MARKS.items()]
    written += [
        MacroTextSpec("lower", _script("_", SUBSCRIPTS)),
        MacroTextSpec("upper", _script("^", SUPERSCRIPTS)),
        MacroTextSpec("sqrt", lambda node, l2tobj: f"√{_grouped(_said(node, l2tobj)[0])}"),
        MacroTextSpec("binom", lambda node, l2tobj: f"C({', '.join(_said(node, l2tobj))})"),
    ]
    written += [MacroTextSpec(n, lambda node, l2tobj: "/".join(map(_grouped, _said(node, l2tobj)))) for n in FRACTIONS]
    written += [MacroTextSpec(name, lambda node, l2tobj: _said(node, l2tobj)[0]) for name in FONTS]
    printer.add_context_category("hauberk", prepend=True, macros=written)
    return parser, LatexNodes2Text(latex_context=printer, math_mode="text", strict_latex_spaces="based-on-source")


def _said(node: Any, printer: LatexNodes2Text) -> list[str]:
    """The arguments of a macro as text."""
    return [printer.nodelist_to_text([argument]).strip() for argument in node.nodeargd.argnlist if argument is not None]


def _grouped(text: str) -> str:
    """The text in brackets, unless it is one name or number."""
    return text if re.fullmatch(r"[\w.′*⊤∞\u0300-\u036f₀-₉⁰-⁹]*|\([^()]*\)", text) else f"({text})"


def _over(mark: str) -> Any:
    def write(node: Any, l2tobj: LatexNodes2Text) -> str:
        name, script, rest = _said(node, l2tobj)[0].partition("_")
        return "".join(c + mark if unicodedata.category(c) in ("Lu", "Ll") else c for c in name) + script + rest

    return write


def _script(sign: str, known: dict[str, str]) -> Any:
    def write(node: Any, l2tobj: LatexNodes2Text) -> str:
        (text,) = _said(node, l2tobj)
        if all(c in known for c in text):
            return "".join(known[c] for c in text)
        return sign + _grouped(text)

    return write
