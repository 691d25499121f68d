"""What is printed of breakpoints that rest on intervals of entropy; of exact ones tests/flows/test_cli.py sees it."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from flows.cli.summary import print_breakpoints
from flows.cli.trajectory import print_trajectory

PROFILE = {
    "step_start_chars": [0, 6, 12],
    "step_start_tokens": [0, 2, 4],
    "step_entropies": [0.25, 1.5, 0.125],
    "breakpoint_step": 1,
    "surge_nats": 1.25,
    "window_size": 2,
    "flat": False,
    "entropy_source": "exact",
    "is_certain": True,
    "step_entropy_radii": None,
}
ROLLOUT = {
    "question": "1 + 1?", "answer": "2", "kind": "rollout", "trajectory_id": "t0", "sample_index": 0, "num_tokens": 6,
    "label": "wrong", "reason": "different", "extracted": "3", "finish_reason": "stop", "decisions": [], "repairs": [],
    "text": "first\nthen\nso 3",
}  # fmt: skip


def shown(**changes: Any) -> str:
    """Return what `heal show` prints of a rollout with such a profile."""
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_trajectory(console, {**ROLLOUT, "profile": {**PROFILE, **changes}})
    return str(console.file.getvalue())  # type: ignore[attr-defined]  # it is the one above


def told(rows: list[dict[str, Any]]) -> str:
    console = Console(file=io.StringIO(), width=300, color_system=None)
    print_breakpoints(console, rows)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_exact_entropies_are_shown_without_a_source() -> None:
    text = shown()
    assert "surge +1.250 nats, window 2\n" in text.replace(" │", "\n").replace("  ", "")
    assert "±" not in text and "uncertain" not in text and "interval" not in text and "again" not in text


def test_intervals_are_shown_with_their_source_and_whether_the_breakpoint_is_certain() -> None:
    text = shown(entropy_source="top_20", is_certain=False, step_entropy_radii=[0.5, 0.25, 0.0])
    assert "middles of intervals from top_20" in text
    assert "0.250 ± 0.500" in text and "1.500 ± 0.250" in text
    assert "surge +1.250 ± 0.750 nats, window 2, uncertain" in text  # the radii of both steps
    assert "uncertain" not in shown(entropy_source="top_20", step_entropy_radii=[0.1, 0.1, 0.0])


def test_what_was_read_again_is_told() -> None:
    assert "exact, from reading the text again" in shown(entropy_source="rescored")


def test_the_summary_says_of_how_many_the_breakpoint_is_certain() -> None:
    def row(outcome: str, num: int, reason: str | None = None, source: str = "top_20") -> dict[str, Any]:
        return {"entropy_source": source, "outcome": outcome, "reason": reason, "num_rollouts": num, "num_paths": 0}

    rows = [
        row("certain", 90),
        row("rescored", 7, "same_step"),
        row("rescored", 3, "moved"),
        row("certain", 5, source="top_5"),
    ]
    assert told(rows) == (
        "breakpoints: 95 of 105 are certain from intervals of entropy (100 from top_20 and 5 from top_5); "
        "10 were read again, which moved 3\n"
    )
    assert "4 stay uncertain" in told([row("uncertain", 4)]) and "`scorer`" in told([row("uncertain", 4)])


def test_a_run_with_exact_entropies_says_nothing_of_it() -> None:
    assert told([]) == ""
