"""``hauberk list lecture``: every method, page and test that it names exists."""

import json
from pathlib import Path

import pytest

from hauberk import registry
from hauberk.catalogue.lecture import ITEMS, PAGES, Item

ROOT = Path(__file__).resolve().parents[2]
COMPANION = ROOT / "examples" / "lecture"


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)
def test_what_an_item_names_exists(item: Item) -> None:
    assert item.methods
    for name in item.methods:
        assert registry.entry(name).name == name
    row = item.row()
    assert (ROOT / row["test"]).is_file()
    assert not item.erratum or item.erratum.endswith(".")
    page = (ROOT / row["page"]).read_text()
    assert any(n in page or registry.entry(n).path.partition(":")[2] in page for n in item.methods)


def test_items_differ_and_every_page_has_one() -> None:
    assert len({item.name for item in ITEMS}) == len(ITEMS)
    assert {item.number for item in ITEMS} == set(range(1, len(PAGES) + 1))


def test_the_companion_has_these_pages_and_no_others() -> None:
    assert {p.name for p in COMPANION.glob("plot_*.py")} == {Path(item.page).name for item in ITEMS}


def test_the_table_is_printed(hauberk) -> None:
    code, text, _ = hauberk("list", "lecture", "--json")
    rows = json.loads(text)["lecture"]
    assert code == 0
    assert rows == [item.row() for item in ITEMS]
    code, text, _ = hauberk("list", "lecture")
    assert code == 0
    assert f"{len(ITEMS)} items of the lecture" in text
    assert "hauberk explain attack_success_rate" in text
