"""`heal view` as a person starts it: the address, what answers there, how it ends, and what it does not load."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import ENVIRONMENT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ADDRESS = re.compile(r"^(http://127\.0\.0\.1:(\d+))/\?token=([\w-]{40,})$", re.M)
ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b"


@dataclass
class Viewed:
    """A running `heal view`: its process, what it printed, and its addresses without and with the token."""

    process: subprocess.Popen[bytes]
    log: Path
    origin: str
    address: str

    @contextmanager
    def browser(self) -> Iterator[httpx.Client]:
        """Give a browser that has opened the address."""
        with httpx.Client(base_url=self.origin, follow_redirects=True, timeout=60) as browser:
            assert browser.get(self.address).status_code == 200
            yield browser

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, float]:
        """Return the exit code and how many seconds the end took."""
        started = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(30), time.monotonic() - started


@pytest.fixture
def start_view(heal: Any, wait_for: Any, tmp_path: Path) -> Iterator[Callable[..., Viewed]]:
    """Return a function that starts `heal view` on a free port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(workspace: Path, *arguments: str) -> Viewed:
        log = tmp_path / f"log{len(started)}"
        process = heal.start(log, "view", *arguments, "-w", workspace, "--port", "0", "--no-browser")
        started.append(process)
        wait_for(process, log, lambda text: "until Ctrl-C" in text, 60)
        found = ADDRESS.search(log.read_text())
        assert found is not None, log.read_text()
        return Viewed(process, log, found[1], found[0])

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_run_is_shown_to_who_has_the_address_and_ctrl_c_ends_it(
    finished_run: Any, start_view: Callable[..., Viewed]
) -> None:
    viewed = start_view(finished_run.workspace)
    assert httpx.get(viewed.origin).status_code == 403
    assert httpx.get(viewed.address, headers={"Host": "evil.example"}).status_code == 403
    with viewed.browser() as browser:
        run_id = finished_run.one("SELECT run_id FROM runs")
        page = browser.get("/")
        assert (str(page.url), page.status_code) == (f"{viewed.origin}/", 200)
        assert f"<title>HEAL run {run_id}</title>" in page.text
        assert "What does a repair look like?" in page.text
        kept = browser.get("/api/trajectories", params={"run": run_id, "kind": "repairs", "outcome": "kept"}).json()
        assert kept["num_all"] == finished_run.one("SELECT count(*) FROM run_repairs WHERE kept") > 0
        everything = browser.get("/api/trajectories", params={"run": run_id}).json()
        assert len(everything["rows"]) == min(300, everything["num_all"])
        row = kept["rows"][0]
        view = browser.get("/api/trajectory", params={"run": run_id, "id": row["trajectory_id"]}).json()
        assert view["parent"] == row["parent_id"] and view["hint"]
        query = "SELECT trajectory_id FROM run_repairs WHERE run_id = $run AND kept"
        found = browser.get("/api/sql", params={"run": run_id, "query": query}).json()
        assert {one["trajectory_id"] for one in found["listed"]} == {one["trajectory_id"] for one in kept["rows"]}
        assert "Server" not in page.headers
    assert viewed.end()[0] == 0
    told = viewed.log.read_text()
    assert len(told.splitlines()) == 2, told


def test_only_this_machine_can_reach_it(finished_run: Any, start_view: Callable[..., Viewed]) -> None:
    viewed = start_view(finished_run.workspace)
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(viewed.process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_the_end_does_not_wait_for_a_query(finished_run: Any, start_view: Callable[..., Viewed]) -> None:
    viewed = start_view(finished_run.workspace)
    with viewed.browser() as browser:
        said: list[int] = []

        def ask() -> None:
            try:
                said.append(browser.get("/api/sql", params={"run": "x", "query": ENDLESS}).status_code)
            except httpx.HTTPError:
                said.append(0)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(1)
        assert asking.is_alive()
        exit_code, seconds = viewed.end(signal.SIGTERM)
        asking.join(10)
    assert exit_code == 0 and seconds < 10
    assert said in ([400], [0])
    assert "Traceback" not in viewed.log.read_text()


def test_a_folder_without_a_store_is_served_until_there_is_one(
    finished_run: Any, start_view: Callable[..., Viewed], tmp_path: Path
) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    viewed = start_view(folder)
    with httpx.Client(base_url=viewed.origin, follow_redirects=True, timeout=60) as browser:
        assert browser.get(viewed.address).status_code == 503
        (folder / "new").write_bytes((finished_run.workspace / "heal.duckdb").read_bytes())
        (folder / "new").rename(folder / "heal.duckdb")
        assert "<title>HEAL run" in browser.get("/").text


def test_mistakes_are_one_message(heal: Any, finished_run: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, words in (
            (("-w", finished_run.workspace, "--port", port), f"port {port} cannot be had"),
            (("-w", tmp_path / "none"), "there is no workspace"),
            (("zzz", "-w", finished_run.workspace), "no run has an id that begins with 'zzz'"),
            (("-w", finished_run.workspace, "--port", "70000"), "Invalid value for '--port'"),
        ):
            done = heal("view", "--no-browser", *arguments, timeout=60)
            assert done.returncode == 2 and words in done.stderr, done.stderr
            assert "Traceback" not in done.stderr


def test_it_loads_neither_torch_nor_prefect(finished_run: Any) -> None:
    script = (
        "import sys, threading, time, signal, os, httpx, io\n"
        "from heal_core.store.workspace import Workspace\n"
        "from flows.cli import view\n"
        "from heal_core.view.server import ViewServer\n"
        "server = ViewServer(Workspace(sys.argv[1]), 'last', 0)\n"
        "def ask():\n"
        "    client = httpx.Client(follow_redirects=True, timeout=60)\n"
        "    assert client.get(server.issue_address()).status_code == 200\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=ask).start()\n"
        "server.run()\n"
        "print(sorted({'torch', 'prefect', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(finished_run.workspace)],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "[]\n", done.stdout + done.stderr
