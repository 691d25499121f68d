"""The schema page of the documents, written from what an empty store says of itself.

    python -m heal_core.store.schema > docs/schema.md

What does not belong here: the descriptions. They stand with the tables (`migrations/`), the
views (`views.sql`) and the view `tokens` (`store`), and travel in the database.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

COMMAND = "python -m heal_core.store.schema > docs/schema.md"

_HEAD = f"""# The schema of the store

Made from the descriptions that every store holds in itself, by
`{COMMAND}`. A test fails when this page is stale.
Questions with their queries are in [sql.md](sql.md); how rows get here and stay is in [store.md](store.md).

In any store, the same descriptions are found with:

```
SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE database_name = 'heal'
```

## Rules
- The first column of a table of rows is its content key: 32 hexadecimal digits that follow from what the row
  is about (12 for a run). The same key is the same row, in any workspace. An event's is random.
- Rows are only inserted. None is changed, so what a finished run rests on stays.
- Migrations are named and applied in the order of their names. One that is released is never edited; the next
  change is a new one. They add tables and columns, and take none away.
- What an older part lacks is null: a column that came later may be null in older rows.
- "null" says that a column may have no value. Of a column of a view, its description says when.
- Views hold no data. They are defined anew whenever a run opens the store, so they may be changed at any
  time; a name that was released stays.
- Every view about runs has `run_id`; filter on it. A workspace may hold many runs, and they share rows.
- Names say their unit: `_nats`, `_tokens`, `_seconds`. Shares and rates are within [0, 1]. Steps, tokens,
  characters and samples count from 0.
- `migrations`, `meta`, `parts` and `retired_parts` are about the file and its parts, and belong to no run.
"""


def schema_page() -> str:
    """Return the page: rules, migrations (its history), then tables and views with their columns, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        workspace.create()
        with Store(workspace) as store:
            names = [row["name"] for row in store.rows("SELECT name FROM migrations ORDER BY name")]
            tables = store.rows(
                "SELECT table_name AS name, comment FROM duckdb_tables() WHERE NOT internal ORDER BY table_oid"
            )
            views = store.rows(
                "SELECT view_name AS name, comment FROM duckdb_views() WHERE NOT internal ORDER BY view_oid"
            )
            columns = store.rows(
                "SELECT table_name, column_name, data_type, is_nullable, comment FROM duckdb_columns() "
                "WHERE NOT internal ORDER BY table_name, column_index"
            )
    parts = [_HEAD, "## History", _migrations(names), "## Tables", _index(tables)]
    parts += [_relation(table, columns, is_view=False) for table in tables]
    parts += ["## Views", _index(views)]
    parts += [_relation(view, columns, is_view=True) for view in views]
    return "\n".join(parts)


def _migrations(names: Iterable[str]) -> str:
    return _table([("name", "what it does"), *((f"`{name}`", _purpose(name)) for name in names)])


def _purpose(name: str) -> str:
    """Return the comment that a migration begins with."""
    script = (resources.files("heal_core.store") / "migrations" / f"{name}.sql").read_text()
    lines = []
    for line in script.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return " ".join(lines)


def _index(relations: Sequence[dict[str, Any]]) -> str:
    rows = [(f"[`{relation['name']}`](#{relation['name']})", relation["comment"]) for relation in relations]
    return _table([("name", "what it holds"), *rows])


def _relation(relation: dict[str, Any], columns: Sequence[dict[str, Any]], is_view: bool) -> str:
    own = [column for column in columns if column["table_name"] == relation["name"]]
    lines = [("column", "type", "null", "what it is")]
    lines += [(f"`{c['column_name']}`", c["data_type"], "null" if c["is_nullable"] else "", c["comment"]) for c in own]
    if is_view:  # DuckDB does not know which columns of a view may be null
        listing = _table([(name, kind, comment) for name, kind, _, comment in lines])
    else:
        listing = _table(lines)
    return f"### {relation['name']}\n{relation['comment']}\n\n{listing}"


def _table(lines: Sequence[Sequence[str | None]]) -> str:
    """Return a Markdown table; the first line is its head."""
    head, *rows = lines
    return "".join(
        "| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in (head, ["---"] * len(head), *rows)
    )


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    sys.stdout.write(schema_page())
