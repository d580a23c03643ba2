"""Ctrl-C in the first seconds: one line and exit status 130, never a traceback."""

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hauberk import cli
from hauberk.cli.interrupts import ending_at_once

SCRIPT = textwrap.dedent("""
    import os, signal, sys

    sys.path.insert(0, sys.argv.pop())
    wanted, sys.argv[1:] = sys.argv[1], ["certify", "nowhere"]
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == wanted:
                os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
    sys.meta_path.insert(0, Finder())
    from hauberk.cli import main
    main()
""")


@pytest.mark.parametrize("module", ["hauberk.cli.app", "typer", "numpy", "torch"])
def test_while_a_library_is_imported(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, module, str(Path(cli.__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 130, done.stderr
    begun = "certifying nowhere\n" if module in ("numpy", "torch") else ""
    assert done.stderr == f"{begun}error: stopped before anything was begun\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    "where", ["hauberk.cli.refuse_controls", "hauberk.cli.plugins.load_plugins", "typer.Typer.__call__"]
)
def test_between_the_imports_and_the_verb(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    monkeypatch.setattr(sys, "argv", ["hauberk", "list", "attacks"])
    with pytest.raises(BaseException) as stop:
        cli.main()
    assert isinstance(stop.value, SystemExit) and stop.value.code == 130
    assert "stopped; what was finished is kept" in capsys.readouterr().err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handler of Ctrl-C, which is ignored where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_handler_is_given_back_and_others_are_left_alone() -> None:
    with ending_at_once():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending_at_once():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_another_thread_may_run_a_verb() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with ending_at_once():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
