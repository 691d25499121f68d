"""Verdicts from killable worker processes: a hang or a crash costs one item, never the run.

What does not belong here: what makes an answer right (`grade`), and what an
unverifiable verdict means for a pass rate.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType

from heal_core.children import child_environment, start_child
from heal_core.errors import InputError, TransientError
from heal_core.gym.library import check_installed
from heal_core.records import Verdict, VerdictLabel
from heal_core.reference import Reference
from heal_core.sandbox.probe import require_sandbox
from heal_core.verify.code import max_seconds
from heal_core.verify.config import VerifyConfig
from heal_core.verify.grade import PROBLEM_TYPES, verifier_identity

_START_SECONDS = 120.0
_ENVIRONMENT = {
    # on a machine with many cores the buffers of a thread pool alone exceed the address space
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # sympy goes through sets of expressions in the order of their hashes: a verdict is not to depend on the process
    "PYTHONHASHSEED": "0",
}


@dataclass(frozen=True)
class GradeItem:
    """A text to grade against a reference answer, under an id that only the caller reads."""

    item_id: str
    text: str
    reference: Reference


@dataclass
class _Worker:
    """A process with what it is doing; `deadline` belongs to its start or to its item."""

    process: subprocess.Popen[bytes]
    connection: Connection
    deadline: float
    loads_gym: bool
    is_ready: bool = False
    item: GradeItem | None = None
    taken_at: float = 0.0
    num_tasks: int = 0

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.item is None


class VerifierPool:
    """Worker processes that grade; they start with the first items and end with the context.

    Calls from several threads take turns: one `grade_all` runs until it is exhausted or
    closed, and a second one in the same thread is refused before that.
    """

    def __init__(self, config: VerifyConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread that holds the lock
        self._workers: list[_Worker] = []
        self._needs_gym = False  # from the first such item on: importing it is not to count against an item's time

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that run now."""
        return [worker.process.pid for worker in list(self._workers)]

    def grade_all(self, items: Sequence[GradeItem]) -> Iterator[tuple[str, Verdict]]:
        """Yield (item_id, verdict) as items are finished, in any order, each item once.

        An item over the time limit is `unverifiable` with reason "timeout"; one whose
        worker died, "verifier_died".

        Raises:
            InputError: If an item's problem type is unknown, or needs a package that is missing.
            SandboxError: If an item is a program, and the sandbox that the config wants does not work here.
            TransientError: If a worker cannot be started.
            RuntimeError: If this thread has an unfinished `grade_all`.
        """
        for item in items:
            if item.reference.problem_type not in PROBLEM_TYPES:
                raise InputError(
                    f"item {item.item_id} has problem type {item.reference.problem_type!r}; "
                    f"expected one of {', '.join(PROBLEM_TYPES)}"
                )
        if any(item.reference.problem_type == "reasoning_gym" for item in items):
            check_installed()
        if any(item.reference.problem_type == "code" for item in items):
            require_sandbox(self._config.sandbox)
        return self._grade(deque(items))

    def close(self) -> None:
        """End all workers; safe to call twice, but not while a `grade_all` runs."""
        for worker in list(self._workers):
            self._discard(worker)

    def _grade(self, pending: deque[GradeItem]) -> Iterator[tuple[str, Verdict]]:
        if self._owner == threading.get_ident():
            raise RuntimeError("an earlier grade_all of this thread is unfinished: exhaust or close() it first")
        with self._lock:
            self._owner = threading.get_ident()
            self._needs_gym |= any(item.reference.problem_type == "reasoning_gym" for item in pending)
            for worker in list(self._workers):
                if self._needs_gym and not worker.loads_gym:
                    self._discard(worker)
            try:
                while pending or self._busy():
                    self._start_workers(len(pending))
                    self._hand_out(pending)
                    # Results are read before deadlines: the caller may have been away for long.
                    for worker in self._wait():
                        yield from self._receive(worker)
                    yield from self._kill_overdue()
            finally:
                self._owner = None
                for worker in self._busy():  # left behind by a caller that stopped early
                    self._discard(worker)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.item is not None]

    def _start_workers(self, num_pending: int) -> None:
        num_free = len(self._workers) - len(self._busy())
        for _ in range(min(self._config.num_workers - len(self._workers), num_pending - num_free)):
            self._workers.append(self._start())

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = (theirs.fileno(), self._config.model_dump_json(), int(self._needs_gym))
            process = start_child(
                [sys.executable, "-m", "heal_core.verify.worker", *map(str, arguments)],
                pass_fds=[theirs.fileno()],
                env=child_environment(**_ENVIRONMENT),
                stdout=subprocess.DEVNULL,
            )
        return _Worker(process, Connection(ours.detach()), time.monotonic() + _START_SECONDS, self._needs_gym)

    def _hand_out(self, pending: deque[GradeItem]) -> None:
        for worker in [worker for worker in self._workers if worker.is_idle]:
            if not pending:
                return
            try:
                worker.connection.send((pending[0].text, pending[0].reference))
            except OSError:  # it died while idle, so the item goes to another
                self._discard(worker)
                continue
            worker.item = pending.popleft()
            worker.num_tasks += 1
            worker.taken_at = time.monotonic()
            worker.deadline = worker.taken_at + self._seconds(worker.item)

    def _seconds(self, item: GradeItem) -> float:
        """Return after which time an item is given up; a program has limits of its own, which are a verdict."""
        if item.reference.problem_type == "code":
            return max_seconds(self._config.code_seconds)
        return self._config.timeout_seconds

    def _wait(self) -> list[_Worker]:
        """Return the workers that have spoken or died, at the latest at the next deadline."""
        expected = {worker.connection: worker for worker in self._workers if not worker.is_idle}
        if not expected:
            return []
        seconds = min(worker.deadline for worker in expected.values()) - time.monotonic()
        ready = wait(list(expected), timeout=max(seconds, 0))
        return [worker for connection, worker in expected.items() if connection in ready]

    def _receive(self, worker: _Worker) -> Iterator[tuple[str, Verdict]]:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._give_up(worker, "verifier_died")
            return
        if not worker.is_ready:
            worker.is_ready = True
            return
        item, worker.item = worker.item, None
        assert item is not None and isinstance(message, Verdict)
        if worker.num_tasks >= self._config.max_tasks_per_worker:
            self._discard(worker)
        yield item.item_id, message

    def _kill_overdue(self) -> Iterator[tuple[str, Verdict]]:
        now = time.monotonic()
        for worker in list(self._workers):
            if not worker.is_idle and worker.deadline <= now and not worker.connection.poll():
                yield from self._give_up(worker, "timeout")

    def _give_up(self, worker: _Worker, reason: str) -> Iterator[tuple[str, Verdict]]:
        """Kill the worker and yield the verdict for its item."""
        self._discard(worker)
        item, worker.item = worker.item, None
        if item is None:
            raise TransientError(
                f"a verifier worker did not start (exit code {worker.process.returncode}, {reason}). "
                "Expected what grades to import within two minutes; see its message above, and check "
                f"`verify.max_memory_gib` ({self._config.max_memory_gib}) and the free memory."
            )
        name, version = verifier_identity(item.reference.problem_type, self._config)
        seconds = time.monotonic() - worker.taken_at
        yield item.item_id, Verdict(VerdictLabel.UNVERIFIABLE, None, None, reason, name, version, seconds)

    def _discard(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.kill()
        worker.process.wait()
