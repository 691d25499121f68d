"""What a run came to, as one dictionary (and `summary.json`). Everything is read back from the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heal_core.records import Band
from heal_core.store.reads import read_promotion
from heal_core.store.store import Store
from heal_core.store.summary_scores import summarise_contrasts, summarise_lm_eval, summarise_scores

PHASES_OF_REPAIR = ("hints", "repairs", "guided")
MIN_POWERED_PROBLEMS = 100
"""Held-out problems of the extremely hard band below which a summary says that it is not powered."""


def summarise_run(store: Store, run_id: str, made: Mapping[str, int], wall_seconds: float) -> dict[str, Any]:
    """Return the summary of a run.

    Args:
        made: What this process newly made, by phase; empty when everything was there.
        wall_seconds: Of this process.
    """
    return {
        "run_id": run_id,
        "problems": _problems(store, run_id),
        "rollouts": _count(store, run_id, "rollouts"),
        "imported_rollouts": _imported(store, run_id),
        "bands": _bands(store, run_id, "train"),
        "held_out_bands": _bands(store, run_id, "held_out"),
        "breakpoints": store.rows(
            "SELECT entropy_source, outcome, reason, num_rollouts, num_paths FROM breakpoint_sources "
            "WHERE run_id = ? ORDER BY ALL",
            [run_id],
        ),
        "repairs": _repairs(store, run_id),
        "gates": store.rows(
            "SELECT phase, gate, num_texts, num_judged, num_refused, refused_share, num_first, mean_value "
            "FROM gate_rates WHERE run_id = ? AND arm IS NULL "
            "ORDER BY phase, gate = 'G1', TRY_CAST(gate[2:] AS INTEGER)",
            [run_id],
        ),
        "early_stops": _early_stops(store, run_id),
        "funnel": store.rows(
            "SELECT phase, outcome, reason, num, num_in_phase FROM funnel WHERE run_id = ? "
            "ORDER BY position, outcome, reason",
            [run_id],
        ),
        "stages": _stages(store, run_id),
        "evaluation": summarise_scores(store, run_id),
        "contrasts": summarise_contrasts(store, run_id),
        "lm_eval": summarise_lm_eval(store, run_id),
        "ceiling": _ceiling(store, run_id),
        "promotion": read_promotion(store, run_id),
        "quarantined": _quarantined(store, run_id),
        "tokens": store.rows(
            "SELECT phase, arm, num_samples, num_tokens::BIGINT AS num_tokens FROM token_spend "
            "WHERE run_id = ? ORDER BY ALL",
            [run_id],
        ),
        "generated": {
            "rollouts": sum(made.get(name, 0) for name in ("rollouts", "equal_tokens", "ceiling")),
            "repairs": made.get("repairs", 0),
            "guided": made.get("guided", 0),
            "hints": made.get("hints", 0),
            "controls": made.get("control_hints", 0) + made.get("control_repairs", 0),
            "validity": made.get("validity", 0),
            "evaluation": made.get("evaluation", 0) + made.get("promotion", 0),
            "tokens": made.get("tokens", 0),
            "optimizer_steps": made.get("optimizer_steps", 0),
            "lm_evals": made.get("lm_evals", 0),
        },
        "powered": _bands(store, run_id, "held_out")[Band.EXTREMELY_HARD] >= MIN_POWERED_PROBLEMS,
        "wall_seconds": round(wall_seconds, 1),
    }


def _quarantined(store: Store, run_id: str) -> dict[str, int]:
    """Return how many rows of the sources and how many problems are in quarantine."""
    (row,) = store.rows(
        "SELECT count(*) FILTER (problem_id IS NULL)::INTEGER AS rows, "
        "count(*) FILTER (problem_id IS NOT NULL)::INTEGER AS problems FROM quarantine WHERE run_id = ?",
        [run_id],
    )
    return row


def _ceiling(store: Store, run_id: str) -> dict[str, int]:
    """Return how many extremely hard training problems all plain samples left unsolved, of how many."""
    (row,) = store.rows(
        "SELECT count(*) AS problems, count(*) FILTER (is_unsolved) AS unsolved FROM ceilings WHERE run_id = ?",
        [run_id],
    )
    return row


def _problems(store: Store, run_id: str) -> int:
    return int(store.rows("SELECT count(*) AS num FROM run_problems WHERE run_id = ?", [run_id])[0]["num"])


def _count(store: Store, run_id: str, phase: str) -> int:
    sql = "SELECT count(*) AS num FROM run_rows WHERE run_id = ? AND phase = ?"
    return int(store.rows(sql, [run_id, phase])[0]["num"])


def _imported(store: Store, run_id: str) -> int:
    """Return how many rollouts of a run were not sampled."""
    sql = "SELECT sum(num_rollouts)::BIGINT AS num FROM rollout_origins WHERE run_id = ? AND origin = 'imported'"
    return int(store.rows(sql, [run_id])[0]["num"] or 0)


def _bands(store: Store, run_id: str, split: str) -> dict[str, int]:
    rows = store.rows(
        "SELECT band, count(*) AS num FROM bands WHERE run_id = ? AND split = ? GROUP BY band", [run_id, split]
    )
    found = {row["band"]: row["num"] for row in rows}
    return {str(band): found.get(str(band), 0) for band in (Band.EASY, Band.HARD, Band.EXTREMELY_HARD, Band.UNGRADED)}


def _repairs(store: Store, run_id: str) -> dict[str, int]:
    (row,) = store.rows(
        "SELECT count(*) AS problems, sum(num_paths)::BIGINT AS paths, sum(num_attempted)::BIGINT AS attempted, "
        "sum(num_verified)::BIGINT AS verified, sum(num_passed_gates)::BIGINT AS passed_gates, "
        "sum(num_kept)::BIGINT AS kept, count(*) FILTER (num_verified > 0) AS problems_broken, "
        "sum(num_skipped)::BIGINT AS skipped, sum(estimated_tokens_saved)::BIGINT AS estimated_tokens_saved "
        "FROM repair_yield WHERE run_id = ?",
        [run_id],
    )
    return {key: int(value or 0) for key, value in row.items()}


def _early_stops(store: Store, run_id: str) -> dict[str, int]:
    """Return how many texts were given up as hopeless, what they cost, and what that saved at most."""
    (row,) = store.rows(
        "SELECT sum(num_stopped)::BIGINT AS stopped, sum(num_tokens)::BIGINT AS tokens, "
        "sum(max_saved_tokens)::BIGINT AS saved_at_most FROM early_stops WHERE run_id = ?",
        [run_id],
    )
    return {key: int(value or 0) for key, value in row.items()}


def _stages(store: Store, run_id: str) -> list[dict[str, Any]]:
    return store.rows(
        "SELECT c.stage AS name, c.num_examples AS examples, c.num_optimizer_steps AS optimizer_steps, "
        "c.num_dropped_over_long AS dropped_over_long, c.loss_first, c.loss_last, "
        "t.held_out_before, t.held_out_after, c.folder "
        "FROM training_stages t JOIN checkpoints c USING (checkpoint_id) "
        "WHERE t.run_id = ? AND t.arm = 'heal' ORDER BY c.stage",
        [run_id],
    )
