"""The tables of an ablation: several seeds' arms become scores, differences and yields with their intervals.

A seed's bands are its own teacher's, so that a problem may count within a band with one seed and not with another.
What does not belong here: one run's tables (`evaluation`, `contrasts`), the estimates (`statistics`), the runs.
Legend for shapes: S seeds, P problems.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from heal_core.arms import ARMS, BASE, CONTINUED, CONTROLS, EQUAL_TOKENS, HEAL, TEACHER
from heal_core.errors import ShapeError
from heal_core.evaluation import (
    ALL_BANDS,
    GradedSample,
    gap_closed,
    num_solved_beyond_teacher,
    problem_means,
    ungradable_problems,
)
from heal_core.records import Band, FinishReason
from heal_core.statistics import (
    holm,
    minimum_detectable_difference,
    paired_bootstrap,
    paired_bootstrap_test,
    t_interval,
)

BANDS = (ALL_BANDS, str(Band.EASY), str(Band.HARD), str(Band.EXTREMELY_HARD))
PRIMARY = (EQUAL_TOKENS, str(Band.EXTREMELY_HARD))
"""The difference of HEAL that was chosen beforehand: it is not adjusted for the others."""
CLAIM_P = 0.05

Samples = Mapping[str, Sequence[GradedSample]]


class AblationConfig(BaseModel):
    """What is varied: seeds, arms, and what a seed reseeds.

    Attributes:
        seeds: Each is a run of its own.
        arms: The controls beside HEAL.
        reseed: `all` of the pipeline, or the `training` of the students alone, on one set of teacher's texts.
        ceiling_samples: As `controls.ceiling_samples`.
        students: Whether students are trained and evaluated; without, the teacher's continuations alone are compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    arms: tuple[str, ...] = CONTROLS
    reseed: Literal["all", "training"] = "all"
    ceiling_samples: int = Field(default=0, ge=0)
    students: bool = True

    @field_validator("arms")
    @classmethod
    def _in_their_order(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        # the same comparison, in whichever order its arms are named
        return tuple(sorted(dict.fromkeys(arms), key=lambda arm: CONTROLS.index(arm) if arm in CONTROLS else -1))

    @model_validator(mode="after")
    def _check(self) -> AblationConfig:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds has {list(self.seeds)}: each seed is a run of its own, so give each once")
        if unknown := [arm for arm in self.arms if arm not in CONTROLS]:
            raise ValueError(f"arms has {', '.join(unknown)}; the controls are {', '.join(CONTROLS)}")
        if not self.students and (trained := [arm for arm in self.arms if arm not in CONTINUED]):
            raise ValueError(
                f"arms has {', '.join(trained)}, which only students tell apart from HEAL; without students the "
                f"controls are {', '.join(CONTINUED)}"
            )
        if not self.students and not self.arms:
            raise ValueError("arms names no control: without students there is nothing to compare HEAL with")
        if not self.students and self.reseed == "training":
            raise ValueError("reseed has training, which without students reseeds nothing; leave it at all")
        return self

    def runs_with_own_texts(self, run_ids: Sequence[str]) -> Sequence[str]:
        """Return the runs whose teacher's texts are their own: with `reseed` training all are the first one's.

        What is counted on such texts counts once; as often as there are seeds, it would pass for agreement of seeds.
        """
        return run_ids if self.reseed == "all" else run_ids[:1]


@dataclass(frozen=True)
class AblationScore:
    """One arm within a band, over all seeds; shares within [0, 1].

    Attributes:
        num_problems: Distinct problems that count within the band with a seed at least.
        avg_at_k: Mean over seeds x problems of the share of correct samples.
        low: Lower end of its 95 % bootstrap interval over seeds x problems; None for a single problem.
        high: Upper end; None likewise.
        gap_closed: Share of the gap from the untrained student to the teacher; None without a gap.
        num_beyond_teacher: Problems solved that the seed's teacher never did, mean over seeds.
    """

    arm: str
    band: str
    k: int
    num_seeds: int
    num_problems: int
    avg_at_k: float
    low: float | None
    high: float | None
    gap_closed: float | None
    truncated_share: float
    num_beyond_teacher: float


@dataclass(frozen=True)
class AblationContrast:
    """HEAL minus another arm on the same problems with the same seeds; shares within [-1, 1].

    Attributes:
        measure: `avg@k` of the students within `band`, or `verified` repairs of the paths that both continued.
        num_pairs: Seeds x problems that the difference is the mean of.
        low: Lower end of the 95 % bootstrap interval over seeds x problems; None where all differ alike.
        high: Upper end; None likewise.
        t_low: Lower end of the 95 % t interval over seeds; None with a single seed.
        t_high: Upper end; None likewise.
        p_value: Two-sided, of no difference, by the bootstrap; None likewise.
        p_adjusted: After Holm over the others of the same measure; of the primary one `p_value` itself.
        is_claim: Both intervals exclude 0 and p_adjusted is below 0.05; never with a single seed.
        minimum_detectable_difference: What this design finds with a power of 80 %; None likewise.
        is_powered: Whether the difference is at least that large.
    """

    measure: str
    arm: str
    against: str
    band: str
    num_seeds: int
    num_problems: int
    num_pairs: int
    value: float
    value_against: float
    difference: float
    low: float | None
    high: float | None
    t_low: float | None
    t_high: float | None
    p_value: float | None
    p_adjusted: float | None
    is_primary: bool
    is_claim: bool
    minimum_detectable_difference: float | None
    is_powered: bool


@dataclass(frozen=True)
class PathYield:
    """How the continuations of one wrong path fared in an arm; not `is_compared` where B5's window is too small."""

    arm: str
    path_id: str
    problem_id: str
    num_verified: int
    num_continued: int
    is_compared: bool


def score_arms(seeds: Sequence[Samples], k: int) -> tuple[AblationScore, ...]:
    """Return each arm's scores, over all bands and within each, in the order of `ARMS`.

    Args:
        seeds: Per seed the k samples of every problem, by arm; every seed has the same arms.

    Raises:
        ShapeError: If the seeds' arms differ, or a problem has not exactly k samples.

    Source: METHOD section 6, definition D12 (docs/method.md).
    """
    arms, excluded = _arms_of(seeds), _excluded(seeds)
    means = {arm: [problem_means(samples[arm], k, excluded) for samples in seeds] for arm in arms}
    bands = [_bands_of(samples) for samples in seeds]
    scores = []
    for band in BANDS:
        tables = {arm: _table(means[arm], bands, band) for arm in arms}
        if tables[arms[0]] is None:
            continue
        values = {arm: float(np.nanmean(table)) for arm, table in tables.items() if table is not None}
        for arm, table in tables.items():
            assert table is not None, "all arms have the problems of the first"
            interval = paired_bootstrap(table) if table.shape[1] > 1 else None
            scores.append(
                AblationScore(
                    arm=arm,
                    band=band,
                    k=k,
                    num_seeds=len(seeds),
                    num_problems=table.shape[1],
                    avg_at_k=values[arm],
                    low=interval.low if interval else None,
                    high=interval.high if interval else None,
                    gap_closed=gap_closed(values[arm], values[BASE], values[TEACHER]),
                    truncated_share=_truncated_share([samples[arm] for samples in seeds], excluded, band),
                    num_beyond_teacher=float(np.mean([_num_beyond(samples, arm, excluded, band) for samples in seeds])),
                )
            )
    return tuple(scores)


def contrast_scores(seeds: Sequence[Samples], k: int) -> tuple[AblationContrast, ...]:
    """Return HEAL's differences to every other student, over all bands and within each, Holm over all but the primary.

    Raises:
        ShapeError: As `score_arms`.

    Source: definition D12 (docs/method.md).
    """
    arms, excluded = _arms_of(seeds), _excluded(seeds)
    means = {arm: [problem_means(samples[arm], k, excluded) for samples in seeds] for arm in arms}
    bands = [_bands_of(samples) for samples in seeds]
    found = []
    for against in arms:
        if against in (HEAL, TEACHER):
            continue
        for band in BANDS:
            ours, theirs = (_table(means[arm], bands, band) for arm in (HEAL, against))
            if ours is not None and theirs is not None:
                found.append(_contrast("avg@k", against, band, ours, theirs, (against, band) == PRIMARY))
    return _adjusted(found)


def contrast_yields(seeds: Sequence[Sequence[PathYield]]) -> tuple[AblationContrast, ...]:
    """Return how much more of HEAL's continuations are verified than those of each control, on paths of both.

    A problem's value is the mean over its paths.

    Args:
        seeds: The yields of all arms, per seed that has texts of its own.

    Source: METHOD section 6, definition D5 (docs/method.md).
    """
    arms = dict.fromkeys(one.arm for rows in seeds for one in rows if one.arm != HEAL)
    found = []
    for against in (arm for arm in ARMS if arm in arms):
        pairs = [_paired_shares(rows, against) for rows in seeds]
        problem_ids = sorted({problem_id for pair in pairs for problem_id in pair})
        used = [pair for pair in pairs if pair]
        if not problem_ids:
            continue
        empty = (np.nan, np.nan)
        both = np.array([[pair.get(problem_id, empty) for problem_id in problem_ids] for pair in used])
        found.append(_contrast("verified", against, str(Band.EXTREMELY_HARD), both[..., 0], both[..., 1], False))
    return _adjusted(found)


def _paired_shares(rows: Sequence[PathYield], against: str) -> dict[str, tuple[float, float]]:
    """Return by problem the verified shares of HEAL's and the other arm's continuations, over the paths of both."""
    by_path: dict[str, dict[str, PathYield]] = defaultdict(dict)
    for row in rows:
        if row.arm in (HEAL, against) and row.num_continued:
            by_path[row.path_id][row.arm] = row
    shares: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for pair in by_path.values():
        if len(pair) == 2 and pair[against].is_compared:
            ours, theirs = (pair[arm].num_verified / pair[arm].num_continued for arm in (HEAL, against))
            shares[pair[HEAL].problem_id].append((ours, theirs))
    return {problem_id: tuple(np.mean(pairs, axis=0).tolist()) for problem_id, pairs in shares.items()}


def _contrast(
    measure: str, against: str, band: str, ours: np.ndarray, theirs: np.ndarray, is_primary: bool
) -> AblationContrast:
    """Return a difference whose p-value is not adjusted yet, and which is no claim yet; shapes [S, P]."""
    differences = ours - theirs
    interval, p_value, detectable = None, None, None
    if np.nanmax(differences) > np.nanmin(differences):
        interval, p_value = paired_bootstrap_test(differences)
        detectable = minimum_detectable_difference(differences)
    over_seeds = t_interval(np.nanmean(differences, axis=1))
    difference = float(np.nanmean(differences))
    return AblationContrast(
        measure=measure,
        arm=HEAL,
        against=against,
        band=band,
        num_seeds=differences.shape[0],
        num_problems=differences.shape[1],
        num_pairs=int(np.isfinite(differences).sum()),
        value=float(np.nanmean(ours)),
        value_against=float(np.nanmean(theirs)),
        difference=difference,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        t_low=over_seeds.low if over_seeds else None,
        t_high=over_seeds.high if over_seeds else None,
        p_value=p_value,
        p_adjusted=p_value,
        is_primary=is_primary,
        is_claim=bool(interval and interval.excludes_zero and over_seeds and over_seeds.excludes_zero),
        minimum_detectable_difference=detectable,
        is_powered=detectable is not None and abs(difference) >= detectable,
    )


def _adjusted(contrasts: Sequence[AblationContrast]) -> tuple[AblationContrast, ...]:
    """Return the contrasts with Holm's adjustment over all but the primary one, and with their claims decided."""
    adjusted = iter(holm([one.p_value for one in contrasts if not one.is_primary]))
    return tuple(
        replace(
            one,
            p_adjusted=(p := one.p_value if one.is_primary else next(adjusted)),
            is_claim=one.is_claim and p is not None and p < CLAIM_P,
        )
        for one in contrasts
    )


def _arms_of(seeds: Sequence[Samples]) -> list[str]:
    arms = [arm for arm in ARMS if arm in seeds[0]]
    for samples in seeds:
        if set(samples) != set(arms):
            raise ShapeError(
                f"the seeds of an ablation need the same arms, got {sorted(samples)} beside {sorted(arms)}"
            )
    return arms


def _excluded(seeds: Iterable[Samples]) -> frozenset[str]:
    return ungradable_problems(row for samples in seeds for rows in samples.values() for row in rows)


def _bands_of(samples: Samples) -> dict[str, str]:
    return {row.problem_id: row.band for row in samples[TEACHER]}


def _table(means: Sequence[Mapping[str, float]], bands: Sequence[Mapping[str, str]], band: str) -> np.ndarray | None:
    """Return the problems' means by seed, shape [S, P], nan where one does not count; None where a seed has none."""
    counted = [
        {one: mean for one, mean in of_seed.items() if band in (ALL_BANDS, band_of[one])}
        for of_seed, band_of in zip(means, bands, strict=True)
    ]
    problem_ids = sorted({one for of_seed in counted for one in of_seed})
    if not all(counted):
        return None
    return np.array([[of_seed.get(one, np.nan) for one in problem_ids] for of_seed in counted])


def _within(rows: Iterable[GradedSample], excluded: frozenset[str], band: str) -> list[GradedSample]:
    return [row for row in rows if row.problem_id not in excluded and band in (ALL_BANDS, row.band)]


def _truncated_share(seeds: Iterable[Sequence[GradedSample]], excluded: frozenset[str], band: str) -> float:
    rows = [row for samples in seeds for row in _within(samples, excluded, band)]
    return sum(row.finish_reason != FinishReason.STOP for row in rows) / len(rows)


def _num_beyond(samples: Samples, arm: str, excluded: frozenset[str], band: str) -> int:
    ours, teacher = (_within(samples[name], excluded, band) for name in (arm, TEACHER))
    return num_solved_beyond_teacher(ours, teacher)
