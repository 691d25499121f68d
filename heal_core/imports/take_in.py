"""Take rollouts in from files, durably: match them to problems, have the teacher read them, store shard by shard.

Every generation read is imported, there already, unmatched or in quarantine. Running it again is the resume. What does
not belong here: the layouts of files (`formats`), what a text is called (`identity`), and which imported rollouts a run
uses (`use`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from heal_core import __version__, interruption
from heal_core.engines.base import Engine, GivenText, UnreadableText
from heal_core.errors import InputError
from heal_core.fill import trajectory_row
from heal_core.imports.formats import Generation, RolloutFormat, detect_format, generations_of
from heal_core.imports.identity import UNKNOWN_WRITER, TextKey, recipe_row, template_of
from heal_core.keys import content_key
from heal_core.plan import Slot
from heal_core.problems import to_problem
from heal_core.prompts import student_prompt
from heal_core.records import Completion, Kind, Problem
from heal_core.reference import Reference, make_reference
from heal_core.sources.config import Columns, SourceConfig
from heal_core.sources.files import SourceFile
from heal_core.sources.read import Tally, read_source
from heal_core.sources.row import MAX_RAW_CHARS, Refusal, SourceRow
from heal_core.store.imports import count_first, read_import, read_last_indices, read_refused
from heal_core.store.reads import read_known
from heal_core.store.store import Store

MAX_SHARD_TEXTS = 128
MAX_SHARD_CHARS = 200_000
"""What the teacher reads at a time, and what a kill costs at most."""

MAX_EXAMPLES = 3

Place = tuple[str, int, int]
"""File, line, and which of the line's generations."""


@dataclass(frozen=True)
class Target:
    """What texts are imported for.

    Attributes:
        problems: Those that a text may be of.
        columns: What columns mean, where their names do not say it; those that a row lacks are not looked at.
        teacher: What the teacher is (`identify_model`).
        teacher_name: As the user wrote it.
    """

    problems: Sequence[Problem]
    columns: Columns
    teacher: Mapping[str, Any]
    teacher_name: str


@dataclass
class ImportedFile:
    """What became of a file's generations; `num_read` is the sum of the four below it.

    Attributes:
        num_imported: Newly stored.
        num_there: Known from an earlier import, or from an earlier start of this one.
        num_new_tokens: Tokens of those newly stored.
        problem_ids: The problems that have rollouts of this file.
        unmatched: Some of those without a problem: where, and why.
        reasons: Why generations are in quarantine, counted by code.
    """

    source: str
    format: RolloutFormat
    num_read: int = 0
    num_imported: int = 0
    num_there: int = 0
    num_unmatched: int = 0
    num_quarantined: int = 0
    num_new_tokens: int = 0
    problem_ids: set[str] = field(default_factory=set)
    unmatched: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        return {**asdict(self), "problem_ids": sorted(self.problem_ids), "reasons": dict(sorted(self.reasons.items()))}


@dataclass(frozen=True)
class _Item:
    """A generation that is of a problem."""

    place: Place
    problem: Problem
    generation: Generation
    key: TextKey

    def given(self) -> GivenText:
        prompt = student_prompt(self.problem.question, _reference(self.problem).wording)
        return GivenText(self.key.slot_id, prompt, self.generation.text, self.generation.finish_reason)

    def row(self, sample_index: int, completion: Completion) -> dict[str, Any]:
        """Return the stored form of the text as the teacher read it."""
        slot = Slot(Kind.ROLLOUT, self.problem.problem_id, self.key.recipe_id, sample_index, "", limit_tokens=0)
        return trajectory_row(slot, completion) | {"trajectory_id": self.key.row_id, "slot_id": self.key.slot_id}


@dataclass
class _Work:
    """A file that is being taken in: what it is, what was stored of it, and what is about to be.

    Attributes:
        import_id: Content key of file and place, layout, model, teacher, problems, columns and the version of HEAL.
        refused: What an earlier start of the same import had put in quarantine, with the reason's code.
        items: Generations that wait for the teacher.
        bad: Generations that wait for the quarantine: where, why, and the text or row.
    """

    layout: RolloutFormat
    model: str | None
    import_id: str
    counts: ImportedFile
    refused: dict[Place, str]
    items: list[_Item] = field(default_factory=list)
    bad: list[tuple[Place, str, str]] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return (
            max(len(self.items), len(self.bad)) >= MAX_SHARD_TEXTS
            or sum(len(item.generation.text) for item in self.items) >= MAX_SHARD_CHARS
        )


class Importer:
    """Takes in the files of one command, one after the other: the same text in two of them is two samples.

    Args:
        store: Where they go; the problems are there.
        start_engine: Returns the teacher's engine; called only when a text is new.
        target: What they are imported for.
        on_shard: Told after each shard how far the file is.
    """

    def __init__(
        self,
        store: Store,
        start_engine: Callable[[], Engine],
        target: Target,
        on_shard: Callable[[ImportedFile], None] = lambda counts: None,
    ) -> None:
        self._store = store
        self._start_engine = start_engine
        self._target = target
        self._on_shard = on_shard
        self._by_question = {problem.question: problem for problem in target.problems}
        self._met: Counter[tuple[str, str, str, str]] = Counter()
        self._recipes: dict[tuple[str, str], str] = {}

    def take_in(self, file: SourceFile, layout: RolloutFormat | None = None, model: str | None = None) -> ImportedFile:
        """Return what became of a file's generations; each shard is stored when it was read.

        Args:
            file: A file of rollouts.
            layout: Its layout; None goes by its columns.
            model: Who wrote the texts; None leaves it to the rows, and to "unknown" where they do not say it.

        Raises:
            InputError: If the file cannot be read, or holds no rollouts.
            KeyboardInterrupt: If the process was asked to end.
        """
        layout = layout or detect_format(_first_columns(file), file.place)
        made_of = {
            "file_digest": _digest(file),
            "format": layout,
            "model": model,
            "teacher_key": content_key(dict(self._target.teacher)),
            "problems_digest": content_key(sorted(problem.problem_id for problem in self._target.problems)),
        }
        # other columns or another version may read a row that was refused: that is another import
        import_id = content_key("import", file.place, made_of, sorted(self._target.columns.items()), __version__)
        work = _Work(layout, model, import_id, ImportedFile(file.place, layout), read_refused(self._store, import_id))
        for row in read_source(SourceConfig(path=file.place), Tally()):
            self._sort(row, work)
            if work.is_full:
                self._store_shard(work)
        self._store_shard(work)
        if read_import(self._store, import_id) is None:
            self._record_end(work, made_of)
        return work.counts

    def _sort(self, row: SourceRow, work: _Work) -> None:
        """Put each generation of a row where it belongs: to those of a problem, to the bad ones, to the unmatched."""
        content = row.content
        if isinstance(content, Refusal):
            entries: list[Generation | Refusal] = [content]
            problem: Problem | Refusal = content
        else:
            entries = generations_of(content, work.layout)
            columns = {name: meaning for name, meaning in self._target.columns.items() if name in content}
            problem = to_problem(content, columns, row.name)
        for index, entry in enumerate(entries):
            work.counts.num_read += 1
            place = (row.place, row.line, index)
            if isinstance(entry, Refusal):
                work.bad.append((place, entry.reason, row.raw))
            elif isinstance(problem, Refusal):
                work.bad.append((place, problem.reason, row.raw))
            else:
                known = self._by_question.get(problem.question)
                if known is not None and known.answer == problem.answer:
                    work.items.append(self._item(place, known, entry, work.model))
                else:
                    work.counts.num_unmatched += 1
                    if len(work.counts.unmatched) < MAX_EXAMPLES:
                        work.counts.unmatched.append(f"line {row.line}: {_why_unmatched(problem, known)}")

    def _item(self, place: Place, problem: Problem, generation: Generation, model: str | None) -> _Item:
        recipe_id = self._recipe(model or generation.model or UNKNOWN_WRITER, template_of(_reference(problem)))
        same = (problem.problem_id, recipe_id, content_key(generation.text), str(generation.finish_reason))
        key = TextKey(problem.problem_id, recipe_id, generation.text, generation.finish_reason, self._met[same])
        self._met[same] += 1
        return _Item(place, problem, generation, key)

    def _recipe(self, writer: str, template: str) -> str:
        """Return the recipe of a writer's texts, stored so that SQL can explain it."""
        if (writer, template) not in self._recipes:
            row = recipe_row(writer, self._target.teacher, self._target.teacher_name, template)
            self._store.append("recipes", [row])
            self._recipes[writer, template] = row["recipe_id"]
        return self._recipes[writer, template]

    def _store_shard(self, work: _Work) -> None:
        """Have the teacher read what is new of a shard, and store it in the order of the file."""
        interruption.check()
        items, counts = work.items, work.counts
        known = read_known(self._store, "trajectories", "trajectory_id", [item.key.row_id for item in items])
        unknown = [item for item in items if item.key.row_id not in known]
        missing = [item for item in unknown if item.place not in work.refused]
        refused = [work.refused[item.place] for item in unknown if item.place in work.refused]
        answers = self._read(missing)
        good: list[tuple[_Item, Completion]] = []
        for item in missing:
            answer = answers[item.key.slot_id]
            if isinstance(answer, UnreadableText):
                work.bad.append((item.place, answer.reason, item.generation.text))
            else:
                good.append((item, answer))
        self._store.append("trajectories", self._rows(good))
        stored = known | {item.key.row_id for item, _ in good}
        self._store.append("import_rows", [_import_row(work, item) for item in items if item.key.row_id in stored])
        self._store.append("import_quarantine", [_bad_row(work, *entry) for entry in work.bad])
        counts.num_imported += len(good)
        counts.num_new_tokens += sum(len(answer.token_ids) for _, answer in good)
        counts.num_there += len(known)
        counts.num_quarantined += len(work.bad) + len(refused)
        counts.reasons.update(reason.partition(":")[0] for _, reason, _ in work.bad)
        counts.reasons.update(refused)
        counts.problem_ids |= {item.key.problem_id for item in items if item.key.row_id in stored}
        work.items, work.bad = [], []
        self._on_shard(counts)

    def _read(self, items: Sequence[_Item]) -> dict[str, Completion | UnreadableText]:
        """Return the items' texts as the teacher reads them, by slot; without any, no engine is started."""
        if not items:
            return {}
        return {answer.slot_id: answer for answer in self._start_engine().read([item.given() for item in items])}

    def _rows(self, good: Sequence[tuple[_Item, Completion]]) -> list[dict[str, Any]]:
        """Return the stored form of texts; their sample indices go on from those of the same problem and recipe."""
        last = read_last_indices(self._store, [item.key.recipe_id for item, _ in good])
        rows = []
        for item, answer in good:
            of = (item.key.recipe_id, item.key.problem_id)
            last[of] = last.get(of, -1) + 1
            rows.append(item.row(last[of], answer))
        return rows

    def _record_end(self, work: _Work, made_of: Mapping[str, Any]) -> None:
        """Store that the file was taken in to its end; the counts are those of all starts together."""
        counts = work.counts
        num_first = count_first(self._store, work.import_id)
        row = {
            "import_id": work.import_id,
            "source": counts.source,
            **made_of,
            "num_read": counts.num_read,
            "num_imported": num_first,
            "num_there": counts.num_imported + counts.num_there - num_first,
            "num_unmatched": counts.num_unmatched,
            "num_quarantined": counts.num_quarantined,
            "imported_at": datetime.now(UTC),
        }
        self._store.append("imports", [row])


def _reference(problem: Problem) -> Reference:
    return make_reference(problem.answer, problem.problem_type, problem.spec)


def _import_row(work: _Work, item: _Item) -> dict[str, Any]:
    return {
        "import_row_id": content_key("import_row", work.import_id, *item.place, item.key.row_id),
        "import_id": work.import_id,
        "source": item.place[0],
        "line": item.place[1],
        "generation_index": item.place[2],
        "trajectory_id": item.key.row_id,
    }


def _bad_row(work: _Work, place: Place, reason: str, raw: str) -> dict[str, Any]:
    return {
        "import_quarantine_id": content_key("import_quarantine", work.import_id, *place),
        "import_id": work.import_id,
        "source": place[0],
        "line": place[1],
        "generation_index": place[2],
        "reason": reason,
        "raw": raw[:MAX_RAW_CHARS],
    }


def _first_columns(file: SourceFile) -> list[str]:
    """Return the columns of a file's first row that can be read.

    Raises:
        InputError: If none can.
    """
    first: Refusal | None = None
    for row in read_source(SourceConfig(path=file.place), Tally()):
        if not isinstance(row.content, Refusal):
            return list(row.content)
        first = first or row.content
    raise InputError(
        f"{file.place} holds no rollouts: " + (f"no row can be read, the first is {first.reason}" if first else "empty")
    )


def _digest(file: SourceFile) -> str:
    with file.open() as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # it only reads


def _why_unmatched(problem: Problem, known: Problem | None) -> str:
    if known is None:
        return f"no problem of the run asks {problem.question[:80]!r}"
    return f"the run's problem has the answer {known.answer[:40]!r}, the file {problem.answer[:40]!r}"
