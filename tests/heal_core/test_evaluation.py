from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heal_core.errors import ShapeError
from heal_core.evaluation import (
    EvaluationConfig,
    GradedSample,
    estimate_pass_at,
    gap_closed,
    group_problems,
    num_solved_beyond_teacher,
    problem_means,
    summarise_arm,
    ungradable_problems,
)
from heal_core.records import Band, FinishReason, VerdictLabel

RIGHT = (VerdictLabel.CORRECT, None, FinishReason.STOP)
WRONG = (VerdictLabel.WRONG, "different", FinishReason.STOP)
NO_ANSWER = (VerdictLabel.WRONG, "no_answer", FinishReason.STOP)
CUT = (VerdictLabel.WRONG, "no_answer", FinishReason.LENGTH)
CUT_YET_RIGHT = (VerdictLabel.CORRECT, None, FinishReason.LENGTH)
HOPELESS_YET_RIGHT = (VerdictLabel.CORRECT, None, FinishReason.HOPELESS)
TIMEOUT = (VerdictLabel.UNVERIFIABLE, "timeout", FinishReason.STOP)
BAD_GOLD = (VerdictLabel.UNVERIFIABLE, "unparsable_gold", FinishReason.STOP)


def samples(problem_id: str, band: str, *outcomes) -> list[GradedSample]:
    return [GradedSample(problem_id, band, *outcome) for outcome in outcomes]


def test_an_arm_of_a_worked_example() -> None:
    rows = [
        *samples("p1", Band.EASY, RIGHT, RIGHT, RIGHT, WRONG),
        *samples("p2", Band.EASY, WRONG, NO_ANSWER, CUT, TIMEOUT),
        *samples("p3", Band.HARD, RIGHT, CUT_YET_RIGHT, CUT, WRONG),
    ]
    every, easy, hard = summarise_arm("HEAL", rows, 4)
    # Means 0.75, 0, 0.25: avg 1/3; deviations 5/12, -4/12, -1/12, variance 42/144/2, SE sqrt(21/144/3).
    # With n = k, pass@k is 1 where anything is right: p1 and p3.
    assert (every.arm, every.band, every.k, every.num_problems) == ("HEAL", "all", 4, 3)
    assert every.avg_at_k == pytest.approx(1 / 3)
    assert every.standard_error == pytest.approx(math.sqrt(7) / 12)
    assert every.pass_at_k == pytest.approx(2 / 3)
    assert every.truncated_share == pytest.approx(3 / 12)
    assert every.no_answer_share == pytest.approx(3 / 12)
    assert (easy.band, easy.num_problems, easy.avg_at_k) == ("easy", 2, pytest.approx(0.375))
    assert (hard.band, hard.num_problems, hard.standard_error) == ("hard", 1, None)


def test_only_an_unparsable_gold_excludes_a_problem() -> None:
    rows = [
        *samples("p1", Band.EASY, RIGHT, TIMEOUT),
        *samples("p2", Band.EASY, BAD_GOLD, NO_ANSWER),
    ]
    assert ungradable_problems(rows) == {"p2"}
    (every, _) = summarise_arm("B1", rows, 2)
    assert (every.num_problems, every.avg_at_k) == (1, 0.5)
    assert problem_means(rows, 2) == {"p1": 0.5}


def test_a_problem_excluded_in_one_arm_is_excluded_in_all() -> None:
    other_arm = samples("p2", Band.EASY, BAD_GOLD)
    rows = [*samples("p1", Band.EASY, WRONG), *samples("p2", Band.EASY, NO_ANSWER)]
    assert summarise_arm("B1", rows, 1)[0].num_problems == 2
    assert summarise_arm("B1", rows, 1, ungradable_problems(other_arm))[0].num_problems == 1
    assert problem_means(rows, 1, ungradable_problems(other_arm)) == {"p1": 0.0}


def test_a_problem_with_another_number_of_samples_is_named() -> None:
    rows = [*samples("p1", Band.EASY, RIGHT, WRONG), *samples("p2", Band.EASY, RIGHT)]
    with pytest.raises(ShapeError, match=r"p2 has 1 samples where k = 2"):
        summarise_arm("B1", rows, 2)


def test_a_problem_in_two_bands_is_named() -> None:
    rows = [*samples("p1", Band.EASY, RIGHT), *samples("p1", Band.HARD, RIGHT)]
    with pytest.raises(ShapeError, match="p1 stands in more than one band"):
        summarise_arm("B1", rows, 2)


def test_no_problem_gives_no_row() -> None:
    assert summarise_arm("B1", [], 4) == ()
    assert summarise_arm("B1", samples("p1", Band.EASY, BAD_GOLD), 1) == ()


def test_the_k_of_each_pass_at_k_is_at_most_the_number_of_samples() -> None:
    assert EvaluationConfig(num_generations=8).pass_ks == (8,)
    assert EvaluationConfig(num_generations=8, pass_at=[4, 1, 4]).pass_ks == (1, 4)
    for k in (9, 0):
        with pytest.raises(ValidationError, match=rf"pass_at has {k}, but evaluation.num_generations is 8"):
            EvaluationConfig(num_generations=8, pass_at=[1, k])
    # the run's id is made of this: one that names no k keeps the id that it had
    assert EvaluationConfig(num_generations=8).model_dump() == {"num_generations": 8}


def test_pass_at_k_of_a_worked_example() -> None:
    rows = [
        *samples("p1", Band.EASY, RIGHT, WRONG, WRONG, WRONG),
        *samples("p2", Band.EASY, RIGHT, RIGHT, CUT_YET_RIGHT, WRONG),
        *samples("p3", Band.HARD, WRONG, WRONG, WRONG, WRONG),
    ]
    found = {(row.band, row.k): row for row in estimate_pass_at("HEAL", rows, 4, (1, 2, 4))}
    # n = 4, c = 1, 2, 0. pass@1 = c/n: 1/4, 1/2, 0. pass@2 = 1 - C(n-c, 2)/6: 1/2, 5/6, 0. pass@4: 1, 1, 0.
    assert [found["all", k].pass_at_k for k in (1, 2, 4)] == pytest.approx([1 / 4, 4 / 9, 2 / 3])
    assert [found["easy", k].pass_at_k for k in (1, 2, 4)] == pytest.approx([3 / 8, 2 / 3, 1])
    # pass@2 in all: deviations 1/18, 7/18, -8/18, variance 114/324/2, SE sqrt(57/324/3) = sqrt(19)/18
    assert found["all", 2].standard_error == pytest.approx(math.sqrt(19) / 18)
    assert (found["hard", 2].standard_error, found["hard", 2].num_problems) == (None, 1)
    assert {row.num_generations for row in found.values()} == {4}
    (avg,) = (row for row in summarise_arm("HEAL", rows, 4) if row.band == "all")
    assert found["all", 1].pass_at_k == pytest.approx(avg.avg_at_k)
    assert found["all", 4].pass_at_k == pytest.approx(avg.pass_at_k)


def test_a_k_above_the_number_of_samples_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"pass@3 needs at least 3 samples.*got n = 2"):
        estimate_pass_at("HEAL", samples("p1", Band.EASY, RIGHT, WRONG), 2, (1, 3))


def test_benchmarks_have_rows_of_their_own_where_there_are_two() -> None:
    rows = [
        *(replace(row, benchmark="gym") for row in samples("p1", Band.EASY, RIGHT, CUT)),
        *(replace(row, benchmark="exam") for row in samples("p2", Band.EASY, RIGHT, RIGHT)),
        *(replace(row, benchmark="exam") for row in samples("p3", Band.HARD, NO_ANSWER, WRONG)),
    ]
    table = {(row.band, row.benchmark): row for row in summarise_arm("B1", rows, 2)}
    assert list(table) == [("all", None), ("easy", None), ("hard", None), ("all", "exam"), ("all", "gym")]
    exam, gym = table["all", "exam"], table["all", "gym"]
    assert (exam.num_problems, exam.avg_at_k, exam.truncated_share, exam.no_answer_share) == (2, 0.5, 0, 0.25)
    assert (gym.num_problems, gym.avg_at_k, gym.truncated_share, gym.standard_error) == (1, 0.5, 0.5, None)
    groups = dict(group_problems(rows, 2))
    assert groups["all", "exam"] == ("p2", "p3")
    assert groups.keys() == table.keys()
    assert {(row.band, row.benchmark) for row in estimate_pass_at("B1", rows, 2, (1,))} == table.keys()
    alone = [row for row in rows if row.benchmark == "exam"]
    assert {row.benchmark for row in summarise_arm("B1", alone, 2)} == {None}


outcomes = st.sampled_from([RIGHT, WRONG, NO_ANSWER, CUT, CUT_YET_RIGHT, TIMEOUT])
tables = st.lists(
    st.tuples(st.sampled_from(sorted(Band)), st.lists(outcomes, min_size=3, max_size=3)),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)  # machines are busy
@given(tables, st.randoms(use_true_random=False))
def test_bands_partition_the_problems_and_order_does_not_matter(table, rng: random.Random) -> None:
    rows = [row for i, (band, found) in enumerate(table) for row in samples(f"p{i}", band, *found)]
    every, *bands = summarise_arm("arm", rows, 3)
    assert sum(row.num_problems for row in bands) == every.num_problems == len(table)
    weighted = sum(row.avg_at_k * row.num_problems for row in bands) / every.num_problems
    assert weighted == pytest.approx(every.avg_at_k)
    assert 0 <= every.avg_at_k <= every.pass_at_k + 1e-12 <= 1 + 1e-12
    pass_at = [row.pass_at_k for row in estimate_pass_at("arm", rows, 3, (1, 2, 3)) if row.band == "all"]
    assert pass_at[0] == pytest.approx(every.avg_at_k)
    assert pass_at == sorted(pass_at)
    shuffled = rows.copy()
    rng.shuffle(shuffled)
    assert summarise_arm("arm", shuffled, 3) == (every, *bands)


def test_a_text_that_was_given_up_counts_as_truncated_and_wrong() -> None:
    (row, _) = summarise_arm("arm", samples("p", Band.EASY, HOPELESS_YET_RIGHT, RIGHT, CUT, WRONG), 4)
    assert (row.avg_at_k, row.truncated_share) == (0.25, 0.5)


def test_gap_closed() -> None:
    assert gap_closed(0.4, 0.2, 0.6) == pytest.approx(0.5)
    assert gap_closed(0.1, 0.2, 0.6) == pytest.approx(-0.25)
    assert gap_closed(0.4, 0.5, 0.5) is None
    assert gap_closed(0.4, 0.5, 0.3) is None


def test_beyond_the_teacher_means_tried_by_it_and_never_solved() -> None:
    teacher = [
        *samples("both", Band.EASY, RIGHT, WRONG),
        *samples("student_only", Band.HARD, WRONG, CUT_YET_RIGHT),
        *samples("neither", Band.HARD, WRONG, WRONG),
    ]
    student = [
        *samples("both", Band.EASY, RIGHT),
        *samples("student_only", Band.HARD, RIGHT),
        *samples("neither", Band.HARD, CUT_YET_RIGHT),
        *samples("never_tried_by_the_teacher", Band.HARD, RIGHT),
    ]
    assert num_solved_beyond_teacher(student, teacher) == 1


def test_the_config_refuses_what_cannot_be_meant() -> None:
    assert EvaluationConfig().num_generations == 4
    with pytest.raises(ValidationError):
        EvaluationConfig(num_generations=0)
    with pytest.raises(ValidationError):
        EvaluationConfig(k=4)
