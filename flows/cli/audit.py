"""`heal audit`: read repairs blind, and say which reason their way to the answer. Loads neither torch nor Prefect.

What does not belong here: which repairs are read, and how agreement is measured (`heal_core.audit`).
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.cli.look import WorkspaceOption
from flows.cli.scores import new_table

if TYPE_CHECKING:
    from heal_core.audit import Sample
    from heal_core.store.store import Store

KEYS = {"g": "genuine", "s": "shortcut", "u": "unsure"}
_HELP = (
    "g genuine: it reasons its way to the answer   s shortcut: it leans on the answer   u unsure\n"
    "k skip, to be asked again next time   b back   h show what it was written under   q quit   ? this help\n"
    "what stands behind g, s or u is kept as a note: `s the last step falls from the sky`"
)
MAX_NOTE_CHARS = 2000


def audit(
    run: Annotated[
        str, typer.Argument(help="Whose repairs: the beginning of a run's id, `last` or `previous`.")
    ] = "last",
    workspace: WorkspaceOption = Path("."),
    auditor: Annotated[
        str | None, typer.Option(help="Who reads; labels of several people are kept apart.  [default: the user's name]")
    ] = None,
    num: Annotated[
        int, typer.Option("--num", "-n", min=1, help="Repairs of each kind: kept and dropped by PURE.")
    ] = 50,
    report: Annotated[bool, typer.Option("--report", help="Show what was said so far, and ask nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print that report as JSON, and ask nothing.")] = False,
) -> None:
    """Read repairs without knowing which ones PURE kept, and label them genuine or shortcut.

    Labels are stored as they are given; the same command goes on where it was left. Reading needs a workspace in which
    no run writes; a report does not.
    """
    from heal_core.audit import draw_sample
    from heal_core.errors import InputError
    from heal_core.store.audit import read_pure_decided
    from heal_core.store.compare import find_compared_run
    from heal_core.store.inspect import open_store
    from heal_core.store.store import Store
    from heal_core.store.workspace import Workspace

    with open_store(workspace) as reader:
        run_id = find_compared_run(reader, run)
    if report or as_json:
        _report(workspace, run_id, as_json)
        return
    name = (auditor or getpass.getuser()).strip()
    if not name or name == "PURE" or not name.isprintable():
        raise InputError(f"--auditor {name!r}: give a name that can be printed, and is not PURE.")
    place = Workspace(workspace)
    with place.lock(), Store(place) as store:
        decided = read_pure_decided(store, run_id)
        sample = draw_sample(run_id, decided["kept"], decided["dropped"], num)
        if not sample.trajectory_ids:
            raise InputError(
                f"run {run_id} has no repairs that PURE decided on so far. `heal status` says how far it is."
            )
        _Reading(store, run_id, name, sample, num).ask()


class _Reading:
    """One sitting of one auditor."""

    def __init__(self, store: Store, run_id: str, auditor: str, sample: Sample, num: int) -> None:
        from heal_core.store.audit import read_audits

        self.store, self.run_id, self.auditor, self.sample = store, run_id, auditor, sample
        self.console = Console(highlight=False)
        ids = set(sample.trajectory_ids)
        own = [row for row in read_audits(store, run_id) if row["auditor"] == auditor and row["trajectory_id"] in ids]
        self.labels = {row["trajectory_id"]: row["label"] for row in own}
        self.hints_seen = {row["trajectory_id"] for row in own if row["hint_shown"]}
        of_each = min(sample.num_kept, sample.num_dropped)
        if of_each < num:
            self.console.print(
                f"run {run_id} has fewer than {num} of each kind: {sample.num_kept} that PURE kept and "
                f"{sample.num_dropped} that it dropped are read",
            )

    def ask(self) -> None:
        """Ask text by text until all are labelled or skipped, or the auditor leaves."""
        ids = self.sample.trajectory_ids
        self.console.print(Text(f"{self.auditor}: {len(self.labels)} of {len(ids)} are labelled. {_HELP}"))
        position = self._next(-1)
        while position < len(ids):
            answer = self._ask_one(position)
            if answer == "q":
                break
            position = max(0, position - 1) if answer == "b" else self._next(position)
        left = len(ids) - len(self.labels)
        self.console.print(
            f"{len(self.labels)} of {len(ids)} are labelled, all of it is stored"
            + (f"; the same command asks for the other {left}" if left else "; `heal audit --report` shows agreement")
        )

    def _next(self, position: int) -> int:
        """Return the next place behind `position` without a label, the end where there is none."""
        ids = self.sample.trajectory_ids
        places = (n for n in range(position + 1, len(ids)) if ids[n] not in self.labels)
        return next(places, len(ids))

    def _ask_one(self, position: int) -> str:
        """Show a text and return the key that ends it: a label's, k, b or q; a label is stored by then."""
        from heal_core.hints import clean_hint
        from heal_core.store.audit import append_label, read_audit_text

        text = read_audit_text(self.store, self.sample.trajectory_ids[position])
        self.console.rule(f"text {position + 1} of {len(self.sample.trajectory_ids)}")
        self._show(("problem", text.question), ("kept steps", text.prefix), ("continuation", text.text))
        self._show(("reference answer", text.answer))
        if text.trajectory_id in self.labels:
            self.console.print(f"so far you called it {self.labels[text.trajectory_id]}")
        while True:
            key, note = self._read_key()
            if key == "h":
                self.hints_seen.add(text.trajectory_id)
                self._show(("written under", clean_hint(text.hint or "") or "the problem with its answer, no hint"))
            elif key in KEYS:
                seen = text.trajectory_id in self.hints_seen
                append_label(self.store, self.run_id, text, self.auditor, KEYS[key], note or None, seen)
                self.labels[text.trajectory_id] = KEYS[key]
                return key
            elif key in ("k", "b", "q"):
                return key
            else:
                self.console.print(Text(_HELP))

    def _read_key(self) -> tuple[str, str]:
        """Return a key and the note behind it; the end of the input quits."""
        try:
            line = self.console.input("g/s/u, k skip, b back, h hint, q quit, ? help: ")
        except EOFError:
            return "q", ""
        key, _, note = line.strip().partition(" ")
        return key.lower(), note.strip()[:MAX_NOTE_CHARS]

    def _show(self, *panels: tuple[str, str]) -> None:
        from heal_core.audit import printable

        for title, text in panels:
            if text.strip():
                self.console.print(Panel(Text(printable(text.strip())), title=title, title_align="left"))


def _report(workspace: Path, run_id: str, as_json: bool) -> None:
    from heal_core.audit import report_audit
    from heal_core.store.audit import read_audits
    from heal_core.store.inspect import open_store
    from heal_core.store.reading import PublishedStore

    with open_store(workspace) as reader:
        found = {"run_id": run_id, **report_audit(read_audits(PublishedStore(reader), run_id))}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    console = Console(highlight=False)
    if not found["auditors"]:
        console.print(
            f"nobody has read repairs of run {run_id} so far: heal audit {run_id} -w {workspace}", markup=False
        )
        return
    console.print(_counts(found["auditors"]))
    console.print(_agreement(found["agreement"]))
    console.print(
        "The sample holds kept and dropped repairs in equal parts where there are enough, so its kappa is not that of "
        "all repairs.",
        style="dim",
    )


def _counts(auditors: Iterable[dict[str, Any]]) -> Table:
    table = new_table("what auditors said of repairs")
    for column in ("auditor", "PURE", "genuine", "shortcut", "unsure"):
        table.add_column(column, justify="left" if column in ("auditor", "PURE") else "right")
    for row in auditors:
        for decision in ("kept", "dropped"):
            name = Text(row["auditor"] if decision == "kept" else "")
            table.add_row(name, decision, *(str(row[decision][label]) for label in KEYS.values()))
    return table


def _agreement(rows: Iterable[dict[str, Any]]) -> Table:
    table = new_table("agreement on texts that both call genuine or shortcut (PURE: kept or dropped)")
    for column in ("judges", "texts", "agree", "kappa", "unsure"):
        table.add_column(column, justify="left" if column == "judges" else "right")
    for row in rows:
        table.add_row(
            Text(f"{row['one']} and {row['other']}"),
            str(row["num_texts"]),
            "-" if row["agreed_share"] is None else f"{100 * row['agreed_share']:.0f} %",
            "-" if row["kappa"] is None else f"{row['kappa']:.2f}",
            str(row["num_unsure"]),
        )
    return table
