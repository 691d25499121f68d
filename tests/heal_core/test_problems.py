"""Problem files: every row is a problem or is quarantined with its reason, and the counts add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heal_core.errors import InputError
from heal_core.problems import load_problems
from heal_core.sources.config import ProblemsConfig
from heal_core.sources.row import MAX_RAW_CHARS


def write(path: Path, *lines: str | bytes | dict) -> str:
    encoded = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in encoded))
    return str(path)


def reason_of(tmp_path: Path, line: str | bytes | dict) -> str:
    """The code with which a line is refused beside a good one."""
    path = write(tmp_path / "p.jsonl", {"problem": "What is one more than one?", "answer": "2"}, line)
    loaded = load_problems(ProblemsConfig(path=path))
    assert (len(loaded.problems), len(loaded.quarantined), loaded.num_rows) == (1, 1, 2)
    row = loaded.quarantined[0]
    assert (row.source, row.line) == (path, 2)
    return row.reason.partition(":")[0]


def test_reads_every_alias_and_prefers_the_answer_to_the_solution(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        {"problem": "Name the first prime.", "answer": "2", "solution": "long", "uuid": "u1", "source": "book"},
        {"question": "How many sides has a square?", "expected_answer": "4", "problem_type": "numeric"},
        {"instruction": "Which city is the capital of France?", "ground_truth": "Paris", "problem_type": "exact"},
        {"prompt": "Give the value of the sine of zero.", "solution": "It is \\boxed{0}."},
    )
    problems = load_problems(ProblemsConfig(path=path)).problems
    assert [problem.answer for problem in problems] == ["2", "4", "Paris", "0"]
    assert [problem.problem_type for problem in problems] == ["math", "numeric", "exact", "math"]
    assert (problems[0].uuid, problems[0].source) == ("u1", "book")
    assert (problems[1].uuid, problems[1].source) == ("", "p.jsonl")


def test_a_null_column_gives_way_to_the_next_alias(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"problem": None, "question": "Two and two?", "answer": None, "solution": "4"})
    (problem,) = load_problems(ProblemsConfig(path=path)).problems
    assert (problem.question, problem.answer) == ("Two and two?", "4")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("She has 3 * 4 = 12.\n#### 12", "12"), ("So \\boxed{\\frac{1}{2}} it is", "\\frac{1}{2}"), ("#1", "#1")],
)
def test_a_worked_answer_is_reduced_to_its_final_value(tmp_path: Path, answer: str, expected: str) -> None:
    path = write(tmp_path / "p.jsonl", {"problem": "How many?", "answer": answer})
    assert load_problems(ProblemsConfig(path=path)).problems[0].answer == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"problem": "cut', "invalid_json"),
        ('{"problem": "a?", "answer": NaN}', "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ('["a", "b"]', "not_an_object"),
        ({"answer": "2"}, "no_problem"),
        ({"problem": "  ", "answer": "2"}, "no_problem"),
        ({"problem": "a?"}, "no_answer"),
        ({"problem": "a?", "answer": ""}, "no_answer"),
        ({"problem": "a?", "answer": None}, "no_answer"),
        ({"problem": "a?", "answer": True}, "bad_type"),
        ({"problem": ["a?"], "answer": "2"}, "bad_type"),
        ({"problem": "a?", "answer": {"value": 2}}, "bad_type"),
        ({"problem": "a?", "answer": "2", "uuid": []}, "bad_type"),
        ({"problem": "a?", "answer": "2", "problem_type": "essay"}, "unknown_problem_type"),
        ({"problem": "What is one more than one?", "answer": "2"}, "duplicate"),
        ({"problem": " What is one more than one?\n", "answer": 2}, "duplicate"),
        ({"problem": "What is one more than one?", "answer": "3"}, "conflicting_answer"),
        (b'{"problem": "caf\xe9?", "answer": "2"}', "undecodable"),
        ('{"problem": "a\\ud800?", "answer": "2"}', "bad_unicode"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason(tmp_path: Path, line: str | bytes | dict, reason: str) -> None:
    assert reason_of(tmp_path, line) == reason


def test_a_conflict_names_the_line_that_was_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", "", {"problem": "a?", "answer": "1"}, "", {"problem": "a?", "answer": "2"})
    loaded = load_problems(ProblemsConfig(path=path))
    assert loaded.problems[0].answer == "1"
    assert (loaded.quarantined[0].line, loaded.quarantined[0].reason.partition(" has")[0]) == (
        4,
        "conflicting_answer: line 2",
    )


def test_raw_text_is_kept_but_bounded(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"problem": "a?", "answer": "1"}, "x" * 1_000_000, b"caf\xe9")
    long, undecodable = load_problems(ProblemsConfig(path=path)).quarantined
    assert long.raw == "x" * MAX_RAW_CHARS
    assert undecodable.raw == "caf\\xe9"


def test_windows_lines_a_byte_order_mark_and_blank_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"problem": "a?", "answer": 1}\r\n\r\n   \r\n{"problem": "b?", "answer": 2}\r\n')
    loaded = load_problems(ProblemsConfig(path=str(path)))
    assert [problem.answer for problem in loaded.problems] == ["1", "2"]
    assert loaded.num_rows == 2


def test_numbers_keep_the_digits_they_were_written_with(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl", '{"problem": "a?", "answer": 1.50}', f'{{"problem": "b?", "answer": {"9" * 5000}}}'
    )
    problems = load_problems(ProblemsConfig(path=path)).problems
    assert [problem.answer for problem in problems] == ["1.50", "9" * 5000]


def test_the_id_is_of_the_normalised_text(tmp_path: Path) -> None:
    # "é" as one code point and as "e" with a combining accent are the same question.
    first = write(tmp_path / "a.jsonl", {"problem": "caf\u00e9?", "answer": "1"})
    second = write(tmp_path / "b.jsonl", {"question": " cafe\u0301? ", "solution": 1})
    left, right = (load_problems(ProblemsConfig(path=path)).problems[0] for path in (first, second))
    assert left.problem_id == right.problem_id
    assert left.question == right.question == "caf\u00e9?"


def test_limit_takes_the_first_good_rows_and_counts_none_after_them(tmp_path: Path) -> None:
    rows = [{"problem": f"question {k}?", "answer": k} for k in range(5)]
    path = write(tmp_path / "p.jsonl", rows[0], "broken", rows[1], rows[2], "broken", rows[3])
    loaded = load_problems(ProblemsConfig(path=path, limit=2))
    assert [problem.answer for problem in loaded.problems] == ["0", "1"]
    assert (len(loaded.quarantined), loaded.num_rows) == (1, 3)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b'{"text": "a?", "label": "1"}\n', "has label, text. Expected a problem column (problem, question"),
        (b'{"problem": "a?", "label": "1"}\n', "unknown column"),
        (b"problem,answer\na?,1\n", "no JSON object on any line"),
        ('{"problem": "a?", "answer": "1"}\n'.encode("utf-16"), "no JSON object on any line"),
        (b'{"problem": "a?", "answer": ""}\n' * 2, "no usable row: no_answer (2)"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_problems(ProblemsConfig(path=str(path)))
    assert expected in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InputError, match="cannot read the problem file"):
            load_problems(ProblemsConfig(path=str(path)))


def test_settings_out_of_range_are_refused() -> None:
    for wrong in (
        {"held_out_fraction": 0},
        {"held_out_fraction": 1},
        {"limit": 0},
        {"duplicate_jaccard": 1.1},
        {"x": 1},
    ):
        with pytest.raises(ValidationError):
            ProblemsConfig(path="p.jsonl", **wrong)


def test_an_evaluation_file_is_held_out_and_its_near_duplicates_leave_train(tmp_path: Path) -> None:
    shared = "a farmer has seventeen sheep and sells all but nine of them at the market on a rainy Monday in May"
    train = write(
        tmp_path / "train.jsonl",
        {"problem": "Name the largest planet of the solar system.", "answer": "Jupiter"},
        # 20 words, so 16 shingles of 5; the question mark and the case do not count.
        {"problem": shared.upper() + "?", "answer": "9"},
    )
    held_out = write(tmp_path / "eval.jsonl", "broken", {"problem": shared, "answer": "nine"})
    loaded = load_problems(ProblemsConfig(path=train, evaluation_path=held_out))
    assert [(problem.answer, problem.split) for problem in loaded.problems] == [
        ("Jupiter", "train"),
        ("nine", "held_out"),
    ]
    leak, broken = loaded.quarantined
    assert (leak.source, leak.line) == (train, 2)
    assert leak.reason == f"near_duplicate_of_held_out: {loaded.problems[1].problem_id}"
    assert (broken.source, broken.line, loaded.num_rows) == (held_out, 1, 4)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
rows = st.dictionaries(st.sampled_from(["problem", "prompt", "answer", "solution", "problem_type", "z"]), json_values)
lines = st.lists(rows.map(lambda row: json.dumps(row).encode()) | st.binary(max_size=30), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(lines)
def test_whatever_the_file_holds_the_counts_add_up(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\n".join([b'{"problem": "good", "answer": "1"}', *lines]))
    not_blank = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    loaded = load_problems(ProblemsConfig(path=str(path)))
    assert loaded.num_rows == len(loaded.problems) + len(loaded.quarantined) == len(not_blank)
    assert len({problem.problem_id for problem in loaded.problems}) == len(loaded.problems)
    assert all(problem.question and problem.answer for problem in loaded.problems)


def test_rows_with_tests_are_programs(tmp_path: Path) -> None:
    tests = {"fn_name": "half", "inputs": [[1], [3.0]], "outputs": [0.5, 1.5]}
    path = write(
        tmp_path / "p.jsonl",
        {"question": "Halve it.", "solutions": ["def half(n): return n / 2"], "input_output": tests},
        {"question": "Halve that.", "input_output": json.dumps(tests), "answer": "of another kind"},
        {"problem": "Write a sort.", "answer": "sorted", "problem_type": "code"},
        {"problem": "Halve \ud800.", "input_output": tests},
        {"problem": "What is half of three?", "answer": "1.5", "problem_type": "numeric", "input_output": tests},
    )
    loaded = load_problems(ProblemsConfig(path=path))
    first, second, third = loaded.problems
    assert (third.problem_type, third.answer) == ("numeric", "1.5")  # its own type stands
    assert (first.problem_type, first.answer) == ("code", "def half(n): return n / 2")
    assert [(call["args"], call["expected"]) for call in json.loads(first.spec)["calls"]] == [([1], 0.5), ([3.0], 1.5)]
    assert (second.answer, json.loads(second.spec)["reference"]) == ("0.5\n1.5", "outputs")
    assert [row.reason.partition(":")[0] for row in loaded.quarantined] == ["no_tests", "bad_unicode"]
