"""Lines of the summary that only some runs have."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from flows.cli.summary import _print_early_stops, _print_repairs

REPAIRS = {
    "problems": 3, "paths": 9, "attempted": 18, "verified": 12, "passed_gates": 9, "kept": 5, "problems_broken": 3,
    "skipped": 27, "estimated_tokens_saved": 1215,
}  # fmt: skip


def shown(print_part: Callable[[Console, dict[str, Any]], None], **summary: Any) -> str:
    console = Console(file=io.StringIO(), width=1000)
    print_part(console, summary)
    return console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO


def test_what_a_quota_saved_is_told_as_an_estimate_and_only_where_something_was_left_out() -> None:
    text = shown(_print_repairs, repairs=REPAIRS)
    assert "18 continuations, 12 verified (67 %)" in text
    assert "quota: 27 more continuations were left out" in text
    assert "an estimated 1215 tokens saved" in text
    assert "quota" not in shown(_print_repairs, repairs=REPAIRS | {"skipped": 0, "estimated_tokens_saved": 0})


def test_what_was_given_up_early_is_told_where_something_was() -> None:
    text = shown(_print_early_stops, early_stops={"stopped": 4, "tokens": 800, "saved_at_most": 15_000})
    assert "4 texts were given up as hopeless after 800 tokens" in text
    assert "15000 more, the most that was saved" in text
    assert shown(_print_early_stops, early_stops={"stopped": 0, "tokens": 0, "saved_at_most": 0}) == ""
