"""The set-level tasks of the controls: what they continue, what of it is kept, and what their stages show.

What does not belong here: what they do at random (`heal_core.controls`), sampling and scoring (`flows.controls`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import polars as pl

from heal_core.arms import EQUAL_TOKENS, HEAL, RANDOM_DROP, REJECTION_SAMPLING, SHUFFLED, WITHOUT_REPAIRS
from heal_core.controls import (
    MIN_WINDOW_SIZE,
    drop_at_random,
    mismatch_hints,
    random_rank,
    random_step,
    shuffle_exposures,
)
from heal_core.curriculum import STAGES, Stage, stage_order
from heal_core.hints import clean_hint
from heal_core.repair import BrokenPath, Hint
from heal_core.store.reads import (
    read_decisions,
    read_hints,
    read_kept,
    read_run_trajectories,
    read_scores,
    read_stage,
)
from tasks.decisions import (
    kept_word,
    natural_lengths,
    pure_decisions,
    record_cap,
    record_gates,
    record_stage,
    score_in_use,
    verified_rows,
)
from tasks.paths import choose_wrong_rows
from tasks.policy import decision_task
from tasks.repairs import break_paths
from tasks.session import Session

ChunkedPaths = list[tuple[int, BrokenPath]]

SMALL_WINDOW = "small_window"
CONTROL_SCORE = "control_score"
"""The kind under which a run uses PURE's scores of a control's repairs."""


@decision_task("cut paths of controls")
def cut_hinted_paths(session: Session) -> ChunkedPaths:
    """Return the paths that HEAL continued, cut where HEAL cut them."""
    continued = read_kept(session.store, session.run_id, "path")
    rows = {row_id: row for row_id, row in choose_wrong_rows(session).items() if row_id in continued}
    return break_paths(session, rows, lambda profile: profile["breakpoint_step"])


@decision_task("cut paths at random")
def cut_paths_at_random(session: Session) -> tuple[ChunkedPaths, frozenset[str]]:
    """Return the paths that have a breakpoint, cut at a random step of its window, and those of too small a window."""
    small: set[str] = set()

    def choose_step(profile: dict[str, Any]) -> int | None:
        if profile["breakpoint_step"] is None:
            return None
        if profile["window_size"] < MIN_WINDOW_SIZE:
            small.add(profile["trajectory_id"])
        return random_step(profile["trajectory_id"], profile["window_size"], session.config.seed)

    return break_paths(session, choose_wrong_rows(session), choose_step), frozenset(small)


@decision_task("mismatch hints")
def give_other_hints(session: Session, paths: Sequence[BrokenPath]) -> dict[str, Hint]:
    """Return another problem's accepted hint by path."""
    hints = {
        row["parent_id"]: Hint(row["hint_id"], clean_hint(row["text"]))
        for row in read_hints(session.store, session.run_id)
    }
    given = mismatch_hints({path.trajectory_id: path.problem_id for path in paths}, session.config.seed)
    return {path_id: hints[other] for path_id, other in given.items()}


@decision_task("record paths of controls")
def record_control_paths(
    session: Session,
    arm: str,
    paths: Sequence[BrokenPath],
    continued: Collection[str],
    why_not: str = "",
    small_windows: Collection[str] = (),
) -> None:
    """Store which paths a control continues, with the tokens that it keeps of each, and why not the others.

    Args:
        why_not: The reason of those that are not `continued`.
        small_windows: Those whose window is too small for a comparison of breakpoints; they are continued all the same.
    """

    def reason(path_id: str) -> str | None:
        return why_not if path_id not in continued else SMALL_WINDOW if path_id in small_windows else None

    session.record_decisions(
        "control_path",
        [
            (
                path.trajectory_id,
                path.problem_id,
                kept_word(path.trajectory_id in continued),
                reason(path.trajectory_id),
                float(len(path.prefix_token_ids)),
            )
            for path in paths
        ],
        arm,
    )


@decision_task("gate repairs of controls")
def gate_control(session: Session, arm: str) -> list[str]:
    """Return the verified repairs of a control that pass the gates."""
    bands = session.read_bands("train")
    natural = natural_lengths(verified_rows(session, "rollouts", bands), bands)
    rows = verified_rows(session, "control_repairs", bands, arm)
    decisions = record_gates(session, "control_gate", rows, natural, arm)
    return [subject_id for subject_id, _, decision, *_ in decisions if decision == kept_word(True)]


@decision_task("filter repairs of controls")
def select_control(session: Session, arm: str) -> tuple[str, ...]:
    """Return the repairs of a control that PURE and the cap keep, as they would HEAL's."""
    config = session.config
    rows = read_scores(session.store, session.run_id, CONTROL_SCORE, arm)
    decisions, _ = pure_decisions(rows, score_in_use(session), config.pure)
    session.record_decisions("control_pure", decisions, arm)
    scores = {
        row_id: value
        for row_id, _, decision, _, value in decisions
        if decision == kept_word(True) and value is not None
    }
    repairs = read_run_trajectories(session.store, session.run_id, "control_repairs", arm)
    return record_cap(session, repairs.filter(pl.col("trajectory_id").is_in(list(scores))), scores, arm)


@decision_task("drop repairs at random")
def select_at_random(session: Session) -> tuple[str, ...]:
    """Return the repairs that B6 keeps: of each problem as many as PURE kept, which the cap takes in random order."""
    seed = session.config.seed
    decided = read_decisions(session.store, session.run_id, "pure")
    num_dropped = Counter(row["problem_id"] for row in decided if row["decision"] != kept_word(True))
    dropped = drop_at_random({row["subject_id"]: row["problem_id"] for row in decided}, num_dropped, seed)
    ranks = {row["subject_id"]: random_rank(row["subject_id"], seed) for row in decided}
    session.record_decisions(
        "control_pure",
        [
            (
                row["subject_id"],
                row["problem_id"],
                kept_word(row["subject_id"] not in dropped),
                "random" if row["subject_id"] in dropped else None,
                ranks[row["subject_id"]],
            )
            for row in decided
        ],
        RANDOM_DROP,
    )
    kept = ranks.keys() - dropped
    repairs = read_run_trajectories(session.store, session.run_id, "repairs")
    return record_cap(session, repairs.filter(pl.col("trajectory_id").is_in(list(kept))), ranks, RANDOM_DROP)


@decision_task("build stages of controls")
def build_control_stages(session: Session, arm: str, repairs: Sequence[str] = ()) -> int:
    """Return how many examples a control's last stage has: HEAL's own but for the repairs."""
    seed = session.config.seed
    heal = {
        name: [row["trajectory_id"] for row in read_stage(session.store, session.run_id, HEAL, name)] for name in STAGES
    }
    if arm == SHUFFLED:
        epochs = session.config.curriculum.epochs
        stages = [Stage(name, tuple(heal[name]), 0, times) for name, times in zip(STAGES, epochs, strict=True)]
        shown = shuffle_exposures(stages, seed)
    else:
        assert arm not in (REJECTION_SAMPLING, EQUAL_TOKENS), "they have no stages of HEAL's"
        assert arm != WITHOUT_REPAIRS or not repairs, "it has none"
        shown = {name: tuple(heal[name]) for name in STAGES[:-1]}
        shown[STAGES[-1]] = stage_order([*heal[STAGES[-2]], *repairs], STAGES[-1], seed)
    for name, row_ids in shown.items():
        record_stage(session, arm, name, row_ids)
    return len(set(shown[STAGES[-1]]))
