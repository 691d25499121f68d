"""What the summary prints of scores, of an evaluation drawn up by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from flows.cli.scores import print_scores


def scores(avg: float, error: float | None, pass_at: dict[int, float], problems: int = 2) -> dict[str, Any]:
    return {
        "avg_at_k": avg, "standard_error": error, "pass_at_k": pass_at[4], "pass_at": pass_at, "k": 4,
        "problems": problems, "truncated_share": 0.125, "no_answer_share": 0.25,
    }  # fmt: skip


def arm(avg: float, benchmarks: dict[str, Any] | None = None, ks: tuple[int, ...] = (1, 4)) -> dict[str, Any]:
    pass_at = {k: min(1.0, avg * k) for k in ks}
    return scores(avg, 0.05, pass_at) | {
        "bands": {"hard": scores(avg, None, pass_at, 1)}, "benchmarks": benchmarks or {}, "gap_closed": None,
    }  # fmt: skip


def contrast(**changes: Any) -> dict[str, Any]:
    return {
        "arm": "heal", "against": "equal_tokens", "band": "all", "benchmark": None, "problems": 9, "difference": 0.125,
        "low": -0.01, "high": 0.26, "p_value": 0.07, "p_adjusted": 0.14, "is_primary": False,
        "minimum_detectable_difference": 0.2, "is_powered": False, **changes,
    }  # fmt: skip


def printed(arms: dict[str, Any], *contrasts: dict[str, Any], lm_eval: Sequence[dict[str, Any]] = ()) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    print_scores(console, {"evaluation": arms, "contrasts": list(contrasts), "lm_eval": lm_eval})
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO
    return [line.rstrip() for line in text.splitlines()]


def line_with(lines: list[str], *words: str) -> list[str]:
    """Return the cells of the only line that has these words."""
    (line,) = [line for line in lines if all(word in line for word in words)]
    return line.split()


def test_pass_at_k_has_a_table_where_more_than_one_k_was_asked_for() -> None:
    lines = printed({"teacher": arm(0.2), "base": arm(0.1)})
    start = lines.index("unbiased pass@k in %")
    assert line_with(lines[start : start + 7], "teacher") == ["teacher", "20.0", "80.0"]
    assert line_with(lines[start : start + 7], "untrained") == ["student,", "untrained", "10.0", "40.0"]
    assert not [line for line in printed({"teacher": arm(0.2, ks=(4,))}) if "pass@" in line]


def test_a_benchmark_has_a_table_with_all_that_is_known_of_it() -> None:
    of_exam = {"exam": scores(0.5, 0.25, {4: 1.0})}
    lines = printed({"teacher": arm(0.2, of_exam, (4,)), "heal": arm(0.3, of_exam, (4,))})
    start = lines.index("exam: 2 problems, in %")
    lines = lines[start : start + 7]
    assert line_with(lines[1:], "arm") == ["arm", "avg@4", "@4", "cut", "answer"]
    assert line_with(lines, "HEAL") == ["HEAL", "50.0", "±", "25.0", "100.0", "12.5", "25.0"]


def test_a_difference_is_printed_with_interval_adjusted_p_and_what_it_is_not() -> None:
    primary = contrast(band="extremely_hard", is_primary=True, p_adjusted=0.07)
    lines = printed({"teacher": arm(0.2)}, primary, contrast(), contrast(band="hard"),
                    contrast(against="base", is_powered=True), contrast(benchmark="exam"))  # fmt: skip
    start = next(place for place, line in enumerate(lines) if line.startswith("differences of avg@k"))
    rows = lines[start + 4 :]
    assert line_with(rows, "extr. hard") == [
        "HEAL", "-", "B2", "extr.", "hard", "(9)", "+12.5", "[-1.0,", "+26.0]", "0.070", "primary,", "not", "powered"
    ]  # fmt: skip
    assert line_with(rows, "HEAL - B2", "all")[-3:] == ["0.140", "not", "powered"]
    assert line_with(rows, "untrained")[-2:] == ["+26.0]", "0.140"]
    assert line_with(rows, "exam")[3:6] == ["exam", "(9)", "+12.5"]
    assert not [line for line in rows if " hard " in line and "extr." not in line]  # it is in the store


def test_a_difference_of_one_problem_does_not_print_as_certain() -> None:
    lines = printed({"teacher": arm(0.2)}, contrast(problems=1, low=None, high=None, p_value=None, p_adjusted=None))
    assert line_with(lines, "HEAL - B2") == ["HEAL", "-", "B2", "all", "(1)", "+12.5", "unknown", "not", "powered"]


@pytest.mark.parametrize(("share", "is_told"), [(0.125, True), (0.0, False)])
def test_cut_answers_are_told_where_there_are_any(share: float, is_told: bool) -> None:
    lines = printed({"teacher": arm(0.2) | {"truncated_share": share}})
    assert ("answers cut at max_tokens: teacher 12.5 %" in lines) == is_told


def test_what_lm_eval_measured_has_a_row_per_task_and_metric_and_a_column_per_arm() -> None:
    def row(arm: str, value: float, **changes: Any) -> dict[str, Any]:
        return {"arm": arm, "task": "lab", "metric": "acc", "filter": "none", "value": value, "standard_error": 0.125,
                "num_samples": 40, "lm_eval_version": "0.4.13", **changes}  # fmt: skip

    lines = printed(
        {"teacher": arm(0.2)},
        lm_eval=[row("base", 0.25), row("heal", 0.5), row("heal", 0.75, filter="strict", standard_error=None)],
    )
    assert line_with(lines, "task", "metric") == ["task", "metric", "untrained", "HEAL"]
    assert line_with(lines, "lab", "acc ") == ["lab", "(40)", "acc", "0.250", "±", "0.125", "0.500", "±", "0.125"]
    assert line_with(lines, "lab", "strict") == ["lab", "(40)", "acc,", "strict", "0.750"]
