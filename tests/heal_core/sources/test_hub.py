"""Hugging Face datasets through the library's real loader, offline, on folders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heal_core.errors import InputError
from heal_core.sources.row import SourceRow

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.slow  # the library takes seconds to import

Read = Callable[..., list[SourceRow]]
ROWS = [{"question": f"{n} + {n}?", "answer": 2 * n + 0.1, "level": n} for n in range(5)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def saved(folder: Path) -> Path:
    """A folder of `save_to_disk`, with the splits train and test."""
    parts = {"train": datasets.Dataset.from_list(ROWS[:3]), "test": datasets.Dataset.from_list(ROWS[3:])}
    datasets.DatasetDict(parts).save_to_disk(folder / "saved")
    return folder / "saved"


def parquet(folder: Path) -> Path:
    """A folder of Parquet files, as datasets on the hub are."""
    (folder / "data").mkdir()
    for split, rows in (("train", ROWS[:3]), ("test", ROWS[3:])):
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("make", [saved, parquet])
def test_a_split_of_a_folder_is_read(tmp_path: Path, read: Read, make: Callable[[Path], Path], streaming: bool) -> None:
    (tmp_path / "set").mkdir()
    path = str(make(tmp_path / "set"))
    rows = read(dataset={"path": path, "split": "test", "streaming": streaming})
    assert [row.content for row in rows] == [
        {"question": "3 + 3?", "answer": "6.1", "level": "3"},
        {"question": "4 + 4?", "answer": "8.1", "level": "4"},
    ]
    assert [(row.place, row.line, row.name) for row in rows] == [(f"{path}:test", 1, path), (f"{path}:test", 2, path)]


def test_a_dataset_saved_without_splits_is_read(tmp_path: Path, read: Read) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    assert len(read(dataset={"path": str(tmp_path / "one")})) == 5


def test_a_filter_and_a_sample_work_on_its_columns(tmp_path: Path, read: Read) -> None:
    path = str(saved(tmp_path))
    (row,) = read(dataset={"path": path}, filter="level >= 1 AND question LIKE '2%'", sample=5)
    assert row.content["level"] == "2"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_night_finds_the_rows_that_are_new(tmp_path: Path, read: Read, streaming: bool) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    settings = {"path": str(folder), "streaming": streaming}
    (folder / "a.jsonl").write_text('{"question": "1?", "answer": "1"}\n')
    assert len(read(dataset=settings)) == 1
    (folder / "b.jsonl").write_text('{"question": "2?", "answer": "2"}\n')
    assert len(read(dataset=settings)) == 2


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("make", [saved, parquet])
def test_a_split_that_is_not_there_is_an_error(
    tmp_path: Path, read: Read, make: Callable[[Path], Path], streaming: bool
) -> None:
    (tmp_path / "set").mkdir()
    path = str(make(tmp_path / "set"))
    with pytest.raises(InputError, match=r"the dataset .*:none cannot be read: .*none"):
        read(dataset={"path": path, "split": "none", "streaming": streaming})


def test_a_configuration_that_is_not_there_is_an_error(tmp_path: Path, read: Read) -> None:
    with pytest.raises(InputError, match=r"'algebra' not found.*Check path, name"):
        read(dataset={"path": str(parquet(tmp_path)), "name": "algebra"})


def test_offline_a_dataset_of_the_hub_is_an_error_that_says_so() -> None:
    # in a process of its own: the library reads the variable when it is imported
    code = (
        "from heal_core.sources.config import SourceConfig\n"
        "from heal_core.sources.read import Tally, read_source\n"
        "list(read_source(SourceConfig(dataset={'path': 'openai/gsm8k', 'name': 'main'}), Tally()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("heal_core.errors.InputError: the dataset openai/gsm8k:main:train cannot be read: ")
    assert last.endswith("HF_HUB_OFFLINE is set: only folders and the cache are looked at.")
