"""What a workspace knows of how long texts get, how many there are of each kind, and how much room they take.

Nothing here needs a run to be complete. What does not belong here: what follows from it for a run (`forecast`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heal_core.store.reading import Readable
from heal_core.store.reads import read_closed_phases
from heal_core.store.workspace import Workspace

_NUM = "count(*)::INTEGER AS num"
_MEANS = (
    "count(*) AS num, avg(least(num_tokens, $limit)) AS tokens, avg(num_prompt_tokens) AS prompt_tokens, "
    "avg(seconds) AS seconds, avg((finish_reason = 'length' AND limit_tokens < $limit)::INTEGER) AS cut_share"
)


@dataclass(frozen=True)
class SampleMeans:
    """Means over sampled texts: tokens, tokens of the prompt and prefix, seconds of the engine.

    `cut_share` of them were cut below the limit that is asked about, and may get longer under it.
    """

    num: int
    tokens: float
    prompt_tokens: float
    seconds: float
    cut_share: float


@dataclass(frozen=True)
class RunYields:
    """What a run came to on its training problems; counts, and None where its phases have not come so far.

    Attributes:
        num_easy: Problems by band, and so on.
        num_paths: Wrong paths that were to be repaired; `num_broken` of them had a breakpoint, `num_hinted` got a hint.
        num_hints: Tries at hints.
        num_repairs: Continuations; `num_scored` of them came to PURE.
        num_base_examples: Rollouts that became examples, of the arm heal; then guided samples and repairs.
    """

    run_id: str
    num_easy: int
    num_hard: int
    num_extremely_hard: int
    num_ungraded: int
    num_paths: int | None = None
    num_broken: int = 0
    num_hinted: int = 0
    num_hints: int = 0
    num_repairs: int | None = None
    num_scored: int | None = None
    num_base_examples: int | None = None
    num_guided_examples: int = 0
    num_repair_examples: int = 0

    @property
    def num_problems(self) -> int:
        return self.num_easy + self.num_hard + self.num_extremely_hard + self.num_ungraded


def sample_means(store: Readable, recipe_id: str, limit_tokens: int) -> SampleMeans | None:
    """Return the means over the texts of a recipe, counting none as longer than the limit; None without any."""
    sql = f"SELECT {_MEANS} FROM trajectories WHERE recipe_id = $recipe"
    return _means(store.rows(sql, {"recipe": recipe_id, "limit": limit_tokens}))


def sample_means_of_model(store: Readable, model: str, kind: str, limit_tokens: int) -> SampleMeans | None:
    """Return the same over all texts of a kind that a model of this name sampled, under whatever settings."""
    sql = (
        f"SELECT {_MEANS} FROM trajectories t JOIN recipes r USING (recipe_id) "
        "WHERE r.kind = $kind AND r.model_name_or_path = $model"
    )
    return _means(store.rows(sql, {"kind": kind, "model": model, "limit": limit_tokens}))


def answer_means(store: Readable, student: str, limit_tokens: int) -> SampleMeans | None:
    """Return the same over the answers of trained students, those that started from the model of this name."""
    sql = (
        f"SELECT {_MEANS} FROM (SELECT DISTINCT row_id FROM run_rows JOIN runs USING (run_id) "
        "WHERE phase = 'evaluation' AND arm <> 'base' AND config ->> '$.student.model_name_or_path' = $student) "
        "JOIN trajectories ON trajectory_id = row_id"
    )
    return _means(store.rows(sql, {"student": student, "limit": limit_tokens}))


def extra_means(store: Readable, run_id: str, limit_tokens: int) -> SampleMeans | None:
    """Return the same over the rollouts that a run drew for B2, which are of its harder problems and so longer."""
    sql = (
        f"SELECT {_MEANS} FROM trajectories SEMI JOIN ("
        "SELECT row_id FROM run_rows WHERE phase = 'equal_tokens' AND run_id = $run) ON row_id = trajectory_id"
    )
    return _means(store.rows(sql, {"run": run_id, "limit": limit_tokens}))


def score_means(store: Readable, model: str) -> tuple[int, float, float | None] | None:
    """Return of the scores by a scorer of this name: how many, mean tokens read, mean seconds; None without any."""
    seconds = "seconds" if _has_column(store, "scores", "seconds") else "NULL::DOUBLE"
    (row,) = store.rows(
        f"SELECT count(*) AS num, avg(num_scored_tokens) AS tokens, avg({seconds}) AS seconds "
        "FROM scores JOIN recipes USING (recipe_id) WHERE model_name_or_path = ?",
        [model],
    )
    return (row["num"], row["tokens"], row["seconds"]) if row["num"] else None


def training_means(store: Readable, student: str) -> tuple[int, float, float] | None:
    """Return of the stages trained from a student of this name: optimizer steps, tokens and seconds of one step."""
    (row,) = store.rows(
        "SELECT sum(num_optimizer_steps)::INTEGER AS num, sum(num_tokens) / nullif(num, 0) AS tokens, "
        "sum(seconds) / nullif(num, 0) AS seconds FROM checkpoints SEMI JOIN ("
        "SELECT row_id FROM run_rows JOIN runs USING (run_id) "
        "WHERE phase = 'training' AND config ->> '$.student.model_name_or_path' = ?) ON row_id = checkpoint_id",
        [student],
    )
    return (row["num"], row["tokens"], row["seconds"]) if row["num"] else None


def find_similar_run(store: Readable, recipe_id: str | None, teacher: str) -> tuple[str, bool] | None:
    """Return the last run with decided bands that rests on rollouts of the recipe, else on those of the teacher's name.

    The second value says whether it is of the recipe; None without such a run.
    """
    runs = store.rows(
        "SELECT run_id, bool_or(t.recipe_id = $recipe) AS is_same FROM runs "
        "JOIN run_rows USING (run_id) JOIN trajectories t ON trajectory_id = row_id "
        "WHERE run_rows.phase = 'rollouts' AND config ->> '$.teacher.model_name_or_path' = $teacher "
        "AND run_id IN (SELECT run_id FROM decisions WHERE phase = 'band') "
        "GROUP BY run_id, runs.rowid "
        # of two that are alike, one that came further tells more
        "ORDER BY coalesce(is_same, false), "
        "(SELECT count(*) FROM stage_examples s WHERE s.run_id = runs.run_id) > 0, runs.rowid",
        {"recipe": recipe_id, "teacher": teacher},
    )
    return (str(runs[-1]["run_id"]), bool(runs[-1]["is_same"])) if runs else None


def run_yields(store: Readable, run_id: str) -> RunYields:
    """Return what a run came to on its training problems, as far as it has come."""
    bands = _counts(store, f"SELECT band AS name, {_NUM} FROM bands WHERE run_id = ? AND split = 'train'", run_id)
    phases = _counts(store, f"SELECT phase AS name, {_NUM} FROM run_rows WHERE run_id = ?", run_id)
    closed = read_closed_phases(store, run_id)
    paths = _counts(
        store,
        f"SELECT coalesce(reason, decision) AS name, {_NUM} FROM decisions WHERE phase = 'path' AND run_id = ?",
        run_id,
    )
    examples = _counts(
        store,
        f"SELECT kind AS name, {_NUM} FROM stage_examples JOIN trajectories USING (trajectory_id) "
        "WHERE arm = 'heal' AND stage = 'III' AND run_id = ?",
        run_id,
    )
    has_repaired, has_selected = "repairs" in closed, "selection" in closed
    return RunYields(
        run_id,
        num_easy=bands.get("easy", 0),
        num_hard=bands.get("hard", 0),
        num_extremely_hard=bands.get("extremely_hard", 0),
        num_ungraded=bands.get("ungraded", 0),
        num_paths=sum(paths.values()) if has_repaired else None,
        num_broken=sum(paths.values()) - paths.get("no_breakpoint", 0),
        num_hinted=paths.get("kept", 0),
        num_hints=phases.get("hints", 0),
        num_repairs=phases.get("repairs", 0) if has_repaired else None,
        num_scored=phases.get("pure", 0) if has_selected else None,
        num_base_examples=examples.get("rollout", 0) if has_selected else None,
        num_guided_examples=examples.get("guided", 0),
        num_repair_examples=examples.get("repair", 0),
    )


def count_used(store: Readable, run_id: str) -> dict[tuple[str, str], int]:
    """Return how many rows a run uses, by phase and arm of `run_rows`."""
    rows = store.rows(f"SELECT phase, arm, {_NUM} FROM run_rows WHERE run_id = ? GROUP BY ALL", [run_id])
    return {(row["phase"], row["arm"]): row["num"] for row in rows}


def count_slots(store: Readable, recipe_id: str, problem_ids: list[str], from_index: int = 0) -> int:
    """Return how many slots of a recipe have a row at these problems, those of a lower sample index left out."""
    frame = store.frame_for(
        problem_ids,
        "SELECT count(DISTINCT slot_id) AS num FROM trajectories SEMI JOIN wanted ON problem_id = id "
        "WHERE recipe_id = ? AND sample_index >= ?",
        [recipe_id, from_index],
    )
    return int(frame["num"][0])


def count_scores(store: Readable, recipe_id: str, problem_ids: list[str]) -> int:
    """Return how many scores of a recipe there are of texts on these problems."""
    frame = store.frame_for(
        problem_ids,
        "SELECT count(*) AS num FROM scores s JOIN trajectories t USING (trajectory_id) "
        "SEMI JOIN wanted ON t.problem_id = id WHERE s.recipe_id = ?",
        [recipe_id],
    )
    return int(frame["num"][0])


def started_problems(store: Readable, recipe_id: str) -> set[str]:
    """Return the problems of which a recipe has a row."""
    rows = store.rows("SELECT DISTINCT problem_id AS id FROM trajectories WHERE recipe_id = ?", [recipe_id])
    return {row["id"] for row in rows}


def read_labels(store: Readable, verdict_ids: list[str]) -> dict[str, str]:
    """Return the label of each verdict."""
    frame = store.frame_for(verdict_ids, "SELECT verdict_id, label FROM verdicts SEMI JOIN wanted ON verdict_id = id")
    return dict(frame.iter_rows())


@dataclass(frozen=True)
class Room:
    """What sampled texts take on the disk; `index_bytes_per_trajectory` is None where there are too few to tell."""

    num_trajectories: int
    part_bytes_per_token: float
    index_bytes_per_trajectory: float | None


def measure_room(store: Readable, workspace: Workspace) -> Room | None:
    """Return what the texts of a workspace take; None where there are too few to tell."""
    (row,) = store.rows("SELECT count(*) AS num, sum(num_tokens)::BIGINT AS tokens FROM trajectories")
    (parts,) = store.rows("SELECT sum(num_bytes)::BIGINT AS bytes FROM parts WHERE table_name = 'trajectories'")
    if row["num"] < _MIN_OF_PARTS or not row["tokens"] or not parts["bytes"]:
        return None
    index = sum(path.stat().st_size for path in (workspace.database, workspace.writer_database) if path.exists())
    return Room(row["num"], parts["bytes"] / row["tokens"], index / row["num"] if row["num"] >= _MIN_OF_INDEX else None)


_MIN_OF_PARTS = 1000
_MIN_OF_INDEX = 10_000
"""Trajectories below which a store is mostly what it takes without any."""


def _means(rows: list[dict[str, Any]]) -> SampleMeans | None:
    return SampleMeans(**rows[0]) if rows[0]["num"] else None


def _counts(store: Readable, sql: str, run_id: str) -> dict[str, int]:
    return {row["name"]: int(row["num"]) for row in store.rows(f"{sql} GROUP BY name", [run_id])}


def _has_column(store: Readable, table: str, column: str) -> bool:
    return column in {row["column_name"] for row in store.rows(f"DESCRIBE {table}")}
