"""What a person sees of a run in Prefect: progress while it goes on; funnel, report and promotion at its end.

Outside of a flow run all of this does nothing. A server that cannot be reached is a
warning in the log: artifacts never fail a run, nor hold it up for long. What does not
belong here: the numbers themselves.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext, SettingsContext, get_settings_context
from prefect.exceptions import PrefectHTTPStatusError

from heal_core.progress import Progress

REQUEST_SECONDS = 30.0
RETRY_SECONDS = 5.0
CLOSE_SECONDS = 5.0
PUBLISH_SECONDS = 10.0
"""How long a run waits for the artifacts at its end; a server that is being restarted is back by then."""

logger = logging.getLogger("heal")


# ---- progress


@dataclass
class _Piece:
    """A piece of work and its artifact.

    Attributes:
        progress: What is still to be sent; None when all has been.
        due_at: When, on the monotonic clock.
    """

    progress: Progress | None
    due_at: float
    artifact_id: UUID | None = None


class ProgressArtifact:
    """A progress artifact per piece of work, kept up to date by a thread of its own.

    Only the newest of what was reported is sent, so that a slow server costs the run nothing.

    Args:
        min_seconds: Shortest time between two updates of an artifact; its end is sent at once.
    """

    def __init__(self, min_seconds: float = 10.0) -> None:
        self._min_seconds = min_seconds
        self._flow_run_id = _flow_run_id()
        self._changed = threading.Condition()
        self._pieces: dict[tuple[str, str], _Piece] = {}
        self._is_closing = False
        self._num_failures = 0
        self._is_told = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ProgressArtifact:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def report(self, progress: Progress, is_final: bool) -> None:
        """Have it shown; returns at once. Work that had nothing to do is left out."""
        if self._flow_run_id is None or not progress.total:
            return
        with self._changed:
            piece = self._pieces.setdefault(
                (artifact_key("progress", progress.label), progress.started_at),
                _Piece(None, time.monotonic()),
            )
            piece.progress = progress
            if is_final:
                piece.due_at = time.monotonic()
            if self._thread is None:
                # the context holds the settings and the run that Prefect's logs belong to
                self._thread = threading.Thread(
                    target=copy_context().run, args=(self._work,), name="heal-progress", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                self._tell("did not answer in time")

    def _work(self) -> None:
        """Send what is due until closed."""
        with _without_retries(), _client() as client:
            while (piece := self._next()) is not None:
                self._send(client, *piece)

    def _next(self) -> tuple[str, _Piece, Progress] | None:
        """Return what to send next, as soon as it is due; None when closed and all is sent."""
        with self._changed:
            while True:
                waiting = [(key, piece) for (key, _), piece in self._pieces.items() if piece.progress is not None]
                if not waiting and self._is_closing:
                    return None
                if waiting:
                    key, piece = min(waiting, key=lambda item: item[1].due_at)
                    if self._is_closing or piece.due_at <= time.monotonic():
                        progress, piece.progress = piece.progress, None
                        assert progress is not None
                        piece.due_at = time.monotonic() + self._min_seconds
                        return key, piece, progress
                self._changed.wait(piece.due_at - time.monotonic() if waiting else None)

    def _send(self, client: SyncPrefectClient, key: str, piece: _Piece, progress: Progress) -> None:
        try:
            if piece.artifact_id is None:
                words, share = progress.describe(), 100 * progress.share
                piece.artifact_id = _create(client, self._flow_run_id, "progress", key, words, share)
            else:
                update = ArtifactUpdate(data=100 * progress.share, description=progress.describe())
                client.update_artifact(piece.artifact_id, update)
        except Exception as error:  # noqa: BLE001  whatever is wrong with a server, the run goes on
            self._put_back(piece, progress, error)
        else:
            self._num_failures, self._is_told = 0, False

    def _put_back(self, piece: _Piece, progress: Progress, error: Exception) -> None:
        """Try again later, unless there is something newer by then or the run has ended."""
        self._num_failures += 1
        if _is_gone(error):
            piece.artifact_id = None
        with self._changed:
            if not self._is_closing:
                piece.progress = piece.progress or progress
                piece.due_at = time.monotonic() + RETRY_SECONDS
        if self._num_failures > 1 or self._is_closing:  # once is no news: a server may be busy, or restarting
            self._tell(f"did not take it ({_describe(error)})")

    def _tell(self, fault: str) -> None:
        """Log what is wrong with the server, once until it is well again."""
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "Prefect does not show the progress: its server %s. The run goes on; `heal status` shows where it is",
                fault,
            )


# ---- at the end of a run


def publish_funnel(run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Show what became of everything, from rows of the view `funnel`."""
    table = [
        {
            "phase": row["phase"],
            "outcome": row["outcome"],
            "reason": row["reason"] or "",
            "n": row["num"],
            "of": row["num_in_phase"],
        }
        for row in rows
    ]
    _publish("table", "funnel", f"What became of everything in run {run_id}", json.dumps(table))


def publish_link(run_id: str, path: Path) -> None:
    """Show where the report of a run is: a link for a browser on that machine, and the path to copy."""
    path = path.absolute()
    link = f"[{path.name}]({path.as_uri()})\n\n`{path}`"
    _publish("markdown", "report", f"Report of run {run_id}", link)


def publish_promotion(run_id: str, decision: Mapping[str, Any]) -> None:
    """Show whether the run's student became the latest, and what that rests on.

    Args:
        run_id: The run.
        decision: A row of the table `promotions`, or the fields of `heal_core.promotion.Promotion`.
    """
    _publish("markdown", "promotion", f"Promotion of the student of run {run_id}", _promotion_text(run_id, decision))


def artifact_key(*names: str) -> str:
    """Return a key as Prefect takes them: lowercase letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(["heal", *names]).lower()).strip("-")


def _promotion_text(run_id: str, decision: Mapping[str, Any]) -> str:
    is_promoted = decision.get("decision") == "promoted"
    headline = (
        f"**Promoted**: the student of run `{run_id}` is the latest one now."
        if is_promoted
        else f"**Refused**: the student of run `{run_id}` was not promoted; the latest one stays."
    )
    interval = f" [{_points(decision.get('low'))}, {_points(decision.get('high'))}]"
    rows = {
        "reason": str(decision.get("reason") or "").replace("_", " "),
        "avg@k": _percent(decision.get("avg_at_k")),
        "avg@k of the best so far": _percent(decision.get("best_avg_at_k")),
        "difference in points": _points(decision.get("difference")) + interval + " (95 %)",
        "the interval must lie above": _points(decision.get("margin")),
        "held-out problems": str(decision.get("num_problems", "")),
        "becomes the best so far": "yes" if decision.get("becomes_best") else "no",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([headline, "", "| | |", "|---|---|", *lines])


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.1f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _publish(kind: str, name: str, description: str, data: str) -> None:
    """Create an artifact of the flow run; given up after a while, with a warning."""
    flow_run_id = _flow_run_id()
    if flow_run_id is None:
        return

    def create() -> None:
        with _client() as client:
            _create(client, flow_run_id, kind, artifact_key(name), description, data)

    error = _try_for(PUBLISH_SECONDS, create)
    if error is not None:
        logger.warning("Prefect does not show the %s: its server did not take it (%s)", name, _describe(error))


def _try_for(seconds: float, call: Callable[[], None]) -> Exception | None:
    """Return None once `call` succeeded, or why it did not within so many seconds.

    A thread that can be left behind makes the limit hold.
    """
    deadline = time.monotonic() + seconds
    outcome: list[Exception | None] = [TimeoutError("no answer")]

    def work() -> None:
        with _without_retries():
            while True:
                try:
                    call()
                except Exception as error:  # noqa: BLE001  whatever is wrong with a server, the run goes on
                    outcome[0] = error
                else:
                    outcome[0] = None
                    return
                if time.monotonic() + 1 > deadline:
                    return
                time.sleep(1)

    thread = threading.Thread(target=copy_context().run, args=(work,), name="heal-artifact", daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0]


# ---- Prefect's side


def _flow_run_id() -> UUID | None:
    """Return the id of the flow run that this is called in."""
    context = FlowRunContext.get()
    return context.flow_run.id if context is not None and context.flow_run is not None else None


@contextmanager
def _without_retries() -> Iterator[None]:
    """Have Prefect's client try once: how often, and for how long, is for us to say.

    `temporary_settings` would read the whole environment again, which takes longer than what is sent here.
    """
    context = get_settings_context()
    client = context.settings.client.model_copy(update={"max_retries": 0})
    settings = context.settings.model_copy(update={"client": client})
    with SettingsContext(profile=context.profile, settings=settings):
        yield


def _client() -> SyncPrefectClient:
    """Return a client of our own: the flow's is closed when the flow ends, and waits longer."""
    return get_client(httpx_settings={"timeout": REQUEST_SECONDS}, sync_client=True)


def _create(
    client: SyncPrefectClient, flow_run_id: UUID | None, kind: str, key: str, description: str, data: str | float
) -> UUID:
    request = ArtifactCreate(type=kind, key=key, description=description, flow_run_id=flow_run_id, data=data)
    return client.create_artifact(request).id


def _is_gone(error: Exception) -> bool:
    """Return whether the server does not know the artifact, such as one with a new database."""
    return isinstance(error, PrefectHTTPStatusError) and error.response.status_code == 404


def _describe(error: Exception) -> str:
    """Return why in a word: the error's own text has the address, which may hold a password."""
    if isinstance(error, PrefectHTTPStatusError):
        return f"status {error.response.status_code}"
    return type(error).__name__
