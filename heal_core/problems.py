"""Problem files in: every row becomes a `Problem` with its split, or a `QuarantinedRow` with the reason.

What does not belong here: similarity and sides (`duplicates`, `split`), and whether an
answer can be graded (`verify`).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from heal_core.errors import InputError
from heal_core.keys import content_key
from heal_core.records import Problem, QuarantinedRow
from heal_core.split import HELD_OUT, TRAIN, hash_split, with_clusters
from heal_core.verify.grade import PROBLEM_TYPES, extract_answer

PROBLEM_COLUMNS = ("problem", "question", "instruction", "prompt")
ANSWER_COLUMNS = ("answer", "expected_answer", "ground_truth", "solution")
MAX_RAW_CHARS = 2000

_GSM8K_ANSWER = re.compile(r"####\s*([^\n#]+)\Z")
_BOM = b"\xef\xbb\xbf"


class ProblemsConfig(BaseModel):
    """Which problems, and how they are split.

    Attributes:
        path: A JSON Lines file.
        limit: Take only the first so many good rows of `path`.
        evaluation_path: A JSON Lines file of held-out problems; then all of `path` is train.
        held_out_fraction: Share of near-duplicate clusters held out when there is no such file.
        duplicate_jaccard: Similarity of word 5-grams from which two problems are near-duplicates.

    Source: definition D1 (docs/method.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    limit: int | None = Field(default=None, ge=1)
    evaluation_path: str | None = None
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    duplicate_jaccard: float = Field(default=0.8, gt=0, le=1)


@dataclass(frozen=True)
class LoadedProblems:
    """What the files held; `num_rows` is the number of problems and quarantined rows together."""

    problems: tuple[Problem, ...]
    quarantined: tuple[QuarantinedRow, ...]
    num_rows: int


@dataclass(frozen=True)
class _Row:
    """A good row with the place it came from."""

    problem: Problem
    line: int
    raw: str


@dataclass(frozen=True)
class _Refusal:
    """Why a line is no problem: a code, and after a colon what was seen."""

    reason: str


def load_problems(config: ProblemsConfig) -> LoadedProblems:
    """Return the problems of the configured files, clustered and split, and the rows refused.

    Rows after `limit` are not read and not counted. A problem of `path` that is a
    near-duplicate of an evaluation problem is quarantined.

    Raises:
        InputError: If a file is missing, unreadable or empty, has no recognised columns,
            or no usable row.

    Source: definition D1 (docs/method.md).
    """
    rows, quarantined = _read_file(Path(config.path), config.limit)
    if config.evaluation_path is None:
        clustered = with_clusters([row.problem for row in rows], config.duplicate_jaccard)
        problems = [
            replace(problem, split=hash_split(problem.cluster_id, config.held_out_fraction)) for problem in clustered
        ]
    else:
        held_out, held_out_quarantined = _read_file(Path(config.evaluation_path), None)
        problems, leaks = _split_by_file(rows, held_out, config)
        quarantined = [*quarantined, *leaks, *held_out_quarantined]
    return LoadedProblems(tuple(problems), tuple(quarantined), len(problems) + len(quarantined))


def _split_by_file(
    train: Sequence[_Row], held_out: Sequence[_Row], config: ProblemsConfig
) -> tuple[list[Problem], list[QuarantinedRow]]:
    """Return the problems of both files, and the rows of `train` that resemble a held-out one."""
    everything = [row.problem for row in (*held_out, *train)]
    clustered = with_clusters(everything, config.duplicate_jaccard)
    evaluation = [replace(problem, split=HELD_OUT) for problem in clustered[: len(held_out)]]
    evaluated = {problem.cluster_id: problem.problem_id for problem in reversed(evaluation)}
    problems, leaks = [], []
    for row, problem in zip(train, clustered[len(held_out) :], strict=True):
        if problem.cluster_id in evaluated:
            reason = f"near_duplicate_of_held_out: {evaluated[problem.cluster_id]}"
            leaks.append(QuarantinedRow(str(Path(config.path)), row.line, reason, row.raw))
        else:
            problems.append(replace(problem, split=TRAIN))
    return problems + evaluation, leaks


def _read_file(path: Path, limit: int | None) -> tuple[list[_Row], list[QuarantinedRow]]:
    """Return the good rows (at most `limit`) and the refused ones, in the file's order."""
    rows: list[_Row] = []
    quarantined: list[QuarantinedRow] = []
    columns: set[str] = set()
    first_by_question: dict[str, _Row] = {}
    for line, content in _lines(path):
        raw = content.decode(errors="backslashreplace")[:MAX_RAW_CHARS]
        fields = _parse_object(content)
        if isinstance(fields, _Refusal):
            problem: Problem | _Refusal = fields
        else:
            columns.update(fields)
            problem = _to_problem(fields, path.name)
        if isinstance(problem, Problem):
            problem = _compare_with_earlier(problem, first_by_question)
        if isinstance(problem, _Refusal):
            quarantined.append(QuarantinedRow(str(path), line, problem.reason, raw))
            continue
        rows.append(_Row(problem, line, raw))
        first_by_question[problem.question] = rows[-1]
        if len(rows) == limit:
            break
    if not rows:
        raise InputError(_why_no_rows(path, columns, quarantined))
    return rows, quarantined


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank with their numbers, from 1."""
    try:
        with path.open("rb") as file:
            for line, content in enumerate(file, start=1):
                content = content.removeprefix(_BOM) if line == 1 else content
                if content.strip():
                    yield line, content
    except OSError as error:
        raise InputError(
            f"cannot read the problem file {path}: {error.strerror}. Expected a JSON Lines file; "
            "set `problems.path` (or `problems.evaluation_path`) to one."
        ) from error


def _parse_object(content: bytes) -> dict[str, Any] | _Refusal:
    """Return the line's JSON object; numbers stay as they are written."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return _Refusal(f"undecodable: byte {error.object[error.start]:#04x} at {error.start} is not UTF-8")
    try:
        value = json.loads(text, parse_float=str, parse_int=str, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return _Refusal(f"invalid_json: {error}")
    return value if isinstance(value, dict) else _Refusal(f"not_an_object: {type(value).__name__}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _to_problem(row: dict[str, Any], file_name: str) -> Problem | _Refusal:
    """Return the row as a problem that is its own cluster, on the train side for now."""
    fields = {
        "question": _text(row, PROBLEM_COLUMNS),
        "answer": _text(row, ANSWER_COLUMNS),
        "source": _text(row, ("source",)),
        "uuid": _text(row, ("uuid",)),
        "problem_type": _text(row, ("problem_type",)),
    }
    for value in fields.values():
        if isinstance(value, _Refusal):
            return value
    question, answer, source, uuid, problem_type = map(str, fields.values())
    answer = _final_answer(answer)
    if not question:
        return _Refusal(f"no_problem: expected text in one of {', '.join(PROBLEM_COLUMNS)}")
    if not answer:
        return _Refusal(f"no_answer: expected text in one of {', '.join(ANSWER_COLUMNS)}")
    if problem_type and problem_type not in PROBLEM_TYPES:
        return _Refusal(f"unknown_problem_type: {problem_type!r}, expected {', '.join(PROBLEM_TYPES)}")
    problem_type = problem_type or PROBLEM_TYPES[0]
    problem_id = content_key("problem", question, answer, problem_type)
    return Problem(
        problem_id=problem_id,
        question=question,
        answer=answer,
        source=source or file_name,
        uuid=uuid,
        problem_type=problem_type,
        cluster_id=problem_id,
        split=TRAIN,
    )


def _text(row: dict[str, Any], columns: Iterable[str]) -> str | _Refusal:
    """Return the first of the columns that is not null, NFC-normalised and stripped; "" without one."""
    column = next((name for name in columns if row.get(name) is not None), None)
    if column is None:
        return ""
    value = row[column]
    if not isinstance(value, str):
        return _Refusal(f"bad_type: {column} is {type(value).__name__}, expected text or a number")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        return _Refusal(f"bad_unicode: {column} holds half of a surrogate pair")
    return unicodedata.normalize("NFC", value).strip()


def _final_answer(answer: str) -> str:
    r"""Return what a worked answer ends in: its last `\boxed{..}`, or the last line after GSM8K's `####`."""
    boxed = extract_answer(answer)
    if boxed is not None:
        return boxed
    marked = _GSM8K_ANSWER.search(answer)
    return marked[1].strip() if marked else answer


def _compare_with_earlier(problem: Problem, first_by_question: dict[str, _Row]) -> Problem | _Refusal:
    """Return the problem, unless an earlier row of the file asks the same."""
    first = first_by_question.get(problem.question)
    if first is None:
        return problem
    if first.problem.answer == problem.answer:
        return _Refusal(f"duplicate: same problem and answer as line {first.line}")
    return _Refusal(f"conflicting_answer: line {first.line} has the same problem with another answer")


def _why_no_rows(path: Path, columns: set[str], quarantined: Sequence[QuarantinedRow]) -> str:
    """Return what is wrong with a file without a single usable row, and the remedy."""
    if not quarantined:
        return f"the problem file {path} is empty. Expected one JSON object per line; check the path."
    if columns.isdisjoint(PROBLEM_COLUMNS) or columns.isdisjoint(ANSWER_COLUMNS):
        found = ", ".join(sorted(columns)) or "no JSON object on any line"
        return (
            f"unknown column: {path} has {found}. Expected a problem column ({', '.join(PROBLEM_COLUMNS)}) "
            f"and an answer column ({', '.join(ANSWER_COLUMNS)}), one JSON object per line; rename them."
        )
    counts = Counter(row.reason.partition(":")[0] for row in quarantined)
    seen = ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())
    first = quarantined[0]
    return f"{path} has no usable row: {seen}. First, line {first.line}: {first.reason}. Correct the rows."
