"""The views pass_rates, bands and funnel, written in polars over the Parquet parts: the peer of P9.

As a user without the store would write them: lazy scans of the columns that are needed,
and the joins of the views. What does not belong here: timing and comparing (`queries`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl


def pass_rates(parts: Path) -> pl.LazyFrame:
    """Return, per run and problem, the rollouts, how many were graded and correct."""
    rollouts = _run_trajectories(parts, ["rollouts"])
    graded, correct = pl.col("label").is_in(["correct", "wrong"]), pl.col("label") == "correct"
    num_graded, num_correct = graded.sum().cast(pl.Int64), correct.sum().cast(pl.Int64)
    counted = rollouts.group_by("run_id", "problem_id").agg(
        num_generations=pl.len().cast(pl.Int64),
        num_graded=num_graded,
        num_correct=num_correct,
        num_truncated=pl.col("cut").sum().cast(pl.Int64),
    )
    counts = ["num_generations", "num_graded", "num_correct", "num_truncated"]
    return (
        _scan(parts, "run_problems", ["run_id", "problem_id", "split"])
        .join(counted, on=["run_id", "problem_id"], how="left")
        .with_columns(pl.col(counts).fill_null(0))
        .with_columns(pass_rate=pl.when(pl.col("num_graded") > 0).then(pl.col("num_correct") / pl.col("num_graded")))
    )


def bands(parts: Path) -> pl.LazyFrame:
    """Return the pass rates with the band of each problem."""
    band = _decisions(parts, "band").select("run_id", pl.col("subject_id").alias("problem_id"), band="decision")
    return pass_rates(parts).join(band, on=["run_id", "problem_id"])


def funnel(parts: Path) -> pl.LazyFrame:
    """Return what became of everything, by phase."""
    outcomes = pl.concat([_rows(parts), _rollouts(parts), _problems(parts), _paths(parts), _repairs(parts)])
    counted = outcomes.group_by("run_id", "position", "phase", "outcome", "reason").agg(num=pl.len().cast(pl.Int64))
    return counted.with_columns(num_in_phase=pl.col("num").sum().over("run_id", "phase"))


QUESTIONS: dict[str, Callable[[Path], pl.LazyFrame]] = {"pass_rates": pass_rates, "bands": bands, "funnel": funnel}


def _rows(parts: Path) -> pl.LazyFrame:
    in_quarantine = _scan(parts, "quarantine", ["run_id", "reason", "problem_id"])
    quarantined = in_quarantine.filter(pl.col("problem_id").is_null()).select(
        "run_id", pl.col("reason").str.split(":").list.first(), outcome=pl.lit("quarantined")
    )
    problems = _scan(parts, "run_problems", ["run_id", "split"]).select(
        "run_id", pl.lit(None, pl.String).alias("reason"), outcome="split"
    )
    return _outcomes(pl.concat([quarantined, problems], how="diagonal"), 1, "rows")


def _rollouts(parts: Path) -> pl.LazyFrame:
    rollouts = _run_trajectories(parts, ["rollouts"]).with_columns(
        outcome=pl.when("cut").then(pl.lit("truncated")).otherwise("label"), reason=pl.lit(None, pl.String)
    )
    return _outcomes(rollouts, 2, "rollouts")


def _problems(parts: Path) -> pl.LazyFrame:
    return _outcomes(bands(parts).with_columns(outcome=pl.col("band"), reason=pl.col("split")), 3, "problems")


def _paths(parts: Path) -> pl.LazyFrame:
    hinted = pl.when(pl.col("decision") == "kept").then(pl.lit("hinted")).otherwise(pl.lit("dropped"))
    return _outcomes(_decisions(parts, "path").with_columns(outcome=hinted), 4, "paths")


def _repairs(parts: Path) -> pl.LazyFrame:
    """Return the outcome of each repair: of those that are correct, what the first filter against it said."""
    repairs = _run_trajectories(parts, ["repairs", "guided"])
    for phase in ("gate", "pure", "cap"):
        decided = _decisions(parts, phase).select(
            "run_id",
            pl.col("subject_id").alias("row_id"),
            pl.col("decision").alias(phase),
            pl.col("reason").alias(f"{phase}_reason"),
        )
        repairs = repairs.join(decided, on=["run_id", "row_id"], how="left")
    is_correct = pl.col("label").eq_missing(pl.lit("correct"))
    outcome = (
        pl.when("cut").then(pl.lit("truncated"))
        .when(~is_correct).then("label")
        .when(pl.col("gate") == "dropped").then(pl.lit("dropped by gate"))
        .when(pl.col("pure") == "dropped").then(pl.lit("dropped by PURE"))
        .when(pl.col("cap") == "dropped").then(pl.lit("dropped by cap"))
        .when(pl.col("cap") == "kept").then(pl.lit("kept"))
        .otherwise(pl.lit("undecided"))
    )  # fmt: skip
    reason = pl.when(is_correct & ~pl.col("cut")).then(pl.coalesce("gate_reason", "pure_reason", "cap_reason"))
    position = pl.when(pl.col("phase") == "repairs").then(5).otherwise(6)
    return _outcomes(repairs.with_columns(outcome=outcome, reason=reason), position, pl.col("phase"))


def _run_trajectories(parts: Path, phases: list[str]) -> pl.LazyFrame:
    """Return the trajectories that runs use in the given phases, with the label that counts there."""
    rows = _scan(parts, "run_rows", ["run_id", "phase", "row_id", "cut", "verdict_id"]).filter(
        pl.col("phase").is_in(phases)
    )
    trajectories = _scan(parts, "trajectories", ["trajectory_id", "problem_id"])
    verdicts = _scan(parts, "verdicts", ["verdict_id", "label", "reason"])
    counts_as_wrong = pl.col("cut") & pl.col("label").is_not_null() & pl.col("reason").ne_missing("unparsable_gold")
    return (
        rows.join(trajectories, left_on="row_id", right_on="trajectory_id")
        .join(verdicts, on="verdict_id", how="left")
        .with_columns(label=pl.when(counts_as_wrong).then(pl.lit("wrong")).otherwise("label"))
        .drop("reason")
    )


def _decisions(parts: Path, phase: str) -> pl.LazyFrame:
    return _scan(parts, "decisions", ["run_id", "phase", "subject_id", "decision", "reason"]).filter(
        pl.col("phase") == phase
    )


def _outcomes(rows: pl.LazyFrame, position: int | pl.Expr, phase: str | pl.Expr) -> pl.LazyFrame:
    named = phase if isinstance(phase, pl.Expr) else pl.lit(phase)
    numbered = position if isinstance(position, pl.Expr) else pl.lit(position)
    return rows.select("run_id", numbered.cast(pl.Int32).alias("position"), named.alias("phase"), "outcome", "reason")


def _scan(parts: Path, table: str, columns: list[str]) -> pl.LazyFrame:
    return pl.scan_parquet(parts / table / "*.parquet").select(columns)
