"""The five answers that a report begins with, each from the store's own numbers.

What was the teacher's ceiling, how much of it fell, which filter dropped most, what does a repair look like, and is
the student better, by how much, how sure. What does not belong here: how they look (`page`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heal_core.arms import BASE, EQUAL_TOKENS, HEAL, LATEST, arm_named
from heal_core.bands import max_correct_at_the_ceiling
from heal_core.evaluation import ALL_BANDS
from heal_core.report.charts.evaluation import is_shown
from heal_core.report.names import count, explain_reason, percent, points
from heal_core.store.report import RunReport


@dataclass(frozen=True)
class Answer:
    """An answer to one question: in a few words, and what there is to say about it."""

    question: str
    short: str
    detail: str


def answers(report: RunReport) -> list[Answer]:
    """Return the answers that the run has come far enough for; that about a repair's looks is the page's own."""
    found = [_ceiling(report), _fallen(report), _filters(report), *_student(report)]
    return [answer for answer in found if answer is not None]


def _ceiling(report: RunReport) -> Answer | None:
    ceiling = report.ceiling
    if not ceiling["num_problems"]:
        return None
    most = max_correct_at_the_ceiling(ceiling["num_generations"])
    times = "once" if most == 1 else f"{most} times"
    return Answer(
        "What was the teacher's ceiling?",
        f"{count(ceiling['num_extremely_hard'])} of {count(ceiling['num_problems'])} training problems",
        f"The extremely hard: the teacher solves them at most {times} in {ceiling['num_generations']} rollouts, "
        f"{count(ceiling['num_never'])} of them never. They give rejection sampling next to nothing to learn from."
        if ceiling["num_extremely_hard"]
        else "The teacher solves all of them more than once: there is nothing to repair.",
    )


def _fallen(report: RunReport) -> Answer | None:
    ceiling = report.ceiling
    total = ceiling["num_extremely_hard"]
    if not total or not any(row["phase"] == "repairs" for row in report.funnel):
        return None
    is_open = any(row["phase"] == "repairs" and row["outcome"] == "undecided" for row in report.funnel)
    detail = "So many have a verified repair; " + (
        "the filters have not decided on all of them yet."
        if is_open
        else f"for {count(ceiling['num_kept'])} one passed all filters and became a training example."
    )
    if num := ceiling["num_unsolved"]:
        is_b2 = any(row["phase"] == "equal_tokens" and row["num_tokens"] for row in report.spend)
        detail += f" {count(num)} of the {count(total)} no plain sample of the teacher solved"
        detail += ", B2's included" if is_b2 else ""
        detail += f"; {count(ceiling['num_unsolved_repaired'])} of these have a verified repair."
    return Answer(
        "How much of it fell?",
        f"{count(ceiling['num_repaired'])} of {count(total)} ({percent(ceiling['num_repaired'] / total)})",
        detail,
    )


def _filters(report: RunReport) -> Answer | None:
    """Return which filter dropped most of the verified repairs: gates, PURE or the cap, and for which reason."""
    repairs = [row for row in report.funnel if row["phase"] == "repairs"]
    dropped = [row for row in repairs if (row["outcome"] or "").startswith("dropped")]
    kept = sum(row["num"] for row in repairs if row["outcome"] == "kept")
    num_open = sum(row["num"] for row in repairs if row["outcome"] == "undecided")
    total = kept + num_open + sum(row["num"] for row in dropped)
    if num_open == total:
        return None
    rest = f" {count(num_open)} are not decided yet." if num_open else ""
    if not dropped:
        whole = f"{count(kept)} of {count(total)}" if num_open else f"All {count(total)}"
        return Answer("Which filter dropped most?", "none", f"{whole} verified repairs were kept.{rest}")
    by_filter: dict[str, int] = {}
    for row in dropped:
        by_filter[row["outcome"]] = by_filter.get(row["outcome"], 0) + row["num"]
    most, num = max(by_filter.items(), key=lambda item: item[1])
    reason = max((row for row in dropped if row["outcome"] == most), key=lambda row: row["num"])
    others = ", ".join(f"{_filter_name(name)} {count(n)}" for name, n in by_filter.items() if name != most)
    return Answer(
        "Which filter dropped most?",
        f"{_filter_name(most)}: {count(num)} of {count(total)} verified repairs",
        f"Most often, {count(reason['num'])} times: {explain_reason(reason['reason'])}."
        + (f" Others: {others}." if others else "")
        + f" {count(kept)} were kept."
        + rest
        + _wrong(repairs),
    )


def _filter_name(outcome: str) -> str:
    name = outcome.removeprefix("dropped by ")
    return {"cap": "the cap", "gate": "the gates"}.get(name, name)


def _wrong(repairs: list[dict[str, Any]]) -> str:
    num_wrong = sum(row["num"] for row in repairs if row["outcome"] in ("wrong", "truncated", "unverifiable"))
    num_all = sum(row["num"] for row in repairs if row["outcome"] != "skipped")
    return (
        f" Before all filters, {count(num_wrong)} of {count(num_all)} repairs were wrong, cut or could not be graded."
        if num_wrong
        else ""
    )


def _student(report: RunReport) -> list[Answer]:
    """Return whether the student is better than untrained, and than with the baseline of equal tokens.

    The last is asked of the extremely hard first: that contrast was chosen beforehand.
    """
    found = []
    whole = [row for row in report.contrasts if row["band"] == ALL_BANDS]
    arm = HEAL if any(row["arm"] == HEAL for row in whole) else LATEST
    primary = [row for row in report.contrasts if row["is_primary"]]
    for question, rows in (
        ("Is the student better than untrained?", [row for row in whole if row["against"] == BASE]),
        ("The question chosen beforehand: is it better than B2 (equal tokens) on the extremely hard?", primary),
        ("Is it better than rejection sampling with as many tokens?",
         [row for row in whole if row["against"] == EQUAL_TOKENS]),
    ):  # fmt: skip
        row = next((row for row in rows if row["arm"] == arm), None)
        if row is not None:
            found.append(Answer(question, *_difference(report, row)))
    return found


def _difference(report: RunReport, row: Mapping[str, Any]) -> tuple[str, str]:
    scores = {score["arm"]: score for score in report.scores if score["band"] == row["band"]}
    ours, theirs = scores.get(row["arm"]), scores.get(row["against"])
    levels = ""
    if ours and theirs:
        levels = (
            f"avg@{ours['k']} {percent(ours['avg_at_k'], 1)} against {percent(theirs['avg_at_k'], 1)} of "
            f"{arm_named(row['against']).label}, over {count(row['num_problems'])} held-out problems. "
        )
    if row["low"] is None:
        why = "One problem" if row["num_problems"] == 1 else "The same difference on every problem"
        return f"not known: {points(row['difference'])} points", f"{levels}{why} does not tell how sure that is."
    interval = f"{points(row['difference'])} points [{points(row['low'])}, {points(row['high'])}]"
    if is_shown(row):
        word = "yes" if row["difference"] > 0 else "no, worse"
        return f"{word}: {interval}", f"{levels}95 % interval over problems, of one training seed; {_p(row)}."
    if row["low"] <= 0 <= row["high"]:
        why = f"The 95 % interval leaves it open ({_p(row)})."
    else:
        why = f"The 95 % interval excludes 0, but among the run's other contrasts that may be chance ({_p(row)})."
    least = row["minimum_detectable_difference"]
    power = (
        f" With so many problems, a true difference of {100 * least:.1f} points would be found four times in five, "
        "before any adjustment."
        if least
        else ""
    )
    return f"not shown: {interval}", f"{levels}{why}{power}"


def _p(row: Mapping[str, Any]) -> str:
    """Return the p-value that decides, and which it is: the primary contrast is adjusted for no other."""
    value = row["p_adjusted"]
    words = "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
    return f"{words}, not adjusted" if row["is_primary"] else f"{words} after Holm's adjustment"
