"""The page in a headless Chromium, spoken to over its debugging pipe: no driver and no client library."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hauberk.report import collect, mixing, words, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--remote-debugging-pipe",
]  # fmt: skip
# Chromium reads commands from descriptor 3 and answers on 4
START = "import os, sys; a = sys.argv; os.dup2(int(a[1]), 3); os.dup2(int(a[2]), 4); os.execv(a[3], a[3:])"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)"),
]


class Page:
    """One tab."""

    def __init__(self, folder: Path) -> None:
        (read_there, self._write), (self._read, write_there) = os.pipe(), os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (read_there, write_there)]
        command = [sys.executable, "-c", START, *map(str, high), str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}"]
        self._process = subprocess.Popen(
            command, pass_fds=high, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        for fd in (read_there, write_there, *high):
            os.close(fd)
        self._rest, self._last, self._session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict:
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], 30)[0], "Chromium did not answer within 30 s"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "Chromium ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def run(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url="about:blank")  # a change of the fragment alone would not load the page again
        self.call("Page.navigate", url=url)
        self.wait("location.protocol === 'file:' && document.documentElement?.dataset.ready === 'yes'")
        self.run("new Promise((done) => setTimeout(done, 100))")

    def wait(self, condition: str) -> None:
        end = time.monotonic() + 20
        while not self.run(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent.trim()")

    def press(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            for kind in ("rawKeyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def complaints(self) -> list:
        """Errors and warnings of the console, uncaught exceptions, and requests beyond the page and its pictures."""
        found = []
        for event in self.events:
            name, content = event.get("method"), event.get("params", {})
            if name == "Runtime.exceptionThrown" or (name == "Log.entryAdded" and content["entry"]["level"] == "error"):
                found.append(content)
            if name == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning", "assert"):
                found.append(content)
            if name == "Network.requestWillBeSent":
                url = content["request"]["url"]
                if not url.startswith(("data:", "file:", "about:")):
                    found.append(url)
        return found

    def close(self) -> None:
        self._session = None
        with contextlib.suppress(AssertionError, BrokenPipeError):
            self.call("Browser.close")
        for fd in (self._write, self._read):
            os.close(fd)
        self._process.wait(20)


KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35}


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture(scope="module")
def url(lab, tmp_path_factory) -> str:
    return write_report(lab.runs, tmp_path_factory.mktemp("page") / "report.html").as_uri()


@pytest.fixture(scope="module")
def mix(lab) -> mixing.Mix:
    parts = [p for run in collect.load(lab.runs) for p in run.parts]
    return mixing.mixes(parts, collect.subjects(parts))[0]


def shown(tab: Page) -> tuple[str, str, str, str]:
    names = ("clean", "clean-count", "proved", "proved-count")
    return tuple(tab.text(f"[data-value={n}]") for n in names)  # type: ignore[return-value]


def expected(mix: mixing.Mix, alpha: float, eps: float) -> tuple[str, str, str, str]:
    clean, proved = mix.clean_accuracy(alpha), mix.certified_accuracy(alpha, eps)
    return (
        words.percent(clean.value), f"{words.count(clean)} images",
        words.percent(proved.value, "down"), f"{words.count(proved)} images",
    )  # fmt: skip


def test_moving_the_slider_shows_exact_counts(tab: Page, url: str, mix: mixing.Mix) -> None:
    tab.open(url)
    eps = mix.eps[int(tab.run("document.querySelector('.mix select').value"))]
    tab.run("document.querySelector('.mix input').focus()")
    assert shown(tab) == expected(mix, 0.8, eps)
    tab.press("Home")
    assert tab.text("[data-value=alpha]") == "0.00"
    assert shown(tab) == expected(mix, 0.0, eps)
    seen = set()
    for step in range(1, 101):
        tab.press("ArrowRight")
        if step % 7 == 0 or step > 93:
            assert tab.text("[data-value=alpha]") == f"{step / 100:.2f}"
            assert shown(tab) == expected(mix, step / 100, eps)
            seen.add(shown(tab))
    assert len(seen) > 5
    assert "alpha 1.00" in tab.run("document.querySelector('.mix input').getAttribute('aria-valuetext')")
    assert tab.complaints() == []


@pytest.mark.parametrize("index", [0, 2, 4])
def test_a_link_carries_alpha_and_budget(tab: Page, url: str, mix: mixing.Mix, index: int) -> None:
    tab.open(f"{url}#alpha=0.73&against={index}")
    assert shown(tab) == expected(mix, 0.73, mix.eps[index])
    tab.run("location.hash = '#alpha=0.91'")
    tab.wait("document.querySelector('[data-value=alpha]').textContent === '0.91'")
    assert shown(tab) == expected(mix, 0.91, mix.eps[index])


def test_a_budget_without_certificate_shows_none(tab: Page, url: str, mix: mixing.Mix) -> None:
    tab.open(f"{url}#against={len(mix.eps)}")
    assert "ℓ∞" in tab.text("[data-value=where]")
    assert tab.text("[data-value=proved]") == "–"
    assert tab.text("[data-value=proved-count]") == "not certified at this budget"
    assert tab.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_chart_is_drawn_within_the_window(tab: Page, url: str, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    tab.call("Emulation.setDeviceMetricsOverride", **size)
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.open(url)
    tab.run("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert tab.run("document.documentElement.scrollWidth") <= width
    charts = "[...document.querySelectorAll('.chart, .plane')]"
    assert tab.run(f"{charts}.length") >= 5
    assert tab.run(f"{charts}.every((c) => c.querySelectorAll('svg path').length > 5)")
    assert tab.run(f"{charts}.every((c) => c.querySelector('svg').getBoundingClientRect().right <= {width})")
    assert tab.run("[...document.images].every((i) => i.complete && i.naturalWidth === 8)")
    assert tab.complaints() == []
    tab.call("Emulation.clearDeviceMetricsOverride")
