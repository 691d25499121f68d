"""Tokenised examples on disk, under a key of all that they are made of, so that training again tokenises nothing.

A stage's examples are one Arrow file that is read by memory map, so that the tokens of a large
stage need no memory of their own. What an example becomes is in `data`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from heal_core.keys import content_key
from heal_core.sft import folders
from heal_core.sft.data import Example, TokenisedExample, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 1
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("num_prompt_tokens", pa.int32()), ("position", pa.int32())])
"""One row per example; one that is too long has no `input_ids`."""

_ROWS_AT_ONCE = 1000
_KEPT_SECONDS = 14 * 86_400


class StoredExamples(Sequence[TokenisedExample]):
    """The examples of a file that fit, read when they are asked for.

    Attributes:
        table: All rows of the file.
        positions: Those that fit.
        key: Of what they are made of.
    """

    def __init__(self, table: pa.Table, example_ids: Sequence[str], key: str) -> None:
        self.table = table
        self.key = key
        self.positions: list[int] = np.flatnonzero(table["input_ids"].is_valid().to_numpy()).tolist()
        self._example_ids = example_ids

    def __len__(self) -> int:
        return len(self.positions)

    def lengths(self) -> list[int]:
        """Return the tokens of each, without reading them."""
        lengths: list[int] = pc.list_value_length(self.table["input_ids"]).drop_null().to_pylist()
        return lengths

    def ids(self) -> list[str]:
        """Return the id of each."""
        return [self._example_ids[position] for position in self.positions]

    @overload
    def __getitem__(self, index: int) -> TokenisedExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenisedExample]: ...
    def __getitem__(self, index: int | slice) -> TokenisedExample | list[TokenisedExample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = self.positions[index]
        return TokenisedExample(
            example_id=self._example_ids[position],
            input_ids=self.table["input_ids"][position].as_py(),
            num_prompt_tokens=self.table["num_prompt_tokens"][position].as_py(),
            position=position,
        )


def tokenise_cached(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path
) -> tuple[StoredExamples, tuple[str, ...]]:
    """Return the examples that fit, and the ids of those that are too long, as `data.tokenise_examples` does.

    They are read from `folder` if it has them, else written there first. Of several processes one writes, and
    the others wait for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = tokenised_key(examples, tokenizer, max_length)
    path = folder / f"{key}.arrow"
    with path.with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            folders.write_file(path, lambda temporary: _write(temporary, examples, tokenizer, max_length))
    os.utime(path)
    _remove_unused(folder)
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    example_ids = [example.example_id for example in examples]
    over_long = np.flatnonzero(table["input_ids"].is_null().to_numpy())
    return StoredExamples(table, example_ids, key), tuple(example_ids[i] for i in over_long)


def _remove_unused(folder: Path) -> None:
    """Remove what no training has asked for in two weeks, and what killed writers left."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            if path.suffix != ".lock" and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                path.unlink()


def tokenised_key(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    """Return the content key of a stage's tokens: texts, tokenizer, chat template, and the longest that fits."""
    texts = hashlib.sha256()
    for example in examples:
        for text in (example.example_id, example.prompt, example.response):
            texts.update(f"{len(text)}:".encode() + text.encode("utf-8", "surrogatepass"))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return content_key(
        "tokenised",
        FORMAT,
        texts.hexdigest(),
        hashlib.sha256(vocabulary.encode("utf-8", "surrogatepass")).hexdigest(),
        type(tokenizer).__name__,
        str(tokenizer.chat_template),
        {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())},
        importlib.metadata.version("transformers"),
        max_length,
    )


def _write(path: Path, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for start, rows in _batches(tokenise(examples, tokenizer, max_length)):
            columns = {
                "input_ids": [row.input_ids if row is not None else None for row in rows],
                "num_prompt_tokens": [row.num_prompt_tokens if row is not None else None for row in rows],
                "position": range(start, start + len(rows)),
            }
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=_SCHEMA))


def _batches(rows: Iterator[TokenisedExample | None]) -> Iterator[tuple[int, list[TokenisedExample | None]]]:
    start = 0
    while batch := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        yield start, batch
        start += len(batch)
