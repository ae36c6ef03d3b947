"""A real browser on a live system: the script works, in both themes and on a phone, without a console error."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Page, sync_playwright

from pgflow.web import ALL, dashboard
from tests.web.shop import Order, OrderFlow
from tests.web.site import Site
from tests.worker.waiting import until

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's Chromium: apt install chromium"),
]


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    """The address of the dashboard, served on a thread."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = dashboard(site.app, authorize=lambda request: ALL.named("ada"), title="Test", tone="stage")
    config = uvicorn.Config(served, host="127.0.0.1", port=port, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, "the server's start")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def faults() -> list[str]:
    """What any page has written to the console."""
    return []


@pytest.fixture(scope="module")
def page(address: str, faults: list[str]) -> Iterator[Page]:
    """A page of a browser; the tests of this module share it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        context = browser.new_context(base_url=address, viewport={"width": 1440, "height": 900})
        opened = context.new_page()
        opened.set_default_timeout(30_000)
        opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: faults.append(str(error)))
        yield opened
        browser.close()


@contextmanager
def no_faults(faults: list[str]) -> Iterator[None]:
    """Check that the block adds nothing to the console's errors."""
    before = len(faults)
    yield
    assert faults[before:] == []


def test_a_signal_is_sent_from_its_dialog_and_the_page_follows(site: Site, page: Page, faults: list[str]) -> None:
    run = site.start_order("browser-signal")
    with no_faults(faults):
        page.goto(f"/instances/{run}")
        page.get_by_role("button", name="Send signal").first.click()
        dialog = page.get_by_role("dialog")
        for signal in ("lost", "arrived"):  # the fields of another signal are fetched
            with page.expect_response(f"**/signal?event={signal}*"):
                dialog.get_by_label("Signal").select_option(signal)
        dialog.locator('select[name="event"] option[value="arrived"][selected]').wait_for(state="attached")
        dialog.get_by_label("courier").fill("DHL")
        dialog.get_by_label("parcels").fill("2")
        dialog.get_by_role("button", name="Send signal").click()
        page.locator(".toast", has_text="The signal arrived was delivered.").wait_for()
        dialog.wait_for(state="hidden")
        site.drain()
        page.locator(".node.s-completed", has_text="await_courier").wait_for()  # live, without a reload


def test_an_error_of_a_form_is_at_its_field(site: Site, page: Page) -> None:
    page.goto(f"/instances/{site.order}/signal?event=arrived")  # the same form as a page
    page.get_by_label("courier").fill("D")
    page.get_by_label("parcels").fill("3")
    page.get_by_role("button", name="Send signal").click()
    assert "at least 2 characters" in page.locator(".field .error").inner_text()


def test_selected_rows_are_cancelled_in_bulk(site: Site, page: Page, faults: list[str]) -> None:
    for number in range(3):
        site.app.start(OrderFlow, f"browser-bulk-{number}", Order(item_count=1), tags=["browser-bulk"])
    with no_faults(faults):
        page.goto("/instances?q=tag:browser-bulk")
        boxes = page.locator("tbody .tick-cell input")
        boxes.nth(0).check()
        boxes.nth(1).check()
        assert page.locator(".live").get_attribute("aria-label") == "Refresh: Paused"
        assert "2 selected" in page.locator("[data-bulk]").inner_text()
        page.locator("[data-bulk]").get_by_role("button", name="Cancel instances").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel 2 instances").click()
        page.locator(".toast", has_text="2 instances were cancelled.").wait_for()
        page.locator("tbody .badge.s-cancelled").nth(1).wait_for()
    assert site.audit()[-1] == (site.audit()[-1][0], "bulk cancel")


def test_theme_zone_and_shortcuts_are_kept(page: Page, faults: list[str]) -> None:
    with no_faults(faults):
        page.goto("/instances")
        page.keyboard.press("t")
        page.keyboard.press("t")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.keyboard.press("g")
        page.keyboard.press("o")
        page.wait_for_url("**/")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("z")
        assert page.locator("[data-zone]").inner_text() == "Local"
        page.evaluate("localStorage.clear()")


@pytest.mark.parametrize("width", [390, 1000, 1440])
def test_no_page_scrolls_sideways(site: Site, page: Page, faults: list[str], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    with no_faults(faults):
        for path in (
            "/",
            "/instances",
            f"/instances/{site.order}?step=inform_partner",
            f"/instances/{site.order}/data",
        ):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0, (
                path
            )
    page.set_viewport_size({"width": 1440, "height": 900})
