import threading
from pathlib import Path

import pytest

from heal_core.errors import StoreError
from heal_core.store import durable


def test_a_file_gets_its_name_once_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "file"
    final.write_text("old")
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append((final.read_text(), temporary.parent, temporary.suffix))

    durable.write_atomically(final, write)
    assert seen == [("old", tmp_path, ".tmp")]
    assert final.read_text() == "new"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("step", ["sync_file", "replace_file"])
def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    final = tmp_path / "file"
    final.write_text("old")

    def fail(*_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, step, fail)
    with pytest.raises(StoreError, match=r"the disk is full: .*file could not be written.*free some space"):
        durable.write_atomically(final, lambda temporary: temporary.write_text("new"))
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_bytes_are_synced_before_they_get_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, replace = durable.sync_file, durable.replace_file
    monkeypatch.setattr(durable, "sync_file", lambda path: (steps.append(f"sync {path.suffix}"), sync(path)))
    monkeypatch.setattr(durable, "replace_file", lambda a, b: (steps.append("rename"), replace(a, b)))
    durable.write_atomically(tmp_path / "file", lambda temporary: temporary.write_text("new"))
    assert steps == ["sync .tmp", "rename", "sync "]  # the last is the folder, which holds the name


def test_two_threads_may_write_one_file(tmp_path: Path) -> None:
    # both once wrote to the same temporary name, and the slower one found it gone
    barrier = threading.Barrier(2, timeout=10)
    failures: list[BaseException] = []

    def write(temporary: Path) -> None:
        temporary.write_text("same")
        barrier.wait()

    def work() -> None:
        try:
            durable.write_atomically(tmp_path / "file", write)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.read_text() for path in tmp_path.iterdir()] == ["same"]


def test_a_sweep_takes_files_and_leaves_folders(tmp_path: Path) -> None:
    # DuckDB spills into <database>.tmp/, which once stopped every later start
    spill = tmp_path / "heal.duckdb.tmp"
    spill.mkdir()
    (spill / "duckdb_temp_storage.tmp").touch()
    (tmp_path / "part.parquet.7-8.tmp").touch()
    (tmp_path / "part.parquet").touch()
    assert durable.sweep_temporaries(tmp_path) == ["part.parquet.7-8.tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heal.duckdb.tmp", "part.parquet"]
    assert len(list(spill.iterdir())) == 1
