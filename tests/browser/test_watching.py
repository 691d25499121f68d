"""What the other browser tests rest on: a page that misbehaves is seen to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.watching import WatchedPage

pytestmark = pytest.mark.slow

GOOD = '<!doctype html><html lang="en"><title>A page</title><main><h1>A page</h1><p>Text.</p></main>'
POLICY = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"


def page_of(folder: Path, html: str) -> Path:
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


def test_a_good_page_has_no_fault(open_page: Callable[..., WatchedPage], tmp_path: Path) -> None:
    watched = open_page(page_of(tmp_path, GOOD))
    assert (watched.overflow(), watched.accessibility_faults()) == (None, [])


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ("<script>console.error('said')</script>", "console error: said"),
        ("<script>throw new Error('thrown')</script>", "page error: thrown"),
        ("<script>alert('asked')</script>", "dialog: asked"),
        ("<img src='https://evil.example/a.png'>", "request: https://evil.example/a.png"),
        ("<img src='other.png'>", "request: file://"),
        ("<script>fetch('https://evil.example/').catch(() => 0)</script>", "request: https://evil.example/"),
        ("<iframe srcdoc='framed'></iframe>", "went to: about:srcdoc"),
        ("<script>window.open('about:blank')</script>", "window: about:blank"),
        ("<meta http-equiv=refresh content='0;url=https://evil.example/'>", "request: https://evil.example/"),
        ("<head>" + POLICY + "<p onclick=x()>", "console error: Executing inline event handler violates"),
    ],
)
def test_what_a_page_must_not_do_is_noted(
    loose_page: Callable[..., WatchedPage], tmp_path: Path, html: str, fault: str
) -> None:
    watched = loose_page(page_of(tmp_path, html + GOOD))
    watched.page.wait_for_timeout(300)
    assert any(noted.startswith(fault) for noted in watched.faults), watched.faults


def test_a_page_wider_than_its_window_is_noticed(open_page: Callable[..., WatchedPage], tmp_path: Path) -> None:
    page = page_of(tmp_path, GOOD + "<p id=wide>" + "W" * 60)
    assert open_page(page).overflow() is None
    assert "p#wide" in (open_page(page, width=400).overflow() or "")


def test_axe_sees_a_field_without_a_name_and_a_faint_text(
    open_page: Callable[..., WatchedPage], tmp_path: Path
) -> None:
    style = "<style>@media (prefers-color-scheme: dark) { body { background: #000; color: #222 } }</style>"
    page = page_of(tmp_path, GOOD + style)
    assert open_page(page).accessibility_faults() == []
    (faint,) = open_page(page, dark=True).accessibility_faults()
    assert faint.startswith("serious color-contrast")
    (nameless,) = open_page(page_of(tmp_path, GOOD + "<input>")).accessibility_faults()
    assert nameless.startswith("critical label")
