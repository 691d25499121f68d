"""What an audit reads of a run's repairs, and the labels that auditors give.

What does not belong here: which repairs are read, and agreement (`heal_core.audit`).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from heal_core.store.reading import Readable
from heal_core.store.store import Store


@dataclass(frozen=True)
class AuditText:
    """A repair as an auditor sees it; `hint`, shown only on request, as the teacher wrote it; None without one."""

    trajectory_id: str
    problem_id: str
    question: str
    answer: str
    prefix: str
    text: str
    hint: str | None


def read_pure_decided(store: Readable, run_id: str) -> dict[str, list[str]]:
    """Return the repairs that PURE kept, and those that it dropped as shortcuts; those without a score are neither."""
    rows = store.rows(
        "SELECT subject_id, decision FROM decisions WHERE run_id = ? AND phase = 'pure' "
        "AND (decision = 'kept' OR reason = 'shortcut') ORDER BY subject_id",
        [run_id],
    )
    return {word: [row["subject_id"] for row in rows if row["decision"] == word] for word in ("kept", "dropped")}


def read_audit_text(store: Readable, trajectory_id: str) -> AuditText:
    """Return a repair with what it was made from."""
    (row,) = store.rows(
        "SELECT t.trajectory_id, t.problem_id, p.question, p.answer, t.prefix, t.text, h.text AS hint "
        "FROM trajectories t JOIN problems p USING (problem_id) "
        "LEFT JOIN trajectories h ON h.trajectory_id = t.hint_id WHERE t.trajectory_id = ?",
        [trajectory_id],
    )
    return AuditText(**row)


def read_audits(store: Readable, run_id: str) -> list[dict[str, Any]]:
    """Return the labels of a run that count, the first given first; none of a store that knew no audits yet."""
    if not store.rows("SELECT 1 AS one FROM duckdb_views() WHERE view_name = 'audits' AND NOT internal"):
        return []
    return store.rows("SELECT * FROM audits WHERE run_id = ? ORDER BY labelled_at, trajectory_id, auditor", [run_id])


def append_label(
    store: Store, run_id: str, text: AuditText, auditor: str, label: str, note: str | None, hint_shown: bool
) -> None:
    """Store a label; it is durable when this returns, and replaces an earlier one of the auditor for the same text."""
    row = {
        "audit_label_id": uuid.uuid4().hex,
        "run_id": run_id,
        "trajectory_id": text.trajectory_id,
        "problem_id": text.problem_id,
        "auditor": auditor,
        "label": label,
        "note": note,
        "hint_shown": hint_shown,
        "labelled_at": datetime.now(UTC),
    }
    store.append("audit_labels", [row])
