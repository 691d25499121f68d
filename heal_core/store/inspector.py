"""Trajectories of a run as the inspector lists and shows them: filtered lists, and all that hangs on one.

What does not belong here: counts of the whole run (`report`), which trajectories a page holds and how steps are
cut (`heal_core.report`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from heal_core.arms import HEAL
from heal_core.errors import InputError
from heal_core.store.reading import Readable
from heal_core.store.run_profiles import find_used_profiles

Rows = list[dict[str, Any]]

FILTERS = ("phase", "band", "label", "outcome", "reason", "stage")
"""What a list is narrowed by, each to one value."""


@dataclass(frozen=True)
class TokenArrays:
    """Where each token begins in its text, and its entropy, shape [T], nats.

    `radii` are half the widths of the entropies' certified intervals, shape [T]; None where they are exact.
    """

    starts: np.ndarray
    entropies: np.ndarray
    radii: np.ndarray | None = None


_LISTED = """
WITH listed AS (
    SELECT t.trajectory_id, t.phase, string_agg(DISTINCT t.arm, ', ') AS arm, t.problem_id, any_value(t.label) AS label,
           any_value(t.num_tokens) AS num_tokens, any_value(t.sample_index) AS sample_index,
           any_value(t.parent_id) AS parent_id, any_value(t.mean_entropy_nats) AS mean_entropy_nats,
           any_value(t.cut) AS cut, any_value(t.reason) AS verdict_reason
    FROM run_trajectories t
    WHERE t.run_id = $run AND t.phase IN ('rollouts', 'repairs', 'guided', 'evaluation') GROUP BY ALL
), decided AS (
    SELECT subject_id, max_by(decision, rank) AS decision, max_by(phase, rank) AS phase, max_by(reason, rank) AS reason
    FROM (SELECT subject_id, decision, phase, reason,
                 list_position(['path', 'gate', 'pure', 'cap'], phase) AS rank
          FROM decisions WHERE run_id = $run AND phase IN ('path', 'gate', 'pure', 'cap'))
    GROUP BY subject_id
), staged AS (
    SELECT trajectory_id, list_sort(list(DISTINCT stage)) AS stages FROM stage_examples
    WHERE run_id = $run AND arm = $heal GROUP BY trajectory_id
), repaired AS (
    SELECT parent_id, count(*) AS num_repairs, count(*) FILTER (verified) AS num_verified FROM run_repairs
    WHERE run_id = $run GROUP BY parent_id
)
SELECT l.trajectory_id, l.phase, l.arm, l.problem_id, b.split, b.band, l.label, l.verdict_reason,
       CASE WHEN l.phase = 'evaluation' THEN NULL
            WHEN d.phase = 'path' AND d.decision = 'kept' THEN 'continued'
            WHEN d.phase = 'path' THEN 'not continued'
            WHEN d.decision = 'dropped' THEN 'dropped by ' || CASE d.phase WHEN 'pure' THEN 'PURE' ELSE d.phase END
            WHEN d.decision = 'kept' AND d.phase = 'cap' THEN 'kept' END AS outcome,
       CASE WHEN l.phase <> 'evaluation' THEN d.reason END AS reason,
       s.score AS pure, coalesce(g.stages, []) AS stages, l.num_tokens, l.sample_index, l.parent_id,
       l.mean_entropy_nats, r.num_repairs, r.num_verified
FROM listed l
LEFT JOIN bands b ON b.run_id = $run AND b.problem_id = l.problem_id
LEFT JOIN decided d ON d.subject_id = l.trajectory_id
LEFT JOIN pure_scores s ON s.run_id = $run AND s.trajectory_id = l.trajectory_id
LEFT JOIN staged g ON g.trajectory_id = l.trajectory_id
LEFT JOIN repaired r ON r.parent_id = l.trajectory_id
"""

_ORDER = (
    "list_position(['repairs', 'rollouts', 'guided', 'evaluation'], phase), outcome IS DISTINCT FROM 'kept', "
    "problem_id, parent_id, sample_index, trajectory_id"
)

_HAS_TEXT = """trajectory_id IN (
    SELECT t.trajectory_id FROM trajectories t JOIN problems p USING (problem_id)
    WHERE contains(lower(concat_ws(chr(10), t.trajectory_id, problem_id, p.question, coalesce(t.prefix, '') || t.text)),
                   lower($text)))"""

_TEXTS = """
SELECT t.trajectory_id, t.kind, t.problem_id, t.parent_id, t.hint_id, t.sample_index, t.num_tokens, t.finish_reason,
       t.prefix, t.text, t.mean_entropy_nats, t.entropy_source, p.question, p.answer, h.text AS hint
FROM trajectories t JOIN problems p USING (problem_id) LEFT JOIN trajectories h ON h.trajectory_id = t.hint_id
WHERE list_contains($ids, t.trajectory_id)
"""

_VERDICTS = """
SELECT DISTINCT trajectory_id AS subject, label, extracted, reason FROM run_trajectories
WHERE run_id = $run AND list_contains($ids, trajectory_id) ORDER BY ALL
"""

_DECISIONS = """
SELECT subject_id AS subject, phase, decision, reason, value FROM decisions
WHERE run_id = $run AND arm IS NULL AND list_contains($ids, subject_id)
ORDER BY list_position(['band', 'breakpoint', 'path', 'gate_base', 'gate', 'pure', 'cap'], phase)
"""

_GATES = """
SELECT trajectory_id AS subject, gate, refused, value, detail FROM gate_findings
WHERE run_id = $run AND arm IS NULL AND gate <> '' AND list_contains($ids, trajectory_id)
ORDER BY TRY_CAST(gate[2:] AS INTEGER)
"""

_SCORES = """
SELECT p.trajectory_id AS subject, p.score_name, p.score, p.decision, p.reason, p.rule, p.pooled_threshold,
       p.num_candidates, p.drop_fraction, p.ratio, p.jump, p.reliance, p.span_start, p.span_end, s.step_perplexities,
       s.answer_uncertainties
FROM pure_scores p JOIN scores s USING (score_id) WHERE p.run_id = $run AND list_contains($ids, p.trajectory_id)
"""

_PROFILES = """
SELECT trajectory_id AS subject, separator, step_start_tokens, step_entropies, step_entropy_radii, breakpoint_step,
       surge_nats, window_size, z_score, flat, entropy_source, is_certain
FROM profiles WHERE list_contains($ids, trajectory_id)
ORDER BY profile_id IN (SELECT unnest($used)) DESC, profile_id
"""

_REPAIRS = """
SELECT parent_id AS subject, trajectory_id, outcome, reason, verified, kept FROM run_repairs
WHERE run_id = $run AND list_contains($ids, parent_id) ORDER BY kept DESC, verified DESC, sample_index
"""


def list_trajectories(store: Readable, run_id: str, trajectory_ids: Sequence[str]) -> Rows:
    """Return a row per phase of each of the given trajectories, as far as the run uses them.

    Phases are rollouts, repairs, guided (samples) and evaluation (answers of students, their arms in `arm`).
    """
    named = {"run": run_id, "heal": HEAL, "ids": sorted(set(trajectory_ids))}
    return store.rows(f"SELECT * FROM ({_LISTED} WHERE list_contains($ids, l.trajectory_id)) ORDER BY {_ORDER}", named)


def sample_trajectories(store: Readable, run_id: str, max_per_group: int) -> tuple[Rows, int]:
    """Return rows like those of `list_trajectories`, at most so many of a group, and how many there are in all.

    A group has the same phase, band, label, outcome and reason. Which of them come is decided by a hash of run and
    trajectory, and so is their order: `rank` counts from 1 in each group.
    """
    rows = store.rows(
        f"SELECT *, count(*) OVER () AS num_all, row_number() OVER (PARTITION BY phase, band, label, outcome, reason "
        f"ORDER BY md5($run || trajectory_id)) AS rank FROM ({_LISTED}) QUALIFY rank <= {int(max_per_group)} "
        f"ORDER BY {_ORDER}",
        {"run": run_id, "heal": HEAL},
    )
    num_all = rows[0]["num_all"] if rows else 0
    return [{name: row[name] for name in row if name != "num_all"} for row in rows], num_all


def page_of_trajectories(
    store: Readable,
    run_id: str,
    filters: Mapping[str, str],
    limit: int,
    pure: tuple[float | None, float | None] = (None, None),
    text: str = "",
) -> tuple[Rows, int]:
    """Return the first `limit` rows that meet all filters, and how many do.

    Args:
        filters: Values by names of FILTERS; an empty value is no filter.
        pure: Lowest and highest PURE score; None leaves an end open.
        text: What question, text or an id contains, in letters of either case; an empty one is no filter.

    Raises:
        InputError: If a filter has another name.
    """
    conditions = ["true"]
    named: dict[str, Any] = {"run": run_id, "heal": HEAL}
    for name, value in filters.items():
        if name not in FILTERS:
            raise InputError(f"there is no filter {name!r}; expected one of {', '.join(FILTERS)}.")
        if value:
            conditions.append(f"list_contains(stages, ${name})" if name == "stage" else f"{name} = ${name}")
            named[name] = value
    for end, comparison, score in (("pure_min", ">=", pure[0]), ("pure_max", "<=", pure[1])):
        if score is not None:
            conditions.append(f"pure {comparison} ${end}")
            named[end] = score
    if text:
        conditions.append(_HAS_TEXT)
        named["text"] = text
    selected = f"FROM ({_LISTED}) WHERE {' AND '.join(conditions)}"
    rows = store.rows(
        f"SELECT *, count(*) OVER () AS num_all {selected} ORDER BY {_ORDER} LIMIT {int(limit)}",
        named,
    )
    return [{name: row[name] for name in row if name != "num_all"} for row in rows], rows[0]["num_all"] if rows else 0


def values_of_filters(store: Readable, run_id: str) -> dict[str, list[str]]:
    """Return by names of FILTERS which values the run's trajectories have."""
    lists = ", ".join(
        f"list_sort(list_distinct({f'flatten(list({name}s))' if name == 'stage' else f'list({name})'})) AS {name}"
        for name in FILTERS
    )
    (row,) = store.rows(f"SELECT {lists} FROM ({_LISTED})", {"run": run_id, "heal": HEAL})
    return {name: row[name] or [] for name in FILTERS}


def read_trajectory(store: Readable, run_id: str, trajectory_id: str) -> dict[str, Any]:
    """Return one trajectory; see `read_trajectories`.

    Raises:
        InputError: If the store has no such trajectory.
    """
    found = read_trajectories(store, run_id, [trajectory_id])
    if not found:
        raise InputError(f"the store has no trajectory {trajectory_id!r}.")
    return found[trajectory_id]


def read_trajectories(store: Readable, run_id: str, trajectory_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return trajectories by id, with problem, hint, and what the run decided, measured and scored of each.

    Keys: those of the query `_TEXTS`, and `verdict`, `score`, `profile` (None without one), `listed` (its rows of
    `list_trajectories`), `decisions`, `gates`, `repairs`. Those that the store does not have are left out.
    """
    named = {"run": run_id, "ids": sorted(set(trajectory_ids)), "used": find_used_profiles(store, run_id)}

    def read(sql: str) -> dict[str, Rows]:
        """Return the rows of a query by the trajectory they are about, in its order."""
        found: dict[str, Rows] = defaultdict(list)
        for row in store.rows(sql, {name: value for name, value in named.items() if f"${name}" in sql}):
            found[row.pop("subject")].append(row)
        return found

    verdicts, scores, profiles = read(_VERDICTS), read(_SCORES), read(_PROFILES)
    decisions, gates, repairs = read(_DECISIONS), read(_GATES), read(_REPAIRS)
    listed: dict[str, Rows] = defaultdict(list)
    for row in list_trajectories(store, run_id, trajectory_ids):
        listed[row["trajectory_id"]].append(row)
    return {
        row["trajectory_id"]: {
            **row,
            "listed": listed[row["trajectory_id"]],
            "verdict": next(iter(verdicts[row["trajectory_id"]]), None),
            "score": next(iter(scores[row["trajectory_id"]]), None),
            "profile": next(iter(profiles[row["trajectory_id"]]), None),
            "decisions": decisions[row["trajectory_id"]],
            "gates": gates[row["trajectory_id"]],
            "repairs": repairs[row["trajectory_id"]],
        }
        for row in store.rows(_TEXTS, {"ids": named["ids"]})
    }


def read_token_arrays(store: Readable, trajectory_ids: Sequence[str]) -> dict[str, TokenArrays]:
    """Return the token arrays of trajectories, as far as the parts have them; none of a store without its parts."""
    if not trajectory_ids:
        return {}
    columns = "trajectory_id, token_starts, entropies, entropy_radii"
    query = f"SELECT {columns} FROM tokens SEMI JOIN wanted ON trajectory_id = id"
    try:
        frame = store.frame_for(sorted(set(trajectory_ids)), query)
    except duckdb.IOException as error:
        if "No files found" not in str(error):
            raise
        return {}
    return {
        row["trajectory_id"]: TokenArrays(
            np.asarray(row["token_starts"], dtype=np.int64),
            np.asarray(row["entropies"], dtype=np.float64),
            None if row["entropy_radii"] is None else np.asarray(row["entropy_radii"], dtype=np.float64),
        )
        for row in frame.iter_rows(named=True)
    }
