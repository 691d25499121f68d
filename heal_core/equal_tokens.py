"""The control B2: what plain sampling does with the tokens that HEAL spent (definition D11).

Works on counts; sampling and grading are the flow's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from heal_core.curriculum import CurriculumConfig
from heal_core.records import Band


def example_cap(band: Band, config: CurriculumConfig) -> int:
    """Return how many examples B2 may take from a problem: as many as HEAL's own caps allow there.

    Base rollouts, and for the hard guided samples, for the extremely hard repairs, are each
    capped at `max_per_problem`.

    Source: definition D11 (docs/method.md).
    """
    kinds = 2 if band in (Band.HARD, Band.EXTREMELY_HARD) else 1
    return kinds * config.max_per_problem


def count_used(num_tokens: Sequence[int], budget_tokens: int) -> int:
    """Return how many samples, in order, spend the budget; the one that crosses it is included.

    Fewer than needed were given when all of them do not reach it: then their number.
    """
    spent = 0
    for index, num in enumerate(num_tokens):
        if spent >= budget_tokens:
            return index
        spent += max(1, num)
    return len(num_tokens)


def plan_more(
    spent: Mapping[str, Sequence[int]], budgets: Mapping[str, int], typical_tokens: Mapping[str, float]
) -> dict[str, int]:
    """Return how many more samples each problem needs, by an estimate that never oversamples by much.

    Args:
        spent: Tokens of the extra samples so far, by problem.
        budgets: Tokens to spend, by problem; problems with 0 need none.
        typical_tokens: Expected length of a sample by problem, for those that have none yet.

    Returns:
        Problems that are short of their budget, each with at least 1.

    Source: definition D11 (docs/method.md).
    """
    more = {}
    for problem_id, budget in budgets.items():
        lengths = [max(1, num) for num in spent.get(problem_id, ())]
        missing = budget - sum(lengths)
        if missing > 0:
            mean = sum(lengths) / len(lengths) if lengths else max(1.0, typical_tokens[problem_id])
            more[problem_id] = max(1, math.floor(missing / mean))
    return more
