"""Phase: which repaired and guided texts become examples: gates, then PURE, then the cap and the stages."""

from __future__ import annotations

from collections.abc import Collection

from flows.scoring import score_rows
from flows.validity import choose_score
from heal_core.pure import AUTO
from heal_core.recipes import score_template
from heal_core.store.reads import read_kept, read_run_trajectories
from tasks.decisions import build_curriculum, filter_pure, gate_texts
from tasks.scores import WORK as PURE
from tasks.scores import ScoreWork
from tasks.session import Session, logger


def select_examples(session: Session) -> None:
    """Decide what the student is trained on."""
    gate_repairs(session)
    if session.config.pure.score == AUTO:
        choose_score(session)
    score_pure(session)
    stages = build_curriculum(session)
    logger.info(
        "curriculum: %s",
        ", ".join(f"stage {stage.name} {len(stage.row_ids)} examples ({stage.num_new} new)" for stage in stages),
    )


def gate_repairs(session: Session) -> None:
    """Pass verified repairs and guided samples through the gates, base rollouts for comparison."""
    counts = gate_texts(session)
    logger.info("gates refused: %s", _words(counts))


def score_pure(session: Session) -> None:
    """Score the repairs that passed the gates, and decide which of them PURE drops."""
    used = score_repairs(session, read_kept(session.store, session.run_id, "gate"))
    session.close_phase("pure", "", "score", used)
    logger.info("PURE: %s", _words(filter_pure(session)))


def score_repairs(session: Session, passed: Collection[str], phase: str = "repairs", arm: str = "") -> dict[str, bool]:
    """Return the ids of the PURE scores of a phase's repairs that `passed`; the scorer does not see the hint."""
    config = session.config
    recipe_id = session.recipe("score", session.scorer, None, score_template(config.pure, config.steps))
    repairs = read_run_trajectories(session.store, session.run_id, phase, arm).iter_rows(named=True)
    rows = [row for row in repairs if row["trajectory_id"] in passed]
    return score_rows(session, rows, ScoreWork, recipe_id, f"{PURE} {arm}".strip(), "repairs")


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {num}" for name, num in sorted(counts.items())) or "none"
