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
            text = {"text": "\r"} if key == "Enter" else {}
            for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
                down = text if kind == "keyDown" else {}
                self.call(
                    "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key], **down
                )

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


KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "Home": 36, "End": 35, "Tab": 9, "Enter": 13}


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
    charts = "[...document.querySelectorAll('.chart, .plane')].filter((c) => c.getClientRects().length)"
    tab.wait(f"{charts}.every((c) => c.querySelectorAll('svg path').length > 5)")
    assert tab.run(f"{charts}.length") >= 5
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run(f"{charts}.every((c) => c.querySelector('svg').getBoundingClientRect().right <= {width})")
    assert tab.run("[...document.images].every((i) => i.complete && i.naturalWidth === 8)")
    assert tab.complaints() == []
    tab.call("Emulation.clearDeviceMetricsOverride")


# --- the explorer of a mix without a proof --------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare_url(unproved, tmp_path_factory) -> str:
    return write_report(unproved.runs, tmp_path_factory.mktemp("page") / "report.html").as_uri()


@pytest.fixture(scope="module")
def bare(unproved) -> mixing.Mix:
    parts = [p for run in collect.load(unproved.runs) for p in run.parts]
    return mixing.mixes(parts, collect.subjects(parts))[0]


def at(mix: mixing.Mix, alpha: float, ids: list[int]) -> dict[str, list[bool]]:
    """Which images each filter keeps, from the models' own predictions and intervals."""
    rows = [mix.ids.index(i) for i in ids]
    accurate, robust = ([mix.predictions[r][k] == mix.labels[r] for r in rows] for k in (0, 1))
    right = [mix.right[r] is not None and mix.right[r][0] < alpha < mix.right[r][1] for r in rows]  # type: ignore[index]
    pairs = list(zip(accurate, robust, strict=True))
    return {
        "all": [True] * len(rows), "right": right, "wrong": [not r for r in right],
        "accurate": [a and not b for a, b in pairs], "robust": [b and not a for a, b in pairs],
        "neither": [not a and not b for a, b in pairs],
    }  # fmt: skip


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_explorer_by_keyboard(tab: Page, bare_url: str, bare: mixing.Mix, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    tab.call("Emulation.setDeviceMetricsOverride", **size)
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.open(f"{bare_url}#alpha=0.80")
    assert tab.run("document.querySelector('[data-value=proved]')") is None
    guess = bare.estimates[-1]
    tab.run("document.querySelector('.mix input').focus()")
    tab.press("ArrowRight", 4)
    assert tab.text("[data-value=guessed]") == words.percent(guess.accuracy(0.84).value)
    assert tab.text("[data-value=guessed-count]") == f"{words.count(guess.accuracy(0.84))} images"
    typed = "hauberk mix --accurate accurate --robust 'robust one' --alpha 0.84"
    assert tab.text("[data-value=command]") == typed
    assert "estimated" in tab.run("document.querySelector('.mix input').getAttribute('aria-valuetext')")

    ids = [int(n.rpartition("-")[2]) for n in tab.run(
        "[...document.querySelectorAll('.grid li')].map((li) => li.dataset.picture)")]  # fmt: skip
    expected = at(bare, 0.84, ids)
    tab.run("document.querySelector('details.images').open = true")
    tab.run("document.querySelector('[name=show]').focus()")
    for number, (name, kept) in enumerate(expected.items()):
        if number:
            tab.press("ArrowDown")
        tab.wait(f"document.querySelector('[name=show]').value === '{name}'")
        shown = "[...document.querySelectorAll('.grid li')].map((li) => li.getClientRects().length > 0)"
        assert tab.run(shown) == kept
        assert tab.text("[data-value=shown]") == f"{sum(kept)} of {len(ids)} images"
    states = tab.run("[...document.querySelectorAll('.grid .state')].map((s) => s.textContent)")
    assert [s.startswith("right") for s in states] == expected["right"]
    assert not [s for s in states if "certified" in s]

    tab.run("document.querySelector('.command code').focus()")
    tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "Copy"
    tab.press("Enter")
    tab.wait("document.querySelector('[data-value=copied]').textContent !== ''")
    if tab.text("[data-value=copied]").startswith("Selected"):
        assert tab.run("String(getSelection()).trim()") == typed
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.complaints() == []
    tab.call("Emulation.clearDeviceMetricsOverride")


def test_without_a_clipboard_the_command_is_selected(tab: Page, bare_url: str) -> None:
    tab.open(bare_url)
    tab.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    tab.run("document.querySelector('.command button').click()")
    tab.wait("document.querySelector('[data-value=copied]').textContent.startsWith('Selected')")
    assert tab.run("String(getSelection()).trim()") == tab.text("[data-value=command]")


def test_a_link_carries_the_filter(tab: Page, bare_url: str) -> None:
    tab.open(f"{bare_url}#alpha=0.6&show=neither")
    assert tab.run("document.querySelector('[name=show]').value") == "neither"
    tab.open(f"{bare_url}#show=nonsense")
    assert tab.run("document.querySelector('[name=show]').value") == "all"


def test_below_one_half_nothing_is_estimated(tab: Page, bare_url: str) -> None:
    tab.open(f"{bare_url}#alpha=0.49")
    assert tab.text("[data-value=guessed]") == "–"
    assert tab.text("[data-value=guessed-count]") == "no estimate below α = 0.5"


def test_an_image_is_wrong_again_above_its_interval(tab: Page, bare_url: str, tmp_path: Path) -> None:
    text = Path(bare_url.removeprefix("file://")).read_text(encoding="utf-8")
    first = '"cards": [{"accurate": true, "estimates"'
    assert first in text
    start = text.index(first)
    changed = text[:start] + text[start:].replace('"high": 2.0', '"high": 0.6', 1)
    (tmp_path / "r.html").write_text(changed, encoding="utf-8")
    for alpha, state in (("0.59", "right"), ("0.6", "wrong"), ("0.61", "wrong")):
        tab.open(f"{(tmp_path / 'r.html').as_uri()}#alpha={alpha}")
        assert tab.text(".grid .state").startswith(state)


def test_certified_images_are_named(tab: Page, url: str, mix: mixing.Mix) -> None:
    tab.open(f"{url}#alpha=0.95&against=0")
    states = tab.run("[...document.querySelectorAll('.grid .state')].map((s) => s.textContent)")
    ids = [int(n.rpartition("-")[2]) for n in tab.run(
        "[...document.querySelectorAll('.grid li')].map((li) => li.dataset.picture)")]  # fmt: skip
    certified = [mix.certified[mix.ids.index(i)][0] for i in ids]
    assert [s == "right, certified" for s in states] == [a is not None and a <= 0.95 for a in certified]
    assert any(s == "right, certified" for s in states)


# --- the first screen, the images and the pairs ---------------------------------------------------------------


PICK = (
    "((name, value) => {{ const choice = document.getElementById(name); choice.value = value; "
    "choice.dispatchEvent(new Event('change')); }})('{0}', '{1}')"
)


def pick(tab: Page, name: str, value: str) -> None:
    tab.run(PICK.format(name, value))


def test_the_first_screen_answers_and_the_page_is_short(tab: Page, url: str) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
    tab.open(url)
    assert tab.run("document.documentElement.scrollHeight") <= 6 * 800
    assert tab.run("document.querySelectorAll('#provenance details[open], #glossary details[open]').length") == 0
    assert tab.run("document.querySelectorAll('article > details[open]').length") == 1
    seen = "(e) => e.getClientRects().length > 0 && e.getBoundingClientRect().top < 800"
    for selector in (".verdict", ".ranking", ".overlay svg", ".three h2"):
        assert tab.run(f"[...document.querySelectorAll('{selector}')].some({seen})"), selector
    tab.run("scrollTo(0, document.documentElement.scrollHeight)")
    assert tab.run("document.querySelector('.contents').getBoundingClientRect().top") == 0
    tab.call("Emulation.clearDeviceMetricsOverride")


def test_the_reader_picks_the_threat_by_keyboard_and_by_link(tab: Page, url: str) -> None:
    tab.open(url)
    boards = "[...document.querySelectorAll('.board')].filter((b) => !b.hidden).map((b) => b.dataset.board)"
    chosen = int(tab.run("document.getElementById('threat').value"))
    assert set(tab.run(boards)) == {str(chosen)}
    tab.run("document.getElementById('threat').focus()")
    tab.press("ArrowDown")
    tab.wait(f"document.getElementById('threat').value === '{chosen + 1}'")
    assert set(tab.run(boards)) == {str(chosen + 1)}
    assert tab.run("location.hash") == f"#threat={chosen + 1}"
    count = tab.run("document.getElementById('threat').options.length")
    tab.open(f"{url}#threat={count - 1}")
    assert set(tab.run(boards)) == {str(count - 1)}
    assert tab.run("[...document.querySelectorAll('[data-overlay]')].filter((f) => !f.hidden).length") == 1
    assert tab.complaints() == []


def test_images_are_filtered_sorted_and_paged(tab: Page, url: str) -> None:
    tab.open(url)
    facts = "[...document.querySelectorAll('.pictures > li')].map((li) => [{0}])"
    every = tab.run(facts.format("li.dataset.of, li.dataset.state, li.dataset.class, li.dataset.certified || ''"))
    pick(tab, "images-of", "all")
    for state in ("broken", "held", "certified", "wrong"):
        pick(tab, "images-state", state)
        kept = [row for row in every if (row[3] == "yes" if state == "certified" else row[1] == state)]
        told = tab.text("[data-value=images-shown]")
        assert told == (f"1 to {min(6, len(kept))} of {len(kept)} images" if kept else "no such image")
    pick(tab, "images-state", "all")
    tab.run("document.querySelector('[data-step=\"1\"]').click()")
    assert tab.text("[data-value=images-shown]").startswith("7 to 12 of")
    label = every[0][2]
    pick(tab, "images-class", label)
    visible = "[...document.querySelectorAll('.pictures > li')].filter((li) => !li.hidden)"
    assert set(tab.run(f"{visible}.map((li) => li.dataset.class)")) == {label}
    pick(tab, "images-class", "all")
    pick(tab, "images-order", "near")
    near = tab.run(f"{visible}.map((li) => li.dataset.near === '' ? 1e9 : Number(li.dataset.near))")
    assert near == sorted(near)
    assert tab.complaints() == []


def test_two_classifiers_are_picked(tab: Page, url: str) -> None:
    tab.open(url)
    rows = "[...document.querySelectorAll('.pairing')].filter((p) => !p.hidden)"
    visible = f"{rows}.map((p) => [p.dataset.first, p.dataset.second])"
    [pair] = tab.run(visible)
    pick(tab, "pairs-first", pair[1])
    pick(tab, "pairs-second", pair[0])
    assert tab.run(visible) == [pair]
    pick(tab, "pairs-second", pair[1])
    assert tab.run(visible) == []
    assert not tab.run("document.querySelector('[data-value=pair-missing]').hidden")


def test_a_link_opens_what_it_points_into(tab: Page, url: str) -> None:
    tab.open(url)
    closed = tab.run("document.querySelector('details.whole:not([open])').closest('article').id")
    tab.run(f"location.hash = '#{closed}'")
    tab.wait(f"document.querySelector('#{closed} > details').open")
    tab.run("location.hash = '#glossary-title'")
    assert tab.complaints() == []
