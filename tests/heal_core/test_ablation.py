"""Tables over seeds: bands that change with the seed, intervals, Holm, and what may be claimed."""

from __future__ import annotations

import numpy as np
import pytest

from heal_core.ablation import (
    AblationConfig,
    AblationContrast,
    PathYield,
    contrast_scores,
    contrast_yields,
    score_arms,
)
from heal_core.errors import ShapeError
from heal_core.evaluation import GradedSample
from heal_core.records import FinishReason, VerdictLabel


def samples(correct: dict[str, list[int]], bands: dict[str, str], cut: str = "") -> list[GradedSample]:
    """Return the samples of one arm; of problem `cut` all were cut at the limit."""
    return [
        GradedSample(
            problem,
            bands[problem],
            VerdictLabel.CORRECT if is_right else VerdictLabel.WRONG,
            None,
            FinishReason.LENGTH if problem == cut else FinishReason.STOP,
        )
        for problem, of_problem in correct.items()
        for is_right in of_problem
    ]


BANDS = {"p": "easy", "q": "extremely_hard", "r": "extremely_hard"}
OTHER_BANDS = {"p": "easy", "q": "hard", "r": "extremely_hard"}


def seed_of(
    bands: dict[str, str], heal: dict[str, list[int]], other: dict[str, list[int]]
) -> dict[str, list[GradedSample]]:
    return {
        "teacher": samples({"p": [1, 1], "q": [0, 0], "r": [0, 0]}, bands),
        "base": samples({"p": [0, 0], "q": [0, 0], "r": [0, 0]}, bands),
        "equal_tokens": samples(other, bands),
        "heal": samples(heal, bands),
    }


TWO_SEEDS = [
    seed_of(BANDS, {"p": [1, 1], "q": [1, 0], "r": [0, 0]}, {"p": [1, 0], "q": [0, 0], "r": [0, 0]}),
    seed_of(OTHER_BANDS, {"p": [1, 0], "q": [1, 1], "r": [1, 0]}, {"p": [1, 1], "q": [0, 0], "r": [0, 0]}),
]


def test_a_problem_counts_within_a_band_only_with_the_seeds_that_put_it_there() -> None:
    scores = {(row.arm, row.band): row for row in score_arms(TWO_SEEDS, 2)}
    # extremely hard: q and r with the first seed, r alone with the second: (0.5 + 0 + 0.5) / 3
    row = scores["heal", "extremely_hard"]
    assert row.avg_at_k == pytest.approx(1 / 3)
    assert (row.num_problems, row.num_seeds) == (2, 2)
    # over all: (1 + 0.5 + 0 + 0.5 + 1 + 0.5) / 6
    assert scores["heal", "all"].avg_at_k == pytest.approx(3.5 / 6)
    assert ("heal", "hard") not in scores, "the first seed has no hard problem"


def test_gap_and_what_is_beyond_the_teacher() -> None:
    scores = {(row.arm, row.band): row for row in score_arms(TWO_SEEDS, 2)}
    # the teacher has 1/3 of all, the untrained student 0
    assert scores["heal", "all"].gap_closed == pytest.approx(3.5 / 2)
    assert scores["teacher", "all"].gap_closed == 1
    assert scores["heal", "extremely_hard"].gap_closed is None, "there is no gap to close"
    # q with the first seed; q and r with the second
    assert scores["heal", "all"].num_beyond_teacher == 1.5
    assert scores["equal_tokens", "all"].num_beyond_teacher == 0


def test_the_interval_of_a_score_holds_its_mean_and_is_missing_for_one_problem() -> None:
    for row in score_arms(TWO_SEEDS, 2):
        if row.num_problems == 1:
            assert row.low is None
        else:
            assert row.low <= row.avg_at_k <= row.high


def test_a_cut_sample_is_wrong_and_counted_in_the_truncated_share() -> None:
    seeds = [dict(TWO_SEEDS[0])]
    seeds[0]["heal"] = samples({"p": [1, 1], "q": [1, 0], "r": [0, 0]}, BANDS, cut="p")
    rows = {(row.arm, row.band): row for row in score_arms(seeds, 2)}
    assert rows["heal", "easy"].avg_at_k == 0
    assert rows["heal", "easy"].truncated_share == 1
    assert rows["heal", "all"].truncated_share == pytest.approx(2 / 6)


def test_contrasts_are_paired_by_seed_and_problem() -> None:
    found = {(row.against, row.band): row for row in contrast_scores(TWO_SEEDS, 2)}
    primary = found["equal_tokens", "extremely_hard"]
    # q, r with the first seed: 0.5, 0; r with the second: 0.5
    assert primary.difference == pytest.approx(1 / 3)
    assert (primary.num_pairs, primary.num_problems) == (3, 2)
    assert primary.is_primary
    assert primary.p_adjusted == primary.p_value
    assert sum(row.is_primary for row in found.values()) == 1
    assert primary.difference == pytest.approx(primary.value - primary.value_against)
    # over seeds: means 0.25 and 0.5, t with one degree of freedom: 0.375 +- 12.706 * 0.125
    assert primary.t_low == pytest.approx(0.375 - 12.706 * 0.125, abs=1e-3)
    assert ("heal", "all") not in found
    assert ("teacher", "all") not in found


def strong_seeds(num_seeds: int, gain: float) -> list[dict[str, list[GradedSample]]]:
    """Return seeds in which HEAL solves a problem more often than B2, by about `gain`, on 80 extremely hard ones."""
    rng = np.random.default_rng(0)
    bands = {f"p{i}": "extremely_hard" for i in range(80)}

    def draw(share: float) -> dict[str, list[int]]:
        return {problem: (rng.random(4) < share).astype(int).tolist() for problem in bands}

    return [
        {
            "teacher": samples(draw(0.05), bands),
            "base": samples(draw(0.0), bands),
            "equal_tokens": samples(draw(0.2), bands),
            "heal": samples(draw(0.2 + gain), bands),
        }
        for _ in range(num_seeds)
    ]


def primary_of(seeds: list[dict[str, list[GradedSample]]]) -> AblationContrast:
    return next(row for row in contrast_scores(seeds, 4) if row.is_primary)


def test_a_claim_needs_both_intervals_and_more_than_one_seed() -> None:
    claimed = primary_of(strong_seeds(4, 0.3))
    assert claimed.is_claim
    assert claimed.low > 0
    assert claimed.t_low > 0
    assert claimed.is_powered
    single = primary_of(strong_seeds(1, 0.3))
    assert single.low > 0
    assert single.t_low is None
    assert not single.is_claim
    assert not primary_of(strong_seeds(4, 0.0)).is_claim


def test_arms_must_be_the_same_with_every_seed() -> None:
    lacking = {arm: rows for arm, rows in TWO_SEEDS[1].items() if arm != "equal_tokens"}
    with pytest.raises(ShapeError, match="same arms"):
        score_arms([TWO_SEEDS[0], lacking], 2)


def path(arm: str, path_id: str, problem: str, num_verified: int, is_compared: bool = True) -> PathYield:
    return PathYield(arm, path_id, problem, num_verified, 5, is_compared)


def test_yields_are_compared_on_paths_of_both_arms() -> None:
    seeds = [
        [
            path("heal", "a", "p", 4), path("unhinted", "a", "p", 1),
            path("heal", "b", "p", 0), path("unhinted", "b", "p", 1),
            path("heal", "c", "q", 5), path("unhinted", "c", "q", 0),
            path("heal", "d", "q", 5),
        ]
    ]  # fmt: skip
    (row,) = contrast_yields(seeds)
    # p: mean of 0.8 - 0.2 and 0 - 0.2 is 0.2; q: 1 (d has no continuation without a hint); mean 0.6
    assert row.difference == pytest.approx(0.6)
    assert (row.value, row.value_against) == (pytest.approx(0.7), pytest.approx(0.1))
    assert (row.measure, row.against, row.num_problems) == ("verified", "unhinted", 2)


def test_small_windows_say_nothing_about_the_place() -> None:
    seeds = [
        [
            path("heal", "a", "p", 4), path("random_breakpoint", "a", "p", 4, is_compared=False),
            path("heal", "b", "q", 3), path("random_breakpoint", "b", "q", 1),
        ]
    ]  # fmt: skip
    (row,) = contrast_yields(seeds)
    assert row.num_problems == 1
    assert row.difference == pytest.approx(0.4)
    assert row.low is None, "of one problem nothing can be resampled"


def test_yields_of_no_common_path_are_no_row() -> None:
    assert contrast_yields([[path("heal", "a", "p", 4), path("unhinted", "b", "p", 4)]]) == ()
    assert contrast_yields([[]]) == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": (1, 1)}, "each once"),
        ({"arms": ("B9",)}, "the controls are rejection_sampling"),
        ({"seeds": ()}, "at least 1"),
        ({"reseed": "some"}, "'all' or 'training'"),
    ],
)
def test_what_is_not_meant_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AblationConfig(**settings)


def test_texts_that_seeds_share_count_once() -> None:
    assert AblationConfig(seeds=(0, 1)).runs_with_own_texts(["a", "b"]) == ["a", "b"]
    assert AblationConfig(seeds=(0, 1), reseed="training").runs_with_own_texts(["a", "b"]) == ["a"]


def test_the_order_in_which_arms_are_named_makes_no_other_ablation() -> None:
    first, second = (AblationConfig(arms=arms) for arms in (("unhinted", "equal_tokens"), ("equal_tokens", "unhinted")))
    assert first == second
    assert first.arms == ("equal_tokens", "unhinted")


def test_a_contrast_that_could_not_be_tested_stays_in_the_family() -> None:
    # another arm answers as HEAL does: over all and within the band it has no p-value, and counts
    seeds = [one | {"rejection_sampling": one["heal"]} for one in strong_seeds(3, 0.3)]
    others = [one for one in contrast_scores(seeds, 4) if not one.is_primary]
    tested = [one for one in others if one.p_value is not None]
    assert len(others) > len(tested) > 0
    least = min(tested, key=lambda one: one.p_value)
    assert least.p_adjusted == pytest.approx(len(others) * least.p_value)
