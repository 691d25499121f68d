"""Rows as public data sets have them become code problems, whose own solutions pass."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from heal_core.sandbox.config import SandboxConfig
from heal_core.sources.row import Number, Refusal
from heal_core.specs import read_spec, write_spec
from heal_core.verify.code import grade_code
from heal_core.verify.code_rows import CodeProblem, code_problem_from, has_tests
from heal_core.verify.code_tests import CallTest, CodeTests, StdinTest

APPS = {
    "problem_id": 0,
    "question": "Print the sum.",
    "solutions": json.dumps(["print(sum(map(int, input().split())))", "print(0)"]),
    "input_output": json.dumps({"inputs": ["1 2\n", ["3 4", ""]], "outputs": ["3\n", ["7"]]}),
    "starter_code": "",
}
APPS_FUNCTION = {
    "question": "Return the sum.",
    "solutions": json.dumps(["class Solution:\n    def add(self, a: List[int]) -> int:\n        return sum(a)"]),
    "input_output": json.dumps({"fn_name": "add", "inputs": [[[1, 2]], [[]]], "outputs": [[3], 0]}),
    "starter_code": "class Solution:\n    def add(self, a: List[int]) -> int:\n",
}
HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": "from typing import List\n\n\ndef one() -> int:\n    return 1\n\n\ndef inc(a: List[int]) -> List[int]:\n"
    '    """Add one to each."""\n',
    "entry_point": "inc",
    "canonical_solution": "    return [x + one() for x in a]\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n"
    "    assert candidate([]) == []\n",
}
MBPP = {
    "task_id": 2,
    "text": "Write a function to find the shared elements from the given two lists.",
    "code": "def helper(a): return set(a)\ndef similar_elements(a, b):\n    return tuple(helper(a) & helper(b))",
    "test_list": [
        "assert set(similar_elements((3, 4), (5, 4))) == set((4,))",
        "assert similar_elements((1,), (2,)) == ()",
    ],
    "test_setup_code": "",
}


def cases(*pairs: tuple[str, str], testtype: str = "stdin") -> str:
    return json.dumps([{"input": i, "output": o, "testtype": testtype} for i, o in pairs])


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


LIVE_CODE_BENCH = {
    "question_title": "sum",
    "question_content": "Print the sum.",
    "starter_code": "",
    "public_test_cases": cases(("1 2", "3")),
    "private_test_cases": packed(cases(("3 4", "7"))),
    "metadata": "{}",
}
LIVE_CODE_BENCH_FUNCTION = {
    "question_content": "Add them.",
    "starter_code": "class Solution:\n    def add(self, a: int, b: List[int]) -> int:\n        ",
    "public_test_cases": cases(("1\n[2, 3]", "6"), testtype="functional"),
    "private_test_cases": cases(("2\n[]", "2"), testtype="functional"),
    "metadata": json.dumps({"func_name": "add"}),
}
ROWS = {
    "apps": APPS,
    "apps function": APPS_FUNCTION,
    "humaneval": HUMAN_EVAL,
    "mbpp": MBPP,
    "livecodebench": LIVE_CODE_BENCH,
    "livecodebench function": LIVE_CODE_BENCH_FUNCTION,
}


def read(row: dict[str, Any]) -> CodeProblem:
    problem = code_problem_from(row)
    assert isinstance(problem, CodeProblem), problem
    assert read_spec(CodeTests, write_spec(problem.tests)) == problem.tests
    return problem


def refusal(row: dict[str, Any]) -> str:
    found = code_problem_from(row)
    assert isinstance(found, Refusal)
    return found.reason


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is of Linux")
@pytest.mark.parametrize("name", [name for name in ROWS if "livecodebench" not in name])
def test_the_solution_of_a_row_passes_its_tests(name: str) -> None:
    problem = read(ROWS[name])
    assert problem.tests.reference == "solution"
    assert grade_code(problem.answer, problem.tests, SandboxConfig(), 30) == ("correct", None)
    assert grade_code("def inc(a): return a", problem.tests, SandboxConfig(), 30)[0] == "wrong"


def test_apps_has_inputs_and_outputs() -> None:
    problem = read(APPS)
    assert (problem.question, problem.answer) == ("Print the sum.", "print(sum(map(int, input().split())))")
    assert problem.tests.stdin == (StdinTest(input="1 2\n", output="3\n"), StdinTest(input="3 4\n", output="7"))


def test_apps_and_taco_name_a_function() -> None:
    problem = read(APPS_FUNCTION)
    assert problem.question.endswith(
        "Begin with this:\n```python\nclass Solution:\n    def add(self, a: List[int]) -> int:\n```"
    )
    assert problem.tests.calls == (CallTest(args=([1, 2],), expected=[3]), CallTest(args=([],), expected=0))
    assert (problem.tests.entry_point, problem.tests.is_wrapped) == ("add", True)


def test_without_a_solution_the_outputs_are_the_answer() -> None:
    problem = read({**APPS, "solutions": "[]"})
    assert (problem.answer, problem.tests.reference) == ("3\n7", "outputs")
    problem = read(LIVE_CODE_BENCH)
    assert (problem.answer, problem.tests.reference) == ("3\n7", "outputs")
    long = read({**APPS, "solutions": "", "input_output": {"inputs": ["a", "b"], "outputs": ["x" * 1500, "y" * 1500]}})
    assert long.answer == "x" * 1500


def test_livecodebench_has_public_and_private_tests() -> None:
    assert read(LIVE_CODE_BENCH).tests.stdin == (StdinTest(input="1 2", output="3"), StdinTest(input="3 4", output="7"))
    tests = read(LIVE_CODE_BENCH_FUNCTION).tests
    assert tests.calls == (CallTest(args=(1, [2, 3]), expected=6), CallTest(args=(2, []), expected=2))
    assert (tests.entry_point, tests.is_wrapped) == ("add", False)


def test_humaneval_keeps_what_its_prompt_gives() -> None:
    problem = read(HUMAN_EVAL)
    assert problem.tests.preamble.rstrip().endswith("return 1")
    assert "def inc" not in problem.tests.preamble
    assert problem.question.startswith("Complete this Python function.")
    assert problem.tests.programs[0].endswith("check(inc)\n")


def test_mbpp_tells_the_name_and_one_example() -> None:
    problem = read(MBPP)
    assert problem.tests.entry_point == "similar_elements"
    assert "`similar_elements`" in problem.question
    assert MBPP["test_list"][0] in problem.question and MBPP["test_list"][1] not in problem.question
    alone = read({**MBPP, "test_list": MBPP["test_list"][:1]})  # it would be all that is asked
    assert MBPP["test_list"][0] not in alone.question


class Evil:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_runs_something_runs_nothing(tmp_path: Path) -> None:
    evil = packed(Evil(tmp_path / "ran"))
    pickle.loads(zlib.decompress(base64.b64decode(evil)))  # noqa: S301 - made two lines above
    assert (tmp_path / "ran").exists()  # it would
    (tmp_path / "ran").unlink()
    assert refusal({**LIVE_CODE_BENCH, "private_test_cases": evil}).startswith(
        "bad_tests: private_test_cases cannot be"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "?"}, "no_tests: expected them in one of input_output"),
        ({**APPS, "question": " "}, "no_problem: expected text"),
        ({**APPS, "input_output": "{"}, "bad_tests: input_output is not JSON"),
        ({**APPS, "input_output": "[]"}, "bad_tests: input_output is no mapping"),
        (
            {**APPS, "input_output": {"inputs": ["1"], "outputs": []}},
            "bad_tests: input_output has no inputs and outputs",
        ),
        (
            {**APPS_FUNCTION, "input_output": {"fn_name": "f", "inputs": ["1"], "outputs": [1]}},
            "bad_tests: inputs of a",
        ),
        ({**LIVE_CODE_BENCH, "private_test_cases": "?"}, "bad_tests: private_test_cases cannot be unpacked"),
        ({**LIVE_CODE_BENCH, "private_test_cases": packed(5)}, "bad_tests: private_test_cases holds int"),
        ({**LIVE_CODE_BENCH, "public_test_cases": "[5]"}, "bad_tests: public_test_cases is no list"),
        ({**LIVE_CODE_BENCH_FUNCTION, "metadata": "{}"}, "bad_tests:  Value error, entry_point"),
        ({**LIVE_CODE_BENCH, "public_test_cases": cases(("", "")), "private_test_cases": ""}, "no_answer: there is no"),
        ({**MBPP, "test_list": "[]"}, "bad_tests: test_list is no list of texts"),
        ({**MBPP, "test_list": ["assert True"]}, "bad_tests: no function is called"),
        ({**MBPP, "test_list": ["assert ("]}, "bad_tests: test_list is not Python"),
        ({**MBPP, "code": None}, "no_answer: tests that are programs"),
        ({**HUMAN_EVAL, "entry_point": "a b"}, "bad_tests:  Value error, entry_point"),
    ],
)
def test_a_bad_row_says_what_is_wrong(row: dict[str, Any], reason: str) -> None:
    assert refusal(row).startswith(reason)


def test_rows_with_tests_are_told_from_others() -> None:
    assert all(map(has_tests, ROWS.values()))
    assert not has_tests({"question": "1 + 1", "answer": "2", "test": "final", "input_output": ""})


def test_columns_of_another_type_are_passed_over() -> None:
    assert read({**APPS, "solutions": Number("5")}).tests.reference == "outputs"
    assert read({**MBPP, "test_imports": [Number("5")]}).tests.preamble == "5"


@pytest.mark.parametrize("name", [name for name in ROWS if "humaneval" not in name])
def test_a_solution_of_another_column_goes_before_the_data_sets_own(name: str) -> None:
    row: Any = ROWS[name]
    named = code_problem_from(row, solution="print(3)")
    assert isinstance(named, CodeProblem)
    assert (named.answer, named.tests.reference) == ("print(3)", "solution")
    assert code_problem_from(row, solution=["print(3)", "print(4)"]) == named
    if name != "mbpp":
        empty = code_problem_from(row, solution="")
        assert isinstance(empty, CodeProblem)
        assert empty.tests.reference == "outputs"
