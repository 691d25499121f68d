"""The tables of the report: one arm's graded samples become avg@k and pass@k, in all and per band.

What does not belong here: sampling and grading (engines, verify), and intervals over
seeds (`statistics`, fed with `problem_means`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from heal_core.errors import ShapeError
from heal_core.records import FinishReason, VerdictLabel
from heal_core.statistics import avg_at_k, pass_at_k, standard_error

ALL_BANDS = "all"


class EvaluationConfig(BaseModel):
    """How the held-out problems are sampled: `num_generations` is the k of avg@k and pass@k."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_generations: int = Field(default=4, ge=1)


@dataclass(frozen=True)
class GradedSample:
    """One sample of a held-out problem with its verdict; `band` is the teacher's band of the problem."""

    problem_id: str
    band: str
    label: VerdictLabel
    reason: str | None
    finish_reason: FinishReason


@dataclass(frozen=True)
class ArmResult:
    """One row of a table.

    Attributes:
        band: "all" or a band's name.
        avg_at_k: Mean over problems of the share of correct samples, within [0, 1].
        standard_error: sd of the per-problem means / sqrt(P); None for a single problem.
        pass_at_k: Mean over problems of the unbiased pass@k, within [0, 1].
        truncated_share: Share of samples cut at the limit or given up as hopeless, within [0, 1].
        no_answer_share: Share of samples in which no answer was found; may overlap the former.
    """

    arm: str
    band: str
    k: int
    num_problems: int
    avg_at_k: float
    standard_error: float | None
    pass_at_k: float
    truncated_share: float
    no_answer_share: float


def is_correct(sample: GradedSample) -> bool:
    """Return whether a sample counts as correct: truncated, timed out or without answer it does not."""
    return sample.label == VerdictLabel.CORRECT and sample.finish_reason == FinishReason.STOP


def ungradable_problems(rows: Iterable[GradedSample]) -> frozenset[str]:
    """Return the problems whose reference answer cannot be parsed: the only ones left out, in all arms."""
    return frozenset(
        row.problem_id for row in rows if row.label == VerdictLabel.UNVERIFIABLE and row.reason == "unparsable_gold"
    )


def summarise_arm(
    arm: str, rows: Sequence[GradedSample], k: int, excluded_problems: frozenset[str] = frozenset()
) -> tuple[ArmResult, ...]:
    """Return the arm's row over all problems, then one per band present, in the bands' order of name.

    Args:
        rows: k samples of every problem, in any order.
        excluded_problems: `ungradable_problems` of all arms together, so that every arm is
            measured on the same problems; the arm's own are left out in any case.

    Returns:
        Rows; none when no problem is left.

    Raises:
        ShapeError: If a problem has not exactly k samples, or stands in two bands.

    Source: METHOD section 6 (docs/method.md).
    """
    problems = _group_by_problem(rows, k, excluded_problems)
    if not problems:
        return ()
    by_band: dict[str, list[list[GradedSample]]] = {ALL_BANDS: list(problems.values())}
    for samples in sorted(problems.values(), key=lambda samples: samples[0].band):
        by_band.setdefault(str(samples[0].band), []).append(samples)
    return tuple(_summarise(arm, band, groups, k) for band, groups in by_band.items())


def problem_means(
    rows: Sequence[GradedSample], k: int, excluded_problems: frozenset[str] = frozenset()
) -> dict[str, float]:
    """Return each problem's share of correct samples, by problem id in ascending order.

    Two arms' values, subtracted and stacked over seeds, are what `statistics.paired_bootstrap` takes.

    Raises:
        ShapeError: If a problem has not exactly k samples, or stands in two bands.
    """
    problems = _group_by_problem(rows, k, excluded_problems)
    return {problem_id: sum(map(is_correct, samples)) / k for problem_id, samples in problems.items()}


def gap_closed(student: float, base: float, teacher: float) -> float | None:
    """Return the share of the gap between base student and teacher that a student closed.

    0 at the base, 1 at the teacher, outside [0, 1] beyond either; None where the teacher is
    not above the base, so that there is no gap to close.

    Source: METHOD section 6 (docs/method.md).
    """
    return (student - base) / (teacher - base) if teacher > base else None


def num_solved_beyond_teacher(student_rows: Iterable[GradedSample], teacher_rows: Iterable[GradedSample]) -> int:
    """Return how many problems the student solved at least once and the teacher tried and never did.

    Source: METHOD section 6 (docs/method.md).
    """
    teacher = list(teacher_rows)
    unsolved = {row.problem_id for row in teacher} - {row.problem_id for row in teacher if is_correct(row)}
    return len(unsolved & {row.problem_id for row in student_rows if is_correct(row)})


def _group_by_problem(
    rows: Sequence[GradedSample], k: int, excluded_problems: frozenset[str]
) -> dict[str, list[GradedSample]]:
    excluded = excluded_problems | ungradable_problems(rows)
    groups: defaultdict[str, list[GradedSample]] = defaultdict(list)
    for row in rows:
        if row.problem_id not in excluded:
            groups[row.problem_id].append(row)
    for problem_id, samples in groups.items():
        if len(samples) != k:
            raise ShapeError(
                f"problem {problem_id} has {len(samples)} samples where k = {k} were expected; "
                "finish its generation or evaluate with that k"
            )
        if len(bands := {sample.band for sample in samples}) > 1:
            raise ShapeError(f"problem {problem_id} stands in more than one band: {sorted(bands)}")
    return dict(sorted(groups.items()))


def _summarise(arm: str, band: str, groups: Sequence[Sequence[GradedSample]], k: int) -> ArmResult:
    correct = np.array([[is_correct(sample) for sample in samples] for samples in groups])
    samples = [sample for group in groups for sample in group]
    return ArmResult(
        arm=arm,
        band=band,
        k=k,
        num_problems=len(groups),
        avg_at_k=avg_at_k(correct),
        standard_error=standard_error(correct.mean(axis=1)),
        pass_at_k=float(np.mean([pass_at_k(k, int(c), k) for c in correct.sum(axis=1)])),
        truncated_share=sum(s.finish_reason != FinishReason.STOP for s in samples) / len(samples),
        no_answer_share=sum(s.reason == "no_answer" for s in samples) / len(samples),
    )
