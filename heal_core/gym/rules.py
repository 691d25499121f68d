r"""What HEAL asks of an answer before it asks a scorer of reasoning-gym 0.1.25.

Two kinds of scorers need it: those that run what the answer says (`eval`, sympy's `parse_expr`), and those that
give full marks to answers that are wrong. A rule only ever refuses. What does not belong here: the scorers' own
opinion (`verify/gym`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from heal_core.verify.notation import unify
from heal_core.verify.numbers import parse_number
from heal_core.verify.symbolic import math_equal, parse_math

Entry = Mapping[str, Any]
Rule = Callable[[str, Entry], bool]

_NO_ORACLE = "its entries have no reference answer"
REFUSED = {
    "composite": "it mixes others; give each of them as a source of its own",
    "boxnet": _NO_ORACLE,
    "rush_hour": _NO_ORACLE,
}
"""Generators that HEAL does not take, with the reason and the remedy."""

ORACLE_IN_METADATA = {
    "graph_color": "possible_answer",
    "propositional_logic": "example_answer",
    "rubiks_cube": "example_correct_answer",
}
"""Where generators with many right answers keep one of them."""

_WORDS = re.compile(r"[\w\s-]*")
_ARITHMETIC = re.compile(r"(?:\d+(?:\.0*)?|[-+()\s]|(?<!\*)\*(?!\*)|(?<!/)/(?!/))*")
_EXPRESSION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+|[A-Za-z]+|[-+*/^()\s])*")
_NAME = re.compile(r"[A-Za-z]+")
_FUNCTIONS = frozenset(
    ["exp", "log", "ln", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh",
     "tanh", "pi", "Abs"]
)  # fmt: skip
_NUMERAL = re.compile(r"\d+")

_COIN_FLIP_SHARE = Fraction(1, 100)


def _is_text(answer: str, entry: Entry) -> bool:
    # nothing that could be called; what is not exactly the answer never gets full marks from these anyway
    return _WORDS.fullmatch(answer) is not None


def _is_arithmetic(answer: str, entry: Entry) -> bool:
    return _ARITHMETIC.fullmatch(answer) is not None


def _is_expression(answer: str, entry: Entry) -> bool:
    # no attribute, no string, no index, and of functions only these: an unevaluated Integral differentiates to its task
    names = _NAME.findall(answer)
    return _EXPRESSION.fullmatch(answer) is not None and all(len(name) == 1 or name in _FUNCTIONS for name in names)


def _uses_the_numbers(answer: str, entry: Entry) -> bool:
    # the scorer takes any four numbers in the range, and 24.5 for 24
    if not _is_arithmetic(answer, entry):
        return False
    used = sorted(map(int, _NUMERAL.findall(answer)))
    return used == sorted(map(int, entry["metadata"]["numbers"])) and math_equal(parse_math("24"), parse_math(answer))


def _is_the_number(answer: str, entry: Entry) -> bool:
    # the scorer takes the first number in a text, without its sign
    number, oracle = (parse_number(unify(text)) for text in (answer, entry["answer"]))
    return number is not None and oracle is not None and number.value == oracle.value


def _is_near(answer: str, entry: Entry) -> bool:
    # the scorer gives full marks to 0 for 0.3125, since one is how the other begins, and to 0 for all that is small
    number, oracle = (parse_number(unify(text)) for text in (answer, entry["answer"]))
    return (
        number is not None
        and oracle is not None
        and abs(number.value - oracle.value) <= _COIN_FLIP_SHARE * abs(oracle.value)
    )


def _is_finite(answer: str, entry: Entry) -> bool:
    # exp(-nan) counts as the full mark
    return "nan" not in answer.casefold()


def _is_the_word(answer: str, entry: Entry) -> bool:
    # the scorer takes any text at all
    return answer.strip().casefold() == str(entry["answer"]).casefold()


def _has_the_numbers(answer: str, entry: Entry) -> bool:
    # the scorer lets each number be off by one
    try:
        given = json.loads(answer.replace("'", '"'))
        oracle = json.loads(entry["answer"].replace("'", '"'))
        return [float(number) for number in given] == [float(number) for number in oracle]
    except (ValueError, TypeError):
        return False


RULES: dict[str, Rule] = {
    "string_insertion": _is_text,
    "spiral_matrix": _is_text,
    "binary_matrix": _is_text,
    "n_queens": _is_text,
    "simple_integration": _is_expression,
    "intermediate_integration": _is_expression,
    "polynomial_multiplication": _is_expression,
    "countdown": _is_arithmetic,
    "puzzle24": _uses_the_numbers,
    "gsm_symbolic": _is_the_number,
    "coin_flip": _is_near,
    "complex_arithmetic": _is_finite,
    "game_of_life_halting": _is_the_word,
    "number_sorting": _has_the_numbers,
}
"""By generator; the others have none."""


def permits(generator: str, answer: str, entry: Entry) -> bool:
    """Return whether the scorer may be asked; what it may not be asked is wrong."""
    rule = RULES.get(generator)
    return rule is None or rule(answer, entry)
