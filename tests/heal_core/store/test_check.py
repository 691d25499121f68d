import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy
import pytest
import safetensors.numpy

from heal_core.errors import StoreError, WorkspaceBusyError
from heal_core.sft.folders import mark_complete
from heal_core.store.check import CheckReport, Severity, check_store
from heal_core.store.parts import list_parts, write_part
from heal_core.store.rewrite import rebuild
from heal_core.store.workspace import Workspace


@pytest.fixture
def ids(store_maker) -> dict[str, str]:
    return store_maker.write_run("run", "p0")


def part(workspace: Workspace, table: str) -> Path:
    return next((workspace.parts / table).glob("*.parquet"))


STAGE = 32 * "c"


def train(workspace: Workspace, marked: bool = True) -> Path:
    """Write the folder of a finished stage; return its weights."""
    folder = workspace.checkpoints / STAGE
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = folder / "model.safetensors"
    safetensors.numpy.save_file({"w": numpy.zeros(1000)}, weights)
    if marked:
        mark_complete(folder)
    return weights


def back_up(workspace: Workspace, target: Path) -> Workspace:
    """Copy what docs/store.md says that a backup needs."""
    for name in ("parts", "checkpoints"):
        shutil.copytree(workspace.root / name, target / name)
    return Workspace(target)


def change(workspace: Workspace, sql: str) -> None:
    with duckdb.connect(str(workspace.writer_database)) as connection:
        connection.execute(sql)


def words(report: CheckReport, severity: Severity = Severity.DAMAGE) -> str:
    return "; ".join(f"{f.what}. {f.remedy}" for f in report.findings if f.severity is severity)


def test_a_store_as_a_run_leaves_it_is_sound(workspace: Workspace, ids: dict[str, str]) -> None:
    report = check_store(workspace)
    assert report.findings == ()
    assert report.is_sound
    assert report.num_parts == len(list_parts(workspace.parts))
    # problem, recipe, run, its problem, its event, and of three samples each: itself, its verdict, its use
    assert report.num_rows == 5 + 3 * 3


def test_a_workspace_in_which_nothing_was_stored_so_far_is_sound(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "new")
    workspace.create()
    with workspace.lock():
        pass
    report = check_store(workspace)
    assert report.is_sound and "nothing has been stored so far" in words(report, Severity.NOTE)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_in_a_part_is_found(workspace: Workspace, ids: dict[str, str]) -> None:
    path = part(workspace, "trajectories")
    flip(path)
    report = check_store(workspace)
    assert not report.is_sound
    assert f"{path} is damaged: its bytes do not match its name. Restore it from a backup, or run" in words(report)


def test_a_part_that_is_gone_is_found(workspace: Workspace, ids: dict[str, str]) -> None:
    path = part(workspace, "verdicts")
    path.unlink()
    assert f"merged parts are gone: 1 ({path.stem})" in words(check_store(workspace))


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("UPDATE trajectories SET text = 'forged' WHERE kind = 'repair'", "rows of trajectories differ from those of"),
        ("UPDATE verdicts SET label = 'wrong'", "rows of verdicts differ from those of the parts: 3 ("),
        ("DELETE FROM run_rows WHERE kind = 'hint'", "rows of run_rows are in parts only: 1 ("),
        ("INSERT INTO recipes VALUES ('x', 'rollout', 'm', '{}')", "rows of recipes differ from those of the parts: 1"),
        ("INSERT INTO recipes FROM recipes", "rows of recipes are there twice: 1 (recipe 0)"),
        ("DELETE FROM problems", "rows of trajectories have a problem_id that is not there: 3 ("),
        ("DELETE FROM trajectories WHERE kind = 'hint'", "runs use a hint that is not there: 1 ("),
        ("DELETE FROM verdicts", "rows of run_rows have a verdict_id that is not there: 3 ("),
    ],
)  # fmt: skip
def test_a_row_that_is_not_what_was_stored_is_found(
    workspace: Workspace, ids: dict[str, str], sql: str, found: str
) -> None:
    change(workspace, sql)
    report = check_store(workspace)
    assert not report.is_sound
    assert found in words(report)


def test_token_arrays_that_are_not_aligned_are_found(workspace: Workspace, store_maker, make_rows, make_slot) -> None:
    store_maker.write_run("run", "p0")
    (row,) = make_rows([make_slot("p0", index=5)])
    from heal_core.store.store import Store

    with Store(workspace) as store:
        row["entropies"] = [*row["entropies"], 0.5]
        store.append("trajectories", [row | {"recipe_id": "recipe 0"}])
    report = check_store(workspace)
    assert f"token arrays that are not aligned or not finite: 1 ({row['trajectory_id']})" in words(report)


def test_a_checkpoint_whose_folder_is_gone_is_found_and_a_folder_without_a_row_is_noted(
    workspace: Workspace, ids: dict[str, str], store_maker
) -> None:
    (workspace.checkpoints / "abc.partial").mkdir()
    (workspace.checkpoints / "of a user").mkdir()
    change(
        workspace,
        "INSERT INTO checkpoints VALUES ('c1', NULL, 'I', 'checkpoints/c1', 1, 0, 1, 1, NULL, NULL, 1, '{}')",
    )
    report = check_store(workspace)
    assert "folders of checkpoints are gone: 1 (c1)" in words(report)
    assert "of a user" not in words(report)
    assert "in checkpoints/ without a row: 2 (abc.partial, of a user)" in words(report, Severity.NOTE)


def test_what_hurts_nothing_is_only_noted(workspace: Workspace, ids: dict[str, str], tmp_path: Path) -> None:
    (workspace.parts / "recipes" / "x.parquet.1-1.tmp").touch()
    (workspace.parts / "recipes" / "notes.txt").touch()
    waiting = part(workspace, "recipes")
    rows = duckdb.read_parquet(str(waiting)).to_arrow_table()
    write_part(workspace.parts, "recipes", rows, 99, "0001_initial")
    report = check_store(workspace)
    assert report.is_sound
    noted = words(report, Severity.NOTE)
    assert "parts not merged yet: 1 (" in noted
    assert "left over by a kill or set aside: 1 (parts/recipes/x.parquet.1-1.tmp)" in noted
    assert "in parts/, but none: 1 (notes.txt)" in noted


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("hello " * 5000)])
def test_a_database_that_is_gone_or_no_database_is_found(
    workspace: Workspace, ids: dict[str, str], damage: Callable[[Path], object]
) -> None:
    damage(workspace.writer_database)
    report = check_store(workspace)
    assert "writer.duckdb cannot be read" in words(report)
    assert "Run `heal store rebuild`" in words(report)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [Path.unlink, halve, lambda path: path.write_bytes(b"")])
def test_a_published_copy_that_is_gone_or_cut_is_found(
    workspace: Workspace, ids: dict[str, str], damage: Callable[[Path], object]
) -> None:
    damage(workspace.database)
    report = check_store(workspace)
    assert not report.is_sound
    assert f"{workspace.database} cannot be read: " in words(report)
    assert "Run `heal store rebuild`" in words(report)
    rebuild(workspace)
    assert check_store(workspace).findings == ()


@pytest.mark.parametrize("name", ["database", "writer_database"])
def test_a_flipped_bit_in_any_block_of_a_database_is_found(
    workspace: Workspace, ids: dict[str, str], name: str
) -> None:
    database: Path = getattr(workspace, name)
    with duckdb.connect(str(database), read_only=True) as connection:
        size = "SELECT block_size, total_blocks, free_blocks FROM pragma_database_size()"
        ((block_bytes, num_blocks, num_free),) = connection.execute(size).fetchall()
    whole = database.read_bytes()
    found = 0
    for block in range(num_blocks):
        # blocks are counted from the end: headers come before the first
        position = len(whole) - block * block_bytes - block_bytes // 2
        database.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        found += f"{database} cannot be read: " in words(check_store(workspace))
    assert num_blocks > num_free + 3
    assert found == num_blocks - num_free  # DuckDB reads no free block


def test_a_database_that_another_process_has_open_is_not_called_damaged(
    workspace: Workspace, ids: dict[str, str]
) -> None:
    holder = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(workspace.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match=r"heal\.duckdb is open in another process .*Close it there"):
            check_store(workspace)
        process.kill()


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (halve, "model.safetensors "),
        (Path.unlink, "safetensors is gone"),
        (lambda weights: weights.write_bytes(b""), "model.safetensors "),
        (lambda weights: weights.write_bytes(bytes(weights.stat().st_size)), "model.safetensors cannot be read ("),
        (lambda weights: weights.with_name("config.json").write_bytes(b""), "config.json "),
    ],
)
def test_a_cut_checkpoint_is_found_with_or_without_a_mark(
    workspace: Workspace, ids: dict[str, str], damage: Callable[[Path], object], found: str, marked: bool
) -> None:
    weights = train(workspace, marked)
    assert check_store(workspace).is_sound
    assert check_store(workspace).num_checkpoints == 1
    damage(weights)
    report = check_store(workspace)
    assert not report.is_sound
    said = words(report)
    assert f"checkpoint {STAGE} is damaged: 1 (" in said and found in said
    assert "delete the folder: it is trained again" in said


def test_the_files_of_a_backup_without_databases_are_checked(
    workspace: Workspace, ids: dict[str, str], tmp_path: Path
) -> None:
    train(workspace)
    backup = back_up(workspace, tmp_path / "backup")
    report = check_store(backup)
    assert report.is_sound
    assert "there is no folder store/: only files were checked. Run `heal store rebuild`" in words(
        report, Severity.NOTE
    )
    assert (report.num_parts, report.num_rows, report.num_checkpoints) == (len(list_parts(workspace.parts)), 14, 1)
    assert sorted(path.name for path in backup.root.iterdir()) == ["checkpoints", "parts"]
    flip(part(backup, "verdicts"))
    halve(backup.checkpoints / STAGE / "model.safetensors")
    said = words(check_store(backup))
    assert "its bytes do not match its name" in said
    assert f"checkpoint {STAGE} is damaged" in said


def test_checking_changes_nothing(workspace: Workspace, ids: dict[str, str], tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        files = [path for path in workspace.root.rglob("*") if path.is_file() and path.name != "lock"]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = state()
    check_store(workspace)
    assert state() == before


def test_a_folder_without_a_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store in .*Give its --workspace"):
        check_store(Workspace(tmp_path))


def test_a_store_in_use_is_not_checked(workspace: Workspace, ids: dict[str, str]) -> None:
    with workspace.lock(), pytest.raises(WorkspaceBusyError, match="is in use by process"):
        check_store(workspace)


def test_a_copy_of_a_workspace_is_as_sound_as_the_workspace(
    workspace: Workspace, ids: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(workspace.root, tmp_path / "copy")
    assert check_store(Workspace(tmp_path / "copy")).findings == ()
