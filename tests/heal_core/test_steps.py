"""Steps: cuts follow the text, nothing is lost, and every token has one step."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.errors import ShapeError
from heal_core.steps import StepsConfig, count_reasoning_steps, split_steps

SEPARATORS = ["blank_line", "newline", "sentence", "auto"]
FRAGMENTS = [
    *("a", "Then x = 3.5.", "e.g. so", "1. ", "! ", "?) ", "\u3002", "\uff01"),
    *(" ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\n \t\n", "\u2028"),
    *("$$", "\\[", "\\]", "\\\\[2pt]", "```", "<think>", "</think>", "</thi"),
    *("\U0001f600", "e\u0301", "\x00"),
]
texts = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join))


def per_character(text: str) -> np.ndarray:
    return np.arange(len(text))


def cut(text: str, separator: str = "blank_line", min_step_tokens: int = 1) -> list[str]:
    config = StepsConfig(step_separator=separator, min_step_tokens=min_step_tokens)
    _, steps = split_steps(text, per_character(text), config)
    return [text[step.start_char : step.end_char] for step in steps]


@settings(deadline=None)  # machines are busy
@given(text=texts, data=st.data(), separator=st.sampled_from(SEPARATORS), least=st.integers(1, 12))
def test_joining_gives_the_text_back_and_tokens_partition(text, data, separator, least):
    num_tokens = data.draw(st.integers(1 if text else 0, 60))
    starts = np.array(sorted(data.draw(st.integers(0, len(text))) for _ in range(num_tokens)), dtype=np.int64)
    used, steps = split_steps(text, starts, StepsConfig(step_separator=separator, min_step_tokens=least))
    assert used == separator or separator == "auto"
    assert "".join(text[step.start_char : step.end_char] for step in steps) == text
    if not text:
        assert steps == ()
        return
    assert (steps[0].start_token, steps[-1].end_token) == (0, num_tokens)
    assert all(a.end_token == b.start_token and a.end_char == b.start_char for a, b in pairwise(steps))
    assert all(step.start_token < step.end_token for step in steps)
    for step in steps:
        # Tokens that begin at the very end of the text belong to the last step.
        inside = (starts >= step.start_char) & ((starts < step.end_char) | (step is steps[-1]))
        if step is steps[0]:
            inside |= starts < step.start_char
        assert np.flatnonzero(inside).tolist() == list(range(step.start_token, step.end_token))
    reasoning = steps[: count_reasoning_steps(text, steps)]
    assert len(reasoning) == 1 or all(step.end_token - step.start_token >= least for step in reasoning)


@settings(deadline=None)  # machines are busy
@given(text=texts)
def test_a_finer_separator_never_gives_fewer_steps(text):
    counts = [len(cut(text, separator)) for separator in SEPARATORS[:3]]
    assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("separator", "text", "expected"),
    [
        ("blank_line", "one\n\ntwo\nlines\n\n\nthree", ["one\n\n", "two\nlines\n\n\n", "three"]),
        ("blank_line", "one\r\n\r\ntwo\r\nx", ["one\r\n\r\n", "two\r\nx"]),
        ("blank_line", "one\n \t\ntwo", ["one\n \t\n", "two"]),
        ("blank_line", "\n\none\n\ntwo\n\n", ["\n\none\n\n", "two\n\n"]),
        ("newline", "one\n\n  two\nthree", ["one\n\n", "  two\n", "three"]),
        (
            "sentence",
            'Is it 3.5? Yes! (It is.) "So." End',
            ["Is it 3.5? ", "Yes! ", "(It is.) ", '"So." ', "End"],
        ),
        ("sentence", "Use e.g. Eq. 3 here... Done", ["Use e.g. Eq. 3 here... ", "Done"]),
        ("sentence", "1. First\n2. Second. Third", ["1. First\n", "2. Second. ", "Third"]),
        ("sentence", "\u4e00\u3002\u4e8c\uff01 \u4e09", ["\u4e00\u3002", "\u4e8c\uff01 ", "\u4e09"]),
        ("sentence", "One. \n\n  Two", ["One. \n\n", "  Two"]),
    ],
)
def test_where_each_separator_cuts(separator, text, expected):
    assert cut(text, separator) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n\n$$x\n\ny$$\n\nb", ["a\n\n", "$$x\n\ny$$\n\n", "b"]),
        ("a\n\n\\[x\n\ny\\]\n\nb", ["a\n\n", "\\[x\n\ny\\]\n\n", "b"]),
        ("```py\n\nx\n\n```\n\nb", ["```py\n\nx\n\n```\n\n", "b"]),
        ("```\n\n$$\n\n```\n\nb $$ c", ["```\n\n$$\n\n```\n\n", "b $$ c"]),  # a fence hides what is in it
        ("a $$ b\n\nc", ["a $$ b\n\n", "c"]),  # unclosed: protects nothing
        ("a \\[ b\n\n$$c\n\nd$$", ["a \\[ b\n\n", "$$c\n\nd$$"]),  # nor does it hide what follows
        ("$$a$$ b $$ c\n\n\\[d\n\ne\\]", ["$$a$$ b $$ c\n\n", "\\[d\n\ne\\]"]),
        ("x \\\\[2pt]\n\ny \\]", ["x \\\\[2pt]\n\n", "y \\]"]),  # a line break of LaTeX opens nothing
    ],
)
def test_never_inside_formulas_or_code(text, expected):
    assert cut(text) == expected


def test_a_short_step_joins_the_next_and_the_last_the_one_before():
    # One token per character, at least 4: "ab" (4 with its separator) stands, "c" (3) joins
    # "defg", and "h" (1), after which nothing comes, the step before.
    assert cut("ab\n\nc\n\ndefg\n\nh", min_step_tokens=4) == ["ab\n\n", "c\n\ndefg\n\nh"]
    assert cut("ab\n\nc", min_step_tokens=100) == ["ab\n\nc"]
    assert cut("abcd\n\ne</think>f", min_step_tokens=4) == ["abcd\n\ne", "</think>f"]  # not the tail


def test_a_token_belongs_to_the_step_of_its_first_character():
    text = "ab\n\ncd"
    starts = np.array([0, 3, 5])  # "ab\n", "\nc", "d": the second begins in the first step
    _, steps = split_steps(text, starts, StepsConfig(min_step_tokens=1))
    assert [(s.start_char, s.end_char, s.start_token, s.end_token) for s in steps] == [
        (0, 4, 0, 2),
        (4, 6, 2, 3),
    ]


def test_everything_from_the_closing_think_tag_is_one_last_step():
    text = "<think>\n\none\n\ntwo\n</think>\n\nanswer\n\nmore"
    assert cut(text) == ["<think>\n\none\n\n", "two\n", "</think>\n\nanswer\n\nmore"]
    # It stays apart though it is shorter than a step must be.
    starts = np.array([*range(text.index("</think>")), text.index("</think>")])
    _, steps = split_steps(text, starts, StepsConfig(min_step_tokens=4))
    assert steps[-1].end_token - steps[-1].start_token == 1
    assert count_reasoning_steps(text, steps) == len(steps) - 1


def test_think_tags_at_the_edges():
    assert cut("</think>a\n\nb") == ["</think>a\n\nb"]
    assert cut("<think>one\n\ntwo") == ["<think>one\n\n", "two"]  # unclosed: reasoning to the end
    # The tag's token began before it, so the tail has none of its own and joins the step before.
    _, steps = split_steps("ab</think>", np.array([0, 1]), StepsConfig(min_step_tokens=1))
    assert [(s.start_char, s.end_char) for s in steps] == [(0, 10)]


def test_auto_takes_the_coarsest_separator_that_gives_nine_steps():
    def used(text: str) -> str:
        config = StepsConfig(step_separator="auto", min_step_tokens=1)
        return split_steps(text, per_character(text), config)[0]

    assert used("\n\n".join("abcdefghi")) == "blank_line"  # 9
    assert used("\n\n".join("abcdefgh")) == "sentence"  # 8, and the finer ones give no more
    assert used("\n\n".join("abcdefgh") + "\ni") == "newline"  # 8 blank-line steps, 9 lines
    assert used("\n\n".join("abcdefgh") + "</think>\n\ni") == "sentence"  # the tail is no reasoning step


@pytest.mark.parametrize("starts", [[], [0, 2, 1], [-1, 0], [0, 9], [[0, 1]]])
def test_offsets_that_do_not_fit_are_refused(starts):
    with pytest.raises(ShapeError):
        split_steps("text", np.array(starts, dtype=np.int64), StepsConfig())


@pytest.mark.parametrize(
    "unit",
    [
        "\n",
        "a\n",
        "a\n\n",
        "\r\n",
        " ",
        "\n ",
        ".",
        ". ",
        ".)",
        "$$",
        "\\[",
        "```",
        "`",
        "</think",
        "\u3002",
        "1. ",
    ],
)
@pytest.mark.parametrize("separator", SEPARATORS)
def test_one_unit_repeated_takes_linear_time(unit, separator):
    text = unit * (200_000 // len(unit))
    starts = np.arange(0, len(text), 3)
    began = time.process_time()
    _, steps = split_steps(text, starts, StepsConfig(step_separator=separator, min_step_tokens=2))
    assert time.process_time() - began < 5  # quadratic time would be minutes; the slack is for busy machines
    assert steps[-1].end_char == len(text)
