"""Taking rollouts in: nothing lost, nothing doubled, the same store whatever happened on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.imports import take_in
from heal_core.problems import load_problems
from heal_core.sources.config import ProblemsConfig
from heal_core.sources.files import find_files
from heal_core.store.check import check_store
from heal_core.store.garbage import find_garbage
from heal_core.store.reads import read_tokens
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace
from tests.heal_core.imports.world import PROBLEMS, ROWS, TEACHER, import_file, import_into, line, write_file

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path / "output-rs0.jsonl")


def texts(store: Store) -> list[tuple[Any, ...]]:
    rows = store.rows(
        "SELECT p.question, t.text, t.finish_reason, t.sample_index, r.model_name_or_path AS model "
        "FROM trajectories t JOIN problems p USING (problem_id) JOIN recipes r USING (recipe_id) "
        "WHERE r.kind = 'imported' ORDER BY ALL"
    )
    return [tuple(row.values()) for row in rows]


def contents(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Return all that the import stored, but for times."""
    left_out = {"trajectories": "EXCLUDE (created_at, part_name)", "imports": "EXCLUDE (imported_at)"}
    return {
        table: store.rows(f"SELECT * {left_out.get(table, '')} FROM {table} ORDER BY ALL")
        for table in ("problems", "recipes", "trajectories", "tokens", "imports", "import_rows", "import_quarantine")
    }


def test_every_generation_is_accounted_for(store: Store, file: Path) -> None:
    (counts,) = import_into(store, file)
    assert (counts.num_read, counts.format) == (9, "nemo-skills")
    assert (counts.num_imported, counts.num_there, counts.num_unmatched, counts.num_quarantined) == (5, 0, 2, 2)
    assert counts.unmatched == [
        "line 5: no problem of the run asks '9 + 9?'",
        "line 6: the run's problem has the answer '6', the file '7'",
    ]
    assert counts.reasons == {"too_long": 1, "empty_text": 1}
    assert texts(store) == [
        ("1 + 1?", "it is 2", "length", 2, "unknown"),
        ("1 + 1?", "it is 2", "stop", 0, "unknown"),
        ("1 + 1?", "it is 2", "stop", 1, "unknown"),
        ("2 + 2?", "it is 4", "stop", 0, "R1"),  # another writer's samples are counted apart
        ("2 + 2?", "it is 5", "stop", 0, "unknown"),
    ]
    quarantined = store.rows("SELECT source, line, generation_index, reason FROM import_quarantine ORDER BY line")
    assert [tuple(row.values()) for row in quarantined] == [
        (str(file), 7, 0, "too_long: 126 tokens"),
        (str(file), 8, 0, "empty_text: a generation is blank"),
    ]
    (row,) = store.rows("SELECT * EXCLUDE (imported_at) FROM imports")
    assert (row["source"], row["num_read"], row["num_imported"], row["num_there"]) == (str(file), 9, 5, 0)


def test_token_arrays_and_what_the_teacher_was_asked_are_those_of_the_text(
    store: Store, file: Path, new_engine
) -> None:
    engine = new_engine()
    import_into(store, file, engine=engine)
    asked = {(given.prompt.partition("\n")[0], given.text) for given in engine.read_texts}
    assert ("2 + 2?", "it is 4") in asked  # the problem's own question, without the space around it
    (row,) = store.rows("SELECT * FROM trajectories WHERE text = 'it is 5'")
    tokens = read_tokens(store, [row["trajectory_id"]])[row["trajectory_id"]]
    assert tokens.token_ids.tolist() == [ord(character) % 97 for character in "it is 5"]
    assert (row["num_tokens"], row["limit_tokens"], row["kind"]) == (7, 0, "rollout")
    assert row["mean_entropy_nats"] == pytest.approx(tokens.entropies.mean())


def test_importing_twice_changes_nothing_and_starts_no_engine(store: Store, file: Path) -> None:
    import_into(store, file)
    before = contents(store)

    def no_engine() -> Any:
        raise AssertionError("an engine was started")

    importer = take_in.Importer(store, no_engine, take_in.Target(PROBLEMS, {}, TEACHER, "teacher"))
    (found,) = find_files(str(file))
    counts = importer.take_in(found)
    assert (counts.num_imported, counts.num_there, counts.num_unmatched, counts.num_quarantined) == (0, 5, 2, 2)
    assert counts.reasons == {"too_long": 1, "empty_text": 1}  # what the teacher had refused is known, and why
    assert contents(store) == before


def test_a_file_that_grew_or_moved_brings_only_what_is_new(store: Store, file: Path, tmp_path: Path) -> None:
    import_into(store, file)
    grown = write_file(tmp_path / "moved.jsonl", [*ROWS, line("1 + 1?", "2", "it is 2"), line("1 + 1?", "2", "two")])
    (counts,) = import_into(store, grown)
    # "it is 2" stands there a third time, where the store had it twice
    assert (counts.num_read, counts.num_imported, counts.num_there) == (11, 2, 5)
    indices = [row[3] for row in texts(store) if row[0] == "1 + 1?"]
    assert sorted(indices) == [0, 1, 2, 3, 4]
    origins = store.rows("SELECT source, num_imported, num_there FROM imports ORDER BY rowid")
    assert [tuple(row.values()) for row in origins] == [(str(file), 5, 0), (str(grown), 2, 5)]


def test_the_same_text_in_two_files_of_one_command_is_two_samples(store: Store, tmp_path: Path) -> None:
    files = [write_file(tmp_path / f"output-rs{n}.jsonl", [line("1 + 1?", "2", "it is 2")]) for n in range(3)]
    assert [counts.num_imported for counts in import_into(store, *files)] == [1, 1, 1]
    assert [counts.num_imported for counts in import_into(store, *files)] == [0, 0, 0]
    assert [row[3] for row in texts(store)] == [0, 1, 2]
    # the files are equal to the byte, and still each has its own counts
    assert store.rows("SELECT source, num_imported FROM imports ORDER BY source") == [
        {"source": str(file), "num_imported": 1} for file in files
    ]


def test_who_wrote_a_text_and_who_read_it_is_part_of_what_it_is(store: Store, file: Path) -> None:
    import_into(store, file)
    (named,) = import_into(store, file, model="R1")
    assert (named.num_imported, named.num_there) == (4, 1)  # one row had said so itself
    (read_anew,) = import_into(store, file, teacher={**TEACHER, "files": "other weights"})
    assert read_anew.num_imported == 5


def test_bad_rows_are_kept_with_their_place(store: Store, tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.jsonl", [line("1 + 1?", "2", "it is 2"), {"problem": "1 + 1?", "generation": "x"}])
    path.write_text("{broken\n" + path.read_text())
    (counts,) = import_into(store, path)
    assert (counts.num_read, counts.num_imported, counts.num_quarantined) == (3, 1, 2)
    rows = store.rows("SELECT line, reason, raw FROM import_quarantine ORDER BY line")
    assert [(row["line"], row["reason"].partition(":")[0]) for row in rows] == [(1, "invalid_json"), (3, "no_answer")]
    assert rows[0]["raw"] == "{broken\n"


def test_what_was_refused_is_looked_at_again_once_its_columns_are_named(store: Store, tmp_path: Path) -> None:
    """The bug: its place was remembered, and the text stayed in quarantine under any mapping."""
    path = write_file(tmp_path / "a.jsonl", [{"frage": "1 + 1?", "expected_answer": "2", "generation": "it is 2"}])
    (counts,) = import_into(store, path)
    assert (counts.num_imported, counts.reasons) == (0, {"no_problem": 1})
    (counts,) = import_into(store, path, columns={"frage": "problem"})
    assert (counts.num_imported, counts.num_quarantined) == (1, 0)
    origins = store.rows("SELECT num_imported, num_quarantined FROM imports ORDER BY rowid")
    assert [tuple(row.values()) for row in origins] == [(0, 1), (1, 0)]


def test_a_file_without_rollouts_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no rollouts: it has the columns answer, problem"):
        import_into(store, write_file(tmp_path / "a.jsonl", [{"problem": "1 + 1?", "answer": "2"}]))
    (tmp_path / "b.jsonl").write_text("{broken")
    with pytest.raises(InputError, match="no row can be read, the first is invalid_json"):
        import_into(store, tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(InputError, match="holds no rollouts: empty"):
        import_into(store, tmp_path / "c.jsonl")


def test_a_file_of_rollouts_is_a_source_of_problems_at_the_same_time(store: Store, tmp_path: Path) -> None:
    rows = [line(f"What is {n} + {n}?", str(2 * n), f"it is {2 * n}") for n in range(9) for _ in range(2)]
    path = write_file(tmp_path / "output-rs0.jsonl", rows)
    loaded = load_problems(ProblemsConfig(path=str(path)))
    assert (len(loaded.problems), len(loaded.quarantined)) == (9, 9)  # each is a duplicate once
    (counts,) = import_into(store, path, problems=list(loaded.problems))
    assert (counts.num_read, counts.num_imported) == (18, 18)


def test_imported_rollouts_are_sound_and_no_garbage(workspace: Workspace, file: Path) -> None:
    import_file(workspace, file)
    assert check_store(workspace).findings == ()
    assert find_garbage(workspace).is_empty


@pytest.mark.slow
@pytest.mark.parametrize("part", (2, 6, 8, 11))  # of 12
def test_after_a_kill_the_same_command_comes_to_the_same_store(
    workspace: Workspace, file: Path, tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = [sys.executable, "-m", "tests.heal_core.imports.kill_child", str(workspace.root), str(file), str(part)]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    monkeypatch.setattr(take_in, "MAX_SHARD_TEXTS", 2)
    counts = import_file(workspace, file)
    assert counts.num_imported + counts.num_there == 5
    assert (
        counts.num_read == 9 == counts.num_imported + counts.num_there + counts.num_unmatched + counts.num_quarantined
    )
    undisturbed = Workspace(tmp_path / "undisturbed")
    undisturbed.create()
    import_file(undisturbed, file)
    with Store(workspace) as ours, Store(undisturbed) as theirs:
        assert contents(ours) == contents(theirs)
