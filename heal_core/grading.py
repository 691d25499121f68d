"""Give texts their verdicts, durably: find which lack one under a time limit, grade, store as they come.

The one verb behind a run's verdicts and `heal verify`. Running it again is the resume. What does not
belong here: which verdict answers a demand (`plan`), how a text is graded (`verify`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from heal_core.errors import StoreError
from heal_core.keys import content_key
from heal_core.plan import choose_verdict
from heal_core.records import Verdict, VerdictLabel
from heal_core.store.reading import Readable
from heal_core.store.reads import read_references, read_texts, read_verdicts
from heal_core.store.store import Store
from heal_core.verify.config import VerifyConfig
from heal_core.verify.grade import verifier_identities, verifier_identity
from heal_core.verify.pool import GradeItem

FLUSH_SECONDS = 30.0


class Grader(Protocol):
    """What grades: a `VerifierPool`."""

    def grade_all(self, items: Sequence[GradeItem]) -> Iterator[tuple[str, Verdict]]:
        """Yield (item_id, verdict) as items are finished."""
        ...


def choose_verdicts(store: Readable, trajectory_ids: Sequence[str], config: VerifyConfig) -> dict[str, str | None]:
    """Return, by trajectory, the stored verdict of today's verifiers that answers the demand, None without one."""
    known = read_verdicts(store, trajectory_ids, verifier_identities(config))
    return {row_id: choose_verdict(known.get(row_id, []), config.timeout_seconds) for row_id in trajectory_ids}


def grade_missing(
    store: Store,
    grader: Grader,
    trajectory_ids: Sequence[str],
    config: VerifyConfig,
    on_graded: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Return how many verdicts were newly made, by label; grade what has none from today's verifiers.

    They are stored every 30 s, at the end, and when it is broken off. `on_graded` is called after each.

    Args:
        config: The settings of `grader`, under which the verdicts are stored.

    Raises:
        StoreError: If the verifiers are of another version than this process: the package was replaced meanwhile.
    """
    chosen = choose_verdicts(store, trajectory_ids, config)
    texts = read_texts(store, [row_id for row_id, verdict_id in chosen.items() if verdict_id is None])
    references = read_references(store, (row["problem_id"] for row in texts))
    items = {
        row["trajectory_id"]: GradeItem(row["trajectory_id"], row["response"], references[row["problem_id"]])
        for row in texts
    }
    counts = {str(label): 0 for label in VerdictLabel}
    rows: list[dict[str, Any]] = []
    flushed = time.monotonic()
    try:
        for row_id, verdict in grader.grade_all(list(items.values())):
            _check_version(verdict, verifier_identity(items[row_id].reference.problem_type, config))
            rows.append(_verdict_row(row_id, verdict, config.timeout_seconds))
            counts[verdict.label] += 1
            on_graded()
            if time.monotonic() - flushed > FLUSH_SECONDS:
                _store(store, rows)
                rows, flushed = [], time.monotonic()
    finally:
        _store(store, rows)
    return counts


def _store(store: Store, rows: list[dict[str, Any]]) -> None:
    # verdicts come in any order; the same ones make the same part
    store.append("verdicts", sorted(rows, key=lambda row: str(row["verdict_id"])))


def _verdict_row(trajectory_id: str, verdict: Verdict, limit_seconds: float) -> dict[str, Any]:
    """Return the stored form of a verdict."""
    identity = (verdict.verifier, verdict.verifier_version)
    return {
        "verdict_id": content_key("verdict", trajectory_id, identity, limit_seconds),
        "trajectory_id": trajectory_id,
        "label": str(verdict.label),
        "extracted": verdict.extracted,
        "extraction": verdict.extraction,
        "reason": verdict.reason,
        "verifier": verdict.verifier,
        "verifier_version": verdict.verifier_version,
        "seconds": verdict.seconds,
        "limit_seconds": limit_seconds,
        "created_at": datetime.now(UTC),
    }


def _check_version(verdict: Verdict, identity: tuple[str, str]) -> None:
    if (verdict.verifier, verdict.verifier_version) != identity:
        raise StoreError(
            f"{verdict.verifier} {identity[1]} was replaced by {verdict.verifier_version} while its verdicts were "
            "asked for. Run the same command again: it grades with one version then (a run is a new one)."
        )
