"""`heal view` in a real browser: the page over the live store, and what other sites and hosts get of it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import REBOUND_HOST
from tests.browser.inspector import Inspector
from tests.browser.watching import WIDTHS, WatchedPage

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("finished_run")]  # all of them need it, some by name alone

ASK = """async (base) => {
    const ask = async (path, options) => {
        try { const reply = await fetch(base + path, options); return `${reply.type} ${reply.status}`; }
        catch { return 'refused'; }
    };
    const load = (name, attributes) => new Promise((done) => {
        const element = Object.assign(document.createElement(name), attributes);
        element.onload = () => done('loaded');
        element.onerror = () => done('refused');
        document.body.append(element);
    });
    return {
        fetch: await ask('api/values', {credentials: 'include'}),
        post: await ask('api/sql?query=SELECT+1', {method: 'POST', credentials: 'include'}),
        script: await load('script', {src: base + 'api/values'}),
        image: await load('img', {src: base + 'api/values'}),
    };
}"""
"""What a page of another site can try."""


@contextmanager
def viewed(finished_run: Any, workspace: Path, log: Path) -> Iterator[str]:
    """Yield the address that `heal view` prints, while it runs."""
    process = finished_run.heal.start(log, "view", "--no-browser", "--port", "0", "--workspace", workspace)
    try:
        while "until Ctrl-C" not in (told := log.read_text()):
            assert process.poll() is None, told
        yield told.split()[0]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def address(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with viewed(finished_run, finished_run.workspace, tmp_path_factory.mktemp("view") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def hostile_address(
    finished_run: Any, hostile_workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with viewed(finished_run, hostile_workspace, tmp_path_factory.mktemp("view") / "log") as address:
        yield address


@pytest.fixture
def open_view(open_page: Callable[..., WatchedPage]) -> Callable[..., Inspector]:
    """Return a function that opens the address of a view and waits until its inspector is there."""

    def open_view(address: str, **look: Any) -> Inspector:
        watched = open_page(address, **look)
        watched.page.wait_for_selector("html[data-ready]")
        return Inspector(watched)

    return open_view


@pytest.fixture
def other_site(tmp_path: Path) -> Iterator[str]:
    """The address of a page of another site, on this machine."""
    (tmp_path / "index.html").write_text("<!doctype html><title>another site</title><body>")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["address", "hostile_address"])
def test_it_shows_the_run_and_asks_nobody_else(
    request: pytest.FixtureRequest, open_view: Callable[..., Inspector], name: str, width: int
) -> None:
    inspector = open_view(request.getfixturevalue(name), width=width)
    inspector.filter(kind="repairs")
    inspector.page.wait_for_function(
        "() => [...document.querySelectorAll('[role=option] b')].every(one => one.textContent === 'repair')"
    )
    inspector.open_first()
    inspector.watched.shoot_part("#inspector", f"view-{'hostile' if 'hostile' in name else 'finished'}")
    assert inspector.watched.overflow() is None
    assert inspector.watched.accessibility_faults() == []
    assert inspector.page.evaluate("window.pwned") is None
    assert "token" not in inspector.page.url


def test_filters_ask_the_store(open_view: Callable[..., Inspector], finished_run: Any, address: str) -> None:
    inspector = open_view(address)
    inspector.filter(kind="repairs", outcome="kept")
    kept = {row["trajectory_id"] for row in finished_run.rows("SELECT trajectory_id FROM run_repairs WHERE kept")}
    inspector.page.wait_for_function("n => document.querySelectorAll('[role=option]').length === n", arg=len(kept))
    assert (set(inspector.listed), inspector.count) == (kept, len(kept))


def test_what_a_query_finds_is_listed(open_view: Callable[..., Inspector], finished_run: Any, address: str) -> None:
    inspector = open_view(address)
    query = "SELECT trajectory_id FROM run_repairs WHERE verified ORDER BY trajectory_id LIMIT 3"
    inspector.page.locator("#sql").fill(query)
    inspector.page.get_by_role("button", name="Run", exact=True).click()
    inspector.page.wait_for_function("() => document.querySelectorAll('[role=option]').length === 3")
    assert sorted(inspector.listed) == [row["trajectory_id"] for row in finished_run.rows(query)]
    inspector.watched.shoot_part("#sql-form", "view-sql")


def test_hostile_texts_that_a_query_finds_are_text(open_view: Callable[..., Inspector], hostile_address: str) -> None:
    inspector = open_view(hostile_address)
    query = "SELECT t.*, p.* FROM trajectories t JOIN problems p USING (problem_id) WHERE kind = 'repair' LIMIT 30"
    inspector.page.locator("#sql").fill(query)
    inspector.page.locator("#sql").press("Control+Enter")
    inspector.page.locator("#sql-note", has_text="30 rows").wait_for()
    assert inspector.page.locator("#sql-rows tbody tr").count() == 30
    assert inspector.page.locator("#sql-rows :is(script, img, a, iframe, svg)").count() == 0
    assert inspector.watched.overflow() is None
    assert inspector.page.evaluate("window.pwned") is None


def test_another_site_gets_nothing_though_the_browser_has_the_cookie(
    browser: Browser, address: str, other_site: str
) -> None:
    context = browser.new_context()
    own = context.new_page()
    own.goto(address)
    base = f"http://{urlsplit(address).netloc}/"
    assert own.evaluate("async () => (await fetch('/api/values')).status") == 200
    other = context.new_page()
    other.goto(other_site)
    statuses: dict[str, int] = {}
    asked: set[str] = set()
    network = context.new_cdp_session(other)  # it tells the answers that the browser keeps from the page, too
    network.on("Network.responseReceivedExtraInfo", lambda r: statuses.update({r["requestId"]: r["statusCode"]}))
    network.on(
        "Network.requestWillBeSent", lambda r: asked.add(r["requestId"] if r["request"]["url"].startswith(base) else "")
    )
    network.send("Network.enable")
    assert set(other.evaluate(ASK, base).values()) == {"refused"}
    answered = [status for request_id, status in statuses.items() if request_id in asked]
    assert len(answered) >= 4
    assert set(answered) == {403}
    with other.expect_navigation():
        other.evaluate("base => { location = base }", base)
    assert "Another site leads here" in other.inner_text("body")
    context.close()


def test_another_name_of_this_machine_gets_nothing(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    for rebound in (address, address.split("?")[0]):
        reply = page.goto(rebound.replace("127.0.0.1", REBOUND_HOST))
        assert reply is not None
        assert reply.status == 403
        assert "answers to http://127.0.0.1" in page.inner_text("body")
    context.close()


def test_without_the_token_there_is_nothing(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    for path in ("", "api/values", "api/sql?query=SELECT+1", "?token=guessed"):
        reply = page.goto(f"http://{urlsplit(address).netloc}/{path}")
        assert reply is not None
        assert reply.status == 403
    context.close()
