"""Files that anybody may have written: read within limits, as plain data, and only if they are files."""

import json
import os
import socket
from pathlib import Path

import pytest

from hauberk import reading
from hauberk.errors import HauberkError

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
MERGED = "a0: &a0 {k0: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], k{i}: 1}}\n" for i in range(1, 40))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "5,000 values"), (MERGED, "5,000 values"), (CHAIN, "24 blocks"), ("a: &a [*a]", "block that it is in"),
        ("a: &a {b: *a}", "block that it is in"),
        ("[" * 2000, "24 blocks"), ("{a: " * 2000, "24 blocks"), ("- " * 2000 + "x", "24 blocks"),
        ("? " * 300 + "x", "24 blocks"),
        ("\n".join("- x" for _ in range(11_000)), "5,000 values"), ("x" * 70_000, "65,536 characters"),
        ("a: 1\na: 2", "twice"), ("a: {b: 1, b: 2}", "twice"), ("- {c: 1, d: 2, 'c': 3}", "twice"),
        ("a: 1\n\"a\": 1", "twice"), ("{1: a, 1: b}", "twice"), ("? [a, b]\n: c", "not text"),
        ("a: !!python/object/apply:os.system [id]", "tag"), ("a: !!python/name:os.system", "tag"),
        ("a: !!set {b}", "tag"), ("a: !!binary aGk=", "tag"), ("a: !!timestamp 2020-01-01", "tag"),
        ("a: !own b", "tag"),
        ("a: 1" + "0" * 5000, "not valid YAML"), ("a: *b", "undefined alias"), ("a: b: c", "not valid YAML"),
        ("--- a\n--- b", "not valid YAML"), ("a: \x07", "not valid YAML"), ("<<: 3", "not valid YAML"),
    ],
)  # fmt: skip
def test_yaml_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(HauberkError, match=words):
        reading.yaml_value(text, "it")


def test_yaml_that_is_read() -> None:
    text = "base: &base {steps: 3, eps: 0.5}\nrun: {<<: *base, steps: 4}\nday: 2026-01-01\n"
    text += "none: ~\non: [yes, 1e-3, 8/255]\n"
    assert reading.yaml_value(text, "it") == {
        "base": {"steps": 3, "eps": 0.5}, "run": {"steps": 4, "eps": 0.5}, "day": "2026-01-01", "none": None,
        True: [True, "1e-3", "8/255"],
    }  # fmt: skip
    assert reading.yaml_value("", "it") is None


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 2}', "[" * 40 + "]" * 40, "[" * 100_000, '{"a":' * 40 + "1" + "}" * 40, "1" * 5000, "{", "",
     "\x00", "nul"],
)  # fmt: skip
def test_json_that_is_refused(text: str) -> None:
    with pytest.raises(HauberkError):
        reading.json_value(text, "it")


def test_json_that_is_read(tmp_path: Path) -> None:
    assert reading.json_value('{"a": [1, {"b": null}]}', "it") == {"a": [1, {"b": None}]}
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(HauberkError, match="JSON object"):
        reading.json_object(tmp_path / "list.json")
    for value, key in (({"a": 1}, "a"), ({"a": ""}, "b"), ([1], "keys with values"), (None, "keys with values")):
        with pytest.raises(HauberkError, match=key):
            reading.check_json(value, {"a": str, "b": int}, "it")


def irregular(folder: Path) -> dict[str, Path]:
    """Everything that is no regular file."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "to_pipe").symlink_to(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # names of sockets are short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    names = {name: folder / name for name in ("pipe", "folder", "socket", "to_pipe")}
    return names | {"zero": Path("/dev/zero"), "terminal": Path("/dev/tty"), "out": Path("/dev/null")}


def test_only_files_are_read(tmp_path: Path) -> None:
    for name, path in irregular(tmp_path).items():
        with pytest.raises(HauberkError, match="expected a file"):
            reading.content(path)
        with pytest.raises(HauberkError, match="expected a file"):
            reading.check_regular(path)
        assert name
    with pytest.raises(FileNotFoundError):
        reading.content(tmp_path / "nothing")
    (tmp_path / "text").write_bytes(b"\xff\xfe")
    with pytest.raises(HauberkError, match="not UTF-8"):
        reading.text(tmp_path / "text")
    with pytest.raises(HauberkError, match="at most 1"):
        reading.content(tmp_path / "text", 1)


def test_links_inside_a_run_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("secret")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").symlink_to(tmp_path / "private")
    (tmp_path / "run" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "run" / "records").symlink_to(tmp_path)
    (tmp_path / "hard").symlink_to(tmp_path / "run")
    assert reading.content(tmp_path / "run" / "recipe.yaml") == b"secret"  # a path that the user typed
    with pytest.raises(HauberkError, match="is a link"):
        reading.content(tmp_path / "run" / "recipe.yaml", links=False)
    for parts in (("recipe.yaml",), ("nowhere",), ("records",), ("records", "private")):
        with pytest.raises(HauberkError, match="is a link"):
            reading.inside(tmp_path / "run", *parts)
    assert reading.inside(tmp_path / "hard", "run.json") == tmp_path / "hard" / "run.json"  # the run itself may be one


@pytest.mark.parametrize("name", ["../x", "..", ".", "", " ", "a/b", "/etc/x", "a\\b", "C:x", "a\nb", "a\x1b[31mb",
                                  "a\u202eb", "-o", " a", "a ", "...", "a*", "x" * 101, "\ud800", "a\x00"])  # fmt: skip
def test_names_that_leave_their_folder(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        reading.check_name(name)


@pytest.mark.parametrize("name", ["tiny", "smoothed_0.25", "MNIST v2", "Größe-3", "a" * 100, "ce0.5+kl"])
def test_names_that_stay(name: str) -> None:
    assert reading.check_name(name) == name


def test_classes_within_reason() -> None:
    assert reading.check_classes(21_841, "it") == 21_841
    with pytest.raises(HauberkError, match="labels need"):
        reading.check_classes(10**9, "it")


def test_a_limit_holds_while_a_file_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grows"
    path.write_bytes(json.dumps("x" * 100).encode())
    assert len(reading.content(path, 200)) == 102
    with pytest.raises(HauberkError, match="at most 100"):
        reading.content(path, 100)


@pytest.mark.parametrize("plan", [[], None, "x", {"attacks": {}}, {"certificates": [{}]}, {"diagnoses": ["pgd"]},
                                  {"attacks": [{"name": 3}]}, {"certificates": None}])  # fmt: skip
def test_a_plan_is_lists_of_descriptions(plan: object) -> None:
    with pytest.raises(HauberkError):
        reading.check_plan(plan, "it")
    reading.check_plan({"attacks": [{"name": "pgd"}], "images": 4}, "it")
