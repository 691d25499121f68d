"""Three problems, a file of rollouts of them, and taking it in with the scripted engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heal_core.imports.formats import RolloutFormat
from heal_core.imports.take_in import ImportedFile, Importer, Target
from heal_core.problems import to_problem
from heal_core.records import Problem
from heal_core.sources.config import Columns
from heal_core.sources.files import find_files
from heal_core.sources.row import Refusal
from heal_core.store.problems import store_problems
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace
from tests.heal_core.conftest import ScriptedEngine

TEACHER = {"files": "f", "engine": "scripted", "dtype": "float32"}


def problem(question: str, answer: str) -> Problem:
    made = to_problem({"problem": question, "answer": answer}, {}, "s")
    assert not isinstance(made, Refusal)
    return made


PROBLEMS = [problem("1 + 1?", "2"), problem("2 + 2?", "4"), problem("3 + 3?", "6")]


def line(question: str, answer: str, text: Any, **more: Any) -> dict[str, Any]:
    return {"problem": question, "expected_answer": answer, "generation": text, **more}


ROWS: list[dict[str, Any]] = [
    line("1 + 1?", "2", "it is 2"),
    line("2 + 2?", "4", "it is 5"),
    line("1 + 1?", "2", "it is 2"),  # the same text again is another sample
    line("1 + 1?", "2", "it is 2", finish_reason="length"),
    line("9 + 9?", "18", "it is 18"),  # no such problem
    line("3 + 3?", "7", "it is 7"),  # the problem has another answer
    line("3 + 3?", "6", "much too long " * 9),
    line("3 + 3?", "6", "  "),
    line("  2 + 2? ", "4", "it is 4", generation_model="R1"),
]
"""9 generations: 5 of a problem, 2 of none, 2 that are bad."""


def write_file(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def import_into(
    store: Store,
    *files: Path,
    model: str | None = None,
    layout: RolloutFormat | None = None,
    engine: ScriptedEngine | None = None,
    problems: list[Problem] = PROBLEMS,
    teacher: dict[str, str] = TEACHER,
    columns: Columns | None = None,
) -> list[ImportedFile]:
    """Return what became of each file."""
    store_problems(store, problems, 2)
    engine = engine or ScriptedEngine()
    importer = Importer(store, lambda: engine, Target(problems, columns or {}, teacher, "teacher"))
    return [importer.take_in(file, layout, model) for path in files for file in find_files(str(path))]


def import_file(workspace: Workspace, file: Path) -> ImportedFile:
    """Return what became of a file's generations in a workspace."""
    with Store(workspace) as store:
        (counts,) = import_into(store, file)
        return counts
