"""Hugging Face datasets as rows: from the hub, from its cache, or from a folder; streaming or not.

The library `datasets` runs no code of a dataset. `HF_HUB_OFFLINE=1` keeps it off
the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heal_core.errors import InputError
from heal_core.sources.arrow_rows import BATCH_ROWS, rows_of_batch
from heal_core.sources.config import DatasetConfig
from heal_core.sources.row import SourceRow

_SAVED_TO_DISK = ("state.json", "dataset_dict.json")


def read_dataset(config: DatasetConfig, label: str) -> Iterator[SourceRow]:
    """Yield the rows of one split, a batch in memory at a time.

    Raises:
        InputError: If the dataset, its configuration or its split is not to be had.
    """
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    try:
        line = 1
        # as Arrow: nothing is decoded that HEAL does not read, such as images
        for batch in _load(config).with_format("arrow").iter(batch_size=BATCH_ROWS):
            yield from rows_of_batch(batch, label, config.path, line)
            line += batch.num_rows
    except (OSError, ValueError, KeyError, DatasetsError, pa.ArrowException) as error:
        offline = " HF_HUB_OFFLINE is set: only folders and the cache are looked at." if _is_offline() else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"the dataset {label} cannot be read: {reason.rstrip('.')}. Check path, name, split and revision.{offline}"
        ) from error


def _load(config: DatasetConfig) -> Any:
    import datasets

    datasets.disable_progress_bars()
    if not any((Path(config.path) / name).is_file() for name in _SAVED_TO_DISK):
        return datasets.load_dataset(
            config.path, config.name, split=config.split, revision=config.revision, streaming=config.streaming
        )
    loaded = datasets.load_from_disk(config.path)  # which maps the files, and so streams in any case
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    if config.split not in loaded:
        raise ValueError(f"it has no split {config.split!r}, but {', '.join(sorted(loaded))}.")
    return loaded[config.split]


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
