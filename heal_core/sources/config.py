"""Where problems come from: the settings of one source.

What does not belong here: reading (`read` and a module per kind), and what is made of the rows
(`heal_core/problems.py`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Meaning = Literal["problem", "answer", "source", "uuid", "problem_type"]
Columns = dict[str, Meaning]
Format = Literal["jsonl", "csv", "parquet"]


def check_columns(columns: Columns) -> Columns:
    """Return the mapping of columns.

    Raises:
        ValueError: If two columns are to mean the same.
    """
    seen: dict[str, str] = {}
    for column, meaning in columns.items():
        if meaning in seen:
            raise ValueError(
                f"columns: both {seen[meaning]!r} and {column!r} are mapped to {meaning}; keep one of them"
            )
        seen[meaning] = column
    return columns


class DatasetConfig(BaseModel):
    """A Hugging Face dataset; names as in `datasets.load_dataset`.

    Attributes:
        path: An id on the hub or a folder: saved with `save_to_disk`, or of Parquet, JSON or CSV files.
        name: Which configuration of the dataset.
        split: Which of its own splits.
        revision: Which version on the hub.
        streaming: Read rows while they arrive, without a copy on disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    name: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False


class SourceConfig(BaseModel):
    """One source of problems: exactly one of `path`, `dataset` and `function`.

    Attributes:
        path: A file, a glob, or a URL of either.
        dataset: A Hugging Face dataset.
        function: `package.module:function`, called without arguments; it returns rows.
        format: Of the files; None goes by the ending, and takes any other one for JSON Lines.
        columns: What the source's columns mean, where their names do not say it.
        filter: A condition in SQL on the source's columns; other rows are left out.
        sample: Take only so many of the rows that pass the filter.
        sample_seed: Which ones.
        limit: Take only the first so many good rows, and read no further.
        split: The side that its problems are on; `hash` decides by the problem.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = None
    dataset: DatasetConfig | None = None
    function: str | None = None
    format: Format | None = None
    columns: Columns = {}
    filter: str | None = None
    sample: int | None = Field(default=None, ge=1)
    sample_seed: int = 0
    limit: int | None = Field(default=None, ge=1)
    split: Literal["hash", "train", "held_out"] = "hash"

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: Columns) -> Columns:
        return check_columns(columns)

    @model_validator(mode="after")
    def _check_kind(self) -> SourceConfig:
        given = [name for name in ("path", "dataset", "function") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a source of problems has {' and '.join(given) or 'none'} of path, dataset and function; "
                "give exactly one"
            )
        if self.format is not None and self.path is None:
            raise ValueError(f"format {self.format} is of files, and this source is a {given[0]}; leave it out")
        if self.sample is not None and self.limit is not None:
            raise ValueError(
                f"sample ({self.sample}) draws from all rows, limit ({self.limit}) stops reading early; "
                "give one of them"
            )
        return self

    @property
    def label(self) -> str:
        """The source as messages and counts name it."""
        if self.dataset is None:
            return str(self.path or self.function)
        parts = (self.dataset.path, self.dataset.name, self.dataset.split, self.dataset.revision)
        return ":".join(part for part in parts if part)
