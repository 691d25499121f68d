"""A workspace whose every text is hostile: a finished run's rows, stored again with what a model or a user might write.

Ids, numbers and the pipeline's own words (kinds, phases, labels) stay, so that the run can be
reported on; every other string of every table is made hostile, and so are columns that are added
later. A lone surrogate is not among the texts: it has no UTF-8, and the store takes none.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from heal_core.store.parts import in_order, list_parts, read_header
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]

ATTACKS = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "</SCRIPT ><svg/onload=window.pwned=1>",
    "<img src=x onerror=window.pwned=1>",
    '" onmouseover="window.pwned=1" autofocus onfocus="window.pwned=1" x="',
    "' onpointerenter='window.pwned=1' x='",
    "javascript:window.pwned=1",
    "<a href=javascript:window.pwned=1>a link</a>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<style>*{display:none!important}</style>",
    "</style></title></textarea></template></select></table></svg></section></main>",
    "<base href=https://evil.example/><meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<link rel=stylesheet href=https://evil.example/a.css><form action=https://evil.example/><input name=q></form>",
    "<!-- <script>",
    "--!><![CDATA[ ]]> <?xml ?>",
    "{{ 7*7 }} {% for x in ().__class__.__mro__ %}{{ x }}{% endfor %} {# #} ${7*7} #{7*7} <%= 7*7 %>",
    "datum.x = (window.pwned = 1); toString.constructor('window.pwned=1')()",
    "__proto__",
    "constructor",
    "&lt;script&gt;window.pwned=1&lt;/script&gt; &#60;b&#62; &amp;amp; &quot; &nbsp",
    "\u202egnp.exe\u2066 isolated \u2067never closed \u200f\u061c",
    "a\x00b \x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b]8;;\x07 \x08\x7f",
    "\u2028line\u2029paragraph\x85next\x0bdown\x0cform\r\nline\ttab",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f3f3\ufe0f\u200d\U0001f308",
    "z" + "".join(map(chr, range(0x0300, 0x036F))) * 3 + "algo",
    "\ufeff\ufffe\uffff\u200b\u00ad invisible",
    "\\u003cscript\\u003ewindow.pwned=1\\u003c/script\\u003e \\x3cscript\\x3e \\",
    "W" * 400,
)  # fmt: skip

GIANT_TOKEN = "A" * 1_000_000
GIANT_LINE = "word " * 200_000

_KEPT = frozenset({
    "kind", "phase", "arm", "against", "band", "stage", "label", "finish_reason", "event", "split", "decision",
    "entropy_source", "purpose", "measure", "metric", "filter", "direction", "outcome", "gate", "gates",
    "separator", "problem_type", "extraction", "spec", "chosen", "winner", "verdict", "file_digest",
    "problems_digest", "task_hash",
})  # fmt: skip
"""Columns of words that only the pipeline writes, and of digests; ids are told by the ends of their names."""

_KEPT_SETTINGS = frozenset({
    "on_busy", "engine", "dtype", "device", "student_start", "kind", "step_separator", "arm", "enabled[]",
    "score", "lr_scheduler_type", "events[]", "stage", "training_key", "example_id", "checkpoint", "files",
    "currency",
})  # fmt: skip
"""Settings, and what events note, that are one of a few words."""

_NAMES = frozenset({
    "reason", "reject_reason", "source", "model_name_or_path", "verifier", "verifier_version", "benchmark",
    "evaluation_set", "evaluation_source", "work", "auditor", "heal_version", "git_revision", "folder", "model",
    "format", "task", "task_version", "lm_eval_version",
})  # fmt: skip
"""Columns by whose value rows are grouped: equal values stay equal, and none is a million characters long."""

_SCORES = frozenset({"ratio", "jump", "reliance"})
_JSON = frozenset({"config", "settings", "detail", "result"})


def make_hostile(finished: Path, folder: Path) -> Path:
    """Write the hostile form of a finished workspace's store into a new folder; return the folder."""
    workspace = Workspace(folder)
    workspace.create()
    tables = _read_tables(Workspace(finished))
    hostile = _Hostile(tables)
    with Store(workspace) as store:
        string_columns = {table: _string_columns(store.part_schema(table)) for table in store.tables}
        (run, *_) = tables["runs"]
        for table, rows in _further_rows(run["run_id"], tables):
            store.append(table, [hostile.row(table, row, string_columns[table]) for row in rows])
        for table, rows in tables.items():
            blank = dict.fromkeys(store.part_schema(table).names)  # an older part lacks the newest columns
            store.append(table, [hostile.row(table, blank | row, string_columns[table]) for row in rows])
    return folder


def _read_tables(workspace: Workspace) -> dict[str, list[Row]]:
    """Return the rows of every table, in the order of writing."""
    tables: dict[str, list[Row]] = defaultdict(list)
    for part in in_order({part: read_header(part) for part in list_parts(workspace.parts)}):
        tables[part.table_name] += pq.read_table(part.path).to_pylist()
    return tables


def _string_columns(schema: pa.Schema) -> frozenset[str]:
    """Return the columns of a table that hold strings other than ids and the pipeline's words."""
    strings = (field.name for field in schema if field.type in (pa.string(), pa.list_(pa.string())))
    return frozenset(name for name in strings if name not in _KEPT and not name.endswith(("_id", "_key")))


class _Hostile:
    """Makes rows hostile. Texts keep their tokens and steps: what is put in moves the places of what follows."""

    def __init__(self, tables: Mapping[str, list[Row]]) -> None:
        self._num_seen: Counter[tuple[str, str]] = Counter()
        self._places: dict[str, tuple[list[int], list[int]]] = {}
        repairs = [row for row in tables["trajectories"] if row["kind"] == "repair"]
        paths = list(dict.fromkeys(row["parent_id"] for row in repairs))
        self._giants = {
            paths[0]: GIANT_TOKEN, repairs[0]["hint_id"]: GIANT_TOKEN, repairs[0]["trajectory_id"]: GIANT_TOKEN,
            paths[-1]: GIANT_LINE, repairs[-1]["hint_id"]: GIANT_LINE, repairs[-1]["trajectory_id"]: GIANT_LINE,
        }  # fmt: skip

    def row(self, table: str, row: Row, string_columns: frozenset[str]) -> Row:
        """Return a row in its hostile form."""
        made = row | {name: self._value(table, name, row[name]) for name in row.keys() & string_columns}
        if table == "trajectories":
            made |= self._text(row)
        if table == "profiles":
            made["step_start_chars"] = [self._moved(row["trajectory_id"], place) for place in row["step_start_chars"]]
        return made

    def _value(self, table: str, column: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(table, column, one) for one in value]
        if not value or value in _SCORES:
            return value
        if column in _JSON:
            return json.dumps(self._leaves(column, json.loads(value)))
        return _name(value) if column in _NAMES else self._body(table, column, value)

    def _body(self, table: str, column: str, text: str) -> str:
        """Return a text among attacks; two of each column are a million characters long."""
        number = self._num_seen[table, column]
        self._num_seen[table, column] += 1
        before, after = _attack(number), _attack(3 * number + 1)
        giant = {2: GIANT_TOKEN, 5: GIANT_LINE}.get(number, "")
        return f"{before} {text} {giant}{after}"

    def _leaves(self, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._leaves(name, one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._leaves(f"{key}[]", one) for one in value]
        return value if not isinstance(value, str) or key in _KEPT_SETTINGS else _name(value)

    def _text(self, row: Row) -> Row:
        """Return text and token places of a trajectory, an attack within every fifth token."""
        starts, text = list(row["token_starts"]), row["text"]
        pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
        seed = zlib.crc32(row["trajectory_id"].encode())
        pieces = [
            piece + _attack(seed + place) if place % 5 == 2 else piece
            for place, piece in enumerate(pieces)
        ]  # fmt: skip
        if pieces and (giant := self._giants.get(row["trajectory_id"])):
            pieces[len(pieces) // 2] += giant
        ends, moved = 0, []
        for piece in pieces:
            moved.append(ends)
            ends += len(piece)
        self._places[row["trajectory_id"]] = (starts, moved)
        return {"text": "".join(pieces), "token_starts": moved}

    def _moved(self, trajectory_id: str, place: int) -> int:
        starts, moved = self._places[trajectory_id]
        token = max(bisect_right(starts, place) - 1, 0)
        return moved[token] + place - starts[token]


def _name(value: str) -> str:
    return f"{_attack(zlib.crc32(value.encode()))} {value}"


def _attack(number: int) -> str:
    return ATTACKS[number % len(ATTACKS)]


def _further_rows(run_id: str, tables: Mapping[str, list[Row]]) -> Iterator[tuple[str, list[Row]]]:
    """Yield what the finished run has none of: an earlier failure, quarantine, matches, what people said."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    problem_ids = [row["problem_id"] for row in tables["problems"]]
    repairs = [row for row in tables["trajectories"] if row["kind"] == "repair"]
    yield "run_events", [
        {"event_id": "failed", "run_id": run_id, "event": "failed", "phase": "rollouts",
         "detail": json.dumps({"error": "the engine ended", "seconds": 1.0}), "happened_at": at},
    ]  # fmt: skip
    yield "quarantine", [
        {"quarantine_id": f"quarantine {n}", "run_id": run_id, "source": "rows.jsonl", "line": n, "reason": "no_answer",
         "raw": "a row", "problem_id": problem_ids[n] if n % 2 else None, "phase": "rollouts" if n % 2 else None,
         "work": "sample" if n % 2 else None, "quarantined_at": at}
        for n in range(len(ATTACKS))
    ]  # fmt: skip
    yield "contamination", [
        {"contamination_id": f"contamination {n}", "run_id": run_id, "source": "rows.jsonl", "line": n,
         "problem_id": problem_ids[0], "question": "How many?", "evaluation_set": "held_out",
         "evaluation_source": "rows.jsonl", "evaluation_line": n, "evaluation_question": "How many?", "num_shared": 1,
         "num_ngrams": 1, "passage": "how many"}
        for n in range(len(ATTACKS))
    ]  # fmt: skip
    yield "audit_labels", [
        {"audit_label_id": f"audit {n}", "run_id": run_id, "trajectory_id": repair["trajectory_id"],
         "problem_id": repair["problem_id"], "auditor": "ann", "label": "genuine", "note": "a note",
         "hint_shown": False, "labelled_at": at}
        for n, repair in enumerate(repairs[: len(ATTACKS)])
    ]  # fmt: skip
