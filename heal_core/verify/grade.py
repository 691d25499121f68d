r"""One text against one reference answer: what it answers, and whether that is right.

Plain numbers, units and plain words are compared here; the rest is math-verify's, which reads
"1 1/2" as 1 and "east" as a product of letters that equals "seat". It hangs on some
inputs, and its own time limits fail in threads: so `grade` belongs in a worker process
(`worker`, `pool`); the other functions are safe anywhere. How an answer may be written is
`notation`'s, and what counts as equal is said in docs/verifier.md.
"""

from __future__ import annotations

import re
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache, lru_cache
from importlib import metadata

from heal_core.gym.library import PACKAGE, library_version
from heal_core.keys import STAGE_VERSIONS, content_key
from heal_core.records import Verdict, VerdictLabel
from heal_core.reference import Reference
from heal_core.specs import AnswerSpec, ChoiceSpec, GymSpec, read_spec
from heal_core.verify.code import grade_code, read_tests
from heal_core.verify.code_text import find_code
from heal_core.verify.config import DEFAULTS, VerifyConfig
from heal_core.verify.gym import grade_gym
from heal_core.verify.notation import TEXT, unify
from heal_core.verify.numbers import Number, numbers_equal, parse_based, parse_number, plain, readings
from heal_core.verify.symbolic import math_equal, parse_math
from heal_core.verify.units import Unit, read_unit, split_asked_unit, split_unit

PROBLEM_TYPES = ("math", "numeric", "exact", "choice", "code", "reasoning_gym")
MAX_ANSWER_CHARS = 1000

_MATH_TOLERANCE = Fraction(1, 10**6)  # 1/3 is 0.333333, as math-verify has it
_NUMERIC_TOLERANCE = Fraction(1, 10**9)

_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_LETTERS = re.compile(r"[^\W\d_]+")
_WORDS = re.compile(r"(?:no|[^\W\d_]{3,}|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)(?: [^\W\d_]+)*")
_LAST_LINES = {
    "hash_line": re.compile(r"^\s*####\s*(\S.*)$"),
    "answer_phrase": re.compile(r"\banswer(?: is|:)[:\s]*(\S.*)$", re.IGNORECASE),
}
_LABELLED = re.compile(r"(?:option |choice )?[(\[]?(?P<label>\w{1,3})(?:[)\].:]+(?P<rest>.*))?", re.DOTALL)
_ARTICLE = re.compile(r"^(?:a|an|the) (?=\w)")
_ASSIGNED = re.compile(r"[A-Za-z]\s*=\s*(?=[^=])")
_SET = re.compile(r"(?:\\left\s*)?\\\{.*\\\}", re.DOTALL)
_TUPLE = re.compile(r"(?:\\left\s*)?\([^()]*,[^()]*\)")

Outcome = tuple[VerdictLabel, str | None]

_CORRECT: Outcome = (VerdictLabel.CORRECT, None)
_DIFFERENT: Outcome = (VerdictLabel.WRONG, "different")
_NO_ANSWER: Outcome = (VerdictLabel.WRONG, "no_answer")
_ANSWER_TOO_LONG: Outcome = (VerdictLabel.WRONG, "answer_too_long")
_UNPARSABLE_ANSWER: Outcome = (VerdictLabel.WRONG, "unparsable_answer")
_UNPARSABLE_GOLD: Outcome = (VerdictLabel.UNVERIFIABLE, "unparsable_gold")


def grade(text: str, reference: Reference, config: VerifyConfig = DEFAULTS) -> Verdict:
    """Return the verdict on the final answer of `text` against the reference.

    A reference that cannot be read makes every text unverifiable, one without an answer
    too, so that a problem is either graded or not. May hang or eat memory on a math answer.

    Args:
        text: A completion; with its `<think>` where the prompt's template opened it.
        reference: Of one of `PROBLEM_TYPES`.
        config: The limits of programs.
    """
    started = time.perf_counter()
    if reference.problem_type == "code":
        tests = read_tests(reference.spec)
        extracted, extraction = find_code(text, tests.entry_point if tests else "")
        label, reason = grade_code(extracted, tests, config.sandbox, config.code_seconds)
    else:
        extracted, extraction = find_answer(text)
        label, reason = _GRADERS[reference.problem_type](extracted, reference)
    name, version = verifier_identity(reference.problem_type, config)
    shown = None if extracted is None else extracted[:MAX_ANSWER_CHARS]
    return Verdict(label, shown, extraction, reason, name, version, time.perf_counter() - started)


def find_answer(text: str) -> tuple[str | None, str | None]:
    """Return the final answer of a text, and where it stood: "boxed", or where there is no box, on the last line.

    There "answer_phrase" is what follows "the answer is", and "hash_line" what follows GSM8K's `####`.
    """
    boxed = extract_answer(text)
    if boxed is not None:
        return boxed, "boxed"
    answer = text.rpartition("</think>")[2]
    if "<think>" in answer or "boxed" in answer:  # a box that is empty or not closed
        return None, None
    last_line = answer.rstrip().rpartition("\n")[2][-MAX_ANSWER_CHARS:]
    for extraction, pattern in _LAST_LINES.items():
        if found := pattern.search(last_line):
            return found[1].strip().rstrip(".").strip("*$ "), extraction
    return None, None


def extract_answer(text: str) -> str | None:
    r"""Return the content of the last complete, non-empty `\boxed{..}` of the answer, or None.

    Only what follows the last `</think>` counts; an unclosed `<think>` has no answer. Of
    nested boxes the inner one is read. Takes time linear in the text.
    """
    answer = text.rpartition("</think>")[2]
    if "<think>" in answer:
        return None
    last_start, last = -1, None
    box_starts: list[int | None] = []  # per open brace; None for a brace that opens no box
    for token in _BOX_OR_BRACE.finditer(answer):
        if token[0].endswith("{") and token[0] != "\\{":
            box_starts.append(None if token[0] == "{" else token.end())
        elif token[0] == "}" and box_starts:
            start = box_starts.pop()
            if start is not None and start > last_start and answer[start : token.start()].strip():
                last_start, last = start, answer[start : token.start()].strip()
    return last


@cache
def verifier_identity(problem_type: str, config: VerifyConfig = DEFAULTS) -> tuple[str, str]:
    """Return name and version of what grades such problems, as verdicts carry them.

    A program is judged by the Python that runs it and by its limits too: they are in the version.
    """
    stage = str(STAGE_VERSIONS["verdict"])
    if problem_type == "code":
        limits = content_key(config.code_seconds, config.sandbox.model_dump(mode="json"))[:8]
        return problem_type, f"{stage}+python{sys.version_info.major}.{sys.version_info.minor}+{limits}"
    if problem_type == "math":
        return "math-verify", f"{metadata.version('math-verify')}+{stage}"
    if problem_type == "reasoning_gym":
        return PACKAGE, f"{library_version()}+{stage}"
    return problem_type, stage


def verifier_identities(config: VerifyConfig) -> list[tuple[str, str]]:
    """Return name and version of every verifier of this installation, under the settings of a run."""
    has_gym = library_version() is not None
    return [verifier_identity(kind, config) for kind in PROBLEM_TYPES if kind != "reasoning_gym" or has_gym]


def _grade_exact(extracted: str | None, reference: Reference) -> Outcome:
    if extracted is None:
        return _NO_ANSWER
    return _CORRECT if _folded(extracted) in map(_folded, _golds(reference)) else _DIFFERENT


def _grade_numeric(extracted: str | None, reference: Reference) -> Outcome:
    spec = read_spec(AnswerSpec, reference.spec)
    golds = [
        _read_quantity(unify(gold), spec.unit) if len(gold) <= MAX_ANSWER_CHARS else None for gold in _golds(reference)
    ]
    if None in golds:
        return _UNPARSABLE_GOLD
    if extracted is None:
        return _NO_ANSWER
    if len(extracted) > MAX_ANSWER_CHARS:
        return _ANSWER_TOO_LONG
    unified = _ASSIGNED.sub("", unify(extracted), count=1)
    number = _read_quantity(unified, spec.unit)
    if number is None:
        return _UNPARSABLE_ANSWER if parse_number(unified) is None and spec.unit is None else _DIFFERENT
    return _CORRECT if any(gold and _is_near(number, gold, spec) for gold in golds) else _DIFFERENT


def _is_near(number: Number, gold: Number, spec: AnswerSpec) -> bool:
    """Return whether two numbers agree, within the tolerance of the problem where it has one."""
    if spec.absolute_tolerance is None and spec.relative_tolerance is None:
        return numbers_equal(number, gold, _NUMERIC_TOLERANCE)
    absolute, relative = Fraction(spec.absolute_tolerance or 0), Fraction(spec.relative_tolerance or 0)
    return any(abs(a - b) <= absolute + relative * abs(b) for a, b in readings(number, gold))


def _read_quantity(text: str, unit: str | None) -> Number | None:
    """Return the number of a text, in the unit that is asked for; None where it is none or does not convert."""
    body, ratio = (text, Fraction(1)) if unit is None else split_asked_unit(text, unit)
    number = parse_number(body)
    return None if number is None or ratio is None else replace(number, value=number.value * ratio)


def _grade_math(extracted: str | None, reference: Reference) -> Outcome:
    unit = read_spec(AnswerSpec, reference.spec).unit
    golds = _golds(reference)
    if not all(map(_is_readable, golds)):
        return _UNPARSABLE_GOLD
    if extracted is None:
        return _NO_ANSWER
    if len(extracted) > MAX_ANSWER_CHARS:
        return _ANSWER_TOO_LONG
    outcomes = [_compare_in(unit, unify(extracted), unify(gold)) for gold in golds]
    return _CORRECT if _CORRECT in outcomes else outcomes[0]


def _compare_in(unit: str | None, answer: str, gold: str) -> Outcome:
    """Return the outcome for two answers, which may leave out the unit that is asked for."""
    if unit is None:
        return _compare(answer, gold)
    (body, ratio), (gold_body, gold_ratio) = split_asked_unit(answer, unit), split_asked_unit(gold, unit)
    if ratio is None or gold_ratio is None:
        return _DIFFERENT
    if ratio == gold_ratio:
        return _compare(body, gold_body)
    number, gold_number = parse_number(body), parse_number(gold_body)
    if number is None or gold_number is None:
        return _DIFFERENT
    number = replace(number, value=number.value * ratio / gold_ratio)
    equal = numbers_equal(number, gold_number, _MATH_TOLERANCE, max_difference=_MATH_TOLERANCE)
    return _CORRECT if equal else _DIFFERENT


def _golds(reference: Reference) -> list[str]:
    return [reference.answer, *read_spec(AnswerSpec, reference.spec).accepted]


def _grade_choice(extracted: str | None, reference: Reference) -> Outcome:
    options = read_spec(ChoiceSpec, reference.spec).options
    if extracted is None:
        return _NO_ANSWER
    label = read_choice(extracted, options)
    if label is None:
        return _UNPARSABLE_ANSWER
    return _CORRECT if label == reference.answer else _DIFFERENT


def read_choice(text: str, options: Mapping[str, str]) -> str | None:
    r"""Return the label of the one option that a text names: "B", "(B)", "\text{B. Paris}", "Paris"; else None."""
    folded = _folded(text)
    labels = {label.casefold(): label for label in options}
    by_text = [label for label, option in options.items() if _folded(option).rstrip(".") == folded.rstrip(".")]
    if len(by_text) == 1 and folded not in labels:
        return by_text[0]
    marked = _LABELLED.fullmatch(folded)
    if marked is None or marked["label"] not in labels:
        return None
    label, rest = labels[marked["label"]], (marked["rest"] or "").strip()
    # "B. Paris" where B is London names two options
    return label if not rest or _folded(options[label]).startswith(rest.rstrip(".")) else None


def _compare(answer: str, gold: str) -> Outcome:
    """Return the outcome for two answers as `unify` writes them, the second a readable reference."""
    if plain(answer) == plain(gold):
        return _CORRECT
    ratio = _unit_ratio(answer, gold)
    if ratio is None:
        return _DIFFERENT
    number, gold_number = parse_number(answer), parse_number(gold)
    if number is not None and gold_number is not None:
        bare = gold if number.is_percent else answer
        if number.is_percent != gold_number.is_percent and _unit(bare) is not None:
            return _DIFFERENT
        number = replace(number, value=number.value * ratio)
        equal = numbers_equal(number, gold_number, _MATH_TOLERANCE, max_difference=_MATH_TOLERANCE)
        return _CORRECT if equal else _DIFFERENT
    based, gold_based = parse_based(answer), parse_based(gold)
    if based and gold_based:
        return _CORRECT if based == gold_based else _DIFFERENT
    if _are_words(answer, gold):
        return _CORRECT if _without_article(answer) == _without_article(gold) else _DIFFERENT
    if ratio != 1 or _is_set_and_tuple(answer, gold) or _is_set_and_tuple(gold, answer):
        return _DIFFERENT
    parsed = parse_math(answer)
    if not parsed:
        return _UNPARSABLE_ANSWER
    return _CORRECT if math_equal(parse_math(gold), parsed) else _DIFFERENT


def _is_set_and_tuple(one: str, other: str) -> bool:
    """Return whether braces stand against parentheses; math-verify takes (1, 2) for {1, 2}."""
    return _SET.fullmatch(one) is not None and _TUPLE.fullmatch(other) is not None


def _unit_ratio(answer: str, gold: str) -> Fraction | None:
    """Return the answer's unit over the reference's, 1 unless both are known, None if they cannot be converted."""
    unit, gold_unit = _unit(answer), _unit(gold)
    if unit is None or gold_unit is None:
        return Fraction(1)
    return unit.size / gold_unit.size if unit.dimension == gold_unit.dimension else None


def _unit(text: str) -> Unit | None:
    words = split_unit(text)[1]
    return None if words is None else read_unit(words)


@lru_cache(maxsize=1024)
def _is_readable(answer: str) -> bool:
    """Return whether a reference can be graded against; one unlike itself would fail everyone."""
    if len(answer) > MAX_ANSWER_CHARS:
        return False
    unified = unify(answer)
    if parse_number(unified) is not None or _is_words(unified):
        return True
    if extract_answer("\\boxed{" + answer + "}") != answer.strip():
        return False  # math-verify would silently cut it where its braces do not match
    parsed = parse_math(unified)
    return bool(parsed) and math_equal(parsed, parsed)


def _folded(text: str) -> str:
    r"""Return the text for comparison as words: no `\text{..}` around it, case and spacing aside."""
    wrapped = TEXT.fullmatch(text.strip())
    text = unicodedata.normalize("NFC", wrapped[1] if wrapped else text)
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


def _without_article(text: str) -> str:
    return _ARTICLE.sub("", _folded(text)).rstrip(".")


def _are_words(answer: str, gold: str) -> bool:
    """Return whether both are words; beside one, letters are a word too, and no product: "on" is not "no"."""
    words = [_is_words(text) or _LETTERS.fullmatch(_folded(text)) is not None for text in (answer, gold)]
    return all(words) and (_is_words(answer) or _is_words(gold))


def _is_words(text: str) -> bool:
    return _WORDS.fullmatch(_without_article(text)) is not None


def _grade_by_scorer(extracted: str | None, reference: Reference) -> Outcome:
    return grade_gym(extracted, read_spec(GymSpec, reference.spec))


_GRADERS: dict[str, Callable[[str | None, Reference], Outcome]] = {
    "math": _grade_math,
    "numeric": _grade_numeric,
    "exact": _grade_exact,
    "choice": _grade_choice,
    "reasoning_gym": _grade_by_scorer,
}
