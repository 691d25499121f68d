"""The tables of the report: one arm's graded samples become avg@k and pass@k, in all, per band and per benchmark.

What does not belong here: sampling and grading (engines, verify), the differences of arms (`contrasts`),
and intervals over seeds (`statistics`, fed with `problem_means`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from heal_core.errors import ShapeError
from heal_core.lm_eval.config import LmEvalConfig
from heal_core.records import FinishReason, VerdictLabel
from heal_core.statistics import avg_at_k, pass_at_k, standard_error

ALL_BANDS = "all"


Group = tuple[str, str | None]
"""A band, or all of them, and a benchmark, or None for all of them."""


_LATER = {"pass_at", "student", "lm_eval"}
"""Settings of an evaluation that came later than others."""


class EvaluationConfig(BaseModel):
    """How the held-out problems are sampled, and what is reported of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_generations: int = Field(default=4, ge=1)
    """k of avg@k, the samples per held-out problem of every arm; at most `rollouts.num_generations`."""
    pass_at: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Which pass@k are reported, each k from 1 to `num_generations` ([evaluation.md](evaluation.md)); none: that number
    alone.
    """
    student: str | None = Field(default=None, min_length=1)
    """Folder or hub id of what `heal eval` evaluates in place of the promoted student (`--student`); refused by `heal
    run`.
    """
    lm_eval: LmEvalConfig | None = None
    """Tasks of lm-evaluation-harness that every student is evaluated on besides
    ([evaluation.md](evaluation.md#tasks-of-lm-evaluation-harness)).
    """

    @model_validator(mode="after")
    def _check_pass_at(self) -> EvaluationConfig:
        for k in self.pass_at or ():
            if not 1 <= k <= self.num_generations:
                raise ValueError(
                    f"evaluation.pass_at has {k}, but evaluation.num_generations is {self.num_generations}: pass@k can "
                    "be estimated for k from 1 to the number of samples; draw more, or leave that k out"
                )
        return self

    @model_serializer(mode="wrap")
    def _leave_out_the_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings: it keeps the id that it had before there were these
        settings: dict[str, Any] = handler(self)
        return {name: value for name, value in settings.items() if name not in _LATER or value is not None}

    def identity(self) -> dict[str, Any]:
        """Return what a run's id has of it; what the given student is, the run says beside it."""
        settings = self.model_dump(mode="json", exclude={"student", "lm_eval"})
        return settings | ({"lm_eval": self.lm_eval.identity()} if self.lm_eval else {})

    @property
    def pass_ks(self) -> tuple[int, ...]:
        """Return the k of each pass@k, ascending."""
        return tuple(sorted(set(self.pass_at or (self.num_generations,))))


@dataclass(frozen=True)
class GradedSample:
    """One sample of a held-out problem with its verdict.

    `band` is the teacher's band of the problem, `benchmark` the name of the source that it is from.
    """

    problem_id: str
    band: str
    label: VerdictLabel
    reason: str | None
    finish_reason: FinishReason
    benchmark: str = ""


@dataclass(frozen=True)
class ArmResult:
    """One row of a table.

    Attributes:
        band: "all" or a band's name.
        benchmark: The source that the problems are from; None over all of them.
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
    benchmark: str | None = None


@dataclass(frozen=True)
class PassAtK:
    """One arm's unbiased pass@k within a group of problems.

    Attributes:
        k: Samples that a user of the model would draw.
        num_generations: Samples that it is estimated from, n >= k.
        pass_at_k: Mean of the problems' estimates, within [0, 1].
        standard_error: sd of the estimates / sqrt(P); None for a single problem.
    """

    arm: str
    band: str
    benchmark: str | None
    k: int
    num_generations: int
    num_problems: int
    pass_at_k: float
    standard_error: float | None


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
    """Return the arm's row over all problems, then one per band present, then one per benchmark, each by name.

    There are rows of benchmarks where the problems are from two at least.

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
    return tuple(
        _summarise(arm, group, [problems[one] for one in problem_ids], k)
        for group, problem_ids in _groups(problems.values())
    )


def estimate_pass_at(
    arm: str, rows: Sequence[GradedSample], n: int, ks: Sequence[int], excluded_problems: frozenset[str] = frozenset()
) -> tuple[PassAtK, ...]:
    """Return pass@k for each k, of the same groups of problems as in `summarise_arm`.

    Args:
        rows: n samples of every problem, in any order.
        ks: Each of them at most n.

    Raises:
        ShapeError: If a k is larger than n, a problem has not exactly n samples, or stands in two bands.

    Source: METHOD section 6 (docs/method.md).
    """
    problems = _group_by_problem(rows, n, excluded_problems)
    num_correct = {problem_id: sum(map(is_correct, samples)) for problem_id, samples in problems.items()}
    found = []
    for (band, benchmark), problem_ids in _groups(problems.values()):
        for k in ks:
            estimates = np.array([pass_at_k(n, num_correct[one], k) for one in problem_ids])
            mean, error = float(estimates.mean()), standard_error(estimates)
            found.append(PassAtK(arm, band, benchmark, k, n, len(problem_ids), mean, error))
    return tuple(found)


def group_problems(
    rows: Sequence[GradedSample], k: int, excluded_problems: frozenset[str] = frozenset()
) -> tuple[tuple[Group, tuple[str, ...]], ...]:
    """Return the groups that a table has rows of, with the ids of their problems; arguments as in `summarise_arm`."""
    return tuple(_groups(_group_by_problem(rows, k, excluded_problems).values()))


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


def _groups(problems: Iterable[Sequence[GradedSample]]) -> Iterator[tuple[Group, tuple[str, ...]]]:
    """Yield all problems, those of each band, and those of each benchmark where there are several."""
    firsts = [samples[0] for samples in problems]
    if firsts:
        yield (ALL_BANDS, None), tuple(first.problem_id for first in firsts)
    for band in sorted({str(first.band) for first in firsts}):
        yield (band, None), tuple(first.problem_id for first in firsts if first.band == band)
    benchmarks = sorted({first.benchmark for first in firsts})
    for name in benchmarks if len(benchmarks) > 1 else ():
        yield (ALL_BANDS, name), tuple(first.problem_id for first in firsts if first.benchmark == name)


def _summarise(arm: str, group: Group, groups: Sequence[Sequence[GradedSample]], k: int) -> ArmResult:
    band, benchmark = group
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
        benchmark=benchmark,
    )
