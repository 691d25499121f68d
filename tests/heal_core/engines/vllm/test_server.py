"""A server's life, with a small program in vLLM's place that answers /health on a unix domain socket."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heal_core.engines.vllm.server import VllmServer
from heal_core.errors import EngineStalledError, ModelError

pytestmark = pytest.mark.slow

SERVING = """
import os, sys, time
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def address_string(self):
        return "client"

print("loading weights", os.getpid(), flush=True)
UnixStreamServer(sys.argv[1], Handler).serve_forever()
"""
FAILING = "import sys; print('ValueError: unknown model type', flush=True); sys.exit(9)"
SILENT = "import time; print('still loading', flush=True); time.sleep(60)"


@pytest.fixture
def servers() -> Iterator[list[VllmServer]]:
    started: list[VllmServer] = []
    yield started
    for server in started:
        server.close()


def start(servers: list[VllmServer], code: str, log_path: Path) -> VllmServer:
    server = VllmServer(lambda socket: [sys.executable, "-c", code, str(socket)], os.environ, "lab", log_path)
    servers.append(server)
    return server


def test_it_is_ready_once_it_answers_and_leaves_nothing(servers: list[VllmServer], tmp_path: Path) -> None:
    server = start(servers, SERVING, tmp_path / "log")
    server.await_ready(time.monotonic() + 30)
    server.check()
    assert server.is_running
    assert server.socket.parent.stat().st_mode & 0o077 == 0  # no other user may ask it
    process_id = int((tmp_path / "log").read_text().split()[2])
    server.close()
    server.close()
    assert not server.is_running
    assert not server.socket.parent.exists()
    assert not Path(f"/proc/{process_id}").exists()


def test_one_that_cannot_serve_says_why(servers: list[VllmServer], tmp_path: Path) -> None:
    (tmp_path / "log").write_text("an earlier start\n")
    with pytest.raises(ModelError, match=r"(?s)lab: .*Exit code 9.*ValueError: unknown model type") as caught:
        start(servers, FAILING, tmp_path / "log").await_ready(time.monotonic() + 30)
    assert "an earlier start" not in str(caught.value)


def test_one_that_takes_too_long_is_given_up(servers: list[VllmServer], tmp_path: Path) -> None:
    server = start(servers, SILENT, tmp_path / "log")
    with pytest.raises(EngineStalledError, match=r"(?s)launch\.start_seconds.*still loading"):
        server.await_ready(time.monotonic() + 1.5)


def test_one_that_dies_later_is_told_with_the_end_of_its_log(servers: list[VllmServer], tmp_path: Path) -> None:
    server = start(servers, SERVING, tmp_path / "log")
    server.await_ready(time.monotonic() + 30)
    os.kill(int((tmp_path / "log").read_text().split()[2]), 9)
    deadline = time.monotonic() + 10
    while server.is_running and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(EngineStalledError, match=r"(?s)Exit code 137.*loading weights"):
        server.check()
