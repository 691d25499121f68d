"""What `heal` says: one clear error for a mistake, and what it shows of a finished workspace."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.config import load_config
from heal_core.errors import HealError, InputError, ModelError
from heal_core.plan import Slot
from heal_core.prompts import student_prompt
from heal_core.records import Kind
from heal_core.store.workspace import Workspace
from tasks.problems import take_in_problems
from tasks.samples import SampleWork, sample_chunk
from tasks.session import Session

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LAB = ROOT / "deployments" / "lab"


def assert_mistake(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a command ended with one readable error and nothing else."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr


# Before anything is started


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rollout.num_generations=8", ["'rollout'", "did you mean 'rollouts'?"]),
        ("repair.max_path=8", ["'repair.max_path' (value 8)", "did you mean 'max_paths'?"]),
        ("rollouts.num_generations=0", ["'rollouts.num_generations'", "0", "greater than or equal to 8"]),
        ("rollouts.num_generations=many", ["'rollouts.num_generations'", "'many'", "integer"]),
        ("evaluation.num_generations=9", ["evaluation.num_generations (9)", "rollouts.num_generations (8)"]),
        ("rollouts", ["'rollouts'", "a.b=c"]),
        ("workspace={file}", ["{file}", "Set `workspace` to a folder"]),
    ],
)
def test_a_setting_that_cannot_be_meant(heal: Any, tmp_path: Path, override: str, words: list[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    config = heal.config(tmp_path / "workspace")
    done = heal("run", config, override.format(file=file))
    assert_mistake(done, *(word.format(file=file) for word in words))
    assert not (tmp_path / "workspace").exists()


def test_a_missing_config_and_an_unknown_option(heal: Any, tmp_path: Path) -> None:
    assert_mistake(heal("run", tmp_path / "none.yaml"), "ConfigError", "none.yaml", "No such file", "demo.yaml")
    assert_mistake(heal("run", tmp_path / "none.yaml", "--fast"), "No such option: --fast")


# In the run's first task, within seconds


def test_a_workspace_that_is_in_use(heal: Any, tmp_path: Path) -> None:
    config = heal.config(tmp_path / "workspace")
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    with workspace.lock():
        done = heal("run", config)
    assert_mistake(done, "WorkspaceBusyError", "in use by process", "set another `workspace`")


Settings = dict[str, Any]


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def damaged_config(folder: Path) -> str:
    shutil.copytree(LAB / "student", folder / "damaged")
    (folder / "damaged" / "config.json").write_text("{")
    return str(folder / "damaged")


def no_weights(folder: Path) -> str:
    shutil.copytree(LAB / "student", folder / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    return str(folder / "bare")


MISTAKES: dict[str, tuple[Callable[[Path], Settings], type[HealError], list[str]]] = {
    "missing problem file": (
        lambda folder: {"problems__path": str(folder / "none.jsonl")},
        InputError,
        ["none.jsonl", "No such file", "set `problems.path`"],
    ),
    "empty problem file": (
        lambda folder: {"problems__path": write(folder / "rows.jsonl")},
        InputError,
        ["rows.jsonl is empty", "it has no rows"],
    ),
    "unknown column": (
        lambda folder: {"problems__path": write(folder / "rows.jsonl", {"text": "1 + 1?", "label": "2"})},
        InputError,
        ["unknown column", "label, text", "expected_answer", "rename"],
    ),
    "nothing held out": (
        lambda folder: {"problems__limit": 3, "problems__held_out_fraction": 0.001},
        InputError,
        ["'held_out' of 3", "problems.held_out_fraction"],
    ),
    "missing model folder": (
        lambda folder: {"teacher__model_name_or_path": str(folder / "none")},
        ModelError,
        ["none: no such folder", "*.safetensors"],
    ),
    "model folder without weights": (
        lambda folder: {"student__model_name_or_path": no_weights(folder)},
        ModelError,
        ["bare holds no *.safetensors", "convert"],
    ),
    "damaged model folder": (
        lambda folder: {"student__model_name_or_path": damaged_config(folder)},
        ModelError,
        ["damaged/config.json cannot be read"],
    ),
    "answers longer than the teacher's context": (
        lambda folder: {"rollouts__sampling__max_tokens": 1024},
        ModelError,
        ["rollouts.sampling.max_tokens is 1024", "lab/teacher has a context of 1024", "Lower"],
    ),
    "hints longer than the context": (
        lambda folder: {"hints__sampling__max_tokens": 4096},
        ModelError,
        ["hints.sampling.max_tokens is 4096", "Lower"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_unusable_input_is_refused_before_anything_is_sampled(heal: Any, tmp_path: Path, name: str) -> None:
    make_settings, kind, words = MISTAKES[name]
    config = load_config(heal.config(tmp_path / "workspace", **make_settings(tmp_path)))
    with Session.open(config) as session, pytest.raises(kind) as error:
        take_in_problems.fn(session)
    for word in words:
        assert word in str(error.value)


def test_a_students_context_is_checked_before_the_teacher_works_for_hours(heal: Any, tmp_path: Path) -> None:
    student = tmp_path / "student"
    shutil.copytree(LAB / "student", student)
    settings = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 128}))
    config = load_config(heal.config(tmp_path / "workspace", student__model_name_or_path=str(student)))
    with Session.open(config) as session, pytest.raises(ModelError, match="student has a context of 128"):
        take_in_problems.fn(session)


def test_bad_rows_are_kept_in_quarantine_while_the_run_goes_on(heal: Any, tmp_path: Path) -> None:
    rows = [{"problem": f"What is {i} + {i}?", "answer": 2 * i} for i in range(40)]
    bad = [rows[3], {**rows[5], "answer": 11}, {"problem": "What is 1 + 1?"}, {"problem": "", "answer": 2}]
    path = write(tmp_path / "rows.jsonl", *rows, *bad)
    config = load_config(heal.config(tmp_path / "workspace", problems__path=path, problems__limit=None))
    with Session.open(config) as session:
        take_in_problems.fn(session)
    query = "SELECT line, reason FROM quarantine ORDER BY line"
    done = heal("sql", query, "--format", "json", "-w", tmp_path / "workspace")
    reasons = {row["line"]: row["reason"].partition(":")[0] for row in json.loads(done.stdout)}
    assert reasons == {41: "duplicate", 42: "conflicting_answer", 43: "no_answer", 44: "no_problem"}
    done = heal("sql", "SELECT count(*) AS n FROM run_problems", "-f", "csv", "-w", tmp_path / "workspace")
    assert done.stdout.split() == ["n", "40"]


def test_a_model_without_a_chat_template_is_asked_plainly(heal: Any, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(LAB / "student", plain, ignore=shutil.ignore_patterns("chat_template.jinja"))
    assert "chat_template" not in (plain / "tokenizer_config.json").read_text()
    config = load_config(heal.config(tmp_path / "workspace", student__model_name_or_path=str(plain)))
    sampling = config.rollouts.sampling.model_copy(update={"max_tokens": 8})
    with Session.open(config) as session:
        take_in_problems.fn(session)
        recipe_id = session.recipe(Kind.ROLLOUT, config.student, sampling, student_prompt("{}"))
        slots = [Slot(Kind.ROLLOUT, "p", recipe_id, i, student_prompt("Start with 2. Add 1."), 8) for i in range(3)]
        work = SampleWork("evaluation", "chunk 0", slots, config.student, sampling, session.store.epoch)
        assert sample_chunk.fn(session, work).keys() == {slot.slot_id for slot in slots}
        lengths = session.store.rows("SELECT num_tokens, num_prompt_tokens FROM trajectories")
    assert len(lengths) == 3
    assert all(0 < row["num_tokens"] <= 8 for row in lengths)


# Looking at a finished workspace


def test_status_names_the_run_and_its_state(finished_run: Any) -> None:
    done = finished_run.heal("status", "-w", finished_run.workspace, "--json")
    told = json.loads(done.stdout)
    assert (told["running"], told["scheduled"]) == (None, [])
    (row,) = told["runs"]
    assert (row["run_id"], row["state"]) == (finished_run.summary["run_id"], "completed")
    assert (row["problems"], row["rollouts"]) == (finished_run.summary["problems"], finished_run.summary["rollouts"])
    assert row["run_id"] in finished_run.heal("status", "-w", finished_run.workspace).stdout


def test_sql_prints_a_table_json_or_csv(finished_run: Any) -> None:
    query = "SELECT band, count(*) AS num, NULL AS nothing FROM bands WHERE split = 'train' GROUP BY band ORDER BY band"
    expected = {band: num for band, num in sorted(finished_run.summary["bands"].items()) if num}

    def ask(form: str) -> str:
        done = finished_run.heal("sql", query, "--format", form, "-w", finished_run.workspace)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    assert {row["band"]: row["num"] for row in json.loads(ask("json"))} == expected
    read = list(csv.DictReader(io.StringIO(ask("csv"))))
    assert {row["band"]: int(row["num"]) for row in read} == expected
    assert {row["nothing"] for row in read} == {""}
    table = ask("table")
    assert all(word in table for word in (*expected, "nothing", f"{len(expected)} rows"))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("DROP TABLE problems", ["refused", "read-only"]),
        ("SELECT 1 FROM nowhere", ["refused", "nowhere"]),
        ("SELEC 1", ["refused", "syntax error"]),
    ],
)
def test_sql_refuses_writes_and_reports_errors(finished_run: Any, query: str, words: list[str]) -> None:
    done = finished_run.heal("sql", query, "-w", finished_run.workspace)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words)
    assert finished_run.one("SELECT count(*) FROM problems") == finished_run.summary["problems"]


def test_sql_needs_a_store(heal: Any, tmp_path: Path) -> None:
    assert_mistake(heal("sql", "SELECT 1", "-w", tmp_path), "StoreError", "no store at", "heal run")


def test_show_prints_a_rollout_with_its_breakpoint_hint_and_repair(finished_run: Any) -> None:
    (row,) = finished_run.rows(
        "SELECT r.parent_id, h.text AS hint, r.trajectory_id FROM run_trajectories r "
        "JOIN trajectories h ON h.trajectory_id = r.hint_id WHERE r.phase = 'repairs' AND r.label = 'correct' "
        "ORDER BY r.parent_id LIMIT 1"
    )
    done = finished_run.heal("show", row["parent_id"], "-w", finished_run.workspace)
    assert done.returncode == 0, done.stderr
    for word in (row["parent_id"], "entropy by step, nats", "breakpoint: surge", "hint", "repair", "correct"):
        assert word in done.stdout
    assert row["hint"].split()[0] in done.stdout
    repair = finished_run.heal("show", row["trajectory_id"][:16], "-w", finished_run.workspace)
    assert repair.returncode == 0, repair.stderr
    for word in (
        row["trajectory_id"],
        "kept steps",
        "never in an example",
        "continuation",
        "PURE: ratio",
        "gate: kept",
    ):
        assert word in repair.stdout


def test_show_of_an_ambiguous_or_unknown_id(finished_run: Any) -> None:
    assert_mistake(finished_run.heal("show", "", "-w", finished_run.workspace), "more than one id", "give more")
    assert_mistake(finished_run.heal("show", "none", "-w", finished_run.workspace), "'none'", "heal sql")


def test_looking_loads_neither_torch_nor_prefect(finished_run: Any) -> None:
    script = (
        "import sys; sys.argv = ['heal', 'sql', 'SELECT 1 AS one', '-f', 'csv', '-w', sys.argv[1]]\n"
        "from flows.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print(*{'torch', 'prefect', 'transformers'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", script, str(finished_run.workspace)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["one", "1"], done.stdout + done.stderr
