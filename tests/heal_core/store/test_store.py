import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from heal_core.errors import StoreError
from heal_core.plan import Slot
from heal_core.store import durable, merge
from heal_core.store import store as store_module
from heal_core.store.parts import list_parts
from heal_core.store.store import Store, open_reader
from heal_core.store.workspace import Workspace

Row = dict[str, Any]
TableRow = Callable[..., Row]

READER = """
import sys, duckdb
store = duckdb.connect(sys.argv[1], read_only=True)
print(store.execute("SELECT count(*) FROM recipes").fetchone()[0], flush=True)
sys.stdin.readline()
print(store.execute("SELECT count(*) FROM recipes").fetchone()[0], flush=True)
"""


def count(store: Store, table: str) -> int:
    return int(store.rows(f"SELECT count(*) AS num FROM {table}")[0]["num"])


def published(workspace: Workspace, sql: str) -> list[tuple]:
    reader = open_reader(workspace)
    try:
        return reader.execute(sql).fetchall()
    finally:
        reader.close()


# ---- append and merge


def test_the_same_rows_twice_are_stored_once(store: Store, table_row: TableRow) -> None:
    row = table_row("recipes")
    assert store.append("recipes", [row]) == 1
    assert store.append("recipes", [row]) == 0
    assert store.rows("SELECT * FROM recipes") == [row]
    assert count(store, "parts") == 1


def test_a_known_id_among_new_ones_keeps_its_first_row(store: Store, table_row: TableRow) -> None:
    store.append("recipes", [table_row("recipes", recipe_id="a", kind="rollout")])
    rows = [table_row("recipes", recipe_id=name, kind="guided") for name in ("a", "b")]
    assert store.append("recipes", rows) == 1
    assert store.rows("SELECT recipe_id, kind FROM recipes ORDER BY ALL") == [
        {"recipe_id": "a", "kind": "rollout"},
        {"recipe_id": "b", "kind": "guided"},
    ]


def test_an_id_twice_in_one_call_is_stored_once(store: Store, table_row: TableRow) -> None:
    # the anti-join sees only what was stored before, so that both once went in
    rows = [table_row("recipes", kind=kind) for kind in ("rollout", "guided")]
    assert store.append("recipes", rows) == 1
    assert store.rows("SELECT kind FROM recipes") == [{"kind": "rollout"}]


def test_no_rows_make_no_part(store: Store, workspace: Workspace) -> None:
    assert store.append("recipes", []) == 0
    assert list_parts(workspace.parts) == []


def test_the_ledger_tells_every_part(store: Store, workspace: Workspace, table_row: TableRow) -> None:
    store.append("recipes", [table_row("recipes", recipe_id=name) for name in "ab"])
    store.append("problems", [table_row("problems")])
    ledger = store.rows("SELECT part_name, table_name, num_rows, num_bytes FROM parts ORDER BY table_name")
    files = sorted(list_parts(workspace.parts), key=lambda part: part.table_name)
    assert ledger == [
        {
            "part_name": part.part_name,
            "table_name": part.table_name,
            "num_rows": rows,
            "num_bytes": part.path.stat().st_size,
        }
        for part, rows in zip(files, (1, 2), strict=True)
    ]


def test_values_come_back_as_they_went_in(store: Store, table_row: TableRow) -> None:
    raw = "NUL \x00, quote ', émigré, 数, \U0001f600, \r\n"
    event = table_row("run_events", detail='{"a": [1, null], "b": NaN}', happened_at=datetime.now(UTC))
    store.append("quarantine", [table_row("quarantine", raw=raw)])
    store.append("run_events", [event])
    assert store.rows("SELECT raw FROM quarantine") == [{"raw": raw}]
    assert store.rows("SELECT * FROM run_events") == [event]


@pytest.mark.parametrize(
    ("table", "changes", "said"),
    [
        ("recipe", {}, "there is no table 'recipe'; known: .*recipes"),
        ("recipes", {"kind": None}, r"row recipe for table recipes has no value in the columns \['kind'\]"),
    ],
)
def test_rows_that_cannot_be_merged_are_refused_before_they_are_durable(
    store: Store, workspace: Workspace, table_row: TableRow, table: str, changes: Row, said: str
) -> None:
    # such a part once stood, and no later start could open the store
    good = table_row("recipes", recipe_id="good")
    with pytest.raises(StoreError, match=said):
        store.append(table, [good, table_row("recipes") | changes])
    assert list_parts(workspace.parts) == []


def test_missing_and_unknown_columns_of_any_row_are_named(store: Store, table_row: TableRow) -> None:
    short = table_row("recipes")
    del short["settings"]
    for row, said in (
        (short, r"lacks the columns \['settings'\] and has the unknown columns \[\]"),
        (table_row("recipes") | {"setting": "{}"}, r"lacks the columns \[\] and has the unknown columns \['setting'\]"),
    ):
        with pytest.raises(StoreError, match=said):
            store.append("recipes", [table_row("recipes", recipe_id="good"), row])
    assert count(store, "recipes") == 0


def test_threads_may_append_at_the_same_time(store: Store, table_row: TableRow) -> None:
    def work(thread: int) -> None:
        for number in range(5):
            shared = table_row("recipes", recipe_id=f"shared {number}")
            own = table_row("recipes", recipe_id=f"{thread} {number}")
            store.append("recipes", [shared])
            store.append("recipes", [own])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(store, "recipes") == 5 + 3 * 5


def test_a_part_that_no_one_merged_is_merged_at_the_next_start(workspace: Workspace, table_row: TableRow) -> None:
    # what a kill between the part's rename and the merge leaves behind
    with Store(workspace) as other:
        other.append("recipes", [table_row("recipes")])
    (part,) = list_parts(workspace.parts)
    shutil.move(workspace.writer_database, workspace.root / "old")
    with Store(workspace) as store:
        assert store.rows("SELECT part_name FROM parts") == [{"part_name": part.part_name}]
        assert store.rows("SELECT * FROM recipes") == [table_row("recipes")]
        assert store.merge() == 0


def test_a_deleted_index_is_rebuilt_under_another_epoch(
    workspace: Workspace, table_row: TableRow, make_slot: Callable[..., Slot], make_rows: Callable[..., list[Row]]
) -> None:
    with Store(workspace) as store:
        epoch = store.epoch
        store.append("recipes", [table_row("recipes")])
        store.append("trajectories", make_rows([make_slot(index=i) for i in range(3)]))
        store.publish(force=True)
        tables = [store.rows(f"SELECT * FROM {name} ORDER BY ALL") for name in ("recipes", "trajectories", "tokens")]
    with Store(workspace) as store:
        assert store.epoch == epoch
    workspace.writer_database.unlink()
    with Store(workspace) as store:
        assert store.epoch != epoch
        rebuilt = [store.rows(f"SELECT * FROM {name} ORDER BY ALL") for name in ("recipes", "trajectories", "tokens")]
    assert rebuilt == tables


def test_the_log_of_a_killed_writer_is_not_replayed_into_a_rebuilt_index(
    workspace: Workspace, table_row: TableRow
) -> None:
    with Store(workspace) as store:
        epoch = store.epoch
        store.append("recipes", [table_row("recipes", recipe_id="a")])
        store.append("recipes", [table_row("recipes", recipe_id="b")])  # in the log only
        log = workspace.writer_database.with_name("writer.duckdb.wal")
        kept = shutil.copy(log, workspace.root / "log")
    workspace.writer_database.unlink()
    shutil.move(kept, log)
    with Store(workspace) as store:
        assert store.epoch != epoch
        assert count(store, "recipes") == 2


def test_a_rebuilt_index_has_the_rows_in_the_order_in_which_they_were_stored(
    workspace: Workspace, table_row: TableRow
) -> None:
    names = ["zero", "one", "two", "three", "four"]
    for name in names:
        with Store(workspace) as store:
            store.append("verdicts", [table_row("verdicts", verdict_id=name, verifier_version=name)])
    for second, part in enumerate(list_parts(workspace.parts)):  # copied without their times
        os.utime(part.path, (second, second))
    workspace.writer_database.unlink()
    with Store(workspace) as store:
        assert [row["verdict_id"] for row in store.rows("SELECT verdict_id FROM verdicts ORDER BY rowid")] == names
        assert store.rows("SELECT verifier_version FROM latest_verdicts") == [{"verifier_version": "four"}]


def test_of_parts_with_the_same_row_the_first_one_counts(workspace: Workspace, table_row: TableRow) -> None:
    # two workspaces that were worked on apart, and whose parts were put together
    other = Workspace(workspace.root.parent / "other")
    other.create()
    for place, kind, own in ((workspace, "rollout", "a"), (other, "guided", "b")):
        with Store(place) as store:
            store.append("recipes", [table_row("recipes", recipe_id=own)])
            store.append("recipes", [table_row("recipes", recipe_id="both", kind=kind)])
    shutil.copytree(other.parts, workspace.parts, dirs_exist_ok=True)
    workspace.writer_database.unlink()
    with Store(workspace) as store:
        kinds = store.rows("SELECT recipe_id, kind FROM recipes ORDER BY ALL")
    assert [row["recipe_id"] for row in kinds] == ["a", "b", "both"]
    assert kinds[2]["kind"] in ("rollout", "guided")


# ---- what a run decided

SCOPE = {"run_id": "run", "phase": "gate"}


def test_a_resumed_run_that_decides_as_before_stores_nothing(
    store: Store, workspace: Workspace, table_row: TableRow
) -> None:
    rows = [table_row("decisions", decision_id=name, value=value) for name, value in (("a", 1 / 3), ("b", None))]
    assert store.append_decided("decisions", rows, SCOPE) == 2
    store.check_decided()
    rows[0]["value"] += 1e-12  # a sum in another order
    assert store.append_decided("decisions", rows, SCOPE) == 0
    store.check_decided()
    assert len(list_parts(workspace.parts)) == 1


@pytest.mark.parametrize("change", [{"decision": "dropped"}, {"reason": "G2"}, {"value": 0.5}, {"value": None}])
def test_a_resumed_run_that_decides_otherwise_is_refused(store: Store, table_row: TableRow, change: Row) -> None:
    # old and new decisions once mixed without a word
    rows = [table_row("decisions", decision_id=name, value=0.25) for name in "ab"]
    store.append_decided("decisions", rows, SCOPE)
    with pytest.raises(
        StoreError, match=r"run run had stored other decisions before \(gate: 1 differ.*decision_id b.*VERSIONS"
    ):
        store.append_decided("decisions", [rows[0], rows[1] | change], SCOPE)
    assert store.rows("SELECT DISTINCT decision, reason, value FROM decisions") == [
        {"decision": "kept", "reason": None, "value": 0.25}
    ]


def test_an_ablation_that_comes_to_other_figures_is_refused_by_its_name(store: Store, table_row: TableRow) -> None:
    rows = [
        table_row("ablation_scores", ablation_score_id="s", ablation_id="abl", avg_at_k=share) for share in (0.5, 1.0)
    ]
    store.append_decided("ablation_scores", rows[:1], {"ablation_id": "abl"})
    with pytest.raises(StoreError, match=r"ablation abl had stored other ablation_scores before \(1 differ"):
        store.append_decided("ablation_scores", rows[1:], {"ablation_id": "abl"})


@pytest.mark.parametrize("now", [["a", "c"], ["a"], []])
def test_a_resumed_run_that_decides_on_other_subjects_is_refused(
    store: Store, table_row: TableRow, now: list[str]
) -> None:
    # a shorter stage once kept the end of the longer one before it
    rows = {name: table_row("decisions", decision_id=name) for name in "abc"}
    store.append_decided("decisions", [rows["a"]], SCOPE)
    store.append_decided("decisions", [rows["b"]], SCOPE)  # in two parts, as some tasks do
    other = table_row("decisions", decision_id="other", phase="cap")
    store.append_decided("decisions", [other], {"run_id": "run", "phase": "cap"})
    store.check_decided()
    store.append_decided("decisions", [rows[name] for name in now], SCOPE)
    stored = len({"a", "b", *now})
    with pytest.raises(StoreError, match=rf"before \(gate: {stored} where there are {len(now)} now\).*VERSIONS"):
        store.check_decided()


# ---- damage


def test_a_damaged_part_is_named(workspace: Workspace, table_row: TableRow) -> None:
    with Store(workspace) as store:
        store.append("recipes", [table_row("recipes")])
    (part,) = list_parts(workspace.parts)
    data = bytearray(part.path.read_bytes())
    data[5] ^= 1
    part.path.write_bytes(data)
    workspace.writer_database.unlink()
    with pytest.raises(StoreError, match=f"part {part.path} is damaged: its bytes .*Restore it .* or move it out"):
        Store(workspace)
    # the remedy: without it the workspace opens again, and its rows can be made again
    part.path.unlink()
    with Store(workspace) as store:
        assert store.append("recipes", [table_row("recipes")]) == 1


def test_a_refused_start_leaves_the_database_to_others(workspace: Workspace, table_row: TableRow) -> None:
    with Store(workspace) as store:
        store.append("recipes", [table_row("recipes")])
    (part,) = list_parts(workspace.parts)
    workspace.writer_database.unlink()
    part.path.write_bytes(b"")
    with pytest.raises(StoreError) as refused:
        Store(workspace)
    assert refused.value.__traceback__  # holds the half-made store, as a task's failed state does
    # DuckDB lets no second process in while a connection is open
    code = f"import duckdb; duckdb.connect({str(workspace.writer_database)!r})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stderr == b""


def test_a_merged_part_that_is_gone_is_told_with_the_remedy(workspace: Workspace, table_row: TableRow) -> None:
    with Store(workspace) as store:
        store.append("recipes", [table_row("recipes")])
        epoch = store.epoch
    (part,) = list_parts(workspace.parts)
    part.path.unlink()
    with pytest.raises(
        StoreError, match=f"1 merged parts are gone.*{part.part_name}.*Restore.*or run `heal store rebuild`"
    ):
        Store(workspace)
    workspace.writer_database.unlink()
    with Store(workspace) as store:
        assert (count(store, "recipes"), store.epoch == epoch) == (0, False)


def test_a_part_of_a_table_that_is_not_known_is_named(workspace: Workspace, table_row: TableRow) -> None:
    with Store(workspace) as store:
        store.append("recipes", [table_row("recipes")])
    shutil.copytree(workspace.parts / "recipes", workspace.parts / "novelties")
    workspace.writer_database.unlink()
    with pytest.raises(StoreError, match=r"novelties/.* was written by a newer HEAL .*table novelties.*Upgrade HEAL"):
        Store(workspace)


def test_a_part_that_the_database_refuses_is_named(workspace: Workspace, table_row: TableRow) -> None:
    with Store(workspace) as store:
        store.append("recipes", [table_row("recipes")])
    shutil.move(workspace.parts / "recipes", workspace.parts / "problems")
    workspace.writer_database.unlink()
    with pytest.raises(
        StoreError,
        match=r"part .*problems/.* cannot be merged: it lacks the columns .*question.*Move it out of `parts/problems/`",
    ):
        Store(workspace)


def test_an_interruption_within_a_merge_leaves_no_transaction_open(
    workspace: Workspace, table_row: TableRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = merge._insert

    def interrupted(*arguments: Any) -> int:
        insert(*arguments)
        raise KeyboardInterrupt

    with Store(workspace) as store:
        with monkeypatch.context() as patch:
            patch.setattr(merge, "_insert", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.append("recipes", [table_row("recipes", recipe_id="a")])
        assert store.append("recipes", [table_row("recipes", recipe_id="b")]) == 1
    with Store(workspace) as store:  # the part was durable
        assert {row["recipe_id"] for row in store.rows("SELECT recipe_id FROM recipes")} == {"a", "b"}


def test_files_of_the_users_beside_the_store_are_left_alone(workspace: Workspace) -> None:
    kept = [workspace.root / name for name in ("notes.tmp", "out.csv.12-34.tmp")]  # the second is a reader's, half done
    swept = [workspace.root / name for name in ("heal.duckdb.12-34.tmp", "summary.json.12-34.tmp")]
    for path in (*kept, *swept):
        path.touch()
    Store(workspace).close()
    assert [path.exists() for path in (*kept, *swept)] == [True, True, False, False]


def test_what_killed_writers_and_spilling_readers_left_is_no_obstacle(workspace: Workspace) -> None:
    (workspace.root / "heal.duckdb.tmp").mkdir()
    (workspace.root / "heal.duckdb.tmp" / "duckdb_temp_storage.tmp").touch()
    (workspace.writer_database.parent / "writer.duckdb.tmp").mkdir()
    (workspace.parts / "recipes").mkdir()
    for leftover in (workspace.parts / "recipes" / "a.parquet.1-1.tmp", workspace.root / "heal.duckdb.1-1.tmp"):
        leftover.write_bytes(b"half")
    Store(workspace).close()
    assert [path for path in workspace.root.rglob("*.tmp") if path.is_file()] == [
        workspace.root / "heal.duckdb.tmp" / "duckdb_temp_storage.tmp"
    ]


# ---- publish


def test_nothing_published_is_told_with_the_remedy(workspace: Workspace) -> None:
    with pytest.raises(StoreError, match=r"no store at .*Run `heal run CONFIG.yaml` first"):
        open_reader(workspace)


def test_readers_see_what_was_published_while_the_writer_goes_on(
    workspace: Workspace, store: Store, table_row: TableRow
) -> None:
    sql = "SELECT count(*) FROM recipes"
    store.append("recipes", [table_row("recipes", recipe_id="a")])  # the first append publishes
    assert published(workspace, sql) == [(1,)]
    store.append("recipes", [table_row("recipes", recipe_id="b")])  # too soon for another copy
    assert published(workspace, sql) == [(1,)]
    assert store.publish() is False
    assert store.publish(force=True) is True
    assert published(workspace, sql) == [(2,)]
    with pytest.raises(duckdb.InvalidInputException, match="read-only"):
        published(workspace, "DELETE FROM recipes")


def test_a_reader_that_stays_open_stops_no_one_and_keeps_its_view(
    workspace: Workspace, store: Store, table_row: TableRow
) -> None:
    store.append("recipes", [table_row("recipes", recipe_id="a")])
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(workspace.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    try:
        assert reader.stdout.readline() == b"1\n"
        store.append("recipes", [table_row("recipes", recipe_id="b")])
        assert store.publish(force=True)
        assert published(workspace, "SELECT count(*) FROM recipes") == [(2,)]
    finally:
        output, _ = reader.communicate(b"\n", timeout=20)
    assert output == b"1\n"


def test_a_failed_publication_leaves_the_old_copy(
    workspace: Workspace, store: Store, table_row: TableRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append("recipes", [table_row("recipes", recipe_id="a")])
    store.append("recipes", [table_row("recipes", recipe_id="b")])

    def fail(temporary: Path, final: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace_file", fail)
        with pytest.raises(StoreError, match=r"the disk is full: .*heal.duckdb could not be written"):
            store.publish(force=True)
    assert published(workspace, "SELECT recipe_id FROM recipes") == [("a",)]
    assert store.publish(force=True)
    assert published(workspace, "SELECT count(*) FROM recipes") == [(2,)]


def test_what_was_put_off_is_published_without_a_further_append(
    workspace: Workspace, table_row: TableRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the last rows before a long silence once stayed unseen until its end
    monkeypatch.setattr(store_module, "MIN_PUBLISH_SECONDS", 0.3)
    with Store(workspace) as store:
        store.append("recipes", [table_row("recipes", recipe_id="a")])
        store.append("recipes", [table_row("recipes", recipe_id="b")])
        deadline = time.monotonic() + 20
        while published(workspace, "SELECT count(*) FROM recipes") != [(2,)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_reader_never_meets_half_a_copy(workspace: Workspace, store: Store, table_row: TableRow) -> None:
    store.append("recipes", [table_row("recipes")])
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    reader = context.Process(target=_read_until, args=(str(workspace.database), stop))
    reader.start()
    for number in range(30):
        store.append("recipes", [table_row("recipes", recipe_id=f"{number}")])
        store.publish(force=True)
    stop.set()
    reader.join(20)
    assert reader.exitcode == 0


def _read_until(database: str, stop: Any) -> None:
    seen = 0
    while not stop.is_set():
        with duckdb.connect(database, read_only=True) as connection:
            rows = connection.execute("SELECT count(*), count(DISTINCT recipe_id) FROM recipes").fetchone()
        assert rows is not None
        assert rows[0] == rows[1] >= max(seen, 1)
        seen = rows[0]


def test_closing_publishes(workspace: Workspace, table_row: TableRow) -> None:
    with Store(workspace) as store:
        store.append("recipes", [table_row("recipes", recipe_id="a")])
        store.append("recipes", [table_row("recipes", recipe_id="b")])
    assert published(workspace, "SELECT count(*) FROM recipes") == [(2,)]


def test_the_previous_major_version_of_duckdb_can_open_the_copy(store: Store, workspace: Workspace) -> None:
    store.publish(force=True)
    # bytes 12 to 20 of a file are its storage version: 67 is that of DuckDB 1.4, this one's own is higher
    for file in (workspace.writer_database, workspace.database):
        with file.open("rb") as stream:
            assert struct.unpack("<Q", stream.read(20)[12:]) == (67,)
    tags = published(workspace, "SELECT tags['storage_version'] FROM duckdb_databases() WHERE NOT internal")
    assert tags == [("v1.4.0+",)]


# ---- tables and views


def test_every_table_column_and_view_is_described(store: Store) -> None:
    assert store.rows("SELECT table_name FROM duckdb_tables() WHERE trim(coalesce(comment, '')) = ''") == []
    assert (
        store.rows(
            "SELECT table_name, column_name FROM duckdb_columns() SEMI JOIN duckdb_tables() USING (table_name) "
            "WHERE trim(coalesce(comment, '')) = ''"
        )
        == []
    )
    assert (
        store.rows("SELECT view_name FROM duckdb_views() WHERE NOT internal AND trim(coalesce(comment, '')) = ''") == []
    )
    assert count(store, "duckdb_tables()") > 10  # the queries above found something to look at


def test_every_view_can_be_read_in_an_empty_store(store: Store, workspace: Workspace) -> None:
    store.publish(force=True)
    views = [row["view_name"] for row in store.rows("SELECT view_name FROM duckdb_views() WHERE NOT internal")]
    assert {"pass_rates", "bands", "funnel", "repair_yield", "token_spend", "stage_mix", "eval_summary"} < set(views)
    assert {"tokens", "run_status", "latest_verdicts", "run_trajectories", "kept_examples"} < set(views)
    for view in views:
        assert store.rows(f"SELECT * FROM {view}") == []
        assert published(workspace, f"SELECT * FROM {view}") == []


def test_the_tokens_view_reads_the_parts(
    store: Store, workspace: Workspace, make_slot: Callable[..., Slot], make_rows: Callable[..., list[Row]]
) -> None:
    rows = make_rows([make_slot("p0"), make_slot("p1")], p0=3, p1=0)
    store.append("trajectories", rows)
    sql = "SELECT trajectory_id, token_ids, round(entropies, 2), token_starts FROM tokens ORDER BY ALL"
    sql = sql.replace("round(entropies, 2)", "list_transform(entropies, lambda x: round(x, 2)::DOUBLE)")
    expected = sorted(
        (
            row["trajectory_id"],
            row["token_ids"].tolist(),
            [pytest.approx(float(value), abs=1e-6) for value in row["entropies"]],
            row["token_starts"].tolist(),
        )
        for row in rows
    )
    assert published(workspace, sql) == expected


def test_a_row_in_two_parts_has_its_tokens_once(
    store: Store, make_slot: Callable[..., Slot], make_rows: Callable[..., list[Row]]
) -> None:
    # a task that is run twice writes its rows twice, at different times; both parts stay
    store.append("trajectories", make_rows([make_slot()], p0=3))
    store.append("trajectories", make_rows([make_slot(), make_slot(index=1)], p0=2))
    store.publish(force=True)
    rows = store.rows("SELECT len(token_ids) AS num FROM tokens ORDER BY ALL")
    assert [row["num"] for row in rows] == [2, 3]
    assert count(store, "trajectories") == 2
    assert store.rows("SELECT num_tokens FROM trajectories t JOIN tokens USING (trajectory_id) "
                      "WHERE len(token_ids) != num_tokens") == []  # fmt: skip
