"""Phase: the baseline B2. Per problem, HEAL's extra teacher tokens are spent on plain rollouts instead."""

from __future__ import annotations

from collections import defaultdict
from itertools import count

import polars as pl

from flows.rollouts import rollout_slots, sample_and_verify
from heal_core.equal_tokens import count_used, plan_more
from heal_core.recipes import TEMPLATES
from heal_core.records import Kind
from heal_core.store.reads import read_extra_tokens, read_run_trajectories, read_texts
from tasks.decisions import build_equal_tokens
from tasks.session import Session, logger

ARM = "equal_tokens"


def spend_equal_tokens(session: Session) -> None:
    """Build the baseline's examples, unless it is switched off."""
    if session.config.controls.equal_tokens:
        sample_equal_tokens(session)
        logger.info("equal tokens: %d examples", build_equal_tokens(session))


def sample_equal_tokens(session: Session) -> None:
    """Sample plain rollouts beyond the first N, with fresh seeds, until each problem's budget is spent."""
    config = session.config.rollouts
    recipe_id = session.recipe(Kind.ROLLOUT, session.teacher, config.sampling, TEMPLATES[Kind.ROLLOUT])
    problems = {row["problem_id"]: row for row in session.read_problems("train")}
    spent = read_extra_tokens(session.store, session.run_id)
    budgets = {problem_id: num for problem_id, num in spent.items() if problem_id in problems}
    rollouts = read_run_trajectories(session.store, session.run_id, "rollouts")
    typical = dict(rollouts.group_by("problem_id").agg(pl.col("num_tokens").mean()).iter_rows())
    lengths: dict[str, list[int]] = defaultdict(list)
    rows: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for wave in count():
        more = plan_more(lengths, budgets, typical)
        if not more:
            break
        slots = []
        for problem_id, num in more.items():
            first = config.num_generations + len(rows[problem_id])
            slots += rollout_slots([problems[problem_id]], recipe_id, range(first, first + num), config.sampling)
        used = sample_and_verify(session, ARM, slots, session.teacher, config.sampling, turn=f"wave {wave}")
        for problem_id in session.quarantine.problem_ids & budgets.keys():
            del budgets[problem_id]
        texts = read_texts(session.store, [row_id for row_id, _ in used.values()])
        counts = {row["trajectory_id"]: row["num_tokens"] for row in texts}
        for _, slot in slots:
            if slot.slot_id not in used:
                continue
            row_id, cut = used[slot.slot_id]
            rows[slot.problem_id].append((row_id, cut))
            lengths[slot.problem_id].append(counts[row_id])
    within = {
        row_id: cut
        for problem_id, problem_rows in rows.items()
        if problem_id in budgets
        for row_id, cut in problem_rows[: count_used(lengths[problem_id], budgets[problem_id])]
    }
    session.close_phase(ARM, "", Kind.ROLLOUT, within)
    logger.info("equal tokens: %d rollouts for %d tokens", len(within), sum(budgets.values()))
