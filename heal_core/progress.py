"""How far a long piece of work is, how fast it goes and when it will be done.

A meter counts and reports now and then; what is reported goes to a small file (read by
`heal status`) and to whoever else listens. What does not belong here: Prefect's
artifacts (`tasks/artifacts.py`), and what is worked on.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from heal_core.spend import describe_costs

_SKIP_SECONDS = 1.0
"""Finding that rows exist takes milliseconds; an advance that took longer waited for something else to be made."""


@dataclass(frozen=True)
class Progress:
    """Where a piece of work stands; every field is what JSON can hold.

    Attributes:
        phase: The phase of the run, such as `repairs`.
        work: What is done in it, such as `hints`; the phase's own name where it does one thing.
        unit: What is counted, as a plural.
        done: How many are done, those that existed before too.
        num_new: How many of those were newly made.
        num_new_tokens: Tokens of the newly made.
        tokens_per_second: Newly made tokens over the time it took; None until there are some.
        eta_seconds: Time left if all that remains must be made; None until something new was made.
        started_at: When the work began, ISO 8601 in UTC; `updated_at` likewise.
        process_id: The process that works.
        note: What is not well, such as a server that fails; empty where all is.
        spent_prompt_tokens: Tokens of prompts that this process gave to engines, since it began with the run.
        spent_cached_tokens: Those of them that the engines had read before.
        spent_completion_tokens: Tokens that it sampled since then.
        costs: What that costs, by currency, at the prices of its config; empty without any.
    """

    run_id: str
    phase: str
    work: str
    unit: str
    done: int
    total: int
    num_new: int
    num_new_tokens: int
    tokens_per_second: float | None
    eta_seconds: float | None
    started_at: str
    updated_at: str
    process_id: int
    note: str = ""
    spent_prompt_tokens: int = 0
    spent_cached_tokens: int = 0
    spent_completion_tokens: int = 0
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return what is worked on, as a person says it."""
        if not self.work:
            return self.phase
        return self.work if self.work.startswith(self.phase) else f"{self.phase}, {self.work}"

    @property
    def share(self) -> float:
        """Return how much is done, in [0, 1]."""
        return min(self.done / self.total, 1.0) if self.total else 1.0

    def describe(self) -> str:
        """Return one line, such as `repairs: 320 of 640, 812 tokens/s, about 4 min left`."""
        unit = "" if self.unit in self.label else f" {self.unit}"
        parts = [f"{self.label}: {self.done:,} of {self.total:,}{unit}"]
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.eta_seconds is not None and self.done < self.total:
            parts.append(f"about {describe_seconds(self.eta_seconds)} left")
        return ", ".join(parts) + (f"; {self.note}" if self.note else "")

    def describe_spent(self) -> str:
        """Return what this process has spent in one line; empty as long as that is nothing."""
        if not self.spent_prompt_tokens:
            return ""
        cached = f" ({self.spent_cached_tokens:,} cached)" if self.spent_cached_tokens else ""
        costs = f", {describe_costs(self.costs)}" if self.costs else ""
        return f"spent: {self.spent_completion_tokens:,} tokens, {self.spent_prompt_tokens:,} of prompts{cached}{costs}"

    def to_json(self) -> str:
        """Return the fields as one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Return what `to_json` wrote.

        Raises:
            ValueError: If it is not that.
        """
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"not a progress: {error}") from error


class ProgressMeter:
    """Counts what is done and calls `report(progress, is_final)` now and then, one call at a time.

    Args:
        report: Told at the beginning of a piece of work, at most every `min_seconds` while
            it goes on, and at its end.
        min_seconds: Shortest time between two reports of work that goes on.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        report: Callable[[Progress, bool], None],
        min_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._min_seconds = min_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._is_open = False
        self._note = ""

    def begin(self, run_id: str, phase: str, work: str, unit: str, total: int) -> None:
        """Start to count a piece of work; one that was not finished is left behind."""
        with self._lock:
            self._is_open = True
            self._names = (run_id, phase, work, unit)
            self._total = total
            self._done = self._num_new = self._num_new_tokens = 0
            self._making_seconds = 0.0
            self._advanced_at = self._clock()
            self._started_at = _now()
            self._send(is_final=False)

    def advance(self, num_done: int, num_new: int = 0, num_new_tokens: int = 0) -> None:
        """Count what was done since the last call, by whichever thread; nothing where no work was begun.

        Args:
            num_done: How many more are done, in the work's unit.
            num_new: How many of them did not exist before.
            num_new_tokens: Tokens of those.
        """
        with self._lock:
            if not self._is_open:
                return
            now = self._clock()
            seconds, self._advanced_at = now - self._advanced_at, now
            if num_new or seconds > _SKIP_SECONDS:
                self._making_seconds += seconds
            self._done += num_done
            self._num_new += num_new
            self._num_new_tokens += num_new_tokens
            if now - self._reported_at >= self._min_seconds:
                self._send(is_final=False)

    def note(self, what: str) -> None:
        """Say what is not well, or with an empty text that all is, from now on."""
        with self._lock:
            self._note = what
            if self._is_open:
                self._send(is_final=False)

    def skip_time(self) -> None:
        """Do not count the time since the last call: nothing was made meanwhile, since a model was loaded."""
        with self._lock:
            if self._is_open:
                self._advanced_at = self._clock()

    def reach(self, num_done: int) -> None:
        """Count what had existed before as done, up to this many in all."""
        self.advance(max(num_done - self._done, 0) if self._is_open else 0)

    def finish(self) -> None:
        """Report where the work stands at its end."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._send(is_final=True)

    def _send(self, is_final: bool) -> None:
        self._reported_at = self._clock()
        self._report(self._progress(), is_final)

    def _progress(self) -> Progress:
        run_id, phase, work, unit = self._names
        seconds, remaining = self._making_seconds, max(self._total - self._done, 0)
        return Progress(
            run_id=run_id,
            phase=phase,
            work=work,
            unit=unit,
            done=self._done,
            total=self._total,
            num_new=self._num_new,
            num_new_tokens=self._num_new_tokens,
            tokens_per_second=self._num_new_tokens / seconds if self._num_new_tokens and seconds else None,
            eta_seconds=remaining * seconds / self._num_new if self._num_new else None,
            started_at=self._started_at,
            updated_at=_now(),
            process_id=os.getpid(),
            note=self._note,
        )


def write_progress(path: Path, progress: Progress) -> None:
    """Write the file so that a reader sees all of it or the one before; where it cannot be written it is lost."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with suppress(OSError):
        try:
            temporary.write_text(progress.to_json() + "\n", encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_progress(path: Path) -> Progress | None:
    """Return what was last written; None when there is none, or it cannot be read."""
    try:
        return Progress.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def describe_seconds(seconds: float) -> str:
    """Return a duration in one or two units, such as `40 s`, `4 min`, `2 h 10 min` or `3 d 4 h`."""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
