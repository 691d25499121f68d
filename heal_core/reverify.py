"""Verify anew what a store holds, with today's verifiers and settings, and tell which verdicts flipped.

Nothing is sampled, and no stored verdict is changed: new ones are added, which later runs use. What does
not belong here: grading (`grading`), which verdict answers a demand (`plan`), how it is printed (`flows/cli`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from heal_core import interruption
from heal_core.bands import BandsConfig, assign_band, pass_rate
from heal_core.grading import Grader, choose_verdicts, grade_missing
from heal_core.plan import GAVE_UP
from heal_core.records import Kind
from heal_core.store.store import Store
from heal_core.store.verdicts import read_changes, read_gradable, read_regraded
from heal_core.verify.config import VerifyConfig

SHARD_TRAJECTORIES = 1000
"""How many texts are read and graded at a time."""

MAX_EXAMPLES = 3
"""Trajectories shown of each way in which verdicts flipped."""

GRADED_KINDS = (Kind.ROLLOUT, Kind.GUIDED, Kind.REPAIR)


@dataclass(frozen=True)
class Survey:
    """What there is to verify; each trajectory is counted once.

    Attributes:
        answered: Those that have a verdict of today's verifiers and settings.
        pending: Those whose verdicts are all of others; their ids, sorted.
        num_hints: Hints, which are never graded.
        num_never_graded: Those without any verdict: the run that sampled them will grade them.
    """

    answered: tuple[str, ...]
    pending: tuple[str, ...]
    num_hints: int
    num_never_graded: int

    @property
    def num_all(self) -> int:
        return len(self.answered) + len(self.pending) + self.num_hints + self.num_never_graded


def survey(store: Store, run_id: str | None, kinds: Sequence[str], config: VerifyConfig) -> Survey:
    """Return what of a run, or of the whole store, has to be verified under a time limit."""
    frame = read_gradable(store, run_id, kinds)
    is_hint = pl.col("kind") == Kind.HINT
    graded = frame.filter(pl.col("has_verdict") & ~is_hint)["trajectory_id"].to_list()
    chosen = choose_verdicts(store, graded, config)
    return Survey(
        answered=tuple(row_id for row_id in graded if chosen[row_id] is not None),
        pending=tuple(row_id for row_id in graded if chosen[row_id] is None),
        num_hints=frame.filter(is_hint).height,
        num_never_graded=frame.filter(~pl.col("has_verdict") & ~is_hint).height,
    )


def grade_pending(
    store: Store,
    grader: Grader,
    pending: Sequence[str],
    config: VerifyConfig,
    on_graded: Callable[[], None] = lambda: None,
    shard_trajectories: int = SHARD_TRAJECTORIES,
) -> int:
    """Return how many verdicts were made; each shard is stored when it is done, and what is done when it is broken off.

    Raises:
        KeyboardInterrupt: If the process was asked to end.
    """
    num = 0
    for first in range(0, len(pending), shard_trajectories):
        interruption.check()
        shard = pending[first : first + shard_trajectories]
        num += sum(grade_missing(store, grader, shard, config, on_graded).values())
    return num


def todays_verdicts(store: Store, trajectory_ids: Sequence[str], config: VerifyConfig) -> list[str]:
    """Return the ids of the verdicts that count today, of the trajectories that have one."""
    chosen = choose_verdicts(store, trajectory_ids, config)
    return sorted(verdict_id for verdict_id in chosen.values() if verdict_id is not None)


def tell_changes(store: Store, verdict_ids: Sequence[str]) -> dict[str, Any]:
    """Return how these verdicts differ from what was stored last before each, JSON-able.

    Returns:
        `labels`: counts by kind, label before and label now, flips first. `num_first`: those that had none before.
        `num_flipped`, with some `examples` of each way. `num_gave_up`: those that ran out of time or memory.
    """
    frame = read_changes(store, verdict_ids)
    compared = frame.filter(pl.col("before_label").is_not_null())
    is_flip = pl.col("before_label") != pl.col("now_label")
    ways = ["kind", "before_label", "now_label"]
    labels = compared.group_by(ways).agg(pl.len().alias("num")).sort(~is_flip, *ways)
    flipped = compared.filter(is_flip).sort(*ways, "trajectory_id")
    return {
        "labels": labels.to_dicts(),
        "num_first": frame.height - compared.height,
        "num_flipped": flipped.height,
        "num_gave_up": frame.filter(pl.col("now_reason").is_in(sorted(GAVE_UP))).height,
        "examples": flipped.group_by(ways, maintain_order=True).head(MAX_EXAMPLES).select(flipped.columns).to_dicts(),
    }


def tell_bands(
    store: Store, run_id: str, config: Mapping[str, Any], verdict_ids: Sequence[str]
) -> dict[str, Any] | None:
    """Return what these verdicts would make of pass rates and bands of a run's problems, JSON-able.

    Args:
        config: The run's settings as stored; None is returned where they say nothing of bands (a synthetic store).
    """
    if not {"bands", "rollouts"} <= config.keys():
        return None
    bands = BandsConfig(hard_below=config["bands"]["hard_below"])
    num_generations = config["rollouts"]["num_generations"]
    problems = read_regraded(store, run_id, verdict_ids)
    moved: Counter[tuple[str, str]] = Counter()
    num_rates = 0
    for row in problems:
        before, now = ((row[f"{side}_graded"], row[f"{side}_correct"]) for side in ("before", "now"))
        num_rates += pass_rate(*before) != pass_rate(*now)
        band_before, band_now = (str(assign_band(*counts, num_generations, bands)) for counts in (before, now))
        moved[band_before, band_now] += 1
    changed = [{"before": a, "now": b, "num": num} for (a, b), num in sorted(moved.items()) if a != b]
    return {
        "run_id": run_id,
        "num_problems": len(problems),
        "num_pass_rate_changed": num_rates,
        "num_band_changed": sum(row["num"] for row in changed),
        "bands": changed,
    }
