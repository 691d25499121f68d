"""Which side of the split a problem is on: near-duplicates stay together, and a hash decides.

Membership depends on nothing but the problem's cluster: not on the seed, the order, or on
unrelated problems added later. The one caveat: a new near-duplicate can give its cluster
another smallest id, or join two clusters, and then the whole cluster may change sides.
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
