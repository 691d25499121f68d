"""Telling how a run ended: a summary and a report on disk, artifacts, a notification, and one line for people.

What does not belong here: how a run goes (`heal`), and what a terminal shows (`cli.summary`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heal_core import interruption
from heal_core.config import RunConfig
from heal_core.errors import LimitReachedError, in_one_line
from heal_core.logs import log_to
from heal_core.notify import Notification, send
from heal_core.store import durable
from heal_core.store.reads import read_promotion
from heal_core.store.workspace import Workspace
from tasks.artifacts import publish_funnel, publish_link, publish_promotion
from tasks.session import Session

_MAX_TITLE_CHARS = 2_000
_TOLD = ("state", "reason", "quarantined", "generated", "evaluation", "promotion")


@dataclass
class Announcement:
    """What is known so far of the run that will be told about."""

    run_id: str | None = None
    outcome: dict[str, Any] = field(default_factory=dict)


@contextmanager
def announced(config: RunConfig) -> Iterator[Announcement]:
    """Log to the workspace, and notify how what is within ends.

    That its time was over or its budget spent is an outcome, `stopped`; any other error goes on.
    """
    workspace = Workspace(config.workspace)
    workspace.create()
    announcement = Announcement()

    def tell(event: Any, title: str, detail: dict[str, Any]) -> None:
        send(config.notify, Notification(event, announcement.run_id, str(workspace.root), title, detail))

    with log_to(workspace.logs / "heal.jsonl"):
        interruption.listen()
        try:
            yield announcement
        except LimitReachedError as reason:
            stopped = {"run_id": announcement.run_id, "state": "stopped", "reason": str(reason)}
            announcement.outcome = stopped | {"title": describe(stopped)}
        except Exception as error:
            interruption.check()
            words = f"{type(error).__name__}: {error}"
            title = f"HEAL run {announcement.run_id or 'in ' + config.workspace} failed: {in_one_line(words)}"
            tell("failed", title, {"error": words})
            raise
        if outcome := announcement.outcome:
            tell(outcome["state"], outcome["title"], {key: outcome[key] for key in _TOLD if key in outcome})


def publish_summary(session: Session, summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with a `title` for people, after writing it and the report, and showing them to Prefect."""
    run_id = session.run_id
    summary = {**summary, "title": describe(summary)}
    path = session.workspace.summaries / f"{run_id}.json"
    path.parent.mkdir(exist_ok=True)
    for target in (path, session.workspace.root / "summary.json"):
        write_summary(target, summary)
    publish_funnel(run_id, summary["funnel"])
    if promotion := read_promotion(session.store, run_id):
        publish_promotion(run_id, promotion)
    if summary["state"] == "completed" or not is_of_run(session.workspace.report, run_id):
        write_report(session)
    publish_link(run_id, session.workspace.report)
    return summary


def write_report(session: Session) -> None:
    """Write the run as a page, `report.html` of the workspace."""
    from heal_core.report.page import build_page  # it takes a second to load, which only the end of a run needs

    page = build_page(session.store, session.run_id).encode()
    durable.write_atomically(session.workspace.report, lambda temporary: temporary.write_bytes(page))


def is_of_run(report: Path, run_id: str) -> bool:
    """Return whether a report is that of a run, by its title."""
    try:
        with report.open(encoding="utf-8") as page:
            return f"<title>HEAL run {run_id}</title>" in page.read(_MAX_TITLE_CHARS)
    except FileNotFoundError:
        return False


def describe(outcome: dict[str, Any]) -> str:
    """Return how a run ended in one line."""
    words = f"HEAL run {outcome['run_id']}: " if outcome["run_id"] else "HEAL: "
    if outcome["state"] == "stopped":
        return words + f"{outcome['reason']}; the next start goes on from there"
    quarantined = outcome["quarantined"]["problems"]
    words += "nothing new" if outcome["state"] == "nothing_new" else "completed"
    words += f", {quarantined} quarantined" if quarantined else ""
    student = outcome["evaluation"].get("heal") or outcome["evaluation"].get("latest")
    if student:
        words += f"; avg@{student['k']} {100 * student['avg_at_k']:.1f} % on {student['problems']} held-out problems"
    promotion = outcome.get("promotion")
    return words + (f"; {promotion['decision']}" if promotion else "")


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary so that a reader never sees half of it."""
    text = json.dumps(summary, indent=2, default=str) + "\n"
    durable.write_atomically(path, lambda temporary: temporary.write_text(text))
