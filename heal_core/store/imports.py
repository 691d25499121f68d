"""What the store says of imported rollouts, as named functions. What does not belong here: files (`imports`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from heal_core.plan import Attempt
from heal_core.records import FinishReason
from heal_core.store.reading import Readable
from heal_core.store.store import Store


def read_last_indices(store: Store, recipe_ids: Sequence[str]) -> dict[tuple[str, str], int]:
    """Return the highest sample index that is stored, by recipe and problem."""
    frame = store.frame_for(
        sorted(set(recipe_ids)),
        "SELECT recipe_id, problem_id, max(sample_index) AS last FROM trajectories SEMI JOIN wanted ON recipe_id = id "
        "GROUP BY ALL",
    )
    return {(recipe_id, problem_id): last for recipe_id, problem_id, last in frame.iter_rows()}


def read_refused(store: Store, import_id: str) -> dict[tuple[str, int, int], str]:
    """Return the places (file, line, generation) that an import has put in quarantine, with the code of the reason."""
    rows = store.rows(
        "SELECT source, line, generation_index, split_part(reason, ':', 1) AS code FROM import_quarantine "
        "WHERE import_id = ? ORDER BY ALL",
        [import_id],
    )
    return {(row["source"], row["line"], row["generation_index"]): row["code"] for row in rows}


def count_first(store: Store, import_id: str) -> int:
    """Return how many rollouts an import was the first to bring."""
    (row,) = store.rows(
        "SELECT count(*) AS num FROM ("
        "SELECT trajectory_id, first(import_id ORDER BY rowid) AS import_id FROM import_rows GROUP BY trajectory_id"
        ") WHERE import_id = ?",
        [import_id],
    )
    return int(row["num"])


def read_imported(store: Readable, reading_id: str, problem_ids: Sequence[str]) -> dict[str, list[Attempt]]:
    """Return the imported rollouts of problems that were read in one way, by problem, the first imported first."""
    frame = store.frame_for(
        sorted(set(problem_ids)),
        "SELECT problem_id, trajectory_id, slot_id, limit_tokens, num_tokens, finish_reason FROM trajectories "
        "SEMI JOIN wanted ON problem_id = id WHERE recipe_id IN ("
        "SELECT recipe_id FROM recipes WHERE kind = 'imported' AND settings ->> '$.reading_id' = ?) "
        # indices count the samples of a writer: by them alone, a later one's would take the places of the first's
        "ORDER BY problem_id, created_at, sample_index, trajectory_id",
        [reading_id],
    )
    found: dict[str, list[Attempt]] = defaultdict(list)
    for problem_id, row_id, slot_id, limit, num_tokens, finish_reason in frame.iter_rows():
        found[problem_id].append(Attempt(row_id, slot_id, limit, num_tokens, FinishReason(finish_reason)))
    return dict(found)


def count_read_otherwise(store: Readable, reading_id: str, problem_ids: Sequence[str]) -> int:
    """Return how many imported rollouts of problems were read by another teacher, or in another way."""
    frame = store.frame_for(
        sorted(set(problem_ids)),
        "SELECT count(*) AS num FROM trajectories SEMI JOIN wanted ON problem_id = id WHERE recipe_id IN ("
        "SELECT recipe_id FROM recipes WHERE kind = 'imported' AND settings ->> '$.reading_id' <> ?)",
        [reading_id],
    )
    return int(frame["num"][0])


def read_import(store: Store, import_id: str) -> dict[str, Any] | None:
    """Return the stored row of an import that came to its end; None before."""
    rows = store.rows("SELECT * FROM imports WHERE import_id = ?", [import_id])
    return rows[0] if rows else None
