"""Which side of the split a problem is on: near-duplicates stay together, and a hash decides.

Membership depends on nothing but the problem's cluster: not on the seed, the order, or on
unrelated problems added later, unless its source names the side. The one caveat: a new
near-duplicate can give its cluster another smallest id, or join two clusters, and then the whole
cluster may change sides.
What does not belong here: reading problems (`problems`), similarity (`duplicates`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from heal_core.duplicates import cluster_labels
from heal_core.keys import content_key
from heal_core.records import Problem

TRAIN = "train"
HELD_OUT = "held_out"
BY_HASH = "hash"


def with_clusters(problems: Sequence[Problem], min_jaccard: float) -> list[Problem]:
    """Return the problems with `cluster_id` set to the smallest problem_id among their near-duplicates.

    Source: definition D1 (docs/method.md).
    """
    labels = cluster_labels([problem.question for problem in problems], min_jaccard)
    smallest: dict[int, str] = {}
    for label, problem in zip(labels, problems, strict=True):
        smallest[label] = min(problem.problem_id, smallest.get(label, problem.problem_id))
    return [replace(problem, cluster_id=smallest[label]) for label, problem in zip(labels, problems, strict=True)]


def hash_split(cluster_id: str, held_out_fraction: float) -> str:
    """Return "held_out" for about that fraction of all cluster ids, else "train".

    Source: definition D1 (docs/method.md).
    """
    position = int(content_key("split", cluster_id), 16) / 16**32
    return HELD_OUT if position < held_out_fraction else TRAIN


def assign_sides(problems: Sequence[Problem], wanted: Sequence[str], held_out_fraction: float) -> list[str]:
    """Return the side of each clustered problem, or the id of the held-out problem that it would leak.

    What is held out by name stands; then what the hash holds out. So a problem that is added for
    training never takes one from the evaluation.

    Args:
        problems: With their clusters.
        wanted: "held_out", "train" or "hash", aligned.
        held_out_fraction: As in `hash_split`.

    Source: definition D1 (docs/method.md).
    """
    by_name: dict[str, str] = {}
    by_hash: dict[str, str] = {}
    for problem, side in zip(problems, wanted, strict=True):
        if side == HELD_OUT:
            by_name.setdefault(problem.cluster_id, problem.problem_id)
        elif side == BY_HASH and hash_split(problem.cluster_id, held_out_fraction) == HELD_OUT:
            by_hash.setdefault(problem.cluster_id, problem.problem_id)
    sides = []
    for problem, side in zip(problems, wanted, strict=True):
        cluster = problem.cluster_id
        if side == BY_HASH:
            sides.append(by_name.get(cluster) or (HELD_OUT if cluster in by_hash else TRAIN))
        elif side == TRAIN:
            sides.append(by_name.get(cluster) or by_hash.get(cluster) or TRAIN)
        else:
            sides.append(HELD_OUT)
    return sides
