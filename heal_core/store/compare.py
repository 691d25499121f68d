"""What changed between two runs of a workspace, as one plain dictionary read from the published store.

What a run has not come to is None, not 0; differences are B - A. What does not belong here: how a
person reads it (`flows/cli/compare.py`), what one run came to (`summary`), and the scores (`compare_scores`).
"""

from __future__ import annotations

from typing import Any

from heal_core.errors import InputError
from heal_core.records import DISTILLATION
from heal_core.split import HELD_OUT, TRAIN
from heal_core.store.compare_scores import NUM_EXAMPLES, compare_scores
from heal_core.store.inspect import Connection, fetch_rows, find_run, run_overview

LAST, PREVIOUS = "last", "previous"
"""Words for the distillation that was first started last, and for the one before it; evaluations are none."""

RUN_COLUMNS = (
    "run_id", "started", "state", "last_phase", "last_event", "heal_version", "git_revision", "seed",
    "purpose", "attempt", "start_checkpoint_id",
)  # fmt: skip

SETTLED_BY = {
    "rollouts": "rollouts",
    "problems": "profiles",
    "paths": "repairs",
    "repairs": "repairs",
    "guided": "repairs",
    "num_repaired": "repairs",
    "kept": "selection",
    "passed_gates_share": "selection",
    "kept_share": "selection",
}
"""The phase of the flow from which on a number stands, by phase or outcome of the funnel, or by metric."""

Row = dict[str, Any]
Sides = dict[str, str]
"""The ids of the two runs, by `a` and `b`."""


def find_compared_run(store: Connection, name: str) -> str:
    """Return the id of the run that `last`, `previous` or the beginning of an id means.

    Raises:
        InputError: If there is no such run, or more than one.
    """
    if name not in (LAST, PREVIOUS):
        return str(find_run(store, name)["run_id"])
    rows = fetch_rows(store, "SELECT * FROM runs ORDER BY rowid DESC")
    # a store that was published before schema 0003 has distillations only, and does not say so
    ids = [str(row["run_id"]) for row in rows if (row.get("purpose") or DISTILLATION) == DISTILLATION]
    if not ids and rows and name == LAST:  # evaluations alone: the newest of them is what there is to look at
        return str(rows[0]["run_id"])
    if not ids:
        raise InputError("the store holds no run so far. `heal run CONFIG.yaml` makes one.")
    if name == LAST:
        return ids[0]
    if len(ids) == 1:
        raise InputError(
            f"there is no previous run: the store holds only {ids[0]}. Another one comes of `heal run` "
            "with a changed setting or other problems."
        )
    return ids[1]


def compare_runs(store: Connection, run_a: str, run_b: str) -> dict[str, Any]:
    """Return what differs between two runs, given by their whole ids.

    Returns:
        JSON-able. `runs` says what was compared. `settings` and `recipes` have only what
        differs. `problems`, `funnel`, `yields` and `spend` are numbers of both. `evaluation`
        has avg@k on the held-out problems that both evaluated, or the reason why there is none.
    """
    sides = {"a": run_a, "b": run_b}
    runs = _runs(store, sides)
    return {
        "runs": runs,
        "settings": _settings(store, sides),
        "recipes": _recipes(store, sides),
        "problems": _problems(store, sides),
        "funnel": _funnel(store, sides),
        "yields": _yields(store, sides),
        "spend": _spend(store, sides),
        "evaluation": compare_scores(store, runs),
    }


def _runs(store: Connection, sides: Sides) -> dict[str, Row]:
    states = {row["run_id"]: row for row in run_overview(store)}
    sql = "SELECT * FROM runs WHERE run_id = $run"
    runs = {side: states[run_id] | fetch_rows(store, sql, run=run_id)[0] for side, run_id in sides.items()}
    # a store that was published before schema 0003 lacks some
    return {side: {name: run.get(name) for name in RUN_COLUMNS} for side, run in runs.items()}


def _settings(store: Connection, sides: Sides) -> list[Row]:
    """Return the settings whose values differ; a value is None where the run has no such setting."""
    return fetch_rows(
        store,
        "SELECT setting, max(value) FILTER (run_id = $a) AS a, max(value) FILTER (run_id = $b) AS b "
        "FROM run_settings WHERE run_id IN ($a, $b) GROUP BY setting HAVING a IS DISTINCT FROM b ORDER BY setting",
        **sides,
    )


def _recipes(store: Connection, sides: Sides) -> list[Row]:
    """Return what differs in how rows were made and is in no setting: model files, libraries, prompts, verifiers.

    Of the phases that both runs have. Trained students are left out, since they follow from the rest.
    """
    return fetch_rows(
        store,
        """
        WITH used AS (
            SELECT DISTINCT r.run_id, r.phase, t.recipe_id
            FROM run_rows r JOIN trajectories t ON t.trajectory_id = r.row_id
            WHERE r.run_id IN ($a, $b) AND r.arm IN ('', 'base')
            UNION
            SELECT r.run_id, r.phase, s.recipe_id
            FROM run_rows r JOIN scores s ON s.score_id = r.row_id WHERE r.run_id IN ($a, $b)
        ), made AS (
            SELECT u.run_id, u.phase, substr(s.fullkey, 3) AS item, s.value ->> '$' AS value
            FROM used u JOIN recipes c USING (recipe_id), json_tree(c.settings) s
            WHERE s.type <> 'OBJECT' AND item <> 'seed' AND NOT starts_with(item, 'sampling.')
            UNION
            SELECT r.run_id, 'verdicts', 'verifier ' || v.verifier, v.verifier_version
            FROM run_rows r JOIN verdicts v USING (verdict_id) WHERE r.run_id IN ($a, $b)
        )
        SELECT item, a, b, list(phase ORDER BY phase) AS phases FROM (
            SELECT phase, item, string_agg(value, ', ' ORDER BY value) FILTER (run_id = $a) AS a,
                   string_agg(value, ', ' ORDER BY value) FILTER (run_id = $b) AS b
            FROM made GROUP BY phase, item
        )
        WHERE a IS DISTINCT FROM b
          AND phase IN (SELECT phase FROM made WHERE run_id = $a)
          AND phase IN (SELECT phase FROM made WHERE run_id = $b)
        GROUP BY item, a, b ORDER BY ALL
        """,
        **sides,
    )


def _problems(store: Connection, sides: Sides) -> dict[str, Any]:
    """Return how many problems each run has, shares, and has on another side of the split, and a few of these."""
    both = (
        "WITH both_runs AS (SELECT problem_id, a.split AS a, b.split AS b "
        "FROM (FROM run_problems WHERE run_id = $a) a FULL JOIN (FROM run_problems WHERE run_id = $b) b "
        "USING (problem_id)) "
    )
    counts = fetch_rows(
        store,
        both + "SELECT split, count(*) FILTER (a = split) AS num_a, count(*) FILTER (b = split) AS num_b, "
        "count(*) FILTER (a = split AND b = split) AS num_shared, "
        "count(*) FILTER (a = split AND b IS NULL) AS num_only_a, "
        "count(*) FILTER (b = split AND a IS NULL) AS num_only_b, "
        "count(*) FILTER (b = split AND a <> split) AS num_moved_here "
        f"FROM both_runs, (VALUES ('{TRAIN}'), ('{HELD_OUT}')) s (split) GROUP BY split ORDER BY split DESC",
        **sides,
    )
    examples = fetch_rows(
        store,
        both + "SELECT kind, problem_id, a, b, question "
        "FROM (SELECT *, row_number() OVER (PARTITION BY kind ORDER BY problem_id) AS number "
        "      FROM (SELECT *, CASE WHEN b IS NULL THEN 'only_a' WHEN a IS NULL THEN 'only_b' "
        "                           WHEN a <> b THEN 'moved' END AS kind FROM both_runs) WHERE kind IS NOT NULL) "
        f"LEFT JOIN problems USING (problem_id) WHERE number <= {NUM_EXAMPLES} ORDER BY kind, problem_id",
        **sides,
    )
    by_split = {row.pop("split"): row for row in counts}
    num = {name: sum(row[name] for row in counts) for name in ("num_a", "num_b", "num_only_a", "num_only_b")}
    num["num_moved"] = sum(row["num_moved_here"] for row in counts)
    num["num_shared"] = num["num_a"] - num["num_only_a"]
    by_kind: dict[str, list[Row]] = {"only_a": [], "only_b": [], "moved": []}
    for row in examples:
        by_kind[row.pop("kind")].append(row)
    return num | {"by_split": by_split} | by_kind


def _funnel(store: Connection, sides: Sides) -> list[Row]:
    """Return the rows of both funnels side by side, with the difference and the size of each phase.

    A reason counts up to its colon; what follows is about the single row.
    """
    rows = fetch_rows(
        store,
        "SELECT phase, outcome, split_part(reason, ':', 1) AS reason, "
        "sum(num) FILTER (run_id = $a)::BIGINT AS a, sum(num) FILTER (run_id = $b)::BIGINT AS b "
        "FROM funnel WHERE run_id IN ($a, $b) GROUP BY position, 1, 2, 3 ORDER BY position, 1, 2, 3",
        **sides,
    )
    for side, run_id in sides.items():
        closed = _closed_phases(store, run_id)
        for row in rows:
            is_selected = row["outcome"] == "kept" or (row["outcome"] or "").startswith("dropped by")
            settled_by = SETTLED_BY.get("kept" if is_selected else row["phase"])
            if row[side] is None and (settled_by is None or settled_by in closed):
                row[side] = 0
        for row in rows:
            counts = [one[side] for one in rows if one["phase"] == row["phase"] and one[side] is not None]
            row[f"num_in_phase_{side}"] = sum(counts) if counts else None
    return [row | {"difference": _difference(row)} for row in rows]


def _yields(store: Connection, sides: Sides) -> list[Row]:
    """Return what became of samples and repairs, what each stage trains on, and what an example cost."""
    rows = fetch_rows(
        store,
        "SELECT topic, item, metric, a, b FROM run_comparison WHERE run_a = $a AND run_b = $b "
        "AND topic IN ('samples', 'repairs', 'pure', 'examples', 'cost') AND NOT starts_with(item, 'evaluation') "
        "ORDER BY position, item, metric",
        **sides,
    )
    for side, run_id in sides.items():
        closed = _closed_phases(store, run_id)
        for row in rows:
            if not row[side] and SETTLED_BY.get(row["metric"], "") not in {"", *closed}:
                row[side] = None
    return [row | {"difference": _difference(row)} for row in rows]


def _spend(store: Connection, sides: Sides) -> list[Row]:
    """Return by phase the tokens that it rests on, those that the run itself sampled, and its wall time."""
    columns = ", ".join(
        f"max({name}) FILTER (run_id = ${side}) AS {name}_{side}"
        for name in ("num_tokens", "num_new_tokens", "wall_seconds")
        for side in sides
    )
    sql = (
        f"SELECT phase, {columns} FROM phase_spend WHERE run_id IN ($a, $b) GROUP BY position, phase ORDER BY position"
    )
    return fetch_rows(store, sql, **sides)


def _closed_phases(store: Connection, run_id: str) -> set[str]:
    sql = "SELECT DISTINCT phase FROM run_events WHERE run_id = $run AND event = 'phase'"
    return {row["phase"] for row in fetch_rows(store, sql, run=run_id)}


def _difference(row: Row) -> Any:
    return None if row["a"] is None or row["b"] is None else row["b"] - row["a"]
