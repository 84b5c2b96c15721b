"""The console in a real browser: what scripts do, and that pages fit a screen and a phone, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import ADMIN, PASSWORD, Daphne, Servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENS = {"screen": (1366, 900), "phone": (390, 844)}
RECORD = """
from tests.cast import *
agent = Agent.objects.get()
Agent.objects.filter(pk=agent.pk).update(is_default=True, auto_reconnect=False)
call = make_call(pk=1, agent=agent, from_number="+14155550123", sockets=2, fallback_count=1, odd_frames=1)
for number in range(1, 41):
    say(call, number, "Words " * 30 + "W" * 90, number)
    make_turn(call, number, number, text="Answer " * 40, heard="Answer", outcome="failed", error="E" * 200)
for number in range(450):
    make_event(call, f"kind{number}", '{"body": "' + "b" * 300 + '"}', direction="in")
"""
PAGES = {
    "calls": "/admin/calls/call/",
    "call": "/admin/calls/call/1/",
    "events": "/admin/calls/call/1/events/",
    "prune": "/admin/calls/call/prune/?days=1",
    "agents": "/admin/agents/agent/",
    "agent": "/admin/agents/agent/1/change/",
    "key": "/admin/agents/agent/1/keys/new/",
    "user": "/admin/auth/user/1/change/",
    "group": "/admin/auth/group/add/",
}

Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def server(module_daphne: Servers) -> Daphne:
    """A server with one long call on record."""
    daphne = module_daphne()
    daphne.shell(RECORD)
    return daphne


@pytest.fixture(scope="module")
def visit(server: Daphne, chromium: str) -> Iterator[Visit]:
    """Runs a function with a signed-in page. The browser has a thread of its own, because its event loop
    would be in the way of every other test's."""
    playwright = pytest.importorskip("playwright.sync_api", reason="install it: pip install -r requirements-dev.txt")
    thread = ThreadPoolExecutor(1)
    driver = thread.submit(playwright.sync_playwright().start).result()
    browser = thread.submit(driver.chromium.launch, executable_path=chromium, args=FLAGS).result()

    def run(what: Callable[[Page], Any], **options: Any) -> Any:
        return thread.submit(_with_page, browser, server.http_url, what, options).result()

    yield run
    thread.submit(browser.close).result()
    thread.submit(driver.stop).result()
    thread.shutdown()


def _with_page(browser: Browser, url: str, what: Callable[[Page], Any], options: dict[str, Any]) -> Any:
    """Signs in, lets `what` look around, and fails on anything the browser complained about."""
    context = browser.new_context(base_url=url, **options)
    context.set_default_timeout(15_000)
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda line: troubles.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith((url, "data:")) else troubles.append(request.url))
    page.goto("/admin/login/?next=/admin/calls/call/")
    page.fill("[name=username]", ADMIN)
    page.fill("[name=password]", PASSWORD)
    page.click("[type=submit]")
    page.wait_for_url(f"{url}/admin/calls/call/")
    troubles.clear()  # the sign-in page is not ours, and a browser asks for an icon there
    try:
        return what(page)
    finally:
        context.close()
        assert troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_no_page_is_wider_than_the_screen(visit: Visit, screen: str, scheme: str) -> None:
    width, height = SCREENS[screen]

    def look(page: Page) -> dict[str, int]:
        widths = {}
        for name, path in PAGES.items():
            page.goto(path)
            widths[name] = page.evaluate("document.documentElement.scrollWidth")
        return widths

    viewport = {"width": width, "height": height}
    assert visit(look, viewport=viewport, color_scheme=scheme) == dict.fromkeys(PAGES, width)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(visit: Visit, scheme: str) -> None:
    """The contrast of what was heard, of what was not, and of a badge is what WCAG asks of small text."""

    def look(page: Page) -> dict[str, bool]:
        page.goto("/admin/calls/call/1/")
        return {
            part: page.evaluate(CONTRAST, part) >= 4.5
            for part in (".sb-words", ".sb-dropped", ".sb-caller p", ".sb-badge.sb-bad")
        }

    assert visit(look, color_scheme=scheme) == dict.fromkeys(
        (".sb-words", ".sb-dropped", ".sb-caller p", ".sb-badge.sb-bad"), True
    )


# paints the colour of the words and every ground under them, one over the other, and compares their luminance
CONTRAST = """part => {
  const element = document.querySelector(part);
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const put = colour => { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); };
  const luminance = () => {
    const linear = v => v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const grounds = [];
  for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
  put("white");
  grounds.forEach(put);
  const ground = luminance();
  put(getComputedStyle(element).color);
  const [high, low] = [ground, luminance()].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}"""


def test_the_address_is_copied_by_keyboard(visit: Visit, server: Daphne) -> None:
    def look(page: Page) -> tuple[str, str]:
        page.goto("/admin/agents/agent/1/change/")
        page.get_by_role("button", name="Copy the URL").focus()
        page.keyboard.press("Enter")
        page.get_by_text("Copied", exact=True).wait_for()
        return page.evaluate("navigator.clipboard.readText()"), page.evaluate("document.activeElement.textContent")

    copied, focused = visit(look, permissions=["clipboard-read", "clipboard-write"])
    assert (copied, focused) == (f"ws://127.0.0.1:{server.port}/llm-websocket/", "Copy")


def test_the_address_is_copied_where_the_browser_keeps_its_clipboard(visit: Visit) -> None:
    """On plain http there is no clipboard for scripts; the old way does, and says so."""

    def look(page: Page) -> str:
        page.add_init_script("Object.defineProperty(window, 'isSecureContext', { value: false })")
        page.goto("/admin/agents/agent/1/change/")
        page.get_by_role("button", name="Copy the URL").click()
        page.get_by_text("Copied", exact=True).wait_for()
        return str(page.evaluate("navigator.clipboard.readText()"))

    assert visit(look, permissions=["clipboard-read", "clipboard-write"]).endswith("/llm-websocket/")


def test_raw_events_unfold_where_they_are(visit: Visit) -> None:
    def look(page: Page) -> tuple[int, int, int]:
        page.goto("/admin/calls/call/1/")
        rows = page.locator(".sb-events tbody tr")
        before = rows.count()
        page.get_by_text("Raw events", exact=True).click()
        page.get_by_text("kind199").wait_for()
        first = rows.count()
        page.get_by_role("link", name="Later events").click()
        page.get_by_text("kind399").wait_for()
        return before, first, rows.count()

    assert visit(look) == (0, 200, 400)


def test_raw_events_need_no_script(visit: Visit) -> None:
    def look(page: Page) -> int:
        quiet = page.context.browser.new_context(
            base_url=page.url.partition("/admin")[0],
            java_script_enabled=False,
            storage_state=page.context.storage_state(),
        )
        silent = quiet.new_page()
        silent.goto("/admin/calls/call/1/")
        path = silent.locator("details[data-rows] a").get_attribute("href")
        silent.goto(path or "")
        rows = silent.locator(".sb-events tbody tr").count()
        quiet.close()
        return rows

    assert visit(look) == 200


def test_a_link_to_a_turn_leads_there(visit: Visit) -> None:
    def look(page: Page) -> bool:
        page.goto("/admin/calls/call/1/#turn-30")
        turn = page.locator("#turn-30")
        turn.locator("article").wait_for()
        box = turn.bounding_box()
        return box is not None and 0 <= box["y"] < 900

    assert visit(look, viewport={"width": 1366, "height": 900})
