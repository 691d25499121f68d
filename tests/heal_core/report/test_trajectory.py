"""One trajectory ready for the inspector."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from heal_core.breakpoints import BreakpointConfig
from heal_core.report.trajectory import (
    MAX_NOTE_CHARS,
    MAX_TEXT_CHARS,
    MAX_TOKEN_CHARS,
    MAX_TOKENS,
    bound,
    view_trajectory,
)
from heal_core.steps import StepsConfig
from heal_core.store.inspector import TokenArrays

Row = dict[str, Any]


def row(text: str, **changes: Any) -> Row:
    return {
        "trajectory_id": "t", "kind": "rollout", "problem_id": "p", "parent_id": None, "hint_id": None,
        "sample_index": 0, "num_tokens": 4, "finish_reason": "stop", "prefix": "", "text": text,
        "mean_entropy_nats": 0.1, "entropy_source": None, "question": "q?", "answer": "4", "hint": None, "listed": [],
        "verdict": None, "score": None, "profile": None, "decisions": [], "gates": [], "repairs": [], **changes,
    }  # fmt: skip


def arrays(starts: list[int], entropies: list[float] | None = None) -> TokenArrays:
    values = [0.1] * len(starts) if entropies is None else entropies
    return TokenArrays(np.array(starts, dtype=np.int64), np.array(values, dtype=np.float64))


def view(row: Row, given: TokenArrays | None) -> Row:
    shown = view_trajectory(row, given, StepsConfig(), BreakpointConfig())
    json.dumps(shown, allow_nan=False)  # it has to be JSON that every browser takes
    return shown


def test_tokens_join_to_the_text_and_are_aligned_with_their_entropies() -> None:
    text = "One step here.\n\nAnd two."
    shown = view(row(text), arrays([0, 3, 14, 16, 20], [0.5, 0.25, 0.0, 1.25, 0.125]))
    assert "".join(shown["tokens"]) == text
    assert shown["entropies"] == [0.5, 0.25, 0.0, 1.25, 0.125]


def test_characters_beyond_16_bits_are_cut_where_python_counts_them() -> None:
    # an emoji is one character to Python and two to JavaScript, which therefore never gets offsets
    shown = view(row("a😀b"), arrays([0, 1, 2]))
    assert shown["tokens"] == ["a", "😀", "b"]


def test_a_stored_profile_is_shown_as_it_is() -> None:
    profile = {
        "separator": "\n\n", "step_start_tokens": [0, 2], "step_entropies": [0.1, 0.9], "step_entropy_radii": None,
        "breakpoint_step": 1, "surge_nats": 0.8, "window_size": 1, "z_score": None, "flat": False,
        "entropy_source": "exact", "is_certain": True,
    }  # fmt: skip
    shown = view(row("ab\n\ncd", profile=profile), arrays([0, 1, 4, 5]))
    assert shown["steps"] == [{"start": 0, "entropy": 0.1}, {"start": 2, "entropy": 0.9}]
    assert (shown["breakpoint"], shown["surge"]) == (1, 0.8)


def test_a_repair_is_cut_into_steps_and_has_no_breakpoint() -> None:
    text = "First, this is one step of it.\n\nThen this is another one."
    starts = list(range(0, len(text), 3))
    shown = view(row(text, kind="repair"), arrays(starts))
    assert len(shown["steps"]) == 2
    assert "".join(shown["tokens"][shown["steps"][1]["start"] :]) == text[starts[shown["steps"][1]["start"]] :]
    assert "breakpoint" not in shown


def test_a_text_whose_part_is_gone_is_shown_without_entropies() -> None:
    shown = view(row("text"), None)
    assert (shown["tokens"], shown["entropies"], shown["steps"]) == (["text"], [None], [])


def test_an_empty_text_has_no_tokens() -> None:
    assert view(row(""), arrays([]))["tokens"] == []


def test_entropies_that_are_not_finite_become_none() -> None:
    profile = {
        "separator": "\n", "step_start_tokens": [0], "step_entropies": [float("nan")], "step_entropy_radii": [0.5],
        "breakpoint_step": None, "surge_nats": None, "window_size": None, "z_score": None, "flat": None,
        "entropy_source": "top_20", "is_certain": None,
    }  # fmt: skip
    found = view(row("ab", profile=profile), arrays([0, 1], [float("inf"), 0.5]))
    assert found["entropies"] == [None, 0.5]
    assert found["steps"] == [{"start": 0, "entropy": None, "radius": 0.5}]


def test_a_token_of_a_megabyte_is_bounded_and_says_so() -> None:
    shown = view(row("x" * 1_000_000), arrays([0]))
    assert len(shown["tokens"][0]) < MAX_TOKEN_CHARS + 40
    assert shown["tokens"][0].endswith("(999,800 more characters)")


def test_the_end_of_a_very_long_text_is_left_out_and_counted() -> None:
    num = MAX_TOKENS + 5
    profile = {
        "separator": "\n", "step_start_tokens": [0], "step_entropies": [0.1], "step_entropy_radii": None,
        "breakpoint_step": None, "surge_nats": None, "window_size": None, "z_score": None, "flat": None,
        "entropy_source": "exact", "is_certain": True,
    }  # fmt: skip
    shown = view(row("a" * num, profile=profile), arrays(list(range(num))))
    assert (len(shown["tokens"]), len(shown["entropies"]), shown["num_left_out"]) == (MAX_TOKENS, MAX_TOKENS, 5)


@pytest.mark.parametrize(
    ("field", "most"), [("question", MAX_TEXT_CHARS), ("answer", MAX_NOTE_CHARS), ("prefix", MAX_TEXT_CHARS)]
)
def test_texts_are_bounded(field: str, most: int) -> None:
    shown = view(row("t", **{field: "y" * (most + 7)}), arrays([0]))
    assert shown[field].endswith("(7 more characters)")


def test_a_hint_is_shown_as_the_prompt_had_it() -> None:
    assert view(row("t", hint="<think>hm</think>Hint: halve it."), arrays([0]))["hint"] == "halve it."


def test_bound_leaves_other_values_alone() -> None:
    assert bound(3) == 3
    assert bound(None) is None


def test_intervals_of_entropies_are_shown_with_tokens_and_steps() -> None:
    # the radius of a step is the mean of its tokens' radii: (0.1 + 0.3) / 2
    given = TokenArrays(np.array([0, 1]), np.array([0.5, 0.7]), np.array([0.1, 0.3]))
    found = view(row("ab", entropy_source="top_20"), given)
    assert found["radii"] == [0.1, 0.3]
    assert found["steps"] == [{"start": 0, "entropy": 0.6, "radius": 0.2}]
    assert found["entropy_source"] == "top_20"
    assert "radii" not in view(row("ab"), arrays([0, 1]))
