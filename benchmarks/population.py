"""Who lives in a synthetic store: problems, rollouts, hints, repairs, and what became of each.

The outcomes are drawn so that they agree as those of a run do: bands follow from verdicts,
only extremely hard training problems are repaired, every correct repair meets gate, PURE
and cap in that order. Left out: guided samples, controls, training and evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from benchmarks.columns import Columns, strings
from heal_core.bands import BandsConfig, assign_band
from heal_core.records import Band

GROUP = 16
"""Rollouts per problem."""

PATHS, REPAIRS_PER_PATH = 4, 5
_PER_REPAIRED = PATHS * (1 + REPAIRS_PER_PATH)
_KEPT_PER_PROBLEM = 4

_CUT = 0.02
_UNVERIFIABLE = 0.002
_REPAIR_CORRECT = 0.3
_GATE_DROPS = 0.03
_PURE_DROPS = 0.2


@dataclass(frozen=True)
class Population:
    """All rows that have an identity of their own.

    Attributes:
        problems: One row per problem: `problem_id`, `split`, `chunk_index`, `band`.
        trajectories: `trajectory_id`, `kind`, `problem_id`, `parent_id`, `hint_id`,
            `sample_index`, `cut`, and the verdict: `verdict_id`, `label`, `reason`.
        decisions: `phase`, `subject_id`, `problem_id`, `decision`, `reason`, `value`.
    """

    problems: pl.DataFrame
    trajectories: pl.DataFrame
    decisions: pl.DataFrame


def populate(columns: Columns, num_trajectories: int, repair_share: float) -> Population:
    """Return a population of exactly `num_trajectories`, about `repair_share` of them hints and repairs."""
    num_repaired = int(num_trajectories * repair_share) // _PER_REPAIRED
    num_rollouts = num_trajectories - num_repaired * _PER_REPAIRED
    num_problems = -(-num_rollouts // GROUP)
    problem_ids = pl.Series("problem_id", strings(columns.ids(num_problems)))
    rollouts = _rollouts(columns, num_rollouts, num_repaired, problem_ids)
    problems = _problems(columns, rollouts, problem_ids, num_repaired)
    hints = _hints(columns, rollouts, num_repaired)
    repairs = _repairs(columns, hints)
    trajectories = pl.concat([rollouts, hints, repairs], how="diagonal").select(rollouts.columns)
    decisions = pl.concat(
        [
            _banded(problems),
            _decided(hints.with_columns(trajectory_id="parent_id"), "path", pl.lit(True), ""),
            _decided(hints, "hint_gate", pl.lit(True), ""),
            *_repair_decisions(columns, repairs),
            *_base_decisions(rollouts, problems),
        ]
    )
    return Population(problems, trajectories, decisions)


def _rollouts(columns: Columns, num: int, num_repaired: int, problem_ids: pl.Series) -> pl.DataFrame:
    """Return rollouts by problem; those of the first `num_repaired` problems are all wrong."""
    rates = columns.rng.beta(2.0, 1.0, len(problem_ids))
    rates[:num_repaired] = 0.0
    problem = np.arange(num) // GROUP
    frame = pl.DataFrame(
        {
            "trajectory_id": pl.Series(strings(columns.ids(num))),
            "problem_id": problem_ids.gather(problem),
            "sample_index": pl.Series(np.arange(num) % GROUP, dtype=pl.Int32),
            "parent_id": pl.Series([None] * num, dtype=pl.String),
            "hint_id": pl.Series([None] * num, dtype=pl.String),
            "kind": pl.repeat("rollout", num, eager=True),
            "cut": columns.rng.random(num) < _CUT,
        }
    )
    return _graded(columns, frame, columns.rng.random(num) < rates[problem])


def _problems(columns: Columns, rollouts: pl.DataFrame, problem_ids: pl.Series, num_repaired: int) -> pl.DataFrame:
    """Return problems with the band that their rollouts give them.

    Extremely hard ones that are not repaired are held out: a run would have repaired them.
    """
    graded = rollouts.group_by("problem_id", maintain_order=True).agg(
        num_correct=(pl.col("label") == "correct").and_(~pl.col("cut")).sum().cast(pl.Int64),
        # of a cut text the view says wrong, whatever its verdict says
        num_graded=(pl.col("label") != "unverifiable").or_(pl.col("cut")).sum().cast(pl.Int64),
    )
    counts = graded.select("num_graded", "num_correct").unique()
    bands = [str(assign_band(num, correct, GROUP, BandsConfig())) for num, correct in counts.iter_rows()]
    index = np.arange(len(problem_ids))
    train = (index < num_repaired) | (columns.rng.random(len(index)) < 0.6)
    hardest = pl.col("band") == Band.EXTREMELY_HARD
    return (
        graded.join(counts.with_columns(band=pl.Series(bands)), on=["num_graded", "num_correct"], maintain_order="left")
        .with_columns(
            chunk_index=pl.Series(index // 16, dtype=pl.Int32), train=pl.Series(train), repaired=index < num_repaired
        )
        .with_columns(
            rate=pl.when(pl.col("num_graded") > 0).then(pl.col("num_correct") / pl.col("num_graded")),
            split=pl.when(pl.col("train") & (pl.col("repaired") | ~hardest))
            .then(pl.lit("train"))
            .otherwise(pl.lit("held_out")),
        )
    )


def _hints(columns: Columns, rollouts: pl.DataFrame, num_repaired: int) -> pl.DataFrame:
    """Return a hint for each of the first wrong rollouts of each repaired problem."""
    parents = rollouts.head(num_repaired * GROUP).filter(pl.col("sample_index") < PATHS)
    return parents.select(
        pl.Series("trajectory_id", strings(columns.ids(len(parents)))),
        "problem_id",
        pl.lit(0, pl.Int32).alias("sample_index"),
        pl.col("trajectory_id").alias("parent_id"),
        pl.lit("hint").alias("kind"),
        pl.lit(False).alias("cut"),
    )


def _repairs(columns: Columns, hints: pl.DataFrame) -> pl.DataFrame:
    """Return the repairs under each hint; a later sample of the same hint follows the earlier."""
    of_hint = hints[np.repeat(np.arange(len(hints)), REPAIRS_PER_PATH)]
    num = len(of_hint)
    frame = of_hint.select(
        pl.Series("trajectory_id", strings(columns.ids(num))),
        "problem_id",
        pl.Series("sample_index", np.arange(num) % REPAIRS_PER_PATH, dtype=pl.Int32),
        "parent_id",
        pl.col("trajectory_id").alias("hint_id"),
        pl.lit("repair").alias("kind"),
        pl.Series("cut", columns.rng.random(num) < _CUT),
    )
    return _graded(columns, frame, columns.rng.random(num) < _REPAIR_CORRECT)


def _graded(columns: Columns, frame: pl.DataFrame, solved: np.ndarray) -> pl.DataFrame:
    """Return the trajectories with a verdict each; that of a cut text may say correct all the same."""
    num = len(frame)
    drawn = pl.DataFrame(
        {
            "verdict_id": pl.Series(strings(columns.ids(num))),
            "solved": solved,
            "unverifiable": columns.rng.random(num) < _UNVERIFIABLE,
            "other_answer": columns.rng.random(num) < 0.8,
        }
    )
    unverifiable, solved_now = pl.col("unverifiable"), pl.col("solved")
    label = pl.when(unverifiable).then(pl.lit("unverifiable")).when(solved_now).then(pl.lit("correct"))
    reason = pl.when(unverifiable).then(pl.lit("timeout")).when("other_answer").then(pl.lit("different"))
    return pl.concat([frame, drawn], how="horizontal").select(
        *frame.columns,
        "verdict_id",
        label.otherwise(pl.lit("wrong")).alias("label"),
        pl.when(unverifiable | ~solved_now).then(reason.otherwise(pl.lit("no_answer"))).alias("reason"),
    )


def _repair_decisions(columns: Columns, repairs: pl.DataFrame) -> list[pl.DataFrame]:
    """Return what gate, PURE and cap said of the correct repairs, each of what the one before kept."""
    correct = repairs.filter((pl.col("label") == "correct") & ~pl.col("cut"))
    passed = pl.Series("passed", columns.rng.random(len(correct)) >= _GATE_DROPS)
    scored = correct.filter(passed)
    pure = pl.Series("pure", columns.rng.random(len(scored)) >= _PURE_DROPS)
    left = scored.filter(pure)
    return [
        _decided(correct, "gate", passed, "G2"),
        _decided(scored, "pure", pure, "shortcut").with_columns(value=pl.Series(columns.rng.random(len(scored)))),
        _decided(left, "cap", pl.int_range(pl.len()).over("problem_id") < _KEPT_PER_PROBLEM, "over_cap"),
    ]


def _base_decisions(rollouts: pl.DataFrame, problems: pl.DataFrame) -> list[pl.DataFrame]:
    """Return what gate and cap said of the correct rollouts of training problems."""
    train = problems.filter((pl.col("split") == "train") & (pl.col("band") != Band.EXTREMELY_HARD))
    correct = rollouts.filter((pl.col("label") == "correct") & ~pl.col("cut")).join(
        train, on="problem_id", how="semi", maintain_order="left"
    )
    return [
        _decided(correct, "gate_base", pl.lit(True), ""),
        _decided(correct, "cap", pl.int_range(pl.len()).over("problem_id") < 2, "near_duplicate"),
    ]


def _banded(problems: pl.DataFrame) -> pl.DataFrame:
    """Return the decision on each problem's band, with its pass rate."""
    return problems.select(
        pl.lit("band").alias("phase"),
        pl.col("problem_id").alias("subject_id"),
        "problem_id",
        pl.col("band").alias("decision"),
        pl.lit(None, pl.String).alias("reason"),
        pl.col("rate").alias("value"),
    )


def _decided(rows: pl.DataFrame, phase: str, kept: pl.Expr | pl.Series, reason: str) -> pl.DataFrame:
    """Return decisions on trajectories: kept, or dropped for the one reason."""
    return rows.with_columns(is_kept=kept).select(
        pl.lit(phase).alias("phase"),
        pl.col("trajectory_id").alias("subject_id"),
        "problem_id",
        pl.when("is_kept").then(pl.lit("kept")).otherwise(pl.lit("dropped")).alias("decision"),
        pl.when(~pl.col("is_kept")).then(pl.lit(reason)).alias("reason"),
        pl.lit(None, pl.Float64).alias("value"),
    )
