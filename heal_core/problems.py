"""Rows of sources in: every one becomes a `Problem` with its split, or a `QuarantinedRow` with the reason.

Rows are taken source by source, then cleaned all together. What does not belong here: reading
rows (`sources`), near-duplicates, contamination and sides (`cleaning`), and whether an answer can be
graded (`gradable`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heal_core.cleaning import Cleaned, EvaluationSet, EvaluationText, TakenRow, clean
from heal_core.errors import InputError
from heal_core.keys import content_key
from heal_core.problem_types import Asked, clean_text, read_asked, read_code
from heal_core.records import Problem, QuarantinedRow
from heal_core.sources.config import Columns, ProblemsConfig, SourceConfig
from heal_core.sources.read import Tally, read_source
from heal_core.sources.row import Refusal
from heal_core.split import HELD_OUT, TRAIN
from heal_core.verify.code_rows import has_tests
from heal_core.verify.grade import PROBLEM_TYPES

PROBLEM_COLUMNS = ("problem", "question", "instruction", "prompt")
ANSWER_COLUMNS = ("answer", "expected_answer", "ground_truth", "solution")

_ALIASES = {
    "problem": PROBLEM_COLUMNS,
    "answer": ANSWER_COLUMNS,
    "source": ("source",),
    "uuid": ("uuid",),
    "problem_type": ("problem_type",),
    "options": ("options", "choices"),
    "tolerance": ("tolerance",),
    "unit": ("unit",),
    "spec": ("spec",),
}
_OTHER_TYPE_SIGNS = ("question_type", "problem_source")
"""Columns beside which `problem_type` means something else: in NuminaMath and OpenR1 the topic, such as Algebra, in
OpenMathReasoning where the answer is from, such as has_answer_extracted."""
_DUPLICATE, _CONFLICT = "duplicate", "conflicting_answer"


@dataclass(frozen=True)
class SourceCounts:
    """What became of the rows of a source; those that were read are the sum of all others."""

    source: str
    split: str  # as its setting: "hash", "train" or "held_out"
    num_read: int
    num_filtered_out: int
    num_not_sampled: int
    num_quarantined: int
    num_problems: int

    def describe(self) -> str:
        """Return the counts as a person reads them."""
        left_out = {
            "filtered out": self.num_filtered_out,
            "not sampled": self.num_not_sampled,
            "in quarantine": self.num_quarantined,
        }
        parts = [f"{num} {name}" for name, num in left_out.items() if num]
        return ", ".join([f"{self.source}: {self.num_problems} problems of {self.num_read} rows", *parts])


@dataclass(frozen=True)
class LoadedProblems:
    """What the sources held; `num_rows` is the number of problems and quarantined rows together.

    `benchmarks` has the name of each problem's source, as the rows of an evaluation call it, by problem id.
    """

    problems: tuple[Problem, ...]
    quarantined: tuple[QuarantinedRow, ...]
    num_rows: int
    counts: tuple[SourceCounts, ...]
    cleaned: Cleaned
    benchmarks: Mapping[str, str]

    def describe_quarantine(self) -> str:
        """Return how many rows are refused, and for what, the most frequent first."""
        codes = Counter(row.reason.partition(":")[0] for row in self.quarantined)
        return f"{len(self.quarantined)} rows" + "".join(f", {num} {code}" for code, num in codes.most_common())


@dataclass
class _Taken:
    """What was taken of a source so far."""

    config: SourceConfig
    tally: Tally
    rows: list[TakenRow]
    quarantined: list[QuarantinedRow]


FindUngradable = Callable[[Sequence[Problem]], Mapping[str, str]]
"""Says why problems cannot be graded, by problem id (`gradable`)."""


def load_problems(config: ProblemsConfig, find_ungradable: FindUngradable = lambda problems: {}) -> LoadedProblems:
    """Return the problems of all sources, clustered and split, and the rows refused.

    Rows after a `limit` are not read and not counted. A problem for training that is a
    near-duplicate of a held-out one, or holds a problem of an evaluation set, is quarantined; of the
    same problem in two sources of one side the first is taken. What `find_ungradable` tells of is quarantined too.

    Raises:
        InputError: If a source or an evaluation set is missing, unreadable or empty, has no recognised columns,
            or no usable row; with a line for each such source.

    Source: definition D1 (docs/method.md).
    """
    taken: list[_Taken] = []
    sets: list[EvaluationSet] = []
    faults: list[InputError] = []
    first_by_question: dict[bool, dict[str, TakenRow]] = {True: {}, False: {}}
    for source in config.list_sources():
        try:
            taken.append(_take(source, first_by_question[source.split == HELD_OUT]))
        except InputError as fault:
            faults.append(fault)
    for source in config.list_evaluation_sets():
        try:
            sets.append(_read_evaluation_set(source))
        except InputError as fault:
            faults.append(fault)
    if faults:
        raise InputError("\n".join(map(str, faults))) from faults[0]
    # first, since a problem that nobody can solve must take no other's place and hold none out
    ungradable = find_ungradable([row.problem for source in taken for row in source.rows])
    for of_source in taken:
        _refuse_ungradable(of_source, ungradable)
    wanted = [source.config.split for source in taken for _ in source.rows]
    cleaned = clean([row for source in taken for row in source.rows], wanted, sets, config)
    problems = list(_sort_out(taken, cleaned))
    return LoadedProblems(
        tuple(problems),
        tuple(row for source in taken for row in source.quarantined),
        len(problems) + sum(len(source.quarantined) for source in taken),
        tuple(map(_counts, taken)),
        cleaned,
        {row.problem.problem_id: source.config.benchmark for source in taken for row in source.rows},
    )


def check_sides(config: ProblemsConfig, loaded: LoadedProblems, splits: Sequence[str] = (TRAIN, HELD_OUT)) -> None:
    """Check that there is something to train on and something to evaluate on, as far as that is asked for.

    Raises:
        InputError: If a side has no problem.
    """
    for split in splits:
        if not any(problem.split == split for problem in loaded.problems):
            raise InputError(
                f"{config.label}: no problem fell into the split {split!r} of {len(loaded.problems)}. "
                "Give more problems, another problems.held_out_fraction, a problems.evaluation_path "
                "or a source's split."
            )


def _refuse_ungradable(source: _Taken, ungradable: Mapping[str, str]) -> None:
    """Move rows that cannot be graded to the quarantine of their source."""
    rows, source.rows = source.rows, []
    for row in rows:
        reason = ungradable.get(row.problem.problem_id)
        if reason is None:
            source.rows.append(row)
        else:
            source.quarantined.append(QuarantinedRow(row.place, row.line, f"unverifiable: {reason}", row.raw))


def _sort_out(taken: Sequence[_Taken], cleaned: Cleaned) -> Iterator[Problem]:
    """Yield the problems; the rows that were refused go to the quarantine of their source."""
    outcomes = iter(cleaned.outcomes)
    for source in taken:
        rows, source.rows = source.rows, []
        for row in rows:
            outcome = next(outcomes)
            if isinstance(outcome, Problem):
                source.rows.append(row)
                yield outcome
            else:
                source.quarantined.append(QuarantinedRow(row.place, row.line, outcome.reason, row.raw))


def _read_evaluation_set(config: SourceConfig) -> EvaluationSet:
    """Return the questions of a source that nothing is taken of.

    Raises:
        InputError: If it cannot be read, or a row has no question: what is not read is not compared.
    """
    columns = _columns_of("problem", config.columns)
    texts = []
    for row in read_source(config, Tally()):
        question = (
            row.content if isinstance(row.content, Refusal) else clean_text(_first(row.content, columns), "problem")
        )
        if isinstance(question, Refusal) or not question:
            why = question.reason if isinstance(question, Refusal) else f"no text in one of {', '.join(columns)}"
            raise InputError(
                f"problems.decontaminate: {row.place}, line {row.line}: {why}. Correct the row, or leave it out with a "
                "filter: what is not read cannot be compared."
            )
        texts.append(EvaluationText(row.place, row.line, question))
        if len(texts) == config.limit:
            break
    if not texts:
        raise InputError(f"problems.decontaminate: {config.label} has no rows. Check what it names.")
    return EvaluationSet(config.label, tuple(texts))


def _take(config: SourceConfig, first_by_question: dict[str, TakenRow]) -> _Taken:
    """Return the good rows of a source (at most its limit) and the refused ones, in its order."""
    taken = _Taken(config, Tally(), [], [])
    for row in read_source(config, taken.tally):
        content = row.content
        problem = content if isinstance(content, Refusal) else to_problem(content, config.columns, row.name)
        if isinstance(problem, Problem):
            problem = _compare_with_earlier(problem, row.place, first_by_question)
        if isinstance(problem, Refusal):
            taken.quarantined.append(QuarantinedRow(row.place, row.line, problem.reason, row.raw))
            continue
        taken.rows.append(TakenRow(problem, row.place, row.line, row.raw))
        first_by_question[problem.question] = taken.rows[-1]
        if len(taken.rows) == config.limit:
            break
    why = _why_not_usable(taken)
    if why is not None:
        raise InputError(why)
    return taken


def to_problem(row: Mapping[str, Any], columns: Columns, source_name: str) -> Problem | Refusal:
    """Return the row as a problem that is its own cluster, on the train side for now."""
    named = {meaning: _columns_of(meaning, columns) for meaning in _ALIASES}
    fields = {meaning: _first(row, names) for meaning, names in named.items()}
    means_another = "problem_type" not in columns.values() and any(sign in row for sign in _OTHER_TYPE_SIGNS)
    if means_another and fields["problem_type"] not in PROBLEM_TYPES:
        fields["problem_type"] = None
    is_code = fields["problem_type"] == "code" or (not fields["problem_type"] and has_tests(row))
    for meaning in () if is_code else ("problem", "answer"):
        if fields[meaning] is None or (isinstance(fields[meaning], str) and not fields[meaning].strip()):
            return Refusal(f"no_{meaning}: expected text in one of {', '.join(named[meaning])}")
    # a program stands where its data set has it, unless a column is named
    solution = (fields["answer"] or "") if "answer" in columns.values() else None
    asked = read_code(row, fields["problem"], solution) if is_code else read_asked(fields)
    source, uuid = (clean_text(fields[meaning], meaning) for meaning in ("source", "uuid"))
    for value in (asked, source, uuid):
        if isinstance(value, Refusal):
            return value
    assert isinstance(asked, Asked)
    parts = [asked.question, asked.answer, asked.problem_type, *filter(None, [asked.spec])]
    problem_id = content_key("problem", *parts)
    return Problem(
        problem_id=problem_id,
        question=asked.question,
        answer=asked.answer,
        source=str(source) or source_name,
        uuid=str(uuid),
        problem_type=asked.problem_type,
        cluster_id=problem_id,
        split=TRAIN,
        spec=asked.spec,
    )


def _columns_of(meaning: str, columns: Columns) -> tuple[str, ...]:
    """Return where to look for a meaning: the column that is mapped to it, else its usual names."""
    mapped = tuple(column for column, meant in columns.items() if meant == meaning)
    return mapped or tuple(name for name in _ALIASES[meaning] if name not in columns)


def _first(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """Return the value of the first of the columns that is not null; None without one."""
    return next((row[name] for name in columns if row.get(name) is not None), None)


def _compare_with_earlier(problem: Problem, place: str, first_by_question: dict[str, TakenRow]) -> Problem | Refusal:
    """Return the problem, unless an earlier row of its side asks the same."""
    first = first_by_question.get(problem.question)
    if first is None:
        return problem
    where = f"line {first.line}" if first.place == place else f"{first.place}, line {first.line},"
    if first.problem.answer == problem.answer:
        return Refusal(f"{_DUPLICATE}: same problem and answer as {where.rstrip(',')}")
    return Refusal(f"{_CONFLICT}: {where} has the same problem with another answer")


def _counts(taken: _Taken) -> SourceCounts:
    return SourceCounts(
        source=taken.config.label,
        split=taken.config.split,
        num_read=taken.tally.num_read,
        num_filtered_out=taken.tally.num_filtered_out,
        num_not_sampled=taken.tally.num_not_sampled,
        num_quarantined=len(taken.quarantined),
        num_problems=len(taken.rows),
    )


def _why_not_usable(taken: _Taken) -> str | None:
    """Return what is wrong with a source that has no usable row or lacks a mapped column, and the remedy."""
    config, tally = taken.config, taken.tally
    missing = sorted(set(config.columns) - tally.columns)
    found = ", ".join(sorted(tally.columns)) or "no JSON object on any line"
    if missing and tally.columns:
        return (
            f"{config.label}: columns maps {', '.join(missing)}, which no row has. Found: {found}; correct the names."
        )
    if any(row.reason.startswith((_DUPLICATE, _CONFLICT)) for row in taken.quarantined) or taken.rows:
        return None
    if not tally.num_read:
        if config.path is None:
            return f"{config.label} has no rows. Check what it names."
        return f"the problem file {config.path} is empty: it has no rows. Check the path."
    if not taken.quarantined:
        return f"the filter {config.filter!r} of {config.label} leaves none of {tally.num_read} rows. Correct it."
    problem, answer = (_columns_of(meaning, config.columns) for meaning in ("problem", "answer"))
    if tally.columns.isdisjoint(problem) or tally.columns.isdisjoint(answer):
        return (
            f"unknown column: {config.label} has {found}. Expected a problem column ({', '.join(problem)}) "
            f"and an answer column ({', '.join(answer)}), one JSON object per line; rename them, or map them with "
            "`columns`."
        )
    counts = Counter(row.reason.partition(":")[0] for row in taken.quarantined)
    seen = ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())
    first = taken.quarantined[0]
    return f"{config.label} has no usable row: {seen}. First, line {first.line}: {first.reason}. Correct the rows."
