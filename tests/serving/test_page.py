"""The page in a real browser: a picture goes in, an answer comes out; what is no picture is told so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from imagenette.serving.app import create_app
from imagenette.serving.limits import Limits
from imagenette.serving.served import Served
from tests.browser import brightness, browsing, contrast, needs_chromium, phone, set_scheme
from tests.waiting import wait_until

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def url(small_model: Path) -> Iterator[str]:
    served = Served(str(small_model), None, lambda line: None)
    served.load()
    server = uvicorn.Server(uvicorn.Config(create_app(served, Limits()), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with browsing(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(browser, url: str):
    browser.get(url)
    wait_until(lambda: "classes" in text(browser, "#model"), 20)
    return browser


def text(browser, selector: str) -> str:
    return str(browser.find_element("css selector", selector).text)


def drop(browser, *files: Path) -> None:
    browser.find_element("id", "files").send_keys("\n".join(str(file) for file in files))


def test_a_picture_gets_its_answer_and_the_model_that_said_so(page, tmp_path, jpeg):
    file = tmp_path / "holiday.jpg"
    file.write_bytes(jpeg)
    drop(page, file)
    wait_until(lambda: page.find_elements("css selector", "article"), 20)
    assert text(page, "article h2") in ("cat", "dog", "owl")
    assert "% sure" in text(page, "article .sure")
    assert "holiday.jpg" in text(page, "article .sure")
    assert len(page.find_elements("css selector", "article li")) == 3
    assert "Said by a model from a folder" in text(page, "article .from")
    shares = [float(bar.get_attribute("value")) for bar in page.find_elements("css selector", "progress")]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    width = "return document.querySelector('article img').naturalWidth"
    wait_until(lambda: page.execute_script(width) == 64, 10)
    assert not page.find_element("id", "problem").is_displayed()


def test_what_is_no_picture_is_said_and_the_next_picture_works(page, tmp_path, jpeg):
    (tmp_path / "notes.txt").write_text("<b>no picture</b>")
    (tmp_path / "fine.jpg").write_bytes(jpeg)
    drop(page, tmp_path / "notes.txt")
    wait_until(lambda: page.find_element("id", "problem").is_displayed(), 20)
    assert (
        text(page, "#problem")
        == "notes.txt: the content is not an image (JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF)"
    )
    assert not page.find_elements("css selector", "article")
    drop(page, tmp_path / "fine.jpg", tmp_path / "fine.jpg")
    wait_until(lambda: len(page.find_elements("css selector", "article")) == 2, 20)
    assert not page.find_element("id", "problem").is_displayed()


def test_a_broken_picture_among_others_is_named_and_the_others_have_their_answers(page, tmp_path, jpeg):
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "fine.jpg").write_bytes(jpeg)
    drop(page, tmp_path / "fine.jpg", tmp_path / "notes.txt", tmp_path / "fine.jpg")
    wait_until(lambda: len(page.find_elements("css selector", "article")) == 2, 20)
    assert text(page, "#problem").startswith("notes.txt: ")


def test_it_loads_nothing_from_elsewhere_and_complains_of_nothing(page, url):
    asked = [
        entry["name"] for entry in page.execute_script("return performance.getEntriesByType('resource')")
    ]
    assert {name.removeprefix(f"{url}/") for name in asked} == {"page.css", "page.js", "model"}
    severe = [line for line in page.get_log("browser") if line["level"] == "SEVERE"]
    assert [line for line in severe if "422" not in line["message"]] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_both_colour_schemes_and_on_a_phone(page, scheme):
    set_scheme(page, scheme)
    ground, ink = (
        page.execute_script(f"return getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    assert contrast(ground, ink) > 7
    assert (brightness(ground) < 0.5) == (scheme == "dark")
    with phone(page):
        assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
