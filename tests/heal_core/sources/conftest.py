"""Rows of a source as tests read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from heal_core.sources.config import SourceConfig
from heal_core.sources.read import Tally, read_source
from heal_core.sources.row import Refusal, SourceRow


@pytest.fixture
def read() -> Callable[..., list[SourceRow]]:
    """Return a function that reads a source with the given settings to its end."""

    def read_all(**settings: Any) -> list[SourceRow]:
        return list(read_source(SourceConfig(**settings), Tally()))

    return read_all


@pytest.fixture
def contents(read: Callable[..., list[SourceRow]]) -> Callable[..., list[Any]]:
    """Return a function that reads a source to the columns of its rows, or to the reason why not."""

    def read_contents(**settings: Any) -> list[Any]:
        rows = read(**settings)
        return [row.content.reason if isinstance(row.content, Refusal) else dict(row.content) for row in rows]

    return read_contents
