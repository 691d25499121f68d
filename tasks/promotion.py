"""The set-level task that decides whether a run's student is promoted."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

from heal_core.evaluation import problem_means, ungradable_problems
from heal_core.keys import content_key
from heal_core.promotion import decide_promotion
from heal_core.store.reads import read_trained_on
from tasks.evaluation import BASE, graded_samples
from tasks.policy import decision_task
from tasks.session import Session


def arm_of(checkpoint_id: str) -> str:
    """Return the arm under which a best student's answers stand; another may be the best when a run goes on."""
    return f"best {checkpoint_id}"


@decision_task("decide promotion")
def decide(session: Session, candidate_id: str, best_id: str | None) -> str:
    """Return the decision in words, after storing it.

    Only problems count that neither student, nor one that it started from, was trained on.
    """
    k = session.config.evaluation.num_generations
    is_same = best_id == candidate_id
    candidate = graded_samples(session, "heal")
    if is_same:
        best = candidate
    elif best_id is None:
        best = graded_samples(session, BASE)
    else:
        best = graded_samples(session, arm_of(best_id), "promotion")
    trained_on = read_trained_on(session.store, [candidate_id, *([best_id] if best_id else [])])
    excluded = frozenset(trained_on) | ungradable_problems([*candidate, *best])
    promotion = decide_promotion(
        problem_means(candidate, k, excluded), problem_means(best, k, excluded), is_same, session.config.promotion
    )
    row = {
        "promotion_id": content_key("promotion", session.run_id, candidate_id),
        "run_id": session.run_id,
        "checkpoint_id": candidate_id,
        "best_checkpoint_id": best_id,
        "k": k,
        **asdict(promotion),
        "decided_at": datetime.now(UTC),
    }
    session.store.append("promotions", [row])
    return promotion.describe()
