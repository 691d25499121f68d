"""The files that a path names: one, those of a glob, or behind a URL through fsspec.

A glob is expanded whenever it is asked, so that a night finds the files that are new. What does
not belong here: what is in the files (a module per format).
"""

from __future__ import annotations

import glob
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import IO, Any, cast
from zipfile import BadZipFile

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import infer_compression

from heal_core.errors import InputError
from heal_core.sources.config import Format

_EXPECTED = (
    "Expected a JSON Lines, CSV or Parquet file; set `problems.path` (or `problems.evaluation_path`, or the "
    "source's `path`) to one, to a glob such as data/*.jsonl, or to a URL of either."
)
_FORMATS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet"}
_COMPRESSED = (".gz", ".bz2", ".xz")
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, BadZipFile)


@dataclass(frozen=True)
class SourceFile:
    """One file of a source; `place` is how the user would name it."""

    place: str
    path: str
    file_system: Any

    @property
    def name(self) -> str:
        # the query of a web address is no part of the name
        return PurePosixPath(self.place.partition("?")[0] if self._is_http else self.place).name

    @property
    def _is_http(self) -> bool:
        return self.place.startswith(("http://", "https://"))

    @property
    def format(self) -> Format:
        """What the ending says; any other one is JSON Lines."""
        name = PurePosixPath(self.name)
        if name.suffix in _COMPRESSED:
            name = name.with_suffix("")
        return _FORMATS.get(name.suffix, "jsonl")

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open it for reading, unpacked by its ending (.gz, .bz2, .xz).

        Raises:
            InputError: If it cannot be opened, or reading breaks off.
        """
        try:
            with ExitStack() as stack:
                path, file_system = self.path, self.file_system
                if self._is_http:  # many web servers give a file only as a whole
                    path, file_system = stack.enter_context(NamedTemporaryFile()).name, LocalFileSystem()
                    self.file_system.get_file(self.path, path)
                compression = infer_compression(self.name)
                yield cast(IO[bytes], stack.enter_context(file_system.open(path, "rb", compression=compression)))
        except _UNREADABLE as error:
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            raise InputError(f"cannot read the problem file {self.place}: {reason}. {_EXPECTED}") from error


def find_files(path: str) -> list[SourceFile]:
    """Return the files of a path, sorted by name.

    Raises:
        InputError: If a glob matches nothing, or a URL cannot be used.
    """
    files = _remote_files(path) if "://" in path else _local_files(path)
    if not files:
        raise InputError(f"no problem file matches {path}. {_EXPECTED}")
    return files


def _local_files(path: str) -> list[SourceFile]:
    file_system = LocalFileSystem()
    # a file whose very name holds a bracket is meant as it stands
    if not glob.has_magic(path) or os.path.exists(path):
        return [SourceFile(str(Path(path)), path, file_system)]
    found = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
    return [SourceFile(str(Path(name)), name, file_system) for name in found]


def _remote_files(url: str) -> list[SourceFile]:
    try:
        file_system, path = fsspec.core.url_to_fs(url)
        if not any(sign in path for sign in "*["):  # a ? begins the query of a URL
            return [SourceFile(url, path, file_system)]
        file_system.invalidate_cache()  # else a long-lived process would not see what is new
        found = sorted(file_system.glob(path))
    except ImportError as error:
        raise InputError(
            f"{url} cannot be read: {error}. Install it with `pip install 'heal-distill[fsspec]'`, "
            "which brings s3://, gs:// and http(s)://."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{url} cannot be read: {error}. {_EXPECTED}") from error
    return [SourceFile(str(file_system.unstrip_protocol(name)), name, file_system) for name in found]
