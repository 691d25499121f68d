"""Interleaved timings, and the JSON line that a benchmark prints.

The sides of a comparison run in turn, so that a machine that drifts drifts for all of
them; medians are quoted, with the extremes beside them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

_PACKAGES = ("duckdb", "polars", "pyarrow", "numpy", "torch", "transformers")


def interleave(sides: Mapping[str, Callable[[], float]], num_rounds: int) -> dict[str, list[float]]:
    """Return each side's seconds, one per round; who goes first changes from round to round.

    A side returns its own seconds, so that what it sets up is left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(num_rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(sides[name]())
    return seconds


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {
        "median": round(statistics.median(seconds), 4),
        "min": round(min(seconds), 4),
        "max": round(max(seconds), 4),
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Return the ratio of the medians, and the extremes of the ratio round by round."""
    by_round = [a / b for a, b in zip(above, below, strict=True)]
    return {
        "of_medians": round(statistics.median(above) / statistics.median(below), 3),
        "min": round(min(by_round), 3),
        "max": round(max(by_round), 3),
    }


def print_report(benchmark: str, figures: Mapping[str, Any]) -> None:
    """Print one JSON line: the figures, and where they were taken."""
    machine = {
        "cpus": os.cpu_count(),
        "arch": platform.machine(),
        "load_after": [round(load, 2) for load in os.getloadavg()],
    }
    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    print(json.dumps({"benchmark": benchmark, **figures, "versions": versions, "machine": machine}), flush=True)
