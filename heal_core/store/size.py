"""How much room a workspace takes, and for what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heal_core.store.workspace import Workspace


@dataclass(frozen=True)
class SizeRow:
    """One kind of file: where, how many of them, and their bytes."""

    what: str
    num_files: int
    num_bytes: int


def measure_size(workspace: Workspace) -> list[SizeRow]:
    """Return the room each kind of file takes, the parts by table; files may vanish while it looks."""
    rows = [_row(f"parts/{table.name}", table.rglob("*")) for table in _folders(workspace.parts)]
    rows.append(_row("heal.duckdb (published copy)", workspace.root.glob("heal.duckdb*")))
    rows.append(_row("store/writer.duckdb", workspace.writer_database.parent.glob("writer.duckdb*")))
    others = [path for path in workspace.writer_database.parent.glob("*") if not path.name.startswith("writer.duckdb")]
    rows.append(_row("store/ (backups, set aside)", others))
    for folder in (workspace.checkpoints, workspace.cache, workspace.logs, workspace.root / ".prefect"):
        rows.append(_row(f"{folder.name}/", folder.rglob("*")))
    return rows


def folder_bytes(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    return sum(_sizes([path, *path.rglob("*")]))


def _row(what: str, paths: Iterator[Path] | list[Path]) -> SizeRow:
    sizes = list(_sizes(paths))
    return SizeRow(what, len(sizes), sum(sizes))


def _sizes(paths: Iterator[Path] | list[Path]) -> Iterator[int]:
    for path in paths:
        try:
            if path.is_file() and not path.is_symlink():
                yield path.stat().st_size
        except FileNotFoundError:
            continue  # a run goes on meanwhile


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
