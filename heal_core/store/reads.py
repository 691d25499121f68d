"""What the pipeline asks of the store, as named functions; each returns plain records or a frame."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from heal_core.errors import StoreError
from heal_core.plan import Attempt, GradedAttempt, Slot
from heal_core.records import EXACT, FinishReason, Step
from heal_core.reference import Reference, reference_of
from heal_core.store.inspect import NOTED_PRICES
from heal_core.store.reading import Readable
from heal_core.store.store import Store


@dataclass(frozen=True)
class TokenRow:
    """A trajectory's text with its token arrays, shape [T]; `entropy_radii` is None where entropies are exact."""

    trajectory_id: str
    problem_id: str
    prefix: str
    text: str
    token_ids: np.ndarray
    logprobs: np.ndarray
    entropies: np.ndarray
    token_starts: np.ndarray
    entropy_source: str = EXACT
    entropy_radii: np.ndarray | None = None


def read_attempts(store: Readable, slots: Sequence[Slot]) -> dict[str, list[Attempt]]:
    """Return the stored attempts of the given slots, by slot."""
    frame = store.frame_for(
        sorted({slot.slot_id for slot in slots}),
        "SELECT trajectory_id, slot_id, limit_tokens, num_tokens, finish_reason "
        "FROM trajectories SEMI JOIN wanted ON slot_id = id ORDER BY ALL",
    )
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for row_id, slot_id, limit, num_tokens, finish_reason in frame.iter_rows():
        attempts[slot_id].append(Attempt(row_id, slot_id, limit, num_tokens, FinishReason(finish_reason)))
    return attempts


def read_tokens(store: Store, trajectory_ids: Sequence[str]) -> dict[str, TokenRow]:
    """Return trajectories with their token arrays, from the parts that hold them.

    Raises:
        StoreError: If such a part is damaged.
    """
    ids = sorted(set(trajectory_ids))
    if not ids:
        return {}
    parts = store.frame_for(
        ids, "SELECT DISTINCT part_name FROM trajectories SEMI JOIN wanted ON trajectory_id = id ORDER BY ALL"
    )
    store.check_parts(parts["part_name"])
    folder = store.workspace.parts / "trajectories"
    files = [str(folder / f"{name}.parquet") for name in parts["part_name"]]
    # parts from before schema 0008 have neither column
    late = "(SELECT NULL::VARCHAR AS entropy_source, NULL::FLOAT[] AS entropy_radii WHERE false)"
    frame = store.frame_for(
        ids,
        "SELECT trajectory_id, problem_id, prefix, text, token_ids, logprobs, entropies, token_starts, "
        "entropy_source, entropy_radii "
        f"FROM (FROM {late} UNION ALL BY NAME FROM read_parquet(?, union_by_name = true, filename = true)) r "
        "SEMI JOIN (FROM trajectories SEMI JOIN wanted ON trajectory_id = id) t "
        "ON r.trajectory_id = t.trajectory_id AND parse_filename(r.filename, true) = t.part_name",
        [files],
    )
    return {
        row["trajectory_id"]: TokenRow(
            row["trajectory_id"],
            row["problem_id"],
            row["prefix"],
            row["text"],
            np.asarray(row["token_ids"], dtype=np.int64),
            np.asarray(row["logprobs"], dtype=np.float64),
            np.asarray(row["entropies"], dtype=np.float64),
            np.asarray(row["token_starts"], dtype=np.int64),
            row["entropy_source"] or EXACT,
            None if row["entropy_radii"] is None else np.asarray(row["entropy_radii"], dtype=np.float64),
        )
        for row in frame.iter_rows(named=True)
    }


def read_known(store: Readable, table: str, key: str, ids: Sequence[str]) -> set[str]:
    """Return which of the content keys `ids` the table already holds."""
    frame = store.frame_for(sorted(set(ids)), f"SELECT {key} FROM {table} SEMI JOIN wanted ON {key} = id")
    return set(frame[key])


def read_verdicts(
    store: Readable, trajectory_ids: Sequence[str], verifiers: Sequence[tuple[str, str]]
) -> dict[str, list[GradedAttempt]]:
    """Return what the given verifiers (name, version) said of trajectories, in the order of storing."""
    frame = store.frame_for(
        sorted(set(trajectory_ids)),
        "SELECT verdict_id, trajectory_id, verifier, verifier_version, reason, limit_seconds "
        "FROM verdicts SEMI JOIN wanted ON trajectory_id = id ORDER BY verdicts.rowid",
    )
    verdicts: dict[str, list[GradedAttempt]] = defaultdict(list)
    for verdict_id, trajectory_id, verifier, version, reason, limit in frame.iter_rows():
        if (verifier, version) in verifiers:
            verdicts[trajectory_id].append(GradedAttempt(verdict_id, trajectory_id, (verifier, version), reason, limit))
    return verdicts


def read_labels(store: Store, verdict_ids: Sequence[str]) -> dict[str | None, str]:
    """Return the labels of verdicts."""
    frame = store.frame_for(
        sorted(set(verdict_ids)), "SELECT verdict_id, label FROM verdicts SEMI JOIN wanted ON verdict_id = id"
    )
    return dict(frame.iter_rows())


def read_run_problems(store: Store, run_id: str, split: str | None = None) -> list[dict[str, Any]]:
    """Return the run's problems with their chunk, in the order of chunk and id."""
    return store.rows(
        "SELECT p.*, r.split FROM run_problems r JOIN problems p USING (problem_id) "
        "WHERE r.run_id = $run AND ($split IS NULL OR r.split = $split) ORDER BY p.chunk_index, p.problem_id",
        {"run": run_id, "split": split},
    )


def read_failed_problems(store: Store, run_id: str) -> list[dict[str, Any]]:
    """Return the problems of a run that are in quarantine, with the phase and the work that failed."""
    return store.rows(
        "SELECT problem_id, phase, work, reason FROM quarantine WHERE run_id = ? AND problem_id IS NOT NULL "
        "ORDER BY rowid",
        [run_id],
    )


def read_attempts_of(store: Readable, basis_id: str, purpose: str) -> list[dict[str, Any]]:
    """Return the runs that differ in attempt only, the last one last."""
    return store.rows(
        "SELECT r.run_id, coalesce(r.attempt, 0) AS attempt, r.start_checkpoint_id, "
        "coalesce(s.completed, false) AS completed, "
        "(SELECT count(*) FROM quarantine q WHERE q.run_id = r.run_id AND q.problem_id IS NOT NULL)::INTEGER "
        "AS num_failed FROM runs r JOIN run_status s USING (run_id) "
        "WHERE coalesce(r.basis_id, r.run_id) = $basis AND coalesce(r.purpose, 'distillation') = $purpose "
        "ORDER BY attempt",
        {"basis": basis_id, "purpose": purpose},
    )


def read_promoted(store: Store) -> dict[str, Any] | None:
    """Return the decision that made the present latest student; None without one."""
    rows = store.rows("SELECT * FROM promotions WHERE decision = 'promoted' ORDER BY rowid DESC LIMIT 1")
    return rows[0] if rows else None


def read_best_students(store: Readable) -> list[str]:
    """Return the checkpoints that were the best promoted student once, the present one first."""
    return [
        row["checkpoint_id"]
        for row in store.rows("SELECT checkpoint_id FROM promotions WHERE becomes_best ORDER BY rowid DESC")
    ]


def read_promotion(store: Store, run_id: str) -> dict[str, Any] | None:
    """Return what was decided on a run's student, None before."""
    rows = store.rows("SELECT * FROM promotions WHERE run_id = ? ORDER BY rowid DESC LIMIT 1", [run_id])
    return rows[0] if rows else None


def read_makers(store: Store, checkpoint_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the runs that trained the given checkpoints, or those that they started from."""
    return store.frame_for(
        sorted(set(checkpoint_ids)),
        "WITH RECURSIVE line(id) AS ("
        "SELECT id FROM wanted UNION "
        "SELECT c.parent_checkpoint_id FROM line JOIN checkpoints c ON c.checkpoint_id = line.id "
        "WHERE c.parent_checkpoint_id IS NOT NULL) "
        "SELECT DISTINCT run_id FROM run_rows WHERE phase = 'training' AND row_id IN (SELECT id FROM line)",
    ).to_dicts()


def read_trained_on(store: Store, checkpoint_ids: Sequence[str]) -> set[str]:
    """Return the training problems of all runs that made the given checkpoints or those before them."""
    runs = [row["run_id"] for row in read_makers(store, checkpoint_ids)]
    frame = store.frame_for(
        runs, "SELECT DISTINCT problem_id FROM run_problems SEMI JOIN wanted ON run_id = id WHERE split = 'train'"
    )
    return set(frame["problem_id"])


def read_run_trajectories(store: Store, run_id: str, phase: str, arm: str = "") -> pl.DataFrame:
    """Return what a run uses in a phase, with verdicts, in the order of problem and sample."""
    return store.frame(
        "SELECT t.*, p.question, p.answer, p.problem_type, p.chunk_index FROM run_trajectories t "
        "JOIN problems p USING (problem_id) WHERE run_id = $run AND phase = $phase AND arm = $arm "
        "ORDER BY chunk_index, problem_id, parent_id, sample_index, trajectory_id",
        {"run": run_id, "phase": phase, "arm": arm},
    )


def read_references(store: Store, problem_ids: Iterable[str]) -> dict[str, Reference]:
    """Return what problems are compared with, each once: tests can be large, and texts of a problem are many."""
    frame = store.frame_for(
        sorted(set(problem_ids)),
        "SELECT problem_id, answer, problem_type, spec FROM problems SEMI JOIN wanted ON problem_id = id",
    )
    return {row["problem_id"]: reference_of(row) for row in frame.iter_rows(named=True)}


def read_templates(store: Store, recipe_ids: Iterable[str]) -> dict[str, str]:
    """Return the prompt with empty slots of each recipe."""
    frame = store.frame_for(
        sorted(set(recipe_ids)),
        "SELECT recipe_id, settings ->> '$.template' AS template FROM recipes SEMI JOIN wanted ON recipe_id = id",
    )
    return dict(frame.iter_rows())


def read_bands(store: Store, run_id: str, split: str | None = None) -> dict[str, str]:
    """Return the band of each problem of a run."""
    rows = store.rows(
        "SELECT problem_id, band FROM bands WHERE run_id = $run AND ($split IS NULL OR split = $split) ORDER BY ALL",
        {"run": run_id, "split": split},
    )
    return {row["problem_id"]: row["band"] for row in rows}


def read_benchmarks(store: Store, run_id: str) -> dict[str, str]:
    """Return what the source of each held-out problem of a run is called; "" in a run from before schema 0009."""
    rows = store.rows(
        "SELECT problem_id, coalesce(benchmark, '') AS benchmark FROM run_problems "
        "WHERE run_id = ? AND split = 'held_out'",
        [run_id],
    )
    return {row["problem_id"]: row["benchmark"] for row in rows}


def read_profiles(store: Store, profile_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return stored profiles as dictionaries, in the order of trajectory."""
    frame = store.frame_for(
        sorted(profile_ids), "SELECT * FROM profiles SEMI JOIN wanted ON profile_id = id ORDER BY trajectory_id"
    )
    return list(frame.iter_rows(named=True))


def steps_of(profile: dict[str, Any], num_chars: int, num_tokens: int) -> tuple[Step, ...]:
    """Return the steps of a stored profile."""
    chars = [*profile["step_start_chars"], num_chars]
    tokens = [*profile["step_start_tokens"], num_tokens]
    return tuple(Step(chars[i], chars[i + 1], tokens[i], tokens[i + 1]) for i in range(profile["num_steps"]))


def read_texts(store: Store, trajectory_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return question and whole response of trajectories, by ascending id."""
    frame = store.frame_for(
        sorted(set(trajectory_ids)),
        "SELECT trajectory_id, problem_id, question, prefix || text AS response, num_tokens "
        "FROM trajectories JOIN problems USING (problem_id) SEMI JOIN wanted ON trajectory_id = id "
        "ORDER BY trajectory_id",
    )
    return list(frame.iter_rows(named=True))


def read_pass_rates(store: Store, run_id: str) -> list[dict[str, Any]]:
    """Return the teacher's counts per problem of a run."""
    return store.rows("SELECT * FROM pass_rates WHERE run_id = ? ORDER BY problem_id", [run_id])


def read_kept(store: Store, run_id: str, phase: str, arm: str = "") -> dict[str, Any]:
    """Return what a decision phase kept, with the value it rests on; `arm` is that of a control."""
    rows = read_decisions(store, run_id, phase, arm)
    return {row["subject_id"]: row["value"] for row in rows if row["decision"] == "kept"}


def read_decisions(store: Store, run_id: str, phase: str, arm: str = "") -> list[dict[str, Any]]:
    """Return what was decided in a phase, in the order of subjects; `arm` is that of a control."""
    return store.rows(
        "SELECT subject_id, problem_id, decision, reason, value FROM decisions "
        "WHERE run_id = ? AND phase = ? AND coalesce(arm, '') = ? ORDER BY subject_id",
        [run_id, phase, arm],
    )


def read_scores(store: Store, run_id: str, kind: str = "score", arm: str = "") -> list[dict[str, Any]]:
    """Return the PURE scores that a run uses for its own repairs or a control's, with their problems."""
    return store.rows(
        "SELECT t.problem_id, s.* FROM run_rows r JOIN scores s ON s.score_id = r.row_id "
        "JOIN trajectories t USING (trajectory_id) "
        "WHERE r.run_id = ? AND r.kind = ? AND r.arm = ? ORDER BY s.trajectory_id",
        [run_id, kind, arm],
    )


def read_hints(store: Store, run_id: str) -> list[dict[str, Any]]:
    """Return the hints that a run accepted: the wrong rollout, its problem, the hint's row and text as written."""
    return store.rows(
        "SELECT t.parent_id, t.problem_id, t.trajectory_id AS hint_id, t.text FROM decisions d "
        "JOIN trajectories t ON t.trajectory_id = d.subject_id "
        "WHERE d.run_id = ? AND d.phase = 'hint_gate' AND d.decision = 'kept' ORDER BY t.parent_id",
        [run_id],
    )


def read_stage(store: Store, run_id: str, arm: str, stage: str) -> list[dict[str, Any]]:
    """Return the examples of a stage of an arm, in training order."""
    return store.rows(
        "SELECT trajectory_id, problem_id FROM stage_examples "
        "WHERE run_id = ? AND arm = ? AND stage = ? ORDER BY position",
        [run_id, arm, stage],
    )


def read_held_out_solutions(store: Store, run_id: str, limit: int) -> list[str]:
    """Return the ids of the teacher's right answers to held-out problems, the first of each, of up to `limit` problems.

    Which problems is decided by their ids, which are hashes, so that fewer are a part of more.
    """
    rows = store.rows(
        "SELECT first(trajectory_id ORDER BY sample_index, trajectory_id) AS trajectory_id FROM run_trajectories "
        "JOIN run_problems USING (run_id, problem_id) "
        "WHERE run_id = ? AND phase = 'rollouts' AND split = 'held_out' AND label = 'correct' "
        "GROUP BY problem_id ORDER BY problem_id LIMIT ?",
        [run_id, limit],
    )
    return [row["trajectory_id"] for row in rows]


def read_extra_tokens(store: Store, run_id: str) -> dict[str, int]:
    """Return the completion tokens that HEAL spent beyond the base rollouts, by training problem."""
    rows = store.rows(
        "SELECT problem_id, sum(num_tokens)::BIGINT AS num FROM run_trajectories "
        "WHERE run_id = ? AND phase IN ('hints', 'repairs', 'guided') GROUP BY problem_id ORDER BY problem_id",
        [run_id],
    )
    return {row["problem_id"]: row["num"] for row in rows}


def read_checkpoint(store: Store, run_id: str, arm: str, stage: str) -> str:
    """Return the id of a stage's checkpoint in a run.

    Raises:
        StoreError: If the arm has not been trained so far.
    """
    rows = store.rows(
        "SELECT c.checkpoint_id FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id "
        "WHERE r.run_id = ? AND r.phase = 'training' AND r.arm = ? AND c.stage = ?",
        [run_id, arm, stage],
    )
    if not rows:
        raise StoreError(f"run {run_id} has no checkpoint of arm {arm}, stage {stage}; run its training first.")
    return str(rows[0]["checkpoint_id"])


def read_closed_phases(store: Readable, run_id: str) -> set[str]:
    """Return the phases that a run has closed."""
    rows = store.rows("SELECT DISTINCT phase FROM run_events WHERE run_id = ? AND event = 'phase'", [run_id])
    return {row["phase"] for row in rows}


def read_noted_prices(store: Store, run_id: str) -> dict[str, Any] | None:
    """Return the prices by role that a run noted last; None where it never noted any."""
    rows = store.rows(NOTED_PRICES, [run_id])
    return dict(json.loads(rows[0]["prices"])) if rows else None


def is_complete(store: Store, run_id: str) -> bool:
    """Return whether a run came to its end and everything it uses is still there."""
    completed = "SELECT 1 AS one FROM run_events WHERE run_id = ? AND event = 'completed'"
    lost = (
        "SELECT 1 AS one FROM run_rows r WHERE r.run_id = ? "
        "AND r.row_id NOT IN (SELECT trajectory_id FROM trajectories) "
        "AND r.row_id NOT IN (SELECT score_id FROM scores) "
        "AND r.row_id NOT IN (SELECT checkpoint_id FROM checkpoints) LIMIT 1"
    )
    folders = store.rows(
        "SELECT DISTINCT c.folder FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id WHERE r.run_id = ?",
        [run_id],
    )
    return (
        bool(store.rows(completed, [run_id]))
        and not store.rows(lost, [run_id])
        and all((store.workspace.root / row["folder"]).is_dir() for row in folders)
    )


def next_chunk_index(store: Store) -> int:
    """Return the first chunk that no problem is in yet."""
    return int(store.rows("SELECT coalesce(max(chunk_index) + 1, 0) AS next FROM problems")[0]["next"])
