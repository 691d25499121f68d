"""Which trajectories a page holds: all where they fit, else some of each kind, by a rule that the page states.

What does not belong here: counts of the report, which are never sampled, and what is shown of a trajectory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_BYTES = 2_500_000
"""What the trajectories of a page may take by the estimate, which is made before their texts are read."""
MAX_REAL_BYTES = 3_500_000
"""What they may take indeed, so that the whole stays under 5 MB: long problems take more than estimated."""
_BYTES_PER_TRAJECTORY = 2_500
_BYTES_PER_TOKEN = 16
_MAX_BYTES_OF_ONE = 150_000
MAX_PER_GROUP = 500
"""More of one group never fit, as long as there is another."""

RULE = (
    "one after another from each group of the same phase, band, verdict, outcome and reason, in the order of a hash of "
    "run and trajectory, repairs first, each with the rollout that it continues, until the page is full"
)


def choose_trajectories(
    rows: Sequence[Mapping[str, Any]], parents: Sequence[Mapping[str, Any]], max_bytes: int = MAX_BYTES
) -> list[str]:
    """Return the ids of the trajectories that a page holds, in the order of being chosen.

    The same rows give the same ids, and a larger page holds a smaller one's.

    Args:
        rows: Of `sample_trajectories`.
        parents: Of `list_trajectories`, the rollouts that repairs among them continue.
        max_bytes: What they may take, estimated from their tokens.
    """
    size = {row["trajectory_id"]: _estimate(row) for row in (*rows, *parents)}
    order = sorted(rows, key=lambda row: (row["rank"], _rank(row)))
    return _fill([(row["trajectory_id"], row["parent_id"]) for row in order], size, max_bytes)


def keep_fitting(
    chosen: Sequence[str], parent_of: Mapping[str, str | None], size: Mapping[str, int], max_bytes: int = MAX_REAL_BYTES
) -> list[str]:
    """Return the first of the chosen trajectories that fit by what they take indeed.

    Args:
        chosen: Of `choose_trajectories`.
        parent_of: The rollouts that repairs among them continue.
        size: Bytes of each; those without one are left out.
        max_bytes: What they may take together.
    """
    return _fill([(row_id, parent_of.get(row_id)) for row_id in chosen], size, max_bytes)


def _fill(order: Sequence[tuple[str, str | None]], size: Mapping[str, int], max_bytes: int) -> list[str]:
    """Return ids in order, each with its parent, up to the first that does not fit."""
    chosen: dict[str, None] = {}
    left = max_bytes
    for pair in order:
        new = [row_id for row_id in pair if row_id is not None and row_id in size and row_id not in chosen]
        need = sum(size[row_id] for row_id in new)
        if need > left:
            break
        left -= need
        chosen |= dict.fromkeys(new)
    return list(chosen)


def _rank(row: Mapping[str, Any]) -> tuple[Any, ...]:
    order = ["repairs", "rollouts", "guided", "evaluation"]
    return (order.index(row["phase"]), *(str(row[name]) for name in ("band", "label", "outcome", "reason")))


def _estimate(row: Mapping[str, Any]) -> int:
    return min(_BYTES_PER_TRAJECTORY + _BYTES_PER_TOKEN * int(row["num_tokens"]), _MAX_BYTES_OF_ONE)
