"""The folders of a workspace, and the lock that lets one run write to it.

heal.duckdb          what people query: a copy published by rename
parts/TABLE/*.parquet  the durable truth, named by content
store/writer.duckdb  the writer's own index over the parts
checkpoints/ID/      trained stages, Hugging Face folders
students/ARM/        links to an arm's stages
summaries/RUN.json   how each run ended
report.html          the newest run as a page
logs/  cache/        children's logs; task results that may be deleted at any time
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from heal_core.deadline import Deadline
from heal_core.errors import StoreError, WorkspaceBusyError

logger = logging.getLogger("heal")

_POLL_SECONDS = 2.0
_REMINDER_SECONDS = 300.0

_PROBE_SECONDS = 0.05
"""Longer than anyone holds the lock only to see whether it is free."""


class Workspace:
    """Paths of one workspace; creating the object touches nothing."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().absolute()
        self.parts = self.root / "parts"
        self.writer_database = self.root / "store" / "writer.duckdb"
        self.database = self.root / "heal.duckdb"
        self.checkpoints = self.root / "checkpoints"
        self.students = self.root / "students"
        self.summaries = self.root / "summaries"
        self.report = self.root / "report.html"
        self.logs = self.root / "logs"
        self.cache = self.root / "cache"
        self.progress = self.logs / "progress.json"
        self.lock_file = self.writer_database.with_name("lock")

    def create(self) -> None:
        """Make the folders.

        Raises:
            StoreError: If the path is a file or cannot be written.
        """
        try:
            for folder in (
                self.parts,
                self.writer_database.parent,
                self.checkpoints,
                self.students,
                self.logs,
                self.cache,
            ):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"workspace {self.root} cannot be created: {error.strerror}. "
                "Set `workspace` to a folder that can be written."
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace for writing; freed by the kernel when the process dies.

        Raises:
            WorkspaceBusyError: If another process holds it.
            StoreError: If there is no folder for the lock, or it cannot be written.
        """
        path = self.lock_file
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError as error:
            raise StoreError(
                f"workspace {self.root} has no folder `store`. If it is a copy of parts and checkpoints, "
                "run `heal store rebuild` there: it makes the database from the parts."
            ) from error
        except OSError as error:
            raise _no_lock(path, error) from error
        try:
            try:
                _take(descriptor)
            except BlockingIOError as error:
                holder = _read_holder(descriptor) or "unknown"
                raise WorkspaceBusyError(
                    f"workspace {self.root} is in use by process {holder}. "
                    "Wait for it, stop it, or set another `workspace`."
                ) from error
            except OSError as error:
                raise _no_lock(path, error) from error
            with suppress(OSError):  # on a full disk too, what makes room there must be able to start
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """Return the process that holds the lock, 0 when it did not say which; None when it is free.

        Touches nothing: a workspace that was never locked has no holder.
        """
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(descriptor)
            return int(holder) if holder.isdecimal() else 0
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return None

    @contextmanager
    def lock_when_free(self, deadline: Deadline | None = None) -> Iterator[None]:
        """Hold the workspace as `lock` does, after waiting for who holds it; who that is goes to the log now and then.

        Raises:
            TimeIsUpError: If the deadline came first.
            StoreError: As `lock`.
        """
        waited = 0.0
        while True:
            with ExitStack() as stack:
                try:
                    stack.enter_context(self.lock())
                except WorkspaceBusyError as error:
                    if waited % _REMINDER_SECONDS == 0:
                        logger.info("waiting: %s", error)
                else:
                    yield
                    return
            if deadline is not None:
                deadline.check()
            time.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS


def _take(descriptor: int) -> None:
    """Take the lock; who looks at it at this moment (`holder`) is waited for.

    Raises:
        BlockingIOError: If another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_PROBE_SECONDS)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_holder(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode(errors="replace").strip()


def _no_lock(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be locked: {error.strerror}. Copy the workspace to a disk that can be written, and go on there."
    )
