"""The five answers: each says what the numbers say, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heal_core.report.headline import Answer, answers
from heal_core.store.report import RunReport

MakeReport = Callable[..., RunReport]


def by_question(report: RunReport) -> dict[str, Answer]:
    return {answer.question: answer for answer in answers(report)}


def row(**changes: Any) -> dict[str, Any]:
    return {
        "arm": "heal", "against": "base", "band": "all", "benchmark": None, "num_problems": 40, "difference": 0.2,
        "low": 0.1, "high": 0.3, "p_value": 0.01, "p_adjusted": 0.01, "is_primary": False,
        "minimum_detectable_difference": 0.09, "is_powered": True, **changes,
    }  # fmt: skip


BETTER = "Is the student better than untrained?"
EQUAL = "Is it better than rejection sampling with as many tokens?"


def test_the_ceiling_is_the_extremely_hard_band_of_the_training_problems(make_report: MakeReport) -> None:
    answer = by_question(make_report())["What was the teacher's ceiling?"]
    assert answer.short == "5 of 13 training problems"
    assert "at most once in 16 rollouts, 4 of them never" in answer.detail


def test_with_more_rollouts_the_band_allows_more_of_them(make_report: MakeReport) -> None:
    # the band's rule: at most max(1, N // 30) correct rollouts
    ceiling = make_report().ceiling | {"num_generations": 90}
    assert "at most 3 times in 90 rollouts" in by_question(make_report(ceiling=ceiling))[
        "What was the teacher's ceiling?"
    ].detail  # fmt: skip


def test_what_fell_is_what_has_a_verified_repair(make_report: MakeReport) -> None:
    answer = by_question(make_report())["How much of it fell?"]
    assert answer.short == "3 of 5 (60 %)"
    assert "for 2 one passed all filters" in answer.detail
    assert answer.detail.endswith(
        "2 of the 5 no plain sample of the teacher solved; 1 of these have a verified repair."
    )


def test_plain_samples_include_b2s_only_where_there_are_any(make_report: MakeReport) -> None:
    spend = [*make_report().spend, make_report().spend[0] | {"phase": "equal_tokens"}]
    assert by_question(make_report(spend=spend))["How much of it fell?"].detail.endswith(
        "solved, B2's included; 1 of these have a verified repair."
    )


def test_without_extremely_hard_problems_there_is_nothing_to_repair(make_report: MakeReport) -> None:
    ceiling = dict.fromkeys(make_report().ceiling, 0) | {"num_problems": 13, "num_generations": 16}
    found = by_question(make_report(ceiling=ceiling, funnel=[]))
    assert found["What was the teacher's ceiling?"].short == "0 of 13 training problems"
    assert "nothing to repair" in found["What was the teacher's ceiling?"].detail
    assert "How much of it fell?" not in found
    assert "Which filter dropped most?" not in found
    assert "How much of it fell?" not in by_question(make_report(ceiling=ceiling))  # a funnel with repairs of others


def test_the_filter_that_dropped_most_is_named_with_its_main_reason_and_the_counts_add_up(
    make_report: MakeReport,
) -> None:
    # verified: 9 by the cap + 4 + 1 by gates + 6 kept = 20; of 40 repairs 20 were wrong
    answer = by_question(make_report())["Which filter dropped most?"]
    assert answer.short == "the cap: 9 of 20 verified repairs"
    assert "9 times: too like another kept text" in answer.detail
    assert "Others: the gates 5." in answer.detail
    assert "6 were kept." in answer.detail
    assert "20 of 40 repairs were wrong, cut or could not be graded" in answer.detail


def test_what_is_not_decided_yet_is_not_called_kept_or_dropped(make_report: MakeReport) -> None:
    # stopped between the gates and PURE: 5 were dropped, 15 are open
    rows = [row for row in make_report().funnel if row["outcome"] in ("wrong", "dropped by gate")]
    still_open = make_report().funnel[-1] | {"outcome": "undecided", "num": 15}
    answer = by_question(make_report(funnel=[*rows, still_open]))["Which filter dropped most?"]
    assert answer.short == "the gates: 5 of 20 verified repairs"
    assert "0 were kept. 15 are not decided yet." in answer.detail
    assert "Which filter dropped most?" not in by_question(make_report(funnel=[still_open]))
    fallen = by_question(make_report(funnel=[*rows, still_open]))["How much of it fell?"]
    assert fallen.detail.startswith("So many have a verified repair; the filters have not decided on all of them yet.")
    kept = make_report().funnel[-1]
    answer = by_question(make_report(funnel=[kept, still_open]))["Which filter dropped most?"]
    assert answer.detail == "6 of 21 verified repairs were kept. 15 are not decided yet."


def test_a_difference_is_called_shown_by_the_adjusted_p_value_only(make_report: MakeReport) -> None:
    shown = by_question(make_report(contrasts=[row()]))[BETTER]
    assert shown.short == "yes: +20.0 points [+10.0, +30.0]"
    # the interval excludes 0, but after Holm's adjustment it may be chance
    chance = by_question(make_report(contrasts=[row(p_value=0.03, p_adjusted=0.12)]))[BETTER]
    assert chance.short.startswith("not shown: +20.0 points")
    assert "excludes 0, but" in chance.detail
    assert "p = 0.120 after Holm's adjustment" in chance.detail
    assert "a true difference of 9.0 points would be found four times in five" in chance.detail
    wide = by_question(make_report(contrasts=[row(low=-0.1, p_adjusted=0.4)]))[BETTER]
    assert "The 95 % interval leaves it open (p = 0.400 after Holm's adjustment)." in wide.detail


def test_the_contrast_chosen_beforehand_is_answered_with_its_own_p_value(make_report: MakeReport) -> None:
    primary = row(against="equal_tokens", band="extremely_hard", is_primary=True, p_value=0.0002, p_adjusted=0.0002)
    answers_ = by_question(make_report(contrasts=[row(), primary], scores=[]))
    answer = answers_["The question chosen beforehand: is it better than B2 (equal tokens) on the extremely hard?"]
    assert answer.short == "yes: +20.0 points [+10.0, +30.0]"
    assert answer.detail == "95 % interval over problems, of one training seed; p < 0.001, not adjusted."


def test_worse_is_said_plainly(make_report: MakeReport) -> None:
    answer = by_question(make_report(contrasts=[row(difference=-0.2, low=-0.3, high=-0.1)]))[BETTER]
    assert answer.short == "no, worse: −20.0 points [−30.0, −10.0]"


def test_without_an_interval_nothing_is_claimed(make_report: MakeReport) -> None:
    answer = by_question(make_report(contrasts=[row(low=None, high=None, p_value=None, p_adjusted=None)]))[BETTER]
    assert answer.short == "not known: +20.0 points"
    assert answer.detail.endswith("The same difference on every problem does not tell how sure that is.")


def test_a_run_that_only_evaluates_speaks_of_the_promoted_student(make_report: MakeReport) -> None:
    found = by_question(make_report(contrasts=[row(arm="latest")]))
    assert BETTER in found
    assert EQUAL not in found


def test_a_run_that_has_just_begun_has_no_answers(make_report: MakeReport) -> None:
    nothing = dict.fromkeys(make_report().ceiling, 0)
    assert answers(make_report(ceiling=nothing, funnel=[], contrasts=[], scores=[])) == []
