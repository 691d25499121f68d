from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heal_core.errors import ShapeError
from heal_core.gate_rules import find_first, shipped_rules
from heal_core.gates import GATES, AnswerConditionedText, GatesConfig, check_hint, check_text, examine_text
from heal_core.records import GateFinding, GateResult
from heal_core.reference import CodeReference, Reference

QUESTION = "Start with 5. Add 3. Double it. What is the result?"
PREFIX = "Start with 5.\n\n"
SOUND = "5 + 3 = 8.\n\nNow double that.\n\n8 * 2 = 16.\n\nThe final answer is \\boxed{16}"


def conditioned(
    repaired: str, prefix: str = PREFIX, answer: str = "16", question: str = QUESTION
) -> AnswerConditionedText:
    """The tokens are words here, so that shares can be counted by eye; each word has its number as its id."""
    words = list(re.finditer(r"\S+", repaired))
    starts = np.array([len(prefix) + word.start() for word in words], dtype=np.int64)
    ids = {word: number for number, word in enumerate(dict.fromkeys(word.group() for word in words))}
    token_ids = np.array([ids[word.group()] for word in words], dtype=np.int64)
    reference = Reference(answer)
    seam = len(prefix) or None
    return AnswerConditionedText(
        question, reference, prefix + repaired, len(prefix), starts, len(starts), token_ids, seam
    )


def check(item: AnswerConditionedText, *gates: str, median: float | None = None, num_paths: int = 0, length=100):
    on_form = tuple(gate for gate in gates if gate in ("G7", "G8", "G9"))
    on_answer = tuple(gate for gate in gates if gate not in on_form)
    config = GatesConfig(enabled=on_answer, form=on_form) if gates else GatesConfig()
    return check_text(item, median, num_paths, length, config)


def find(item: AnswerConditionedText, gate: str, **settings: object) -> GateFinding:
    """Return what one gate says, whatever the others do."""
    (finding,) = (f for f in examine_text(item, None, 0, 100, GatesConfig(**settings)) if f.gate == gate)
    return finding


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
    for pattern in shipped_rules().meta_references:
        assert any(find_first(pattern, sentence) is not None for sentence in META_SENTENCES), pattern


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
        r"She saves \(\boxed{16}\) euros in a year.",  # once refused: a sixth of a real model's right answers
        r"It takes \[ \boxed{16} \] days" + "\n\n",
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
        (r"\boxed{16} euros." + "\n\nLet me check.", "goes on"),
        (r"\boxed{16} " + "and so on " * 9, "goes on"),
        (r"\boxed{16", "not closed"),
    ],
)
def test_g10_refuses_any_other_ending(ending: str, detail: str) -> None:
    result = check(conditioned(ending), "G10")
    assert result.gate == "G10" and detail in (result.detail or "")


def test_a_box_in_the_kept_prefix_counts_too() -> None:
    assert check(conditioned(SOUND, prefix=r"So \boxed{9}." + "\n\n"), "G10").gate == "G10"


def test_gates_run_in_their_order_whatever_the_config_lists() -> None:
    # one foreign letter in some 250 is no 1 %, thirty are; ten words again and again are a loop, and restart the text
    loop = "а б в г д е ё ж з и " * 12
    bad_in_all = conditioned("Let us start over, as the hint says x = 16. " + loop)
    seen = []
    enabled = ["G9", "G10", "G8", "G5", "G4", "G7", "G3", "G2"]
    while enabled:
        result = check(bad_in_all, *enabled, median=1000.0, num_paths=20, length=100)
        seen.append(result.gate)
        enabled.remove(result.gate)
    assert seen == ["G2", "G3", "G4", "G5", "G7", "G8", "G9", "G10"]
    assert check(bad_in_all, "G5", median=None).passed


def test_every_gate_speaks_for_itself_whether_or_not_it_refuses_in_the_run() -> None:
    bad = conditioned("As the hint says x = 16. " + "word " * 80)
    for config in (GatesConfig(), GatesConfig(enabled=(), form=())):
        findings = examine_text(bad, 1000.0, 20, 100, config)
        assert [finding.gate for finding in findings] == list(GATES)
        refused = {finding.gate for finding in findings if finding.refused}
        assert refused == {"G2", "G3", "G4", "G5", "G9", "G10"}
        assert all((finding.detail is not None) == bool(finding.refused) for finding in findings)
    assert check_text(bad, 1000.0, 20, 100, GatesConfig(enabled=(), form=())).passed


def test_what_gates_measure() -> None:
    # 3 of 10 words before "16.", 6 after it; 100 tokens of a median of 80
    item = conditioned("Thus x = 16. wait, but we go on now")
    values = {finding.gate: finding.value for finding in examine_text(item, 80.0, 20, 100, GatesConfig())}
    assert values["G3"] == pytest.approx(3 / 10)
    assert values["G4"] == pytest.approx(6 / 10)
    assert values["G5"] == pytest.approx(100 / 80)
    assert values["G6"] == pytest.approx(1000 * 1 / 10)
    assert (values["G2"], values["G8"], values["G10"]) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ("Wait, that is wrong.", 2),
        ("But wait: 5 + 3 = 8.", 1),
        ("They wait for 5 minutes at the bus stop.", 0),
        ("Hmm, hold on. Actually, let me double-check this.", 4),
        ("It is actually 5.", 0),
        ("等等,不对,让我再检查一下。", 3),
        ("不对称的图形", 0),
    ],
)
def test_g6_counts_hesitations_and_never_refuses(text: str, num: int) -> None:
    item = conditioned(text + " end" * 7)
    finding = find(item, "G6")
    assert finding.refused is None
    assert finding.value == pytest.approx(1000 * num / item.num_repaired_tokens)


def test_g7_refuses_more_than_a_hundredth_of_letters_of_another_script() -> None:
    # 99 Latin letters and 1 of another script are 1 %, which passes; 98 and 1 are more
    for num_latin, refused in ((99, False), (98, True)):
        finding = find(conditioned("a" * num_latin + " 数"), "G7")
        assert finding.refused is refused
        assert finding.value == pytest.approx(1 / (num_latin + 1))
    assert "1 of 99 letters are CJK: 数" in (finding.detail or "")
    assert find(conditioned("a" * 98 + " 数", prefix=""), "G7", max_foreign_share=0.02).refused is False


@pytest.mark.parametrize(
    ("question", "text", "refused"),
    [
        ("求 x 的值。", "我们先加。So x = 8. 然后乘二。", False),  # the problem is Chinese
        ("求 x 的值。", "我们先加。Затем умножаем. 然后乘二。", True),
        (QUESTION, "Let α + β = γ with Δx ∈ ℝ and 𝑥 = ℵ, Ω.", False),  # formulas
        (QUESTION, "We add, затем умножаем.", True),
        ("Translate: 水 and 火.", "The letters 水 and 火 differ.", False),  # its letters stand in the problem
        (QUESTION, "1 + 1 = 2", False),  # no letters at all
    ],
)
def test_g7_knows_formulas_and_the_scripts_of_the_problem(question: str, text: str, refused: bool) -> None:
    assert find(conditioned(text, question=question), "G7").refused is refused


def test_g7_allows_the_script_of_the_answer_and_looks_at_the_repaired_part_alone() -> None:
    assert (
        find(conditioned("The word is 水.", answer="水", question="What is water in Chinese?"), "G7").refused is False
    )
    assert find(conditioned("We add.", prefix="我们先加。\n\n"), "G7").refused is False


@pytest.mark.parametrize(
    ("repaired", "detail"),
    [
        ("Let me start over. 5 + 3 = 8.", "begins anew"),
        ("To solve this problem, we add.", "begins anew"),
        ("Sure! We add 3 to 5.", "begins anew"),
        ("**Solution:**\n5 + 3 = 8.", "begins anew"),
        ("重新开始:5 + 3 = 8。", "begins anew"),
        ("<think>\nWe add.", "a second <think>"),
        ("We add.</think> It is 16.</think>", "a second </think>"),
        ("Start with the number five, which is given.\nNow add.", "says a kept step again"),
        ("  start with the number FIVE, which is given.  Now add.", "says a kept step again"),
    ],
)
def test_g8_refuses_a_continuation_that_does_not_go_on(repaired: str, detail: str) -> None:
    finding = find(conditioned(repaired, prefix="Start with the number five, which is given.\n\n"), "G8")
    assert finding.refused and detail in (finding.detail or "")


@pytest.mark.parametrize(
    "repaired",
    [
        "Now add 3, so that 5 + 3 = 8.",
        "We add. Then we could start over, but need not.",  # not in the first sentence
        "5 + 3 = 8.",
        "So x = 5.",  # a kept step, but one so short that it may recur
        "We add.</think> It is 16.",
    ],
)
def test_g8_lets_a_continuation_go_on(repaired: str) -> None:
    prefix = "Start with the number five.\n\nSo x = 5.\n\n"
    assert find(conditioned(repaired, prefix=prefix), "G8").refused is False


def test_g8_needs_a_seam_and_what_the_problem_says_itself_is_no_restart() -> None:
    assert find(conditioned("Sure! We add.", prefix=""), "G8").refused is None
    assert find(conditioned("<think>We</think> <think>add.</think>", prefix=""), "G8").refused is True
    question = "The meter shows 5. It will start over at 9."
    assert find(conditioned("It will start over.", question=question), "G8").refused is False


def test_g9_refuses_a_20_gram_that_occurs_five_times() -> None:
    twenty = " ".join(f"w{n}" for n in range(20))
    for times, refused in ((4, False), (5, True)):
        # words of its own between them, so that no other 20 tokens recur
        text = " ".join(f"{twenty} between{n}" for n in range(times))
        finding = find(conditioned(text), "G9")
        assert (finding.refused, finding.value) == (refused, times)
    # occurrences may overlap: 24 equal tokens hold five runs of 20
    assert find(conditioned("word " * 24), "G9").refused is True
    assert find(conditioned("word " * 23), "G9").refused is False
    assert find(conditioned("word " * 24), "G9", loop_repeats=6).refused is False
    assert find(conditioned("word " * 7), "G9", loop_ngram=3).value == 5


def test_offsets_must_be_as_many_as_tokens() -> None:
    for starts, ids in ((3, 4), (4, 3)):
        item = AnswerConditionedText(QUESTION, Reference("16"), SOUND, 0, np.arange(starts), 4, np.arange(ids))
        with pytest.raises(ShapeError, match=f"got {ids} and {starts}"):
            check(item)


@settings(deadline=None)  # machines are busy
@given(st.text(max_size=80), st.text(max_size=40), st.sampled_from(["16", "x^2", "B", "", "a*(b"]))
def test_any_text_gets_a_result_that_names_its_refusal(text: str, hint: str, answer: str) -> None:
    starts = np.arange(len(text))
    item = AnswerConditionedText(QUESTION, Reference(answer), text, 0, starts, len(text), starts)
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
            QUESTION, CodeReference("def add(a, b): return a + b"), text, 0, starts, len(starts), starts
        )
        assert check(item).gate == gate
