"""The cost page in a real browser, at the width of a phone and of a desk."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher import runs
from launcher.cost_page import page
from launcher.ledger import Ledger
from launcher.report import CostReport, cost
from tests.ledgers import Home, T

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CostReport:
    monkeypatch.setenv("VLAUNCH_HOME", str(tmp_path))
    home = Home(tmp_path)
    home.two_machines()
    home.two_machines("<b>vicuna</b>-20261123-ffffff")
    return cost([runs.facts(records) for records in Ledger(tmp_path).runs().values()], T)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_shows_every_machine_and_total_and_needs_nothing_from_elsewhere(
    browser: "Browser", report: CostReport, tmp_path: Path, width: int
) -> None:
    path = tmp_path / "cost.html"
    path.write_text(page(report), encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 800})
    asked: list[str] = []
    wrong: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(path.as_uri())
    assert asked == [path.as_uri()]
    assert wrong == []
    assert f"${report.usd_spent:,.2f}" in tab.inner_text(".cards")
    assert tab.locator("section").count() == 2
    assert tab.locator("section svg").count() == 4
    # Two machines a run, a cross for each that was taken away.
    assert tab.locator("svg rect").count() == 4
    assert tab.locator("svg path").count() == 2
    assert tab.locator("b", has_text="vicuna").count() == 0  # a name is text, whatever is in it
    # The page itself never scrolls sideways; wide tables and drawings do inside their own boxes.
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    tab.close()
