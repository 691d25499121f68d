"""A run as its store has it now: the page of the report, and trajectories by filter or by id.

The store is opened anew for each request, since a run publishes it by renaming a new copy into its place; what was
opened stays whole meanwhile. What does not belong here: SQL of the user's (`search`), and requests (`app`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from heal_core.errors import StoreError
from heal_core.report.page import Live, find_example, render_page, view_trajectories
from heal_core.store.compare import find_compared_run
from heal_core.store.inspect import Connection, open_store, run_overview
from heal_core.store.inspector import (
    list_trajectories,
    page_of_trajectories,
    read_trajectory,
    values_of_filters,
)
from heal_core.store.reading import PublishedStore
from heal_core.store.report import check_schema, read_config, read_report
from heal_core.store.workspace import Workspace

MAX_LISTED = 300
MAX_RUNS = 20
_MAX_EXAMPLES = 30
_KEPT_REPAIRS = {"phase": "repairs", "outcome": "kept"}

FILTERS = {
    "kind": "phase", "band": "band", "verdict": "label", "outcome": "outcome", "gate": "reason", "stage": "stage",
}  # fmt: skip
"""The filters of the page, by the names that the store has for them."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Publication:
    """What tells a published copy of the store from others."""

    modified_ns: int
    num_bytes: int
    inode: int

    @property
    def made_at(self) -> datetime:
        """Return when it was made, by the machine's clock and timezone."""
        return datetime.fromtimestamp(self.modified_ns / 1e9).astimezone()


class LiveRun:
    """The runs of a workspace; one of them, the beginning of its id, `last` or `previous`, is shown first."""

    def __init__(self, workspace: Workspace, run: str) -> None:
        self._workspace = workspace
        self._run = run
        # DuckDB would give a second connection the copy that the first one has open, be it replaced meanwhile
        self._reading = threading.Lock()
        self._rendering = threading.Lock()
        self._pages: dict[str, str] = {}
        self._pages_are_of: Publication | None = None

    def page(self, run: str = "") -> str:
        """Return the page of a run, by default of that which is shown first.

        A page that was made from the same publication is given again.

        Raises:
            StoreError: If nothing is published, or it cannot be read.
            InputError: If there is no such run.
        """
        with self._rendering:
            return self._page(run or self._run)

    def _page(self, run: str) -> str:
        # looked at before the store is opened: else a page of the copy before would be kept for the newer one
        publication = self._publication()
        with self._open() as connection:
            if publication != self._pages_are_of:
                self._pages, self._pages_are_of = {}, publication
            run_id = find_compared_run(connection, run)
            if run_id in self._pages:
                return self._pages[run_id]
            store = PublishedStore(connection)
            report = read_report(store, run_id)
            runs = run_overview(connection)[:MAX_RUNS]
            kept, _ = page_of_trajectories(store, run_id, _KEPT_REPAIRS, _MAX_EXAMPLES)
            ids = [row[name] for row in kept for name in ("trajectory_id", "parent_id")]
            views = view_trajectories(store, run_id, report.run["config"], ids)
        data = {"run_id": run_id, "api": "/api"}
        page = render_page(report, data, find_example(kept, views), Live(publication.made_at, runs))
        self._pages[run_id] = page
        return page

    def trajectories(
        self, run_id: str, filters: Mapping[str, str], pure: tuple[float | None, float | None], text: str
    ) -> dict[str, Any]:
        """Return the first trajectories that meet all filters, by the page's names, and how many do."""
        with self._open() as connection:
            wanted = {FILTERS[name]: value for name, value in filters.items()}
            rows, num_all = page_of_trajectories(PublishedStore(connection), run_id, wanted, MAX_LISTED, pure, text)
        return {"rows": rows, "num_all": num_all}

    def named(self, run_id: str, trajectory_ids: Sequence[str]) -> Rows:
        """Return rows of the trajectories with the given ids, in that order, as far as the run uses them."""
        place = {trajectory_id: index for index, trajectory_id in enumerate(trajectory_ids)}
        with self._open() as connection:
            rows = list_trajectories(PublishedStore(connection), run_id, trajectory_ids)
        return sorted(rows, key=lambda row: place[row["trajectory_id"]])

    def values(self, run_id: str) -> dict[str, list[str]]:
        """Return the values of each filter that occur in a run."""
        with self._open() as connection:
            values = values_of_filters(PublishedStore(connection), run_id)
        return {name: values[field] for name, field in FILTERS.items()}

    def trajectory(self, run_id: str, trajectory_id: str) -> dict[str, Any]:
        """Return one trajectory as the page shows it.

        Raises:
            InputError: If the store has no such run, or no such trajectory.
        """
        with self._open() as connection:
            store = PublishedStore(connection)
            config = read_config(store, run_id)
            views = view_trajectories(store, run_id, config, [trajectory_id])
            if trajectory_id not in views:
                read_trajectory(store, run_id, trajectory_id)
        return views[trajectory_id]

    @contextmanager
    def _open(self) -> Iterator[Connection]:
        with self._reading, open_store(self._workspace.root) as connection:
            check_schema(PublishedStore(connection))
            yield connection

    def _publication(self) -> Publication:
        """Return what is published now.

        Raises:
            StoreError: If nothing is.
        """
        try:
            found = self._workspace.database.stat()
        except FileNotFoundError as error:
            raise StoreError(
                f"nothing is published at {self._workspace.database} so far. A run does so from its first seconds on; "
                "reload then. If no run is under way, --workspace may name another folder than that of heal.duckdb."
            ) from error
        return Publication(found.st_mtime_ns, found.st_size, found.st_ino)
