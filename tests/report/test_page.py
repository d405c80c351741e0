"""The page in a real browser: both colour schemes, a phone, sorting, values under the pointer, no request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.browser import brightness, browsing, contrast, needs_chromium, phone, set_scheme
from tests.waiting import wait_until

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with browsing(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(browser, made: Path):
    for log in ("performance", "browser"):
        browser.get_log(log)  # forgets what came before
    browser.get((made / "report.html").as_uri())
    return browser


def column(page, number: int) -> list[str]:
    cells = page.find_elements("css selector", f"table:first-of-type tbody tr td:nth-child({number})")
    return [cell.text for cell in cells[:3]]


def point_at(page, element) -> str:
    """What the page says under the pointer."""
    from selenium.webdriver import ActionChains

    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(page).move_to_element(element).perform()
    tip = page.find_element("id", "pointed-at")
    wait_until(tip.is_displayed, 5)
    return str(tip.text)


def test_it_asks_for_nothing_and_complains_of_nothing(page):
    asked = set()
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            request = message["params"]
            if not request["documentURL"].startswith("chrome"):  # chrome:, chrome-untrusted: its first tab
                asked.add(request["request"]["url"])
    assert {"file"} <= {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert len([url for url in asked if url.startswith("file:")]) <= 1
    assert page.get_log("browser") == []


def test_a_column_is_sorted_by_its_values_what_is_missing_last(page):
    names = column(page, 1)
    assert names == ["weight_decay=0.0", "weight_decay=0.0005", "weight_decay=0.01"]
    head = page.find_element("css selector", "th:nth-child(3) button")
    head.click()
    assert column(page, 1) == ["weight_decay=0.01", "weight_decay=0.0", "weight_decay=0.0005"]
    assert page.find_element("css selector", "th:nth-child(3)").get_attribute("aria-sort") == "ascending"
    head.click()
    assert column(page, 1) == ["weight_decay=0.0005", "weight_decay=0.0", "weight_decay=0.01"]
    page.find_element("css selector", "th:nth-child(1) button").click()
    assert column(page, 1) == names


def test_values_stand_under_the_pointer(page):
    assert "seed 1: 89.50, seed 2: 89.00" in point_at(
        page, page.find_element("css selector", "td[data-tip-text]")
    )
    mark = page.find_element(
        "css selector", "figure [data-tip^=accuracy] use, figure [data-tip^=accuracy] path"
    )
    assert "weight_decay=0.0: 89.25 %" in point_at(page, mark)
    figure = page.find_element("css selector", "figure:not([data-panels='[]'])")
    said = point_at(page, figure.find_element("css selector", "svg"))
    assert said.startswith("epoch 2\n")
    assert "0.01: 39.50 %" in said.replace("0.01: 39.5 %", "0.01: 39.50 %")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_figures_can_be_read_in_both_colour_schemes_and_on_a_phone(page, scheme):
    set_scheme(page, scheme)
    ground = colour(page, "body", "backgroundColor")
    assert (brightness(ground) < 0.5) == (scheme == "dark")
    for selector in ("body", ".facts", ".note", "figcaption", "figure text"):
        ink = colour(page, selector, "fill" if "text" in selector else "color")
        assert contrast(ground, ink) > 4.5, selector
    lines = page.find_elements("css selector", "figure [style*='#']")
    assert lines, "arms keep their own colours"
    with phone(page):
        assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        first = page.find_element("css selector", "figure svg")
        assert 300 < first.size["width"] <= 360
    set_scheme(page, "light")


def colour(page, selector: str, name: str) -> str:
    script = f"return getComputedStyle(document.querySelector({selector!r})).{name}"
    return str(page.execute_script(script))


def test_ids_of_the_figures_do_not_meet(page):
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    hanging = page.execute_script(
        "return [...document.querySelectorAll('use')].filter((e) => "
        "!document.getElementById(e.getAttribute('xlink:href').slice(1))).length"
    )
    assert hanging == 0
