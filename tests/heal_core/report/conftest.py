"""A run as the store counts it, by hand: what tests of the report change a little of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from heal_core.store.report import RunReport

Row = dict[str, Any]


def contrast(against: str = "base", difference: float = 0.2, low: float | None = 0.1, high: float | None = 0.3,
             p_adjusted: float | None = 0.01, **changes: Any) -> Row:  # fmt: skip
    return {
        "arm": "heal", "against": against, "band": "all", "benchmark": None, "num_problems": 40,
        "difference": difference,
        "low": low, "high": high, "p_value": p_adjusted, "p_adjusted": p_adjusted, "is_primary": False,
        "minimum_detectable_difference": 0.09, "is_powered": False, **changes,
    }  # fmt: skip


def score(arm: str, average: float, band: str = "all") -> Row:
    return {
        "arm": arm, "band": band, "k": 4, "num_problems": 40, "avg_at_k": average, "standard_error": 0.05,
        "pass_at_k": average, "truncated_share": 0.0, "no_answer_share": 0.0, "gain_over_base": None,
        "gap_closed": None,
    }  # fmt: skip


def funnel_row(phase: str, outcome: str, num: int, of: int, reason: str | None = None, position: int = 5) -> Row:
    return {"position": position, "phase": phase, "outcome": outcome, "reason": reason, "num": num, "num_in_phase": of}


@pytest.fixture
def make_report() -> Callable[..., RunReport]:
    """Return a function that makes a whole run's report, with fields replaced."""

    def make(**changes: Any) -> RunReport:
        fields: dict[str, Any] = {
            "run": {
                "run_id": "abc123", "config": {"teacher": {"model_name_or_path": "big"}, "seed": 0}, "seed": 0,
                "heal_version": "0", "git_revision": None, "started_at": datetime(2026, 1, 1, tzinfo=UTC),
                "purpose": "distillation", "attempt": 0, "state": "completed", "last_event_at": None,
                "wall_seconds": 90.0,
            },
            "models": [{"kind": "rollout", "model_name_or_path": "big", "settings": "{}"}],
            "funnel": [
                funnel_row("rollouts", "correct", 60, 100, position=2),
                funnel_row("rollouts", "wrong", 40, 100, position=2),
                funnel_row("repairs", "wrong", 20, 40),
                funnel_row("repairs", "dropped by cap", 9, 40, "near_duplicate"),
                funnel_row("repairs", "dropped by gate", 4, 40, "G3"),
                funnel_row("repairs", "dropped by gate", 1, 40, "G9"),
                funnel_row("repairs", "kept", 6, 40),
            ],
            "bands": [{"split": "train", "band": "easy", "num": 8},
                      {"split": "train", "band": "extremely_hard", "num": 5}],
            "pass_rates": [
                {"problem_id": "p", "band": "easy", "rate_before": 1.0, "rate_after": 1.0},
                {"problem_id": "q", "band": "extremely_hard", "rate_before": 0.0, "rate_after": 0.25},
            ],
            "ceiling": {
                "num_problems": 13, "num_extremely_hard": 5, "num_never": 4, "num_repaired": 3, "num_kept": 2,
                "num_generations": 16, "num_unsolved": 2, "num_unsolved_repaired": 1,
            },
            "entropies": [
                {"label": label, "step_offset": offset, "mean_entropy_nats": 0.1, "standard_error": 0.01, "num": 9,
                 "num_problems": 4}
                for label in ("correct", "wrong") for offset in (-1, 0, 1)
            ],
            "break_positions": [{"tenth": 1, "share": 0.6, "random_share": 0.5, "num": 6},
                                {"tenth": 2, "share": 0.4, "random_share": 0.5, "num": 4}],
            "gates": [{"phase": "repairs", "gate": "G3", "num_texts": 20, "num_judged": 20, "num_refused": 4,
                       "refused_share": 0.2, "num_first": 4}],
            "pure": [
                {"score_name": "ratio", "score": value, "decision": decision, "reason": None, "rule": "pooled",
                 "pooled_threshold": 2.5}
                for value, decision in ((1.0, "kept"), (2.0, "kept"), (3.0, "dropped"))
            ],
            "validity": [],
            "stage_mix": [{"stage": "I", "kind": "rollout", "num": 7}, {"stage": "III", "kind": "repair", "num": 2}],
            "losses": [{"stage": "I", "run_step": 1, "step": 1, "loss": 0.5, "learning_rate": 0.1, "grad_norm": 1.0}],
            "held_out": [
                {"stage": "I", "num_examples": 7, "num_optimizer_steps": 1, "num_dropped_over_long": 0,
                 "loss_first": 0.5, "loss_last": 0.4, "held_out_before": 0.6, "held_out_after": 0.5,
                 "num_held_out": 3, "seconds": 1.0}
            ],
            "scores": [score("heal", 0.4), score("base", 0.2), score("equal_tokens", 0.35)],
            "contrasts": [contrast(), contrast("equal_tokens", 0.05, -0.02, 0.12, 0.4)],
            "spend": [
                {"position": 1, "phase": "rollouts", "num_samples": 100, "num_tokens": 1000, "num_prompt_tokens": 500,
                 "num_cached_tokens": None, "num_scored_tokens": 0, "num_trained_tokens": 0, "engine_seconds": 1.0,
                 "wall_seconds": 2.0, "num_new_tokens": 1000, "num_closed": 1, "currency": None, "cost": None,
                 "new_cost": None}
            ],
            "quarantine": [{"what": "rows", "reason": "no_answer", "num": 2}],
        }  # fmt: skip
        return RunReport(**(fields | changes))

    return make
