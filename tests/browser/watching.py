"""A page in a real browser, with everything noted that a page of HEAL's must not do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
HEIGHT = 900
WIDTHS = (1280, 400)


@dataclass
class WatchedPage:
    """An open page; `faults` says what it did that it must not, in the order in which it did it."""

    page: Page
    url: str
    width: int
    dark: bool
    faults: list[str] = field(default_factory=list)

    @property
    def look(self) -> str:
        """Return what of a screenshot's name says how the page was looked at."""
        return f"{self.width}{'-dark' if self.dark else ''}"

    def shoot(self, name: str, full_page: bool = True) -> Path:
        """Keep a picture of the page as it is now."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}-{self.look}.png"
        self.page.screenshot(path=path, full_page=full_page)
        return path

    def shoot_part(self, selector: str, name: str) -> Path:
        """Keep a picture of one element."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}-{self.look}.png"
        self.page.locator(selector).screenshot(path=path)
        return path

    def overflow(self) -> str | None:
        """Return what makes the page wider than its window, None when nothing does."""
        wide: str | None = self.page.evaluate(
            """() => {
                const root = document.scrollingElement;
                if (root.scrollWidth <= window.innerWidth) return null;
                const clips = e => e && e !== root && e !== document.body
                    && (getComputedStyle(e).overflowX !== 'visible' || clips(e.parentElement));
                const wide = [...document.body.querySelectorAll('*')].filter(e =>
                        e.getBoundingClientRect().left + e.scrollWidth > window.innerWidth + 1 && !clips(e))
                    .map(e => `${e.tagName.toLowerCase()}#${e.id}.${e.getAttribute('class')}`);
                return `${root.scrollWidth} px in a window of ${window.innerWidth}: ${wide.slice(0, 12).join(', ')}`;
            }"""
        )
        return wide

    def accessibility_faults(self) -> list[str]:
        """Return what axe finds that is serious or critical, with the elements it is about."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{fault['impact']} {fault['id']}: {fault['help']}: {_targets(fault['nodes'])}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]


def _targets(nodes: Sequence[dict]) -> str:  # type: ignore[type-arg]
    return "; ".join(f"{node['target']} {node['html'][:120]}" for node in nodes[:6])


def open_watched(
    browser: Browser, url: str, width: int = 1280, dark: bool = False, scripts: bool = True
) -> WatchedPage:
    """Return a page that is open, in a context of its own; a page from a file has no network at all."""
    context = browser.new_context(
        viewport={"width": width, "height": HEIGHT},
        color_scheme="dark" if dark else "light",
        offline=url.startswith("file:"),
        reduced_motion="reduce",
        java_script_enabled=scripts,
    )
    watched = WatchedPage(context.new_page(), url, width, dark)
    faults, own = watched.faults, _origin(url)

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            faults.append(f"console {message.type}: {message.text}")

    def on_request(request: Request) -> None:
        if not request.url.startswith("data:") and _origin(request.url) != own:
            faults.append(f"request: {request.url[:300]}")

    def on_dialog(dialog: Dialog) -> None:
        faults.append(f"dialog: {dialog.message[:300]}")
        dialog.dismiss()

    context.on("console", on_console)
    context.on("weberror", lambda error: faults.append(f"page error: {error.error}"))
    context.on("request", on_request)
    context.on("dialog", on_dialog)
    context.on("page", lambda opened: faults.append(f"window: {opened.url[:300]}"))
    watched.page.on("download", lambda download: faults.append(f"download: {download.url[:300]}"))
    watched.page.on("framenavigated", lambda frame: _check_frame(faults, frame.url, url))
    watched.page.goto(url)
    return watched


def _check_frame(faults: list[str], url: str, own: str) -> None:
    """Note a frame that the page opened, or that the page itself went elsewhere."""
    if _without_fragment(url) != _without_fragment(own):
        faults.append(f"went to: {url[:300]}")


def _origin(url: str) -> str:
    """Return who a request goes to; every file is an origin of its own, as browsers have it."""
    parts = urlsplit(url)
    return _without_fragment(url) if parts.scheme == "file" else f"{parts.scheme}://{parts.netloc}"


def _without_fragment(url: str) -> str:
    return re.sub(r"[?#].*", "", url, flags=re.DOTALL)
