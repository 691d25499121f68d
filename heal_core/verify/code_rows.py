"""Code problems from the rows of public data sets: APPS, TACO, LiveCodeBench, HumanEval, MBPP.

Whatever form a row has, it becomes a question, an answer and `CodeTests`. What does not belong here: which rows
are problems of other types (`heal_core.problem_types`), running tests (`code`).
"""

from __future__ import annotations

import ast
import base64
import binascii
import builtins
import io
import json
import pickle
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import ValidationError

from heal_core.sources.row import Number, Refusal, number_of
from heal_core.verify.code_tests import CallTest, CodeTests, StdinTest

QUESTION_COLUMNS = ("question", "question_content", "prompt", "problem", "problem_statement", "text")
TEST_COLUMNS = ("input_output", "private_test_cases", "public_test_cases", "test_list", "test")

_SOLUTION_COLUMNS = ("solutions", "solution", "code", "canonical_solution")
_MAX_UNPACKED_BYTES = 2**28
_MAX_OUTPUTS_CHARS = 2000
_USUAL_IMPORTS = """\
from typing import *
from string import *
from re import *
from datetime import *
from collections import *
from heapq import *
from bisect import *
from copy import *
from math import *
from random import *
from statistics import *
from itertools import *
from functools import *
from operator import *
from io import *
from json import *
from builtins import *
import bisect, collections, copy, datetime, functools, heapq, io, itertools, json, math, operator, random, re
import statistics, string, sys
sys.setrecursionlimit(50_000)
"""
"""What LeetCode and the harness of LiveCodeBench have in place where a solution is a function or a class."""


@dataclass(frozen=True)
class CodeProblem:
    """A question with a solution, or with what its tests expect, and the tests."""

    question: str
    answer: str
    tests: CodeTests


class _BadRowError(ValueError):
    """Why a row is no code problem: a code, a colon and what was seen."""


def has_tests(row: Mapping[str, Any]) -> bool:
    """Return whether a row has tests for a program, of one of the forms known here."""
    found = [name for name in TEST_COLUMNS if row.get(name) not in (None, "", [])]
    return bool(found) and (found != ["test"] or isinstance(row.get("entry_point"), str))


def code_problem_from(
    row: Mapping[str, Any], question: str | None = None, solution: str | Sequence[Any] | None = None
) -> CodeProblem | Refusal:
    """Return the code problem of a row, or why it is none.

    The answer is the first reference solution, else the expected outputs, one after another up to 2,000
    characters; `tests.reference` says which.

    Args:
        row: Its columns, as the data set names them.
        question: The question, where it stands in a column of another name.
        solution: The solution or a list of some, likewise, "" if it is empty. None: where the data set has it.
    """
    row = {name: _plain(value) for name, value in row.items()}
    if solution is not None:
        is_text = isinstance(solution, str) and not solution.lstrip().startswith("[")
        solution = str(solution) if is_text else _first_solution(solution) or ""
        row |= dict.fromkeys(_SOLUTION_COLUMNS, solution)
    try:
        asked = question or _first_text(row, QUESTION_COLUMNS)
        if not asked:
            raise _BadRowError(f"no_problem: expected text in one of {', '.join(QUESTION_COLUMNS)}")
        if row.get("input_output"):
            return _apps(row, asked)
        if row.get("private_test_cases") or row.get("public_test_cases"):
            return _live_code_bench(row, asked, solution or None)
        if row.get("test_list"):
            return _mbpp(row, asked)
        if row.get("test") and row.get("entry_point"):
            return _human_eval(row, asked)
        raise _BadRowError(f"no_tests: expected them in one of {', '.join(TEST_COLUMNS)}")
    except _BadRowError as error:
        return Refusal(str(error))
    except ValidationError as error:
        fault = error.errors()[0]
        return Refusal(f"bad_tests: {'.'.join(map(str, fault['loc']))} {fault['msg']}")


# ---- the forms


def _apps(row: Mapping[str, Any], question: str) -> CodeProblem:
    """APPS and TACO: lists of inputs and outputs, with a function's name where it is no program."""
    tests = _json(row["input_output"], "input_output")
    if not isinstance(tests, dict):
        raise _BadRowError("bad_tests: input_output is no mapping with inputs and outputs")
    inputs, outputs = tests.get("inputs"), tests.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
        raise _BadRowError("bad_tests: input_output has no inputs and outputs of one length")
    solution = _first_solution(row.get("solutions") or row.get("solution"))
    question = _with_starter(question, row)
    name = tests.get("fn_name")
    if not name:
        pairs = [StdinTest(input=_lines(i), output=_lines(o)) for i, o in zip(inputs, outputs, strict=True)]
        return _problem(question, solution, {"stdin": pairs})
    if not all(isinstance(args, list) for args in inputs):
        raise _BadRowError("bad_tests: inputs of a function are not lists of arguments")
    calls = [CallTest(args=tuple(args), expected=value) for args, value in zip(inputs, outputs, strict=True)]
    form = {"calls": calls, "entry_point": name, "is_wrapped": True, "preamble": _USUAL_IMPORTS}
    return _problem(question, solution, form)


def _live_code_bench(row: Mapping[str, Any], question: str, solution: str | None) -> CodeProblem:
    """LiveCodeBench: public tests as JSON, private ones as JSON or packed; no solution of its own."""
    names = [name for name in ("public_test_cases", "private_test_cases") if row.get(name)]
    cases = [case for name in names for case in _cases(row[name], name)]
    question = _with_starter(question, row)
    if all(case.get("testtype") == "functional" for case in cases):
        metadata = _json(row.get("metadata") or "{}", "metadata")
        name = metadata.get("func_name") if isinstance(metadata, dict) else None
        calls = [
            CallTest(
                args=tuple(_json(line, "input") for line in str(case["input"]).splitlines() if line.strip()),
                expected=_json(case["output"], "output"),
            )
            for case in cases
        ]
        return _problem(question, solution, {"calls": calls, "entry_point": name or "", "preamble": _USUAL_IMPORTS})
    if any(case.get("testtype") == "functional" for case in cases):
        raise _BadRowError("bad_tests: tests of functions and of programs in one row")
    pairs = [StdinTest(input=_lines(case["input"]), output=_lines(case["output"])) for case in cases]
    return _problem(question, solution, {"stdin": pairs})


def _cases(value: Any, name: str) -> list[Mapping[str, Any]]:
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = _unpack(value, name)
    cases = _json(value, name)
    if not isinstance(cases, list) or not all(
        isinstance(case, dict) and {"input", "output"} <= set(case) for case in cases
    ):
        raise _BadRowError(f"bad_tests: {name} is no list of tests with input and output")
    return cases


def _human_eval(row: Mapping[str, Any], question: str) -> CodeProblem:
    """HumanEval: a function to complete, and a program that defines `check(candidate)`."""
    prompt, name = str(row.get("prompt") or question), str(row["entry_point"])
    start = re.search(rf"^(?:async )?def {re.escape(name)}\b", prompt, re.MULTILINE)
    solution = row.get("canonical_solution")
    form = {
        "programs": [f"{row['test']}\n\ncheck({name})\n"],
        "entry_point": name,
        "preamble": prompt[: start.start()] if start else "",
    }
    if prompt.strip() == question.strip():
        question = f"Complete this Python function.\n\n```python\n{prompt.rstrip()}\n```"
    return _problem(question, f"{prompt}{solution}" if solution else None, form)


def _mbpp(row: Mapping[str, Any], question: str) -> CodeProblem:
    """MBPP: a list of assertions, the first of which the question shows."""
    tests = _json(row["test_list"], "test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise _BadRowError("bad_tests: test_list is no list of texts")
    solution = _first_text(row, ("code",)) or None
    setup = row.get("test_imports") or row.get("test_setup_code") or ""
    form = {
        "programs": tests,
        "entry_point": _tested_function(tests[0], solution),
        "preamble": _lines(setup),
    }
    question = f"{question}\n\nThe function is called `{form['entry_point']}`."
    if len(tests) > 1:
        question += f" For example:\n```python\n{tests[0]}\n```"
    return _problem(question, solution, form)


def _tested_function(test: str, solution: str | None) -> str:
    """Return the name of the function that an assertion calls; of several the one that the solution defines."""
    calls = [
        node.func.id
        for node in ast.walk(_parse(test, "test_list"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not hasattr(builtins, node.func.id)
    ]
    tree = _parse(solution or "", "code")
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    named = [name for name in calls if name in defined] or calls
    if not named:
        raise _BadRowError(f"bad_tests: no function is called in {test[:80]!r}")
    return named[0]


# ---- their parts


def _problem(question: str, solution: str | None, form: Mapping[str, Any]) -> CodeProblem:
    tests = CodeTests(reference="solution" if solution else "outputs", **form)
    if solution is None and tests.programs:
        raise _BadRowError(
            "no_answer: tests that are programs need a solution, in code or canonical_solution, or in a column mapped "
            "to answer"
        )
    return CodeProblem(question, solution or _joined(list(_expected(tests))), tests)


def _expected(tests: CodeTests) -> Iterator[str]:
    for test in tests.stdin:
        yield test.output.strip()
    for call in tests.calls:
        yield json.dumps(call.expected, ensure_ascii=False)


def _joined(outputs: Sequence[str]) -> str:
    """Return outputs, one after another, as many as fit."""
    text = outputs[0][:_MAX_OUTPUTS_CHARS]
    for output in outputs[1:]:
        if len(text) + len(output) >= _MAX_OUTPUTS_CHARS:
            break
        text += f"\n{output}"
    if not text.strip():
        raise _BadRowError("no_answer: there is no solution, and the tests expect no output")
    return text


def _first_solution(value: Any) -> str | None:
    """Return the first of a list of solutions, or of the JSON of one."""
    try:
        solutions = json.loads(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    except ValueError:
        return None
    if isinstance(solutions, str):
        solutions = [solutions]
    if not isinstance(solutions, list):
        return None
    found = [text for text in solutions if isinstance(text, str) and text.strip()]
    return found[0].strip() if found else None


def _with_starter(question: str, row: Mapping[str, Any]) -> str:
    starter = row.get("starter_code")
    if not isinstance(starter, str) or not starter.strip():
        return question
    return f"{question}\n\nBegin with this:\n```python\n{starter.rstrip()}\n```"


def _first_text(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((row[name].strip() for name in names if isinstance(row.get(name), str) and row[name].strip()), "")


def _lines(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(value: Any) -> Any:
    """Return a value with numbers for what sources keep as written."""
    if isinstance(value, Number):
        return number_of(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _json(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _BadRowError(f"bad_tests: {name} is not JSON ({str(error)[:80]})") from None


def _parse(text: str, name: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _BadRowError(f"bad_tests: {name} is not Python ({str(error)[:80]})") from None


# ---- LiveCodeBench's packed tests: a text, pickled, zlib, base64


class _TextUnpickler(pickle.Unpickler):
    """Reads texts and other plain values; whatever would name a class or a function is refused."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it names something outside")


def _unpack(value: str, name: str) -> str:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(value, validate=True), _MAX_UNPACKED_BYTES)
        if unpacker.unconsumed_tail:
            raise _BadRowError(f"bad_tests: {name} is larger than {_MAX_UNPACKED_BYTES} bytes unpacked")
        text = _TextUnpickler(io.BytesIO(data)).load()
    except _BadRowError:
        raise
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError) as error:
        raise _BadRowError(f"bad_tests: {name} cannot be unpacked ({str(error)[:80]})") from None
    except (AttributeError, TypeError, MemoryError, OverflowError, ImportError) as error:  # of a forged pickle
        raise _BadRowError(f"bad_tests: {name} is no pickled text ({str(error)[:80]})") from None
    if not isinstance(text, str):
        raise _BadRowError(f"bad_tests: {name} holds {type(text).__name__}, expected a text")
    return text
