"""Which problems are out of a run: their work failed after all tries, alone, while other work was seen to succeed.

A problem is out from the work that failed onwards. A run that is resumed meets what an
earlier start put in quarantine at the same work, so that it decides on the same problems.
What does not belong here: trying problems alone (`shards`), which errors count (`heal_core.failures`).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from heal_core.errors import TooManyFailuresError
from heal_core.failures import FailuresConfig
from heal_core.keys import content_key
from heal_core.store.reads import read_failed_problems, read_run_problems
from heal_core.store.store import Store

_MAX_ERROR_CHARS = 2000


class Quarantine:
    """The problems of one run that are out; grows as the run goes through its work."""

    def __init__(self, store: Store, run_id: str, config: FailuresConfig) -> None:
        self._store = store
        self._run_id = run_id
        self._problems = {row["problem_id"]: row for row in read_run_problems(store, run_id)}
        self._most = config.max_quarantined(len(self._problems))
        self._stored = read_failed_problems(store, run_id)
        self._out: set[str] = set()

    def __contains__(self, problem_id: str) -> bool:
        return problem_id in self._out

    @property
    def problem_ids(self) -> frozenset[str]:
        """Return the problems that are out by now."""
        return frozenset(self._out)

    def enter_work(self, phase: str, work: str) -> None:
        """Leave out what failed in this work in an earlier start of the run."""
        self._out |= {row["problem_id"] for row in self._stored if (row["phase"], row["work"]) == (phase, work)}

    def enter_phases(self, phases: Collection[str]) -> None:
        """Leave out what failed in phases that are not gone through again."""
        self._out |= {row["problem_id"] for row in self._stored if row["phase"] in phases}

    def add(self, problem_id: str, phase: str, work: str, error: Exception) -> None:
        """Put a problem in quarantine.

        Raises:
            TooManyFailuresError: If the run may lose no more.
        """
        problem = self._problems[problem_id]
        row = {
            "quarantine_id": content_key("quarantine", self._run_id, problem_id),
            "run_id": self._run_id,
            "source": problem["source"],
            "line": None,
            "reason": f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARS],
            "raw": problem["question"],
            "problem_id": problem_id,
            "phase": phase,
            "work": work,
            "quarantined_at": datetime.now(UTC),
        }
        self._store.append("quarantine", [row])
        self._out.add(problem_id)
        if len(self._out) > self._most:
            raise TooManyFailuresError(
                f"{len(self._out)} of {len(self._problems)} problems are in quarantine, where failures."
                f"max_quarantined_share allows {self._most}. See `SELECT problem_id, work, reason FROM quarantine`; "
                f"starting the run again tries them anew. The last error: {error}"
            )
