"""References: what a problem is compared with, as hints, gates and scores see it, by its type."""

from __future__ import annotations

import json

import pytest

from heal_core.prompts import BOXED, CHOICE, OUTPUTS, PROGRAM, guided_prompt, hint_prompt, student_prompt
from heal_core.reference import CodeReference, Reference, reference_of
from heal_core.specs import AnswerSpec, ChoiceSpec, read_spec, write_spec

CHOICE_SPEC = write_spec(ChoiceSpec(options={"A": "London", "B": "Paris"}))
SOLUTION = "def add(first, second):\n    total = first + second\n    return total"
CAPITAL = Reference("B", "choice", CHOICE_SPEC)
CODE = CodeReference(SOLUTION, "code")


def row(answer: str, problem_type: str, spec: str | None) -> dict[str, str | None]:
    return {"answer": answer, "problem_type": problem_type, "spec": spec}


def test_a_row_of_the_store_gives_the_reference_of_its_type() -> None:
    assert reference_of(row("5", "math", None)) == Reference("5")
    assert reference_of(row("B", "choice", CHOICE_SPEC)) == CAPITAL
    assert reference_of(row(SOLUTION, "code", None)) == CODE


def test_specs_survive_their_text_and_one_that_says_nothing_is_empty() -> None:
    spec = AnswerSpec(accepted=("0.5",), relative_tolerance="0.01", unit="m")
    assert read_spec(AnswerSpec, write_spec(spec)) == spec
    assert write_spec(AnswerSpec()) == ""
    assert read_spec(AnswerSpec, "") == AnswerSpec()
    # the order of options is what is shown
    options = {"C": "x", "A": "y", "B": "z"}
    assert list(read_spec(ChoiceSpec, write_spec(ChoiceSpec(options=options))).options) == list(options)


def test_other_accepted_answers_are_forms_too() -> None:
    reference = Reference("sqrt(2)/2", "math", write_spec(AnswerSpec(accepted=("0.7071",))))
    assert reference.forms == ("sqrt(2)/2", "0.7071")
    assert reference.find_assertions("So it is 0.7071.") == (9,)
    assert reference.find_leak("The result is 0.7071, roughly.", "") is not None
    many = Reference("1600", "exact", write_spec(AnswerSpec(accepted=("sixteen hundred", "4 pm", "four o'clock"))))
    assert many.forms == ("1600", "sixteen hundred", "4 pm")  # scored in so many ways, but each gives it away
    assert many.find_leak("The answer is four o'clock.", "") is not None
    assert many.find_assertions("The answer is four o'clock.") == (14,)


def test_a_choice_is_stated_by_its_letter_or_its_text_beside_a_cue() -> None:
    assert CAPITAL.forms == ("B", "(B)", "Paris")
    assert CAPITAL.told == "B (Paris)"
    assert CAPITAL.find_assertions("London is large. Paris is old.") == ()
    assert CAPITAL.find_assertions("The answer is Paris.") == (14,)
    assert CAPITAL.find_assertions("So \\boxed{B}") == (10,)
    assert CAPITAL.find_leak("The answer is (B).", "") is not None
    assert CAPITAL.find_leak("Think of the Seine.", "") is None


def test_a_program_is_asserted_where_its_first_code_block_opens() -> None:
    text = "We add.\n\n```python\nx = 1\n```\n\nThen:\n\n```python\ny = 2\n```\n"
    assert CODE.find_assertions(text) == (text.index("```"), text.rindex("```python"))
    assert CODE.find_assertions("We add.") == ()


@pytest.mark.parametrize(
    ("hint", "leaks"),
    [
        ("Add the two numbers and give the sum back.", False),
        ("Write this: total = first + second; no: \n(b): total = first + second\nreturn total", True),
        ("def add(first, second): is given.", False),  # the question has it
        ("", False),
    ],
)
def test_a_hint_leaks_a_program_by_eight_words_in_a_row(hint: str, leaks: bool) -> None:
    question = "Complete `def add(first, second):`"
    assert (CODE.find_leak(hint, question) is not None) is leaks


@pytest.mark.parametrize(
    ("reference", "text", "fault"),
    [
        (CODE, "So:\n```python\nx\n```\nIt adds.", None),
        (CODE, "So: x", "0 code blocks"),
        (CODE, "```python\nx\n```\n```python\ny\n```", "2 code blocks"),
        (CODE, "So:\n```python\nx", "not closed"),
        (CAPITAL, "It is \\boxed{B}.", None),
        (CAPITAL, "It is \\boxed{B}. Or not.", "goes on"),
        (CAPITAL, "It is B.", "0 boxed"),
        (CAPITAL, "It is \\boxed{B", "not closed"),
    ],
)
def test_a_text_ends_in_one_statement_of_its_answer(reference: Reference, text: str, fault: str | None) -> None:
    found = reference.find_open_end(text)
    assert (found is None) if fault is None else (found is not None and fault in found)


def test_each_type_is_asked_in_its_own_words() -> None:
    assert [Reference("5").wording, CAPITAL.wording, CODE.wording] == [BOXED, CHOICE, PROGRAM]
    outputs = CodeReference("3\n7", "code", json.dumps({"reference": "outputs"}))
    assert outputs.wording == OUTPUTS
    assert student_prompt("Q", CODE.wording).endswith("```python code block.")
    assert "letter" in student_prompt("Q", CAPITAL.wording)
    for reference in (CAPITAL, CODE, outputs):
        hint = hint_prompt("Q", "", "step", reference.told, reference.wording)
        guided = guided_prompt("Q", reference.told, reference.wording)
        assert reference.told in hint and reference.told in guided
        assert reference.wording.withhold in hint
        assert "{}" not in (hint + guided).replace("\\boxed{}", "")


def test_a_hint_leaks_a_short_program_as_a_whole() -> None:
    short = CodeReference("print(input())")  # six words and signs
    assert short.find_leak("Write print( input() ) and no more than that.", "Repeat the input.") == 6
    assert short.find_leak("Read a line with input() and print it.", "Repeat the input.") is None
    assert short.find_leak("Write print(input()).", "What does print(input()) do?") is None
