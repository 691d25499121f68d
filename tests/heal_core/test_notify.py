import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from heal_core import notify
from heal_core.config import parse_config
from heal_core.errors import ConfigError
from heal_core.notify import Notification, NotifyConfig, send

SECRET = "T0KEN-nobody-may-see"
FAILED = Notification("failed", "ab12cd", "/data/night", "HEAL: run ab12cd failed in repairs", {"phase": "repairs"})


class Receiver:
    """An HTTP server that answers with the scripted statuses, then with 200, and keeps what it got."""

    def __init__(self) -> None:
        self.statuses: list[int | None] = []  # None: no answer
        self.headers: dict[str, str] = {}
        self.bodies: list[Any] = []
        self.content_types: list[str | None] = []
        self.done = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                receiver.content_types.append(self.headers["Content-Type"])
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                if status is None:
                    receiver.done.wait(30)
                    return
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self) -> None:
                receiver.bodies.append("GET")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("HEAL_TEST_WEBHOOK", receiver.url)
    monkeypatch.setattr(notify, "BACKOFF_SECONDS", (0.01, 0.02))
    yield receiver
    receiver.done.set()
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture
def config() -> NotifyConfig:
    return NotifyConfig(webhook_env="HEAL_TEST_WEBHOOK", timeout_seconds=5)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """Return a function that returns the warnings so far; none of them may hold the secret, nor a traceback."""
    caplog.set_level(logging.DEBUG)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not any(SECRET in record.getMessage() or record.exc_info for record in caplog.records)


# ---- webhook


def test_the_body_holds_all_and_a_text_for_chats(receiver: Receiver, config: NotifyConfig) -> None:
    send(config, FAILED)
    assert receiver.bodies == [
        {
            "text": "HEAL: run ab12cd failed in repairs",
            "event": "failed",
            "run_id": "ab12cd",
            "workspace": "/data/night",
            "title": "HEAL: run ab12cd failed in repairs",
            "detail": {"phase": "repairs"},
        }
    ]
    assert receiver.content_types == ["application/json"]


def test_only_events_that_were_asked_for_are_told(receiver: Receiver, config: NotifyConfig) -> None:
    send(config, replace(FAILED, event="nothing_new"))
    assert receiver.bodies == []
    send(config.model_copy(update={"events": ["nothing_new"]}), replace(FAILED, event="nothing_new", run_id=None))
    assert [body["run_id"] for body in receiver.bodies] == [None]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_answer_that_may_pass_is_tried_again(
    receiver: Receiver, config: NotifyConfig, warnings: Callable[[], list[str]], status: int
) -> None:
    receiver.statuses = [status]
    send(config, FAILED)
    assert len(receiver.bodies) == 2
    assert warnings() == []


def test_a_receiver_that_asks_to_wait_is_waited_for(receiver: Receiver, config: NotifyConfig) -> None:
    receiver.statuses, receiver.headers = [429], {"Retry-After": "0.3"}
    started = time.monotonic()
    send(config, FAILED)
    assert time.monotonic() - started >= 0.3
    assert len(receiver.bodies) == 2


@pytest.mark.parametrize(
    ("statuses", "num_tries", "words"),
    [
        ([500, 500, 502], 3, "the webhook of HEAL_TEST_WEBHOOK was not told: it answered with status 502"),
        ([404], 1, "the webhook of HEAL_TEST_WEBHOOK was not told: it answered with status 404"),
    ],
)
def test_a_receiver_that_refuses_is_a_warning(
    receiver: Receiver,
    config: NotifyConfig,
    warnings: Callable[[], list[str]],
    statuses: list[int | None],
    num_tries: int,
    words: str,
) -> None:
    receiver.statuses = statuses
    send(config, FAILED)
    assert len(receiver.bodies) == num_tries
    assert warnings() == [words]


def test_a_redirect_is_not_taken_for_delivered(
    receiver: Receiver, config: NotifyConfig, warnings: Callable[[], list[str]]
) -> None:
    receiver.statuses, receiver.headers = [302], {"Location": f"/{SECRET}"}
    send(config, FAILED)
    assert "GET" not in receiver.bodies
    assert warnings() == ["the webhook of HEAL_TEST_WEBHOOK was not told: it answered with status 302"]


def test_a_receiver_that_hangs_is_given_up(
    receiver: Receiver, config: NotifyConfig, warnings: Callable[[], list[str]]
) -> None:
    receiver.statuses = [None, None, None]
    started = time.monotonic()
    send(config.model_copy(update={"timeout_seconds": 0.3}), FAILED)
    assert time.monotonic() - started < 3
    assert warnings() == ["the webhook of HEAL_TEST_WEBHOOK was not told: no answer within 0.3 s"]


def test_a_receiver_that_answers_a_byte_at_a_time_is_given_up(
    config: NotifyConfig, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the limit of a socket starts again with each byte
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            while not stop.wait(0.05):
                connection.sendall(b"H")

    thread = threading.Thread(target=drip)
    thread.start()
    monkeypatch.setenv("HEAL_TEST_WEBHOOK", f"http://127.0.0.1:{listener.getsockname()[1]}/{SECRET}")
    monkeypatch.setattr(notify, "BACKOFF_SECONDS", ())
    started = time.monotonic()
    send(config.model_copy(update={"timeout_seconds": 0.4}), FAILED)
    assert time.monotonic() - started < 2
    stop.set()
    thread.join()
    listener.close()
    assert warnings() == ["the webhook of HEAL_TEST_WEBHOOK was not told: no answer within 0.4 s"]


def test_a_refused_connection_is_tried_again_and_then_a_warning(
    config: NotifyConfig, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("HEAL_TEST_WEBHOOK", f"http://127.0.0.1:{port}/{SECRET}")
    monkeypatch.setattr(notify, "BACKOFF_SECONDS", (0.1, 0.1))
    started = time.monotonic()
    send(config, FAILED)
    assert time.monotonic() - started >= 0.2
    assert warnings() == ["the webhook of HEAL_TEST_WEBHOOK was not told: the connection failed (Connection refused)"]


@pytest.mark.parametrize(
    "url",
    [
        f"file:///{SECRET}",
        f"ftp://host/{SECRET}",
        SECRET,
        f"http:///{SECRET}",
        f"http://[{SECRET}",
        f"http://127.0.0.1:{SECRET}/",
        f"http://127.0.0.1/with space {SECRET}",
        f"http://127.0.0.1/{SECRET}\x01",
        f"http://127.0.0.1:1/{SECRET}/ü",
    ],
)
def test_a_url_that_cannot_be_used_is_not_repeated(
    config: NotifyConfig,
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    url: str,
) -> None:
    monkeypatch.setenv("HEAL_TEST_WEBHOOK", url)
    send(config, FAILED)
    (warning,) = warnings()
    assert warning.startswith("the webhook of HEAL_TEST_WEBHOOK was not told: its URL ")
    assert SECRET not in "".join(capfd.readouterr())


def test_a_variable_that_is_not_set_is_a_warning_with_the_remedy(
    config: NotifyConfig, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEAL_TEST_WEBHOOK", raising=False)
    send(config, FAILED)
    assert warnings() == [
        "notification 'failed' was not sent: notify.webhook_env names the environment variable HEAL_TEST_WEBHOOK, "
        "which is not set. Export it where the run starts (for scheduled runs: in the environment of Prefect's worker)"
    ]


def test_a_url_in_the_place_of_the_name_is_refused_without_repeating_it() -> None:
    url = f"https://hooks.example.com/{SECRET}"
    with pytest.raises(ValidationError, match="must be the name of an environment variable") as refused:
        NotifyConfig(webhook_env=url)
    assert SECRET not in str(refused.value)
    model = {"model_name_or_path": "m"}
    settings = {"workspace": "w", "problems": {"path": "p"}, "teacher": model, "student": model}
    with pytest.raises(ConfigError, match=r"notify\.webhook_env must be the name") as error:
        parse_config({**settings, "notify": {"webhook_env": url}}, "x.yaml")
    assert SECRET not in str(error.value)


def test_nothing_is_told_by_default(caplog: pytest.LogCaptureFixture) -> None:
    send(NotifyConfig(), FAILED)
    assert caplog.records == []


# ---- command


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_gets_the_message_and_an_environment(tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    names = ("HEAL_EVENT", "HEAL_RUN", "HEAL_WORKSPACE", "HOME")
    got = f"sys.stdin.read(), *map(os.environ.get, {names})"
    code = f"import os, sys; print({got}, sep='\\n', file=open(sys.argv[1], 'w'))"
    send(NotifyConfig(command=[*python(code), str(tmp_path / "got")]), FAILED)
    message, *environment = (tmp_path / "got").read_text().splitlines()
    assert json.loads(message) == FAILED.payload()
    assert environment == ["failed", "ab12cd", "/data/night", os.environ["HOME"]]
    assert warnings() == []


def test_a_command_does_not_print_into_the_output_of_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    send(NotifyConfig(command=["echo", "told"]), FAILED)
    assert capfd.readouterr().out == ""


def test_a_command_that_does_not_read_its_input_is_fine(warnings: Callable[[], list[str]]) -> None:
    send(NotifyConfig(command=["true"]), replace(FAILED, detail={"long": "x" * 1_000_000}))
    assert warnings() == []


def test_a_command_that_hangs_is_killed_with_its_children(
    tmp_path: Path, warnings: Callable[[], list[str]], is_running: Callable[[int], bool]
) -> None:
    script = 'sleep 60 & echo $! > "$0"; wait'
    started = time.monotonic()
    send(NotifyConfig(command=["sh", "-c", script, str(tmp_path / "pid")], timeout_seconds=0.5), FAILED)
    assert time.monotonic() - started < 5
    assert warnings() == ["the command of notify (sh) was killed: it took longer than 0.5 s"]
    process_id = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while is_running(process_id) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(process_id)


@pytest.fixture
def is_running() -> Callable[[int], bool]:
    def is_running(process_id: int) -> bool:
        try:
            return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    return is_running


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["sh", "-c", "exit 3", SECRET], "the command of notify (sh) ended with exit code 3"),
        (["sh", "-c", "kill -9 $$", SECRET], "the command of notify (sh) ended with exit code -9"),
        (
            ["/no/such/program", SECRET],
            "the command of notify (/no/such/program) could not be started: No such file or directory",
        ),
    ],
)
def test_a_command_that_fails_is_a_warning(warnings: Callable[[], list[str]], command: list[str], words: str) -> None:
    send(NotifyConfig(command=command), FAILED)
    assert warnings() == [words]


def test_the_command_is_told_although_the_webhook_was_not(
    tmp_path: Path, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEAL_TEST_WEBHOOK", raising=False)
    told = tmp_path / "told"
    send(NotifyConfig(webhook_env="HEAL_TEST_WEBHOOK", command=["touch", str(told)]), FAILED)
    assert told.exists() and len(warnings()) == 1
