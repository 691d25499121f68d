"""Programs against tests: taken from texts, run for real in the sandbox; and programs that cheat."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from heal_core.errors import SandboxError
from heal_core.records import Verdict, VerdictLabel
from heal_core.reference import make_reference
from heal_core.sandbox import probe
from heal_core.sandbox.config import SandboxConfig
from heal_core.specs import read_spec, write_spec
from heal_core.verify.code import grade_code, read_tests
from heal_core.verify.code_rows import CodeProblem, code_problem_from
from heal_core.verify.code_tests import CallTest, CodeTests, StdinTest
from heal_core.verify.config import VerifyConfig
from heal_core.verify.grade import grade
from heal_core.verify.pool import GradeItem, VerifierPool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is of Linux")

SUM = CodeTests(stdin=(StdinTest(input="1 2\n", output="3\n"), StdinTest(input="4 5\n", output="9\n")))
DOUBLE = CodeTests(
    calls=(CallTest(args=(2,), expected=4), CallTest(args=([1, 2],), expected=[1, 2, 1, 2])), entry_point="double"
)
CHECKED = CodeTests(
    programs=(
        "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate([1]) == [1, 1]\n\ncheck(double)",
        "assert double('a') == 'aa'",
    ),
    entry_point="double",
)
SUM_CODE = "a, b = map(int, input().split())\nprint(a + b)"
DOUBLE_CODE = "def double(value):\n    return value * 2"


def judge(tests: CodeTests, code: str | None, code_seconds: float = 30, **limits: Any) -> tuple[str, str | None]:
    label, reason = grade_code(code, tests, SandboxConfig(**limits), code_seconds)
    return str(label), reason


@pytest.mark.parametrize(
    ("tests", "code"),
    [
        (SUM, SUM_CODE),
        (SUM, "import sys\nprint(sum(map(int, sys.stdin.read().split())), end='  \\n\\n')"),
        (SUM, "if __name__ == '__main__':\n    print(sum(map(int, open(0).read().split())))"),
        (
            SUM,
            "import threading as t\ndef main(): print(sum(map(int, input().split())))\nt.Thread(target=main).start()",
        ),
        (SUM, f"{SUM_CODE}\nraise SystemExit"),
        (SUM, f"{SUM_CODE}\nexit()"),
        (SUM, f"{SUM_CODE}\nquit(0)"),
        (DOUBLE, DOUBLE_CODE),
        (DOUBLE, "class Solution:\n    def double(self, value):\n        print('noise')\n        return value * 2"),
        (DOUBLE, "def double(value):\n    return value * 2 if isinstance(value, int) else tuple(value * 2)"),
        (CHECKED, DOUBLE_CODE),
    ],
)
def test_a_right_program_is_correct(tests: CodeTests, code: str) -> None:
    assert judge(tests, code) == ("correct", None)


@pytest.mark.parametrize(
    ("tests", "code", "reason"),
    [
        (SUM, "print(3)", "failed_test: 2"),
        (SUM, "print(1 / 0)", "runtime_error: 1"),
        (SUM, f"{SUM_CODE}\nraise SystemExit(1)", "runtime_error: 1"),
        (SUM, "print(3", "runtime_error: 1"),
        (SUM, "import os; os.kill(os.getpid(), 9)", "runtime_error: 1"),
        (SUM, "x = [0] * 10**9", "memory_limit: 1"),
        (SUM, "while True: print('x' * 1000)", "output_limit: 1"),
        (DOUBLE, "def double(value): return 4", "failed_test: 2"),
        (DOUBLE, "def double(value): return value + 2", "runtime_error: 2"),
        (DOUBLE, "def other(value): return 4", "runtime_error: 1"),
        (DOUBLE, "double = (", "runtime_error: 1"),
        (DOUBLE, "def double(value): return True", "failed_test: 1"),
        (CHECKED, "def double(value): return value * 3", "failed_test: 1"),
        (CHECKED, "def double(value): return value * 2 if value != 'a' else 'a'", "failed_test: 2"),
        (CHECKED, "def double(value): raise AssertionError", "runtime_error: 1"),
        (CHECKED, "def double(value): return None + value", "runtime_error: 1"),
        (CHECKED, "double = (", "runtime_error: 1"),
    ],
)
def test_a_wrong_program_is_wrong_with_the_first_test_that_fails(tests: CodeTests, code: str, reason: str) -> None:
    assert judge(tests, code) == ("wrong", reason)


@pytest.mark.parametrize(
    ("tests", "call"), [(SUM, ""), (DOUBLE, "def double(value):"), (CHECKED, "def double(value):")]
)
def test_a_program_that_does_not_end_is_wrong_in_its_own_way(tests: CodeTests, call: str) -> None:
    code = f"{call}\n    while True: pass" if call else "while True: pass"
    assert judge(tests, code, wall_seconds=1) == ("wrong", "time_limit: 1")  # not "timeout", which is tried again


def test_a_program_may_print_as_much_as_a_test_expects() -> None:
    tests = CodeTests(stdin=(StdinTest(input="", output="x" * 10_000),))
    assert judge(tests, "print('x' * 10_000)", max_output_kib=1) == ("correct", None)
    assert judge(tests, "print('x' * 20_000)", max_output_kib=1) == ("wrong", "output_limit: 1")


def test_all_tests_together_have_a_limit() -> None:
    tests = CodeTests(stdin=tuple(StdinTest(input="", output="1") for _ in range(100)))
    label, reason = judge(tests, "import time; time.sleep(0.5); print(1)", code_seconds=2)
    assert label == "wrong" and str(reason).startswith("time_limit: ")
    assert 2 <= int(str(reason).split()[1]) <= 5


EQUAL = (
    "class Equal:\n    __eq__ = lambda self, other: True\n    __ne__ = lambda self, other: False\n    __hash__ = None\n"
)
CHEATS = {
    "ends the process well": "import os\nos._exit(0)",
    "ends the process when called": "import os\ndef double(value): os._exit(0)",
    "exits": "raise SystemExit(0)",
    "exits when called": "def double(value): raise SystemExit(0)",
    "equals everything": f"{EQUAL}def double(value): return Equal()",
    "is a list that equals everything": "class L(list):\n    __eq__ = lambda s, o: True\ndef double(value): return L()",
    "is a number that equals all": "class N(int):\n    __eq__ = lambda s, o: True\ndef double(value): return N(0)",
    "patches builtins": "import builtins\nbuiltins.AssertionError = builtins.BaseException\n"
    "builtins.isinstance = builtins.all = lambda *a: True\ndef double(value): return None",
    "patches json": 'import json\njson.loads = json.dumps = lambda *a, **k: \'{"outcome": "passed"}\'\n'
    "def double(value): return None",
    "catches the test's names": "import sys, gc\ndef double(value):\n"
    "    for o in gc.get_objects():\n        if isinstance(o, dict) and 'expected' in o: return o['expected']\n"
    "    frame = sys._getframe()\n    while frame:\n"
    "        if 'expected' in frame.f_locals: return frame.f_locals['expected']\n        frame = frame.f_back",
    "reads the tests": "import glob\ndef double(value): return open(glob.glob('/tmp/*.json')[0]).read()",
    "writes a verdict to every descriptor": "import os\ndef double(value):\n    for fd in range(256):\n"
    '        try: os.write(fd, b\'{"outcome": "passed", "value": true, "exit_code": 0}\\n\' * 9)\n'
    "        except OSError: pass",
    "prints a verdict": "print('passed'); print('{\"outcome\": \"passed\"}'); print('OK', 'correct', 0)\n"
    "def double(value): print('passed')",
    "kills what watches": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)",
    "closes everything": "import os\nos.closerange(0, 256)",
    "stops what watches": "import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(600)",
}


@pytest.mark.parametrize("tests", [SUM, DOUBLE, CHECKED], ids=["stdin", "calls", "programs"])
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_does_not_pass(tests: CodeTests, cheat: str) -> None:
    label, reason = judge(tests, CHEATS[cheat], wall_seconds=1, code_seconds=4)
    assert label == "wrong", reason


def test_what_a_test_needs_of_the_solution_is_called_there() -> None:
    """As in MBPP 601: a class of the solution in the arguments."""
    tests = CodeTests(programs=("assert total([Pair(1, 2), Pair(b=3, a=4)]) == 10",), entry_point="total")
    pair = "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n"
    assert judge(tests, pair + "def total(pairs): return sum(p.a + p.b for p in pairs)") == ("correct", None)
    assert judge(tests, pair + "def total(pairs): return sum(p.a for p in pairs)") == ("wrong", "failed_test: 1")


def test_a_test_may_expect_an_exception() -> None:
    program = "try:\n    f(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False"
    tests = CodeTests(programs=(program,), entry_point="f")
    assert judge(tests, "def f(n):\n    if n < 0: raise ValueError") == ("correct", None)
    assert judge(tests, "def f(n): return n") == ("wrong", "failed_test: 1")


def test_a_method_may_be_called_as_something_that_is_imported() -> None:
    tests = CodeTests(
        calls=(CallTest(args=([5, 6],), expected=2),), entry_point="count", preamble="from itertools import count"
    )
    code = "class Solution:\n    def count(self, values):\n        return len(values)"
    assert judge(tests, code) == ("correct", None)


def test_a_function_finds_what_the_sites_have_in_place() -> None:
    row = {"question": "Q?", "input_output": {"inputs": [[3000]], "outputs": [3006], "fn_name": "f"}}
    problem = code_problem_from(row)
    assert isinstance(problem, CodeProblem)
    code = "class Solution:\n    def f(self, n: int) -> int:\n        return self.f(n - 1) + 1 if n else comb(4, 2)"
    assert judge(problem.tests, code) == ("correct", None)  # recursion is deeper than Python's 1,000 there, too


def test_a_preamble_serves_solution_and_tests() -> None:
    tests = CodeTests(
        programs=("assert decode(encode('abc')) == 'abc'",),
        entry_point="decode",
        preamble="import math\n\ndef encode(text):\n    return text[::-1]\n",
    )
    assert judge(tests, "def decode(text): return text[::-math.ceil(0.5)]") == ("correct", None)
    future = "from __future__ import annotations\n"  # which must be the first of a file
    assert judge(tests, f"{future}def decode(text): return text[::-math.ceil(0.5)]") == ("correct", None)
    # the tests have their own copy of what the problem gives
    assert judge(tests, "def encode(text): return 'abc'\ndef decode(text): return 'abcd'") == (
        "wrong",
        "failed_test: 1",
    )


def test_values_of_python_pass_between_the_two() -> None:
    values = "[None, True, 10**30, 1.5, 'ä', b'x', 1j, (1, [2]), {1, 2}, {(1, 2): [3]}, range(3), float('inf')]"
    program = f"assert same({values}) == {values}\nassert type(same((1,))) is tuple"
    tests = CodeTests(programs=(program,), entry_point="same")
    assert judge(tests, "def same(value): return value") == ("correct", None)


def test_a_test_that_hands_over_a_function_is_no_fault_of_the_program() -> None:
    tests = CodeTests(programs=("assert apply(lambda x: x, 1) == 1",), entry_point="apply")
    assert judge(tests, "def apply(f, x): return f(x)") == ("unverifiable", "unsupported_test: 1")


def test_tests_that_cannot_be_read_and_a_sandbox_that_breaks_are_unverifiable(monkeypatch: pytest.MonkeyPatch) -> None:
    label, reason = grade_code("print(1)", read_tests('{"stdin":[]}'), SandboxConfig(), 5)
    assert (str(label), reason) == ("unverifiable", "bad_tests")
    monkeypatch.setattr(probe, "find_programs", lambda: [])
    assert judge(SUM, SUM_CODE) == ("unverifiable", "sandbox_failed")


def test_the_order_of_a_set_is_the_same_each_time() -> None:
    code = "print(*set('zero one two three four five six seven eight nine'.split()))"
    order = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True)
    tests = CodeTests(stdin=(StdinTest(input="", output=order.stdout.decode()),))
    assert judge(tests, code) == ("correct", None)


def test_integers_of_any_length_are_printed_and_returned() -> None:
    """Python itself refuses more than 4,300 digits unless told otherwise."""
    tests = CodeTests(stdin=(StdinTest(input="5000", output="1" + "0" * 5000),))
    assert judge(tests, "print(10 ** int(input()))") == ("correct", None)
    tests = CodeTests(programs=("assert power(5000) == 10**5000",), entry_point="power")
    assert judge(tests, "def power(n): return 10**n") == ("correct", None)


def test_tests_are_not_kept_in_memory() -> None:
    held = read_spec.cache_info().currsize
    assert judge(SUM, SUM_CODE) == ("correct", None)
    assert read_spec.cache_info().currsize == held


def test_no_code_is_wrong() -> None:
    verdict = grade("I do not know.", make_reference("x", "code", write_spec(SUM)))
    assert (verdict.label, verdict.reason, verdict.extracted) == (VerdictLabel.WRONG, "no_code", None)


def verdicts(config: VerifyConfig, codes: list[str]) -> list[Verdict]:
    reference = make_reference("x", "code", write_spec(SUM))
    with VerifierPool(config) as pool:
        items = [GradeItem(str(n), f"```python\n{code}\n```", reference) for n, code in enumerate(codes)]
        return [verdict for _, verdict in sorted(pool.grade_all(items), key=lambda pair: pair[0])]


def test_a_pool_grades_programs_within_their_own_limits() -> None:
    """The limits of answers, on time and on memory, are not those of programs."""
    config = VerifyConfig(timeout_seconds=0.2, max_memory_gib=0.5)
    slow = f"import time; time.sleep(0.5); held = bytearray(700 * 2**20)\n{SUM_CODE}"
    right, wrong = verdicts(config, [slow, "print(3)"])
    assert (right.label, right.verifier, right.extraction) == (VerdictLabel.CORRECT, "code", "code_block")
    assert (wrong.label, wrong.reason) == (VerdictLabel.WRONG, "failed_test: 2")


def test_a_pool_refuses_programs_where_no_sandbox_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "find_programs", lambda: [])
    with pytest.raises(SandboxError, match="--unsafe-no-sandbox"):
        verdicts(VerifyConfig(), [SUM_CODE])


def test_without_sandbox_programs_are_graded_alike() -> None:
    right, wrong = verdicts(VerifyConfig(sandbox=SandboxConfig(kind="none")), [SUM_CODE, "print(3)"])
    assert (right.label, wrong.reason) == (VerdictLabel.CORRECT, "failed_test: 2")
