"""The published layouts, read from real files: which texts they hold, how each ended, and what is wrong with a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heal_core.errors import InputError
from heal_core.imports.formats import (
    Generation,
    RolloutFormat,
    check_format,
    detect_format,
    generations_of,
)
from heal_core.problems import load_problems, to_problem
from heal_core.records import FinishReason, Problem
from heal_core.sources.config import ProblemsConfig, SourceConfig
from heal_core.sources.read import Tally, read_source
from heal_core.sources.row import Refusal

OPENR1 = {
    "problem": "What is $1 + 1$?",
    "solution": "It is \\boxed{2}.",
    "answer": "2",
    "problem_type": "Algebra",
    "question_type": "math-word-problem",
    "source": "olympiads",
    "uuid": "a-1",
    "is_reasoning_complete": [True, False],
    "generations": ["<think>\nOkay.</think>\n\n\\boxed{2}", "<think>\nHmm"],
    "correctness_math_verify": [True, False],
    "correctness_llama": None,
    "finish_reasons": ["stop", "length"],
    "correctness_count": 1,
    "messages": [{"role": "user", "content": "What is $1 + 1$?"}],
}
"""A row as OpenR1-Math-220k has it."""

NEMO = {
    "problem": "What is 1 + 1?",
    "expected_answer": "2",
    "generation": "\\boxed{2}",
    "predicted_answer": "2",
    "symbolic_correct": True,
    "num_generated_tokens": 7,
    "finish_reason": "stop",
}
"""A line as NeMo-Skills writes it after grading."""


def openr1_file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "train-00000-of-00001.parquet"
    texts, flags = pa.list_(pa.string()), pa.list_(pa.bool_())
    types = {"is_reasoning_complete": flags, "correctness_math_verify": flags, "correctness_llama": flags,
             "generations": texts, "finish_reasons": texts, "correctness_count": pa.int64(),
             "messages": pa.list_(pa.struct({"content": pa.string(), "role": pa.string()}))}  # fmt: skip
    schema = pa.schema([(name, types.get(name, pa.string())) for name in OPENR1])
    pq.write_table(pa.Table.from_pylist([OPENR1 | row for row in rows], schema=schema), path)
    return path


def nemo_file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "output-rs0.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def read(path: Path, layout: RolloutFormat) -> list[list[Generation | Refusal]]:
    return [
        [row.content] if isinstance(row.content, Refusal) else generations_of(row.content, layout)
        for row in read_source(SourceConfig(path=str(path)), Tally())
    ]


def reasons(path: Path, layout: RolloutFormat) -> list[list[str]]:
    return [
        [entry.reason.partition(":")[0] if isinstance(entry, Refusal) else "good" for entry in row]
        for row in read(path, layout)
    ]


def test_openr1_holds_a_list_of_texts_per_problem(tmp_path: Path) -> None:
    path = openr1_file(tmp_path, {}, {"finish_reasons": None}, {"finish_reasons": [None, "stop"]})
    first, second = OPENR1["generations"]
    stop, length = FinishReason.STOP, FinishReason.LENGTH
    assert read(path, "openr1") == [
        [Generation(first, stop, None), Generation(second, length, None)],
        [Generation(first, stop, None), Generation(second, length, None)],  # its reasoning is not complete
        [Generation(first, stop, None), Generation(second, stop, None)],  # what is noted goes before that
    ]


def test_openr1_rows_are_problems_too(tmp_path: Path) -> None:
    """Its `problem_type` is a topic, which is no type of HEAL's."""
    path = openr1_file(tmp_path, {}, *({"problem": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(8)))
    loaded = load_problems(ProblemsConfig(path=str(path)))
    assert (len(loaded.problems), loaded.quarantined) == (9, ())
    assert {problem.problem_type for problem in loaded.problems} == {"math"}
    assert loaded.problems[0].uuid == "a-1"


def test_a_wrong_problem_type_is_still_refused() -> None:
    refused = to_problem({"problem": "1 + 1?", "answer": "2", "problem_type": "Algebra"}, {}, "s")
    assert isinstance(refused, Refusal) and refused.reason.startswith("unknown_problem_type: 'Algebra'")
    row = {"problem": "1 + 1?", "answer": "2", "problem_type": "numeric", "question_type": "proof"}
    kept = to_problem(row, {}, "s")
    assert isinstance(kept, Problem) and kept.problem_type == "numeric"


def test_the_problem_type_of_openmathreasoning_says_where_the_answer_is_from() -> None:
    row = {"problem": "1 + 1?", "expected_answer": "2", "problem_type": "has_answer_extracted"}
    assert isinstance(to_problem(row, {}, "s"), Refusal)
    problem = to_problem(row | {"problem_source": "aops_c6_high_school_olympiads"}, {}, "s")
    assert isinstance(problem, Problem) and problem.problem_type == "math"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"generations": []}, ["no_generations"]),
        ({"generations": None}, ["no_generations"]),
        ({"finish_reasons": ["stop"]}, ["lists_differ", "lists_differ"]),
        ({"is_reasoning_complete": [True] * 3, "finish_reasons": None}, ["lists_differ", "lists_differ"]),
        ({"generations": ["  ", None]}, ["empty_text", "bad_type"]),
        ({"finish_reasons": ["abort", "length"]}, ["unknown_finish_reason", "good"]),
    ],
)
def test_a_bad_row_of_openr1_costs_what_is_bad_of_it(
    tmp_path: Path, changes: dict[str, Any], expected: list[str]
) -> None:
    assert reasons(openr1_file(tmp_path, changes, {}), "openr1") == [expected, ["good", "good"]]


def test_nemo_skills_holds_a_text_per_line(tmp_path: Path) -> None:
    whole = {"_full_generation": "<think>1 + 1 = 2</think>\\boxed{2}", "finish_reason": "length"}
    published = {"generated_solution": "\\boxed{2}", "generation_model": "DeepSeek-R1", "generation": None}
    path = nemo_file(tmp_path, NEMO, NEMO | whole, NEMO | published)
    assert read(path, "nemo-skills") == [
        [Generation("\\boxed{2}", FinishReason.STOP, None)],
        [Generation(str(whole["_full_generation"]), FinishReason.LENGTH, None)],
        [Generation("\\boxed{2}", FinishReason.STOP, "DeepSeek-R1")],
    ]


def test_bad_lines_of_nemo_skills_are_told_apart(tmp_path: Path) -> None:
    path = nemo_file(
        tmp_path,
        {"problem": "1 + 1?", "expected_answer": "2"},
        NEMO | {"reasoning_content": "1 + 1 is 2."},
        NEMO | {"inference_mode": "tir"},
        NEMO | {"inference_mode": "cot"},
        NEMO | {"generation": 7},
        NEMO | {"generation": ["\\boxed{2}"]},
        NEMO | {"generation": "half \ud800"},
        NEMO | {"finish_reason": ["stop"]},
    )
    path.write_text(path.read_text() + "\n{broken")
    assert reasons(path, "nemo-skills") == [
        ["no_generation"],
        ["reasoning_apart"],
        ["other_mode"],
        ["good"],
        ["good"],  # a number is its digits
        ["bad_type"],
        ["bad_unicode"],
        ["unknown_finish_reason"],
        ["invalid_json"],
    ]


def test_the_columns_say_which_layout_it_is() -> None:
    assert detect_format(OPENR1, "a.parquet") == "openr1"
    assert detect_format(NEMO, "a.jsonl") == "nemo-skills"
    with pytest.raises(InputError, match=r"a\.jsonl holds no rollouts: it has the columns answer, problem\. Expected"):
        detect_format(["problem", "answer"], "a.jsonl")
    assert (check_format("auto"), check_format("openr1")) == (None, "openr1")
    with pytest.raises(InputError, match="--format csv: expected auto, openr1, nemo-skills"):
        check_format("csv")
