"""The browser of these tests: a Chromium of the system, or playwright's own. `make test` gets one with this file:

    python -m tests.browser.chromium

It tries playwright's download, then, as root, Debian's package; where none is to be had, the tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

NO_BROWSER = "no Chromium to be had: its tests are skipped (remedy: playwright install --with-deps chromium)"
REBOUND_HOST = "rebound.example"
"""A name that leads to this machine, as the name of a site does after DNS rebinding."""
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    f"--host-resolver-rules=MAP {REBOUND_HOST} 127.0.0.1",
)  # fmt: skip
_DOWNLOAD_SECONDS, _PACKAGE_SECONDS = 120, 600
_APT = "apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core"


def launch(playwright: Playwright) -> Browser | None:
    """Return a headless Chromium; None where there is none.

    Raises:
        Error: If there is one and it does not start.
    """
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None and not Path(playwright.chromium.executable_path).exists():
        return None
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    return playwright.chromium.launch(executable_path=found, args=[*_ARGUMENTS, *sandbox])


def get() -> bool:
    """Return whether a Chromium starts here, after getting one where none does."""
    if _starts():
        return True
    _try_command([sys.executable, "-m", "playwright", "install", "chromium"], _DOWNLOAD_SECONDS)
    if _starts():
        return True
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _try_command(["sh", "-c", _APT], _PACKAGE_SECONDS)
    return _starts()


def _starts() -> bool:
    with sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except Error:  # libraries of the system that it needs are missing
            return False
        if browser is not None:
            browser.close()
        return browser is not None


def _try_command(command: list[str], seconds: int) -> None:
    """Run a command that may fail, or find nobody who answers."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(command, timeout=seconds, capture_output=True, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return


if __name__ == "__main__":
    sys.exit(0 if get() else NO_BROWSER)
