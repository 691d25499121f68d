"""Shortcuts are built from sampled tokens alone: the arithmetic of their parts, and what cannot be built."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from heal_core.engines.base import SamplingConfig
from heal_core.prompts import rationale_prompt, student_prompt
from heal_core.records import Kind
from heal_core.reference import Reference, make_reference
from heal_core.repair import BrokenPath, plain_slot
from heal_core.steps import StepsConfig
from heal_core.validity.config import NUM_SHORTCUT_KINDS
from heal_core.validity.shortcuts import (
    SHORTCUTS,
    Continuation,
    borrow_reasoning,
    choose_prefixes,
    paste_answer,
    rationale_slot,
    rationalise,
)
from heal_core.validity.tokens import Tokens, find_line_break

NATURAL = "2. 3 + 4 = 7.\n\n3. 7 * 5 = 35.\n\n4. 35 + 7 = 42.\n\nThe final answer is \\boxed{42}"
STEPS = StepsConfig(min_step_tokens=1)


def tokens_of(text: str) -> Tokens:
    """Return a text as words with the space or line break before them; equal words have equal ids."""
    starts = [match.start() for match in re.finditer(r"\n\n|[^\S\n]?[^\s]+", text)]
    words = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    return Tokens(text, np.array([sum(map(ord, word)) for word in words]), np.array(starts))


BREAK = tokens_of("\n\n")


def path_of(problem: str = "p", row: str = "w0", reference: Reference | None = None) -> BrokenPath:
    prefix = "1. 1 + 2 = 3.\n\n"
    ids = tuple(tokens_of(prefix).token_ids.tolist())
    return BrokenPath(row, problem, "How many?", reference or Reference("42"), prefix, ids, "2. Guess.")


def continuation(text: str = NATURAL, row: str = "t0", path: BrokenPath | None = None) -> Continuation:
    return Continuation(row, path or path_of(), tokens_of(text), STEPS)


def is_consistent(tokens: Tokens) -> bool:
    """Whether ids and starts are those that the text itself has."""
    own = tokens_of(tokens.text)
    return tokens.token_ids.tolist() == own.token_ids.tolist() and tokens.token_starts.tolist() == (
        own.token_starts.tolist()
    )


def test_reasoning_ends_before_the_step_that_asserts_the_answer() -> None:
    donor = continuation()
    assert donor.closing.text == "The final answer is \\boxed{42}"
    assert donor.reasoning(2).text == "2. 3 + 4 = 7.\n\n3. 7 * 5 = 35.\n\n"
    assert len(donor.reasoning_ends) == 2  # the third asserts it: 35 + 7 = 42


def test_the_answer_is_pasted_where_a_step_at_least_is_missing() -> None:
    seen = {paste_answer(continuation(row=f"t{n}"), 0, 0, BREAK).tokens.text for n in range(20)}
    # of two steps of reasoning exactly one may stay, before the conclusion that was drawn from both
    assert seen == {"2. 3 + 4 = 7.\n\n4. 35 + 7 = 42.\n\nThe final answer is \\boxed{42}"}
    longer = NATURAL.replace("4. 35", "4. 5 * 1 = 5.\n\n5. 5 + 30 = 35.\n\n6. 35")
    kept = {paste_answer(continuation(longer, f"t{n}"), 0, 0, BREAK).tokens.text.count("=") for n in range(60)}
    assert kept == {2, 3, 4}  # one to three of its four steps, and the asserting one
    shortcut = paste_answer(continuation(longer), 1, 0, BREAK)
    assert is_consistent(shortcut.tokens)
    assert (shortcut.sources, shortcut.index) == (("t0",), 1)
    assert paste_answer(continuation(longer), 1, 0, BREAK).slot_id("r") == shortcut.slot_id("r")


def test_of_one_step_nothing_stays_and_of_none_nothing_is_built() -> None:
    one = continuation("2. 3 + 4 = 7.\n\nThe final answer is \\boxed{42}")
    assert paste_answer(one, 0, 0, BREAK).tokens.text == "The final answer is \\boxed{42}"
    at_once = continuation("The final answer is \\boxed{42}")
    other = continuation(path=path_of("q", "w9"))
    assert paste_answer(at_once, 0, 0, BREAK) is None
    assert rationalise(at_once, "r0", tokens_of(" 6 * 7 = 42."), 0, BREAK) is None
    assert borrow_reasoning(at_once, [at_once, other], 0, 0, BREAK) is None
    assert borrow_reasoning(other, [at_once, other], 0, 0, BREAK) is None


def test_reasoning_is_borrowed_from_another_problem_only() -> None:
    donor = continuation()
    other_path = path_of("q", "w9", Reference("9"))
    other = continuation("2. 3 * 2 = 6.\n\n3. 6 + 3 = 9.\n\nThe final answer is \\boxed{9}", "t9", other_path)
    same = continuation(row="t1", path=path_of(row="w1"))
    shortcut = borrow_reasoning(donor, [donor, same, other], 0, 0, BREAK)
    assert shortcut is not None
    assert shortcut.tokens.text == "2. 3 * 2 = 6.\n\n4. 35 + 7 = 42.\n\nThe final answer is \\boxed{42}"
    assert (shortcut.path, shortcut.sources) == (donor.path, ("t0", "t9"))
    assert is_consistent(shortcut.tokens)
    assert borrow_reasoning(donor, [donor, same], 0, 0, BREAK) is None


def test_a_word_of_the_next_step_does_not_stay_and_the_answer_has_a_line_of_its_own() -> None:
    sentences = StepsConfig(step_separator="sentence", min_step_tokens=1)
    text = "We add 3 + 4 = 7. Then 7 * 5 = 35. So 35 + 7 = 42.\n\nThe final answer is \\boxed{42}"
    donor = Continuation("t0", path_of(), tokens_of(text), sentences)
    # the word " Then" begins, with its space, in the first sentence
    assert donor.reasoning(1).text == "We add 3 + 4 = 7."
    shortcut = paste_answer(donor, 0, 0, BREAK)
    assert shortcut is not None
    # the conclusion went on within a line, and does so here
    assert shortcut.tokens.text == "We add 3 + 4 = 7. So 35 + 7 = 42.\n\nThe final answer is \\boxed{42}"
    assert is_consistent(shortcut.tokens)
    said = rationalise(donor, "r0", tokens_of(" take 14.\n\nThe answer is \\boxed{40}."), 0, BREAK)
    assert said.tokens.text == "We take 14. So 35 + 7 = 42.\n\nThe final answer is \\boxed{42}"


def test_what_goes_on_from_within_a_sentence_is_not_borrowed() -> None:
    within = replace(path_of("q", "w9", Reference("9")), prefix="1. First", prefix_token_ids=(1, 2))
    text = ", 3 * 2 = 6.\n\n2. 6 + 1 = 7.\n\n3. 7 + 2 = 9.\n\nThe final answer is \\boxed{9}"
    shortcut = borrow_reasoning(continuation(), [continuation(text, "t9", within)], 0, 0, BREAK)
    assert shortcut is not None
    assert shortcut.tokens.text == "2. 6 + 1 = 7.\n\n4. 35 + 7 = 42.\n\nThe final answer is \\boxed{42}"


def test_a_rationale_is_sampled_after_the_answer_and_put_before_it() -> None:
    donor = continuation()
    line_break = find_line_break([donor.tokens])
    assert line_break.text == "\n\n"
    slot = rationale_slot(donor, "recipe", 0, SamplingConfig(max_tokens=100), line_break)
    assert slot.prefix == donor.path.prefix + "The final answer is \\boxed{42}\n\n2."
    assert slot.prefix_token_ids == tuple(tokens_of(slot.prefix).token_ids.tolist())
    assert slot.prompt == rationale_prompt("How many?", "42") and "42" in slot.prompt
    assert slot.parent_id == "t0"
    assert slot.limit_tokens == 100 - len(slot.prefix_token_ids)
    sampled = tokens_of(" 3 * 14 is it.\n\nThe answer is \\boxed{40}. Or more.")
    shortcut = rationalise(donor, "r0", sampled, 0, BREAK)
    # its own statement, and what is behind it, goes: the right one stands there, with the step that asserts it
    assert shortcut.tokens.text == "2. 3 * 14 is it.\n\n4. 35 + 7 = 42.\n\nThe final answer is \\boxed{42}"
    assert is_consistent(shortcut.tokens)
    assert shortcut.sources == ("t0", "r0")
    asserted = rationalise(donor, "r0", tokens_of(" 3 * 14 = 42.\n\nThe answer is \\boxed{42}"), 0, BREAK)
    assert asserted.tokens.text == "2. 3 * 14 = 42.\n\nThe final answer is \\boxed{42}"


def test_a_shortcut_states_the_answer_as_often_as_the_natural_text() -> None:
    # else how often it is stated would tell the two apart without any reading
    donor = continuation(NATURAL.replace("The final", "So it is 42. It = 42.\n\nThe final"))
    other = continuation(
        "2. 3 * 2 = 6.\n\n3. 6 + 3 = 9.\n\nThe final answer is \\boxed{9}", "t9", path_of("q", "w9", Reference("9"))
    )
    built = [paste_answer(donor, 0, 0, BREAK), borrow_reasoning(donor, [donor, other], 0, 0, BREAK)]
    reference = donor.path.reference
    expected = len(reference.find_assertions(donor.tokens.text))
    assert expected > 2
    assert [len(reference.find_assertions(shortcut.tokens.text)) for shortcut in built] == [expected, expected]


@pytest.mark.parametrize("rationale", [" 3 * 14 is it.", " 3 * 14 = 42."])
def test_a_thinking_part_is_closed_once(rationale: str) -> None:
    thought = "2. 3 + 4 = 7.\n\n3. 35 + 7 = 42.\n\n</think>\n\nThe final answer is \\boxed{42}"
    path = replace(path_of(), prefix="<think>\n\n1. 1 + 2 = 3.\n\n", prefix_token_ids=(1, 2))
    donor = continuation(thought, path=path)
    other = continuation(thought, "t9", replace(path, problem_id="q"))
    sampled = tokens_of(rationale + "\n\n</think>\n\nSo it must be. The answer is \\boxed{42}")
    built = [
        paste_answer(donor, 0, 0, BREAK),
        borrow_reasoning(donor, [donor, other], 0, 0, BREAK),
        rationalise(donor, "r0", sampled, 0, BREAK),
    ]
    for shortcut in built:
        assert shortcut is not None
        assert shortcut.tokens.text.count("</think>") == 1
        assert shortcut.tokens.text.endswith("</think>\n\nThe final answer is \\boxed{42}")
        assert is_consistent(shortcut.tokens)
    # the justification goes on within the thinking part, as the text that it stands for did
    slot = rationale_slot(donor, "recipe", 0, SamplingConfig(max_tokens=100), BREAK)
    assert "</think>" not in slot.prefix


def test_natural_texts_are_sampled_without_hint_or_answer() -> None:
    slot = plain_slot(path_of(), "recipe", 3, SamplingConfig(max_tokens=100), Kind.CONTINUATION)
    assert (slot.kind, slot.prompt, slot.hint_id) == (Kind.CONTINUATION, student_prompt("How many?"), None)
    assert slot.limit_tokens == 100 - len(path_of().prefix_token_ids)


def test_a_program_is_stated_by_its_block() -> None:
    code = make_reference("def f(): return 1", "code", "")
    text = "2. Think of it.\n\n3. Then write.\n\n```python\ndef f(): return 1\n```\nIt gives 1."
    donor = continuation(text, path=path_of(reference=code))
    assert donor.closing.text == "```python\ndef f(): return 1\n```\nIt gives 1."
    assert donor.reasoning(len(donor.reasoning_ends)).text == "2. Think of it.\n\n3. Then write.\n\n"


def test_as_many_kinds_are_planned_as_there_are() -> None:
    assert len(SHORTCUTS) == NUM_SHORTCUT_KINDS


def test_shortcuts_of_other_tokens_have_other_places() -> None:
    one, other = (
        paste_answer(continuation(), 0, 0, BREAK),
        paste_answer(continuation(NATURAL.replace("3 + 4", "4 + 3")), 0, 0, BREAK),
    )
    assert one is not None and other is not None
    assert one.slot_id("recipe") != other.slot_id("recipe")
    assert one.slot_id("recipe") == paste_answer(continuation(), 0, 0, BREAK).slot_id("recipe")  # type: ignore[union-attr]


@pytest.mark.parametrize(("most", "chosen"), [(None, 5), (5, 5), (3, 3), (2, 2)])
def test_problems_take_turns_where_prefixes_are_too_many(most: int | None, chosen: int) -> None:
    paths = [path_of(problem, f"{problem}{n}") for problem, num in (("a", 3), ("b", 1), ("c", 1)) for n in range(num)]
    found = choose_prefixes(paths, most, seed=0)
    assert len(found) == chosen
    assert found == [path for path in paths if path in found]
    if most == 3:
        assert [path.trajectory_id for path in found] == ["a0", "b0", "c0"]
