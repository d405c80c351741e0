"""The page in a real browser: a picture goes in, an answer comes out; what is no picture is told so."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from imagenette.serving.app import create_app
from imagenette.serving.limits import Limits
from imagenette.serving.served import Served
from tests.waiting import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver")


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
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={profile}", "--window-size=900,1000"),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


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
    assert text(page, "#problem") == "notes.txt: the content is not an image (JPEG, PNG, BMP, WebP or TIFF)"
    assert not page.find_elements("css selector", "article")
    drop(page, tmp_path / "fine.jpg", tmp_path / "fine.jpg")
    wait_until(lambda: len(page.find_elements("css selector", "article")) == 2, 20)
    assert not page.find_element("id", "problem").is_displayed()


def test_it_loads_nothing_from_elsewhere_and_complains_of_nothing(page, url):
    asked = [
        entry["name"] for entry in page.execute_script("return performance.getEntriesByType('resource')")
    ]
    assert {name.removeprefix(f"{url}/") for name in asked} == {"page.css", "page.js", "model"}
    severe = [line for line in page.get_log("browser") if line["level"] == "SEVERE"]
    assert [line for line in severe if "422" not in line["message"]] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_both_colour_schemes_and_on_a_phone(page, scheme):
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    ground, ink = (
        page.execute_script(f"return getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    assert contrast(ground, ink) > 7
    assert (brightness(ground) < 0.5) == (scheme == "dark")
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def brightness(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 has it."""
    parts = [float(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((brightness(one), brightness(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
