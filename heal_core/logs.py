"""Logs that say which run, phase and shard they are about, also as a file of JSON lines.

All of HEAL logs to the logger `heal`. Nothing is installed at import: `log_to` does it
for as long as a session lasts. The console stays as its owner set it up. What does not
belong here: what is logged, and Prefect.
"""

from __future__ import annotations

import copy
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

MAX_BYTES = 50 * 2**20

_logger = logging.getLogger("heal")


@dataclass(frozen=True)
class LogContext:
    """What a record is about; None where that is not known."""

    run: str | None = None
    phase: str | None = None
    shard: str | None = None


_NOTHING = LogContext()
_context: ContextVar[LogContext] = ContextVar("heal_log_context", default=_NOTHING)


@contextmanager
def log_context(run: str | None = None, phase: str | None = None, shard: str | None = None) -> Iterator[None]:
    """Have what is logged within say what it is about; what is not given stays as it is around.

    Args:
        run: The run's id.
        phase: The phase, such as `repairs`.
        shard: The part of the phase, such as `chunk 3`.
    """
    given = {name: value for name, value in (("run", run), ("phase", phase), ("shard", shard)) if value is not None}
    token = _context.set(replace(_context.get(), **given))
    try:
        yield
    finally:
        _context.reset(token)


class ContextFilter(logging.Filter):
    """Puts `run`, `phase` and `shard` on every record; lets all pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = _context.get()
        record.run, record.phase, record.shard = context.run, context.phase, context.shard
        return True


class JsonLines(logging.Handler):
    """Appends records to a file, one JSON object per line; a full file is moved to `NAME.1`.

    Each line is one write, so that those of several processes do not mix. A line that
    cannot be written is lost: a log must not end a run.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = (_to_json(record) + "\n").encode("ascii")
            os.write(self._open_for(len(line)), line)
        except OSError:
            pass
        except Exception:  # noqa: BLE001  what logging does with a message that does not fit its arguments
            self.handleError(record)

    def close(self) -> None:
        self.acquire()
        try:
            self._close()
        finally:
            self.release()
        super().close()

    def _open_for(self, num_bytes: int) -> int:
        """Return the descriptor of a file that has room for another line."""
        descriptor = self._current()
        size = os.fstat(descriptor).st_size
        if size == 0 or size + num_bytes <= self._max_bytes:
            return descriptor
        # two processes may find it full: the second to get the lock sees that the name has moved on
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(descriptor, self._path):
            os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
        return self._current()

    def _current(self) -> int:
        """Return the descriptor of the file that has the name now; another process may have moved the old one."""
        if self._descriptor is not None and not _is_at(self._descriptor, self._path):
            self._close()
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Prefixed(logging.Handler):
    """Hands records on to another handler, with what they are about before the message."""

    def __init__(self, inner: logging.Handler) -> None:
        super().__init__(inner.level)
        self.inner = inner

    def emit(self, record: logging.LogRecord) -> None:
        prefix = describe_context(record)
        if prefix:
            record = copy.copy(record)
            record.msg, record.args = f"{prefix} {record.getMessage()}", None
        self.inner.handle(record)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write what HEAL logs to a file of JSON lines, from level INFO on.

    Handlers of the logger `heal` itself get run, phase and shard before the message. These
    are not the console's, which hang on the root logger, but such as Prefect attaches
    under `PREFECT_LOGGING_EXTRA_LOGGERS=heal`, which ships nothing but the message.
    """
    lines, context, level = JsonLines(path), ContextFilter(), _logger.level
    others = list(_logger.handlers)
    prefixed = [_Prefixed(handler) for handler in others]
    _logger.addFilter(context)
    _replace_handlers(others, [lines, *prefixed])
    if _logger.getEffectiveLevel() > logging.INFO:
        _logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        _logger.setLevel(level)
        _replace_handlers([lines, *prefixed], others)
        _logger.removeFilter(context)
        lines.close()


def describe_context(record: logging.LogRecord) -> str:
    """Return what a record is about, such as `[run 3f2a81c0ffee · repairs · chunk 3]`; empty where nothing is known."""
    run, phase, shard = (getattr(record, name, None) for name in ("run", "phase", "shard"))
    # a shard's label may begin with the phase
    parts = [f"run {run}" if run else None, phase, shard.removeprefix(f"{phase} ") if shard else None]
    words = " · ".join(part for part in parts if part)
    return f"[{words}]" if words else ""


def _replace_handlers(old: list[logging.Handler], new: list[logging.Handler]) -> None:
    for handler in old:
        _logger.removeHandler(handler)
    for handler in new:
        _logger.addHandler(handler)


def _to_json(record: logging.LogRecord) -> str:
    line = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "message": record.getMessage(),
        **{name: getattr(record, name, None) for name in ("run", "phase", "shard")},
    }
    if record.exc_info:
        line["exception"] = logging.Formatter().formatException(record.exc_info)
    return json.dumps(line)  # all but ASCII escaped: some readers end lines at U+2028, and surrogates have no UTF-8


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
