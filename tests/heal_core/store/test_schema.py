"""What a store says of its own tables, views and columns, and the page that is made from it."""

from __future__ import annotations

import re
from importlib import resources

import duckdb

from heal_core.store.inspect import open_store
from heal_core.store.schema import schema_page
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

UNDESCRIBED = """
    SELECT table_name || '.' || column_name AS name FROM duckdb_columns()
    WHERE NOT internal AND trim(coalesce(comment, '')) = ''
    UNION ALL SELECT table_name FROM duckdb_tables() WHERE NOT internal AND trim(coalesce(comment, '')) = ''
    UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal AND trim(coalesce(comment, '')) = ''
    ORDER BY name
"""


def test_every_table_view_and_column_of_both_is_described(store: Store) -> None:
    assert [row["name"] for row in store.rows(UNDESCRIBED)] == []
    # the query would find one
    store.rows("CREATE VIEW forgotten AS SELECT 1 AS one")
    assert [row["name"] for row in store.rows(UNDESCRIBED)] == ["forgotten", "forgotten.one"]


def test_readers_find_the_descriptions_after_the_store_was_opened_again(workspace: Workspace) -> None:
    for _ in range(2):
        Store(workspace).close()
    with open_store(workspace.root) as reader:
        assert reader.execute(UNDESCRIBED).fetchall() == []
        views = reader.execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchall()
        assert views[0][0] > 20


def test_a_store_of_the_first_schema_has_all_descriptions_once_it_is_opened(workspace: Workspace) -> None:
    folder = resources.files("heal_core.store")
    with duckdb.connect(str(workspace.writer_database)) as old:
        old.execute((folder / "meta.sql").read_text())
        old.execute((folder / "migrations" / "0001_initial.sql").read_text())
        old.execute("INSERT INTO migrations VALUES ('0001_initial', now())")
    with Store(workspace) as store:
        assert store.rows(UNDESCRIBED) == []


def test_a_view_of_a_run_has_its_run_id_first() -> None:
    # these views are about no single run, and eval_summary begins as its table does
    others = {"latest_verdicts", "verifier_disagreements", "run_comparison", "tokens", "eval_summary"}
    page = schema_page()
    views = re.findall(r"^### (\w+)\n[^\n]+\n\n\| column \| type \| what it is \|\n\| [^\n]+\n\| `(\w+)`", page, re.M)
    assert len(views) > 20
    assert {name for name, first in views if first != "run_id"} == others


def test_the_page_has_every_relation_with_its_columns_in_order(store: Store) -> None:
    page = schema_page()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.M | re.S))
    columns = store.rows(
        "SELECT table_name, list(column_name ORDER BY column_index) AS names FROM duckdb_columns() "
        "WHERE NOT internal GROUP BY table_name"
    )
    assert sections.keys() == {row["table_name"] for row in columns}
    for row in columns:
        assert re.findall(r"^\| `(\w+)` \|", sections[row["table_name"]], re.M) == row["names"]


def test_the_page_says_which_columns_of_a_table_may_be_null(store: Store) -> None:
    page = schema_page()
    assert "| `text` | VARCHAR |  | The sampled text; the whole response is prefix \\|\\| text. |" in page
    assert (
        "| `extracted` | VARCHAR | null | The answer that was read from the text; null when there was none. |" in page
    )
    for row in store.rows("SELECT name FROM migrations"):
        assert f"| `{row['name']}` |" in page
