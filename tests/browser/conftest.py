"""A browser, pages that are watched, and a store of hostile texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, sync_playwright

from tests.browser.chromium import NO_BROWSER, launch
from tests.browser.hostile import make_hostile
from tests.browser.watching import WatchedPage, open_watched


@pytest.fixture(scope="module")  # playwright's loop runs as long as it lives: other tests' asyncio.run would refuse
def browser() -> Iterator[Browser]:
    """A headless Chromium; tests are skipped where there is none."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            pytest.skip(NO_BROWSER)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., WatchedPage]]:
    """Return a function that opens a file or a URL; at the end no page may have done what none must."""
    opened: list[WatchedPage] = []

    def open_page(target: Path | str, **look: Any) -> WatchedPage:
        url = target.as_uri() if isinstance(target, Path) else target
        opened.append(open_watched(browser, url, **look))
        return opened[-1]

    yield open_page
    faults = [f"{watched.look}: {fault}" for watched in opened for fault in watched.faults]
    for watched in opened:
        _close(watched.page.context)
    assert faults == []


@pytest.fixture
def loose_page(browser: Browser) -> Iterator[Callable[..., WatchedPage]]:
    """The same for pages that are made to misbehave."""
    opened: list[WatchedPage] = []

    def open_page(target: Path, **look: Any) -> WatchedPage:
        opened.append(open_watched(browser, target.as_uri(), **look))
        return opened[-1]

    yield open_page
    for watched in opened:
        _close(watched.page.context)


def _close(context: BrowserContext) -> None:
    try:
        context.close()
    except Error as error:  # a page that went away by itself
        assert "closed" in str(error)


@pytest.fixture(scope="session")
def hostile_workspace(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in which every text is hostile."""
    return make_hostile(finished_run.workspace, tmp_path_factory.mktemp("hostile") / "workspace")


@pytest.fixture(scope="session")
def finished_report(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_report(finished_run, finished_run.workspace, tmp_path_factory.mktemp("reports") / "finished.html")


@pytest.fixture(scope="session")
def hostile_report(finished_run: Any, hostile_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_report(finished_run, hostile_workspace, tmp_path_factory.mktemp("reports") / "hostile.html")


def _write_report(finished_run: Any, workspace: Path, path: Path) -> Path:
    done = finished_run.heal("report", "last", "-w", workspace, "--out", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return path
