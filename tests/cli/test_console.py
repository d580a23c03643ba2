"""What a terminal sees: no control character of a file or an argument, and a line stays one line."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from hauberk.cli import console

ODD = ["\x1b[31mred", "\x07bell", "a\rb", "\x9b2J", "a\u202eb", "\u2028", "\x1b]0;title\x07",
       "ok  \nok   forged", "\x00", "\u200b"]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_what_is_printed_obeys_nobody(odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.error_line(odd, odd)
    console.say(odd)
    console.emit({}, False, [f"[bold]{odd}[/bold]"])
    console.emit({"name": odd}, True, [])
    console.table(odd, [odd], [[odd]])
    console.Reporter(name=odd)._show(odd, 1.0, [odd], finished=True)
    found = capsys.readouterr()
    assert "[bold]" in found.out
    for line in (found.out + found.err).split("\n"):
        assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")], ascii(line)
        assert not line.startswith("ok   forged")


def test_ordinary_text_is_left_as_it_is() -> None:
    text = "certified l2 0.25: 61.2 % [58.1, 64.2], Größe ≥ 3 – naïve"
    assert console.clean(text) == text
    assert console.clean("a\tb\nc") == "a b c"


@pytest.mark.parametrize("argument", ["--\x1b[31mred", "run\x07", "\x9b2J", "a\rb", "\x7f"])
def test_arguments_with_controls_are_refused(argument: str, hauberk: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = hauberk("verify", argument)
    assert code == 1
    assert "control characters" in err
    assert argument not in out + err


def test_a_file_does_not_speak_to_the_terminal(
    tiny_recipe: Path, tmp_path: Path, hauberk: Callable[..., tuple[int, str, str]]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(tiny_recipe.read_text().replace("name: lip_convnet", 'name: "\\e[31mred"'))
    code, out, err = hauberk("train", recipe)
    assert code != 0
    assert "red" in err
    assert "\x1b" not in out + err
