import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.context import FlowRunContext
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_LOGGING_LEVEL,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

from heal_core.progress import Progress
from tasks import artifacts
from tasks.artifacts import ProgressArtifact, artifact_key, publish_funnel, publish_link, publish_promotion

PROGRESS = Progress(
    run_id="ab12", phase="repairs", work="repairs", unit="repairs", done=320, total=640, num_new=300,
    num_new_tokens=24360, tokens_per_second=812.0, eta_seconds=230.0, started_at="2026-01-01T00:00:00+00:00",
    updated_at="2026-01-01T00:00:30+00:00", process_id=7,
)  # fmt: skip
FUNNEL = [
    {"run_id": "ab12", "position": 1, "phase": "rows", "outcome": "train", "reason": None, "num": 3, "num_in_phase": 4},
    {"run_id": "ab12", "position": 1, "phase": "rows", "outcome": "quarantined", "reason": "no answer", "num": 1,
     "num_in_phase": 4},
]  # fmt: skip
DECISION = {
    "decision": "refused", "reason": "below_margin", "num_problems": 76, "avg_at_k": 0.368, "best_avg_at_k": 0.4,
    "difference": -0.032, "low": -0.081, "high": 0.02, "margin": -0.01, "becomes_best": False,
}  # fmt: skip


@flow(name="caller")
def call(function: Callable[[], Any]) -> Any:
    return function()


@pytest.fixture(scope="session")
def in_flow(prefect_server: str) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Return a function that calls another inside a flow run on a real server."""
    settings = {
        PREFECT_API_URL: prefect_server,
        PREFECT_API_REQUEST_TIMEOUT: 120,
        PREFECT_LOGGING_LEVEL: "CRITICAL",
        PREFECT_LOGGING_TO_API_ENABLED: False,
    }
    with temporary_settings(settings):
        yield lambda function: call.with_options(validate_parameters=False)(function)


def shown(key: str) -> list[Any]:
    """Return the artifacts of this flow run with a key, the oldest first."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), limit=100)
    own = [artifact for artifact in found if artifact.flow_run_id == context.flow_run.id]
    return sorted(own, key=lambda artifact: artifact.created)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what HEAL warned of; Prefect's client has complaints of its own."""
    return [record.getMessage() for record in caplog.records if record.name == "heal"]


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


# ---- without a server


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("progress", "repairs"), "heal-progress-repairs"),
        (("progress", "repairs, hints try 0"), "heal-progress-repairs-hints-try-0"),
        (("progress", "training, B2: Stage II!"), "heal-progress-training-b2-stage-ii"),
        (("progress", "equal_tokens", ""), "heal-progress-equal-tokens"),
    ],
)
def test_keys_are_what_prefect_takes(names: tuple[str, ...], key: str) -> None:
    assert artifact_key(*names) == key


def test_outside_of_a_flow_run_nothing_is_done(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}), ProgressArtifact() as artifact:
        artifact.report(PROGRESS, True)
        publish_funnel("ab12", FUNNEL)
        publish_link("ab12", tmp_path / "report.html")
        publish_promotion("ab12", DECISION)
    assert caplog.records == []


# ---- with one


@pytest.mark.slow
def test_progress_is_created_then_updated_and_its_end_is_sent_at_once(in_flow: Any) -> None:
    def run() -> list[Any]:
        with ProgressArtifact(min_seconds=3600) as artifact:
            artifact.report(PROGRESS, False)
            wait_until(lambda: len(shown("heal-progress-repairs")) == 1)
            first = shown("heal-progress-repairs")
            artifact.report(replace(PROGRESS, done=321), False)  # too soon
            artifact.report(replace(PROGRESS, done=640, eta_seconds=0.0), True)
            wait_until(lambda: shown("heal-progress-repairs")[0].data == 100)
        return first + shown("heal-progress-repairs")

    before, after = in_flow(run)
    assert before.id == after.id
    assert (before.type, before.data) == ("progress", 50)
    assert before.description == "repairs: 320 of 640, 812 tokens/s, about 4 min left"
    assert after.description == "repairs: 640 of 640, 812 tokens/s"


@pytest.mark.slow
def test_each_piece_of_work_has_its_own_artifact_and_closing_sends_the_newest(in_flow: Any) -> None:
    def run() -> tuple[list[Any], ...]:
        with ProgressArtifact(min_seconds=3600) as artifact:
            artifact.report(replace(PROGRESS, work="hints", unit="hints"), False)
            artifact.report(replace(PROGRESS, work="nothing", done=0, total=0), True)
            artifact.report(PROGRESS, False)
            wait_until(lambda: len(shown("heal-progress-repairs")) == 1)
            artifact.report(replace(PROGRESS, done=480), False)
            # the same work once more is another piece of work
            artifact.report(replace(PROGRESS, started_at="2026-01-01T01:00:00+00:00", done=0), False)
        return tuple(shown(f"heal-progress-repairs{work}") for work in ("", "-hints", "-nothing"))

    repairs, hints, nothing = in_flow(run)
    assert [artifact.data for artifact in repairs] == [75, 0]
    assert [artifact.data for artifact in hints] == [50]
    assert nothing == []


@pytest.mark.slow
def test_funnel_report_and_promotion_are_shown(in_flow: Any, tmp_path: Path) -> None:
    path = tmp_path / "a report.html"

    def run() -> list[Any]:
        publish_funnel("ab12", FUNNEL)
        publish_link("ab12", path)
        publish_promotion("ab12", DECISION)
        return [artifact for name in ("funnel", "report", "promotion") for artifact in shown(f"heal-{name}")]

    funnel, report, promotion = in_flow(run)
    assert funnel.type == "table"
    assert json.loads(funnel.data) == [
        {"phase": "rows", "outcome": "train", "reason": "", "n": 3, "of": 4},
        {"phase": "rows", "outcome": "quarantined", "reason": "no answer", "n": 1, "of": 4},
    ]
    assert report.data == f"[a report.html](file://{tmp_path}/a%20report.html)\n\n`{path}`"
    assert promotion.data.startswith("**Refused**: the student of run `ab12` was not promoted")
    assert "| difference in points | -3.2 [-8.1, +2.0] (95 %) |" in promotion.data
    assert "| avg@k | 36.8 % |" in promotion.data


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_is_a_warning_and_no_long_wait(
    in_flow: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(artifacts, "PUBLISH_SECONDS", 3)
    monkeypatch.setattr(artifacts, "RETRY_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://user:SECRET@127.0.0.1:{listener.getsockname()[1]}/api"

    def run() -> float:
        with temporary_settings({PREFECT_API_URL: address}):
            started = time.monotonic()
            with ProgressArtifact(min_seconds=0.1) as artifact:
                artifact.report(PROGRESS, False)
                wait_until(lambda: len(warnings(caplog)) == 1)  # and one for all tries
                time.sleep(0.5)
                artifact.report(PROGRESS, True)
            publish_link("ab12", tmp_path)
            return time.monotonic() - started

    assert in_flow(run) < 15
    assert warnings(caplog) == [
        "Prefect does not show the progress: its server did not take it (ConnectError). The run goes on; "
        "`heal status` shows where it is",
        "Prefect does not show the report: its server did not take it (ConnectError)",
    ]
    assert not any("SECRET" in warning for warning in warnings(caplog))


class Hanging(BaseHTTPRequestHandler):
    """A server that takes requests and does not answer."""

    done = Event()

    def do_GET(self) -> None:  # Prefect's client asks for a token first
        self.done.wait(30)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.slow
def test_a_server_that_hangs_does_not_hold_up_the_run(
    in_flow: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(artifacts, "PUBLISH_SECONDS", 0.5)
    monkeypatch.setattr(artifacts, "CLOSE_SECONDS", 0.5)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hanging)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def run() -> float:
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
            started = time.monotonic()
            with ProgressArtifact() as artifact:
                artifact.report(PROGRESS, True)
                assert time.monotonic() - started < 0.4
            publish_link("ab12", tmp_path)
            return time.monotonic() - started

    seconds = in_flow(run)
    Hanging.done.set()
    server.shutdown()
    server.server_close()
    assert seconds < 4
    assert warnings(caplog) == [
        "Prefect does not show the progress: its server did not answer in time. The run goes on; "
        "`heal status` shows where it is",
        "Prefect does not show the report: its server did not take it (TimeoutError)",
    ]
