"""The rows of a synthetic store, table by table, as columns.

A value that is not a column stands for a column of it; a column that is left out is empty.
What does not belong here: who lives in the store (`population`), and writing (`synthetic`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.columns import Columns, lists, strings
from benchmarks.population import Population
from heal_core import __version__

RUN_ID = "5e7d00000000"
_WRITTEN_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class SyntheticConfig:
    """What a synthetic store holds.

    Attributes:
        num_trajectories: Rollouts, hints and repairs together.
        mean_text_chars: Mean length of a text.
        mean_tokens: Mean entries of a token array; 500 would be true to the texts, fewer save disk.
        mean_steps: Mean steps of a profile.
        repair_share: Share of hints and repairs among the trajectories.
        rows_per_part: Rows in a part of trajectories, verdicts or profiles.
        seed: Seed of all that is drawn.
    """

    num_trajectories: int = 10_000
    mean_text_chars: float = 800.0
    mean_tokens: float = 32.0
    mean_steps: float = 10.0
    repair_share: float = 0.15
    rows_per_part: int = 10_000
    seed: int = 0


def table_rows(
    columns: Columns, population: Population, config: SyntheticConfig
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the columns of each part, in the order in which a run would write them."""
    problems, trajectories, decisions = population.problems, population.trajectories, population.decisions
    yield "runs", _run(config)
    yield "run_events", _event(columns, "started", _WRITTEN_AT)
    yield "recipes", _recipes()
    yield "problems", _problem_rows(columns, problems)
    yield "run_problems", _run_problem_rows(columns, problems)
    yield "quarantine", _quarantined(columns)
    for start in range(0, len(trajectories), config.rows_per_part):
        some = trajectories[start : start + config.rows_per_part]
        yield "trajectories", trajectory_rows(columns, some, config)
        if len(graded := some.filter(pl.col("kind") != "hint")):
            yield "verdicts", _verdict_rows(columns, graded)
        if len(rollouts := some.filter(pl.col("kind") == "rollout")):
            yield "profiles", _profile_rows(columns, rollouts, config)
    scored = decisions.filter(pl.col("phase") == "pure")
    scores = _score_rows(columns, scored)
    yield "scores", scores
    for kind, phase in (("rollout", "rollouts"), ("hint", "hints"), ("repair", "repairs")):
        yield "run_rows", _run_rows(columns, trajectories.filter(pl.col("kind") == kind), phase)
    yield "run_rows", _run_rows_of_scores(columns, scores["score_id"])
    for phase in decisions["phase"].unique(maintain_order=True):
        yield "decisions", _decision_rows(columns, decisions.filter(pl.col("phase") == phase))
    yield "stage_examples", _example_rows(columns, population)
    yield "run_events", _event(columns, "completed", _WRITTEN_AT + timedelta(hours=8))


def _run(config: SyntheticConfig) -> dict[str, Any]:
    return {
        "run_id": [RUN_ID],
        "config": json.dumps({"synthetic": asdict(config)}),
        "problems_digest": "synthetic",
        "seed": config.seed,
        "heal_version": __version__,
        "started_at": _WRITTEN_AT,
    }


def _event(columns: Columns, event: str, happened_at: datetime) -> dict[str, Any]:
    return {
        "event_id": strings(columns.ids(1)),
        "run_id": RUN_ID,
        "event": event,
        "happened_at": happened_at,
    }


def _recipes() -> dict[str, Any]:
    kinds = ["rollout", "hint", "repair", "score"]
    return {
        "recipe_id": [_recipe(kind) for kind in kinds],
        "kind": kinds,
        "model_name_or_path": "synthetic",
        "settings": '{"synthetic": true}',
    }


def _recipe(kind: str) -> str:
    return f"{kind:0<32}"


def _problem_rows(columns: Columns, problems: pl.DataFrame) -> dict[str, Any]:
    num = len(problems)
    return {
        "problem_id": problems["problem_id"],
        "question": columns.texts(columns.lengths(num, 250.0)),
        "answer": pl.Series(columns.rng.integers(0, 1000, num)).cast(pl.String),
        "source": "synthetic",
        "uuid": "",
        "problem_type": "math",
        "spec": None,
        "chunk_index": problems["chunk_index"],
    }


def _run_problem_rows(columns: Columns, problems: pl.DataFrame) -> dict[str, Any]:
    return {
        "run_problem_id": strings(columns.ids(len(problems))),
        "run_id": RUN_ID,
        "problem_id": problems["problem_id"],
        "split": problems["split"],
        "cluster_id": problems["problem_id"],
        "benchmark": "synthetic",
    }


def _quarantined(columns: Columns) -> dict[str, Any]:
    return {
        "quarantine_id": strings(columns.ids(3)),
        "run_id": RUN_ID,
        "source": "synthetic",
        "line": [1, 2, 3],
        "reason": "no answer",
        "raw": "{}",
    }


def trajectory_rows(columns: Columns, rows: pl.DataFrame, config: SyntheticConfig) -> dict[str, Any]:
    num = len(rows)
    is_hint, is_repair = (rows["kind"] == "hint").to_numpy(), (rows["kind"] == "repair").to_numpy()
    shorter = np.where(is_hint, 0.1, np.where(is_repair, 0.6, 1.0))
    num_chars = np.maximum(1, columns.lengths(num, config.mean_text_chars) * shorter).astype(np.int32)
    num_tokens = np.maximum(1, columns.lengths(num, config.mean_tokens) * shorter).astype(np.int32)
    prefix_chars = (columns.lengths(num, config.mean_text_chars) * is_repair * 0.4).astype(np.int32)
    prefix_tokens = (columns.lengths(num, config.mean_tokens) * is_repair * 0.4).astype(np.int32)
    return {
        "trajectory_id": rows["trajectory_id"],
        "slot_id": strings(columns.ids(num)),
        "kind": rows["kind"],
        "problem_id": rows["problem_id"],
        "parent_id": rows["parent_id"],
        "hint_id": rows["hint_id"],
        "recipe_id": rows["kind"].str.pad_end(32, "0"),
        "sample_index": rows["sample_index"],
        "limit_tokens": int(config.mean_tokens * 4),
        "prefix": columns.texts(prefix_chars),
        "text": columns.texts(num_chars),
        "finish_reason": rows.select(pl.when("cut").then(pl.lit("length")).otherwise(pl.lit("stop"))).to_series(),
        "num_prefix_tokens": prefix_tokens,
        "num_tokens": num_tokens,
        "num_prompt_tokens": prefix_tokens + 80,
        "num_cached_tokens": None,
        "entropy_source": "exact",
        "mean_entropy_nats": columns.rng.gamma(2.0, 0.2, num),
        "mean_logprob_nats": -columns.rng.gamma(2.0, 0.2, num),
        "seconds": columns.rng.gamma(2.0, 0.5, num),
        "created_at": _WRITTEN_AT,
        **columns.token_arrays(num_tokens, num_chars),
        "entropy_radii": None,
    }


def _verdict_rows(columns: Columns, rows: pl.DataFrame) -> dict[str, Any]:
    answers = pl.Series("answer", columns.rng.integers(0, 1000, len(rows))).cast(pl.String)
    return {
        "verdict_id": rows["verdict_id"],
        "trajectory_id": rows["trajectory_id"],
        "label": rows["label"],
        "extracted": rows.select(pl.when(~pl.col("reason").eq_missing("no_answer")).then(answers)).to_series(),
        "reason": rows["reason"],
        "verifier": "synthetic",
        "verifier_version": "1",
        "extraction": "boxed",
        "seconds": columns.rng.gamma(2.0, 0.01, len(rows)),
        "limit_seconds": 5.0,
        "created_at": _WRITTEN_AT,
    }


def _profile_rows(columns: Columns, rows: pl.DataFrame, config: SyntheticConfig) -> dict[str, Any]:
    num = len(rows)
    num_steps = columns.lengths(num, config.mean_steps)
    chars = columns.starts(num_steps, np.full(num, config.mean_text_chars))
    tokens = columns.starts(num_steps, np.full(num, config.mean_tokens))
    return {
        "profile_id": strings(columns.ids(num)),
        "trajectory_id": rows["trajectory_id"],
        "separator": "blank_line",
        "num_steps": num_steps,
        "step_start_chars": lists(num_steps, chars),
        "step_start_tokens": lists(num_steps, tokens),
        "step_entropies": lists(num_steps, columns.rng.gamma(2.0, 0.2, len(chars))),
        "breakpoint_step": np.minimum(1, num_steps - 1),
        "surge_nats": columns.rng.gamma(2.0, 0.2, num),
        "window_size": num_steps,
        "z_score": columns.rng.normal(0.0, 1.0, num),
        "flat": False,
        "entropy_source": "exact",
        "is_certain": True,
        "step_entropy_radii": None,
    }


def _score_rows(columns: Columns, scored: pl.DataFrame) -> dict[str, Any]:
    num, num_steps = len(scored), np.full(len(scored), 8)
    return {
        "score_id": strings(columns.ids(num)),
        "trajectory_id": scored["subject_id"],
        "recipe_id": _recipe("score"),
        "ratio": scored["value"],
        "jump": columns.rng.gamma(2.0, 0.2, num),
        "reliance": columns.rng.normal(0.0, 0.1, num),
        "step_perplexities": lists(num_steps, 1 + columns.rng.gamma(1.0, 0.1, 8 * num)),
        "answer_uncertainties": lists(num_steps + 1, columns.rng.gamma(2.0, 1.0, 9 * num)),
        "span_start": 2,
        "span_end": 8,
        "num_scored_tokens": 500,
        "seconds": columns.rng.gamma(2.0, 0.1, num),
    }


def _run_rows(columns: Columns, rows: pl.DataFrame, phase: str) -> dict[str, Any]:
    return {
        "run_row_id": strings(columns.ids(len(rows))),
        "run_id": RUN_ID,
        "phase": phase,
        "arm": "",
        "kind": rows["kind"],
        "row_id": rows["trajectory_id"],
        "cut": rows["cut"],
        "verdict_id": rows["verdict_id"],
    }


def _run_rows_of_scores(columns: Columns, score_ids: pa.Array) -> dict[str, Any]:
    return {
        "run_row_id": strings(columns.ids(len(score_ids))),
        "run_id": RUN_ID,
        "phase": "pure",
        "arm": "",
        "kind": "score",
        "row_id": score_ids,
        "cut": False,
    }


def _decision_rows(columns: Columns, rows: pl.DataFrame) -> dict[str, Any]:
    return {
        "decision_id": strings(columns.ids(len(rows))),
        "run_id": RUN_ID,
        **{name: rows[name] for name in ("phase", "subject_id", "problem_id", "decision", "reason", "value")},
    }


def _example_rows(columns: Columns, population: Population) -> dict[str, Any]:
    """Return what the stages train on: what the cap kept, by band."""
    stage = pl.col("band").replace_strict({"easy": "I", "hard": "II"}, default="III")
    kept = (
        population.decisions.filter((pl.col("phase") == "cap") & (pl.col("decision") == "kept"))
        .join(population.problems.select("problem_id", "band"), on="problem_id", maintain_order="left")
        .with_columns(stage=stage)
        .with_columns(position=pl.int_range(pl.len()).over("stage"))
    )
    return {
        "stage_example_id": strings(columns.ids(len(kept))),
        "run_id": RUN_ID,
        "arm": "heal",
        "stage": kept["stage"],
        "position": kept["position"],
        "trajectory_id": kept["subject_id"],
        "problem_id": kept["problem_id"],
    }
