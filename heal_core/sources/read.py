"""The rows of a source, one at a time: read, filtered, sampled, and counted on the way.

What does not belong here: what a row means, and whether it is a problem (`heal_core/problems.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from heal_core.errors import InputError
from heal_core.sources.arrow_rows import read_parquet
from heal_core.sources.config import Format, SourceConfig
from heal_core.sources.csv_text import read_csv
from heal_core.sources.files import SourceFile, find_files
from heal_core.sources.filter import parse_filter
from heal_core.sources.function import read_function
from heal_core.sources.gym import read_gym
from heal_core.sources.hub import read_dataset
from heal_core.sources.json_lines import read_json_lines
from heal_core.sources.row import Refusal, SourceRow
from heal_core.sources.sample import Sample

_READERS: dict[Format, Callable[[SourceFile], Iterator[SourceRow]]] = {
    "jsonl": read_json_lines,
    "csv": read_csv,
    "parquet": read_parquet,
}


@dataclass
class Tally:
    """What was met while a source was read; a row that could not be read is in `num_read` only."""

    num_read: int = 0
    num_filtered_out: int = 0
    num_not_sampled: int = 0
    columns: set[str] = field(default_factory=set)


def read_source(config: SourceConfig, tally: Tally) -> Iterator[SourceRow]:
    """Yield the rows that pass the filter and are drawn, and those that could not be read.

    Rows that are not asked for, since the caller stops, are neither counted nor, but for a batch, read.

    Raises:
        InputError: If the source cannot be read, or its filter cannot be meant.
    """
    rows = _filtered(config, tally)
    if config.sample is None:
        yield from rows
        return
    sample = Sample(config.sample, config.sample_seed)
    num_offered = 0
    for row in rows:
        if isinstance(row.content, Refusal):
            yield row
        else:
            sample.offer(row)
            num_offered += 1
    tally.num_not_sampled = max(0, num_offered - config.sample)
    yield from sample.rows()


def _filtered(config: SourceConfig, tally: Tally) -> Iterator[SourceRow]:
    if config.filter is None:
        for row in _rows(config):
            _count(row, tally)
            yield row
        return
    condition = parse_filter(config.filter, config.label)
    for row, passes in condition.judge(_rows(config)):
        _count(row, tally)
        if passes:
            yield row
        else:
            tally.num_filtered_out += 1
    if condition.missing and tally.columns:
        found = ", ".join(sorted(tally.columns))
        raise InputError(
            f"the filter {config.filter!r} of {config.label} names {', '.join(sorted(condition.missing))}, "
            f"which no row has. Expected columns of {found}."
        )


def _count(row: SourceRow, tally: Tally) -> None:
    tally.num_read += 1
    if not isinstance(row.content, Refusal):
        tally.columns.update(row.content)


def _rows(config: SourceConfig) -> Iterator[SourceRow]:
    """Yield all rows of the source."""
    if config.path is not None:
        for file in find_files(config.path):
            yield from _READERS[config.format or file.format](file)
    elif config.dataset is not None:
        yield from read_dataset(config.dataset, config.label)
    elif config.function is not None:
        yield from read_function(config.function)
    elif config.reasoning_gym is not None:
        yield from read_gym(config.reasoning_gym, config.label)
