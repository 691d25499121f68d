"""Arrow batches as rows, and Parquet files, which are read as such."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from heal_core.errors import InputError
from heal_core.sources.files import SourceFile
from heal_core.sources.row import SourceRow, as_written

BATCH_ROWS = 1024


def read_parquet(source: SourceFile) -> Iterator[SourceRow]:
    """Yield the rows of a Parquet file, a batch in memory at a time.

    Raises:
        InputError: If the file cannot be read, or names a column twice.
    """
    try:
        with source.open() as file, pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InputError(f"{source.place} has the column {twice[0]!r} twice. Rename one of them.")
            line = 1
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS):
                yield from rows_of_batch(batch, source.place, source.name, line)
                line += batch.num_rows
    except pa.ArrowException as error:
        raise InputError(
            f"{source.place} is no sound Parquet file: {error}. Write it again, or set the source's `format`."
        ) from error


def rows_of_batch(batch: Any, place: str, name: str, first_line: int) -> Iterator[SourceRow]:
    """Yield the rows of a RecordBatch or Table; numbers as text."""
    columns = {column: _values(batch[column]) for column in batch.schema.names}
    for index in range(batch.num_rows):
        yield SourceRow(place, first_line + index, name, {key: values[index] for key, values in columns.items()})


def _values(column: Any) -> list[Any]:
    if pa.types.is_float16(column.type) or pa.types.is_float32(column.type):
        # NumPy keeps the width, by which the shortest digits are found; to_pylist would widen 0.1
        narrow = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return [as_written(value) for value in narrow.to_numpy(zero_copy_only=False)]
    return [as_written(value) for value in column.to_pylist()]
