from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heal_core.errors import ShapeError
from heal_core.gates import META_REFERENCES, AnswerConditionedText, GatesConfig, check_hint, check_text
from heal_core.records import GateResult
from heal_core.reference import CodeReference, Reference

QUESTION = "Start with 5. Add 3. Double it. What is the result?"
PREFIX = "Start with 5.\n\n"
SOUND = "5 + 3 = 8.\n\nNow double that.\n\n8 * 2 = 16.\n\nThe final answer is \\boxed{16}"


def conditioned(
    repaired: str, prefix: str = PREFIX, answer: str = "16", question: str = QUESTION
) -> AnswerConditionedText:
    """The tokens are words here, so that shares can be counted by eye."""
    starts = [len(prefix) + match.start() for match in re.finditer(r"\S+", repaired)]
    return AnswerConditionedText(
        question, Reference(answer), prefix + repaired, len(prefix), np.array(starts, dtype=np.int64), len(starts)
    )


def check(item: AnswerConditionedText, *gates: str, median: float | None = None, num_paths: int = 0, length=100):
    config = GatesConfig(enabled=gates) if gates else GatesConfig()
    return check_text(item, median, num_paths, length, config)


def test_a_sound_repair_passes_every_gate() -> None:
    assert check(conditioned(SOUND), median=100.0, num_paths=20) == GateResult(True)


@pytest.mark.parametrize("hint", ["", "  \n"])
def test_an_empty_hint_is_refused_as_such(hint: str) -> None:
    assert check_hint(hint, Reference("16"), QUESTION).gate == "empty"


@pytest.mark.parametrize(
    ("hint", "answer"),
    [
        ("Double it. The result is 16.", "16"),
        ("You should reach x = 16 at the end.", "16"),
        ("The answer: 16.", "16"),
        ("Check that 16 is the answer.", "16"),
        ("You must find 16 as the final answer.", "16"),
        ("Show that 16 = 8 * 2.", "16"),
        ("Think of 1,024 grains.", "1024"),
        ("Note 0.5 = p here.", "1/2"),
        ("It is option (B), the answer.", "B"),
        ("注意答案是16", "16"),
    ],
)
def test_a_hint_that_states_the_answer_leaks(hint: str, answer: str) -> None:
    assert check_hint(hint, Reference(answer), QUESTION).gate == "G1"


@pytest.mark.parametrize(
    ("hint", "answer"),
    [
        ("To double a number means to take it twice.", "16"),
        ("Sixteen-digit numbers such as 160 or 316 are longer.", "16"),
        ("To span a number means to find its distance to 50.", "50"),
        ("Recall a^2 + b^2 = c^2 for such a triangle.", "2"),
        ("Check step 2 once more.", "2"),
        ("Use x + 2 = y first.", "2"),
        ("A point is needed before you draw.", "A"),
    ],
)
def test_a_hint_without_the_answer_passes(hint: str, answer: str) -> None:
    assert check_hint(hint, Reference(answer), QUESTION) == GateResult(True)


def test_a_leak_of_a_value_that_the_question_holds_is_still_one_and_says_so() -> None:
    question = "There are 1024 grains in 3 sacks. How many grains are in all?"
    leak = check_hint("Count 1024 once.", Reference("1024"), question)
    assert leak.gate == "G1" and "question holds it too" in (leak.detail or "")
    assert "question" not in (check_hint("Count 1024 once.", Reference("1024"), QUESTION).detail or "")


META_SENTENCES = [
    "As the hint says, we add first.",
    "As hinted, we add first.",
    "Given the final answer, we can check this.",
    "This matches the provided answer.",
    "The answer is given, so we only confirm it.",
    "We already know that the correct answer has two digits.",
    "We were told the answer, so we add.",
    "We use the value as provided.",
    "Let us work backwards from the answer.",
    "I do this without mentioning it.",
    "根据提示,我们先加。",
    "这个提示很有用。",
    "提示中说先加。",
    "已知答案,验证即可。",
    "答案已经给出。",
    "从答案倒推可得。",
]


@pytest.mark.parametrize("sentence", META_SENTENCES)
def test_a_meta_reference_in_the_repaired_span_is_refused(sentence: str) -> None:
    result = check(conditioned(f"{sentence}\n\n{SOUND}"))
    assert result.gate == "G2" and sentence[:5].lower() in (result.detail or "").lower()


def test_every_pattern_is_needed_by_one_of_the_sentences() -> None:
    for pattern in META_REFERENCES:
        assert any(re.search(pattern, sentence, re.IGNORECASE) for sentence in META_SENTENCES), pattern


@pytest.mark.parametrize(
    "sentence",
    [
        "The answer is given by 5 + 3.",
        "Given the answer choices, only one is even.",
        "We don't know the answer yet.",
        "We use the length as provided in the problem.",
        "最后给出答案。",
        "Given that the sum is even, we go on.",
    ],
)
def test_ordinary_phrases_are_no_meta_reference(sentence: str) -> None:
    assert check(conditioned(f"{sentence}\n\n{SOUND}"), "G2").passed


def test_what_the_problem_or_the_prefix_says_itself_is_no_meta_reference() -> None:
    repaired = f"We follow the hint.\n\n{SOUND}"
    assert not check(conditioned(repaired), "G2").passed
    assert check(conditioned(repaired, question=QUESTION + " Use the hint below: add first."), "G2").passed
    assert check(conditioned(SOUND, prefix="As the hint says, start.\n\n"), "G2").passed


def test_g3_refuses_an_assertion_within_the_first_tenth() -> None:
    # "x = 16." asserts 16 in its third word: 2 words before it. Of 21 words 2 < 2.1; of 20, 2 is not < 2.
    for total, passed in ((21, False), (20, True)):
        item = conditioned("x = 16. " + "word " * (total - 3))
        assert item.num_repaired_tokens == total
        assert check(item, "G3").passed is passed


def test_g3_and_g4_look_only_at_the_repaired_part() -> None:
    item = conditioned("word " * 10 + "x = 16. word", prefix="So x = 16.\n\n")
    assert check(item, "G3", "G4").passed
    assert check(conditioned("word " * 10, prefix="So x = 16.\n\n"), "G3", "G4").passed
    # A base rollout is its own repaired part.
    assert check(conditioned("So x = 16.\n\n" + "word " * 30, prefix=""), "G3").gate == "G3"


def test_g4_refuses_talk_after_an_assertion_that_no_equation_led_to() -> None:
    # 3 words before "16.", 1 that holds it, the rest after: 6 of 10 is not over 60 %, 7 of 11 is.
    for after, passed in ((6, True), (7, False)):
        item = conditioned("Thus x = 16. " + "word " * after)
        assert item.num_repaired_tokens == 4 + after
        assert check(item, "G4").passed is passed


@pytest.mark.parametrize(
    ("equation", "passed"),
    [
        ("5 + 3 = 8.", True),
        ("2x = 32,", True),
        ("$y = x + z$,", True),
        (r"\[ \frac{x}{y} = z \]", True),
        ("y = x,", False),  # no number on either side
        ("1. y = 8,", False),  # the mark of a list is no operand
        ("There are 5 apples so y = 8,", False),
        ("$5$ and y = x and $6$,", False),  # between two formulas, in none
        ("5 + 0 = 5,", False),  # stands in the question
        ("4 + 1 = 5,", False),  # stands in the prefix
    ],
)
def test_g4_needs_a_new_equation(equation: str, passed: bool) -> None:
    item = conditioned(
        f"{equation} thus x = 16. " + "word " * 60,
        prefix="We note 4+1 = 5.\n\n",
        question=QUESTION + " Note that 5+0=5.",
    )
    assert check(item, "G4").passed is passed


def test_g5_compares_with_the_natural_median_once_there_are_enough_paths() -> None:
    item = conditioned(SOUND)
    assert check(item, "G5", median=100.0, num_paths=20, length=29).gate == "G5"
    assert check(item, "G5", median=100.0, num_paths=20, length=30).passed
    assert check(item, "G5", median=100.0, num_paths=19, length=1).passed
    assert check(item, "G5", median=None, num_paths=20, length=1).passed


@pytest.mark.parametrize(
    "ending",
    [
        r"The final answer is \boxed{16}",
        r"The final answer is $\boxed{16}$." + "\n",
        r"\[ \boxed{16} \]",
        r"**\boxed{\frac{32}{2}}**",
        r"答案是 \boxed{16}。",
        r"Put it within \boxed{}: \boxed{16}",
        r"\boxed{\left\{16\right.}",
        r"<think>maybe \boxed{3} or \boxed{4}</think>" + "\n\n" + r"\boxed{16}",
    ],
)
def test_g10_accepts_one_boxed_answer_at_the_end(ending: str) -> None:
    assert check(conditioned(ending), "G10").passed


@pytest.mark.parametrize(
    ("ending", "detail"),
    [
        ("The final answer is 16", "0 boxed"),
        (r"\boxed{3}, no, \boxed{16}", "2 boxed"),
        (r"<think>\boxed{16}</think> It is 16", "0 boxed"),
        (r"\boxed{16} because 8 * 2 = 16", "goes on"),
        (r"\boxed{16", "not closed"),
    ],
)
def test_g10_refuses_any_other_ending(ending: str, detail: str) -> None:
    result = check(conditioned(ending), "G10")
    assert result.gate == "G10" and detail in (result.detail or "")


def test_a_box_in_the_kept_prefix_counts_too() -> None:
    assert check(conditioned(SOUND, prefix=r"So \boxed{9}." + "\n\n"), "G10").gate == "G10"


def test_gates_run_in_their_order_whatever_the_config_lists() -> None:
    bad_in_all = conditioned("As the hint says x = 16. " + "word " * 80)
    seen = []
    enabled = ["G10", "G5", "G4", "G3", "G2"]
    while enabled:
        result = check(bad_in_all, *enabled, median=1000.0, num_paths=20, length=100)
        seen.append(result.gate)
        enabled.remove(result.gate)
    assert seen == ["G2", "G3", "G4", "G5", "G10"]
    assert check(bad_in_all, "G5", median=None).passed


def test_offsets_must_be_as_many_as_tokens() -> None:
    item = AnswerConditionedText(QUESTION, Reference("16"), SOUND, 0, np.arange(3), 4)
    with pytest.raises(ShapeError):
        check(item)


@settings(deadline=None)  # machines are busy
@given(st.text(max_size=80), st.text(max_size=40), st.sampled_from(["16", "x^2", "B", "", "a*(b"]))
def test_any_text_gets_a_result_that_names_its_refusal(text: str, hint: str, answer: str) -> None:
    starts = np.arange(len(text))
    item = AnswerConditionedText(QUESTION, Reference(answer), text, 0, starts, len(text))
    for result in (check(item), check_hint(hint, Reference(answer), QUESTION)):
        assert result.passed == (result.gate is None) == (result.detail is None)


@settings(deadline=None)  # machines are busy
@given(st.integers(0, 60), st.integers(0, 60))
def test_early_and_late_follow_their_definitions(before: int, after: int) -> None:
    item = conditioned("word " * before + "x = 16. " + "word " * after)
    total = before + 3 + after
    assert check(item, "G3").passed == (before + 2 >= 0.1 * total)
    assert check(item, "G4").passed == (after <= 0.6 * total)


def test_the_config_refuses_an_unknown_gate() -> None:
    with pytest.raises(ValidationError):
        GatesConfig(enabled=("G11",))
    with pytest.raises(ValidationError):
        GatesConfig(late_fraction=1.5)


def test_a_program_may_open_its_code_block_at_once_and_has_to_close_it() -> None:
    program = "```python\ndef add(a, b):\n    return a + b\n```\nIt adds."
    starts = np.arange(len(program))
    for text, gate in ((program, None), (program.replace("\n```\n", "\n"), "G10")):
        item = AnswerConditionedText(
            QUESTION, CodeReference("def add(a, b): return a + b"), text, 0, starts, len(starts)
        )
        assert check(item).gate == gate
