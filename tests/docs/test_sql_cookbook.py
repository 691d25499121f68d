"""The queries of the documents run against the schema as it is, so that no document names a column that is gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from heal_core.store.inspect import open_store, run_query
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
COOKBOOK = re.findall(r"^```sql\n(.*?)^```$", (ROOT / "docs/sql.md").read_text(), re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, query) for page in PAGES for query in re.findall(r'^[^`\n]*heal sql "([^"]+)"', page.read_text(), re.M)
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The published copy of a workspace that holds no rows."""
    root = tmp_path_factory.mktemp("empty")
    workspace = Workspace(root)
    workspace.create()
    Store(workspace).close()
    with open_store(root) as connection:
        yield connection


def test_documents_hold_queries() -> None:
    assert len(COOKBOOK) >= 12
    assert any(page == "README.md" for page, _ in COMMANDS)


@pytest.mark.parametrize("query", COOKBOOK, ids=lambda query: " ".join(query.split())[:60])
def test_cookbook_query_runs(store: duckdb.DuckDBPyConnection, query: str) -> None:
    columns, _ = run_query(store, query)
    assert len(set(columns)) == len(columns) > 1


@pytest.mark.parametrize(("page", "query"), [pytest.param(*command, id=command[1][:60]) for command in COMMANDS])
def test_command_in_a_document_runs(store: duckdb.DuckDBPyConnection, page: str, query: str) -> None:
    if query != "QUERY":  # the synopsis
        assert run_query(store, query)[0]
