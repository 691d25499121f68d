"""Which type of problem a row is, and what it needs beyond the answer: several answers, tolerance, unit, options.

What does not belong here: which columns are looked at, and rows that repeat others (`problems`);
how an answer is compared (`verify`).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from string import ascii_uppercase
from typing import Any

from heal_core.sources.row import Number, Refusal, as_written
from heal_core.specs import AnswerSpec, ChoiceSpec, GymSpec, read_spec, write_spec
from heal_core.verify.code_rows import code_problem_from
from heal_core.verify.grade import PROBLEM_TYPES, extract_answer

_GSM8K_ANSWER = re.compile(r"####\s*([^\n#]+)\Z")
_SHARE = re.compile(r"(?P<number>.+?)\s*%")


@dataclass(frozen=True)
class Asked:
    """What a row asks, and what is right: the fields of a `Problem` that come from its contents."""

    question: str
    answer: str
    problem_type: str
    spec: str = ""


def read_asked(fields: Mapping[str, Any]) -> Asked | Refusal:
    """Return what a row asks.

    Args:
        fields: Its values by meaning (`sources.config.Meaning`), as the source has them; None or
            lacking where it has none. `problem` and `answer` are there.
    """
    texts = {name: clean_text(fields.get(name), name) for name in ("problem", "problem_type", "tolerance", "unit")}
    answers = _answers(fields["answer"])
    for value in (*texts.values(), answers):
        if isinstance(value, Refusal):
            return value
    assert not isinstance(answers, Refusal)
    question, given, tolerance, unit = map(str, texts.values())
    options = fields.get("options")
    problem_type = given or ("choice" if options is not None else "numeric" if tolerance else PROBLEM_TYPES[0])
    if problem_type not in PROBLEM_TYPES:
        return Refusal(f"unknown_problem_type: {problem_type!r}, expected {', '.join(PROBLEM_TYPES)}")
    if problem_type == "choice":
        return _choice(question, fields["answer"], answers, options)
    if problem_type == "reasoning_gym":
        return _scored(question, fields["answer"], fields.get("spec"))
    if (tolerance and problem_type != "numeric") or (unit and problem_type not in ("numeric", "math")):
        return Refusal(f"misplaced_spec: {problem_type} answers have no {'tolerance' if tolerance else 'unit'}")
    spec = _tolerance(tolerance)
    if isinstance(spec, Refusal):
        return spec
    spec = spec.model_copy(update={"accepted": tuple(answers[1:]), "unit": unit or None})
    return Asked(question, answers[0], problem_type, write_spec(spec))


def read_code(row: Mapping[str, Any], question: Any, solution: Any = None) -> Asked | Refusal:
    """Return what a row with tests for a program asks.

    Args:
        row: Its columns.
        question: The problem, where one of the usual columns or a mapped one has it.
        solution: What the column has that is mapped to the answer; None without such a column.
    """
    text = clean_text(question, "problem")
    if isinstance(text, Refusal):
        return text
    if solution is not None and not isinstance(solution, (str, list, tuple)):
        return Refusal(f"bad_type: answer is {type(solution).__name__}, expected the text of programs")
    found = code_problem_from(row, text or None, solution)
    if isinstance(found, Refusal):
        return found
    try:
        spec = write_spec(found.tests)
    except ValueError as error:  # such as lists nested too deep
        return Refusal(f"bad_tests: they cannot be stored ({error})")
    # a program is kept as it stands: normalised it could be another one
    asked, *others = (
        clean_text(*part) for part in ((found.question, "problem"), (found.answer, "answer"), (spec, "tests"))
    )
    for value in (asked, *others):
        if isinstance(value, Refusal):
            return value
    return Asked(str(asked), found.answer, "code", spec)


def clean_text(value: Any, name: str) -> str | Refusal:
    """Return a value as text, NFC-normalised and stripped; "" for None."""
    value = as_written(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        return Refusal(f"bad_type: {name} is {type(value).__name__}, expected text or a number")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        return Refusal(f"bad_unicode: {name} holds half of a surrogate pair")
    return unicodedata.normalize("NFC", value).strip()


def _answers(value: Any) -> list[str] | Refusal:
    """Return the answers that are right, the first one being the reference."""
    values = value if isinstance(value, (list, tuple)) else [value]
    texts: list[str] = []
    for item in values:
        text = clean_text(item, "answer")
        if isinstance(text, Refusal):
            return text
        texts.append(_final_answer(text))
    kept = list(dict.fromkeys(text for text in texts if text))
    return kept or Refusal("no_answer: the list of answers is empty")


def _final_answer(answer: str) -> str:
    r"""Return what a worked answer ends in: its last `\boxed{..}`, or the last line after GSM8K's `####`."""
    boxed = extract_answer(answer)
    if boxed is not None:
        return boxed
    marked = _GSM8K_ANSWER.search(answer)
    return marked[1].strip() if marked else answer


def _tolerance(text: str) -> AnswerSpec | Refusal:
    """Return the spec of a tolerance: `0.01` is a difference, `1%` a share of the reference."""
    if not text:
        return AnswerSpec()
    share = _SHARE.fullmatch(text)
    try:
        number = Decimal(share["number"] if share else text)
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or number < 0:
        return Refusal(f"bad_tolerance: {text[:50]!r}, expected a number such as 0.01 or 1%")
    if share:
        return AnswerSpec(relative_tolerance=str(number / 100))
    return AnswerSpec(absolute_tolerance=str(number))


def _scored(question: str, value: Any, spec: Any) -> Asked | Refusal:
    """Return a problem of reasoning-gym, its answer as it stands: no part of it is the final one."""
    answer = clean_text(value, "answer")
    if isinstance(answer, Refusal):
        return answer
    try:
        return Asked(question, answer, "reasoning_gym", write_spec(read_spec(GymSpec, str(spec or ""))))
    except ValueError:
        return Refusal("bad_spec: expected what a source reasoning_gym gives in the column spec")


def _choice(question: str, value: Any, answers: Sequence[str], options: Any) -> Asked | Refusal:
    """Return a multiple choice, its options shown below the question unless they stand in it."""
    labelled = _options(options)
    if isinstance(labelled, Refusal):
        return labelled
    if len(answers) > 1:
        return Refusal(f"several_answers: {len(answers)}, a choice has one")
    label = _label(as_written(value), answers[0], labelled)
    if isinstance(label, Refusal):
        return label
    if not all(_shows(question, name, option) for name, option in labelled.items()):
        question += "\n\n" + "\n".join(f"{name}. {option}" for name, option in labelled.items())
    return Asked(question, label, "choice", write_spec(ChoiceSpec(options=labelled)))


def _shows(question: str, label: str, option: str) -> bool:
    """Return whether a question has an option with its label; "2" alone may stand anywhere."""
    return re.search(rf"(?<!\w){re.escape(label)}[)\].:]*\s*{re.escape(option)}(?!\w)", question) is not None


def _options(value: Any) -> dict[str, str] | Refusal:
    """Return options by label: of a list, of a mapping, of ARC's two lists, or of the JSON text of one of them."""
    if value is None:
        return Refusal("bad_options: none, expected a list of texts, or texts by label")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return Refusal(f"bad_options: {value[:50]!r}, expected a list of texts, or texts by label")
    if isinstance(value, Mapping) and set(value) == {"label", "text"}:
        pairs = list(zip(value["label"], value["text"], strict=False))
        if len(value["label"]) != len(value["text"]):
            return Refusal(f"bad_options: {len(value['label'])} labels for {len(value['text'])} texts")
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)) and len(value) <= len(ascii_uppercase):
        pairs = list(zip(ascii_uppercase, value, strict=False))
    else:
        found = len(value) if isinstance(value, (list, tuple)) else type(value).__name__
        return Refusal(f"bad_options: {found}, expected up to 26 texts, or texts by label")
    options: dict[str, str] = {}
    for name, option in pairs:
        label, text = clean_text(name, "options"), clean_text(option, "options")
        if isinstance(label, Refusal) or isinstance(text, Refusal):
            return label if isinstance(label, Refusal) else text  # type: ignore[return-value]
        if not label or not text or label.casefold() in map(str.casefold, options):
            return Refusal(f"bad_options: each needs a label of its own and a text, found {name!r}: {text[:50]!r}")
        options[label] = text
    return options if len(options) > 1 else Refusal(f"bad_options: {len(options)}, expected at least 2")


def _label(value: Any, answer: str, options: Mapping[str, str]) -> str | Refusal:
    """Return the label that an answer means: as a label, as an option's text, or, of a number, as a place from 0."""
    bare = answer.strip("()[]. ").casefold()
    meant = {label for label in options if label.casefold() == bare}
    meant |= {label for label, option in options.items() if option == answer}
    if isinstance(value, Number) and answer.isdecimal() and int(answer) < len(options) and bare not in options:
        meant.add(list(options)[int(answer)])
    if len(meant) == 1:
        return meant.pop()
    found = f"{answer[:50]!r} means {' and '.join(sorted(meant))}" if meant else f"{answer[:50]!r} is none of them"
    return Refusal(f"bad_choice: {found}; expected a label ({', '.join(options)}) or an option's text")
