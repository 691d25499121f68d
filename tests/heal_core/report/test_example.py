"""The repair of the headline: one that can be shown beside its original."""

from __future__ import annotations

from typing import Any

from heal_core.report.page import find_example

Row = dict[str, Any]


def view(row_id: str, steps: list[str], **changes: Any) -> Row:
    return {
        "id": row_id, "tokens": steps, "steps": [{"start": index} for index in range(len(steps))], "hint": "Think.",
        "question": "q?", "num_tokens": len(steps), **changes,
    }  # fmt: skip


LISTED = [{"trajectory_id": "r", "parent_id": "w", "phase": "repairs", "outcome": "kept"}]


def test_the_example_goes_on_where_the_original_broke() -> None:
    views = {"r": view("r", ["2. b", "3. c"]), "w": view("w", ["1. a", "2. x", "3. y"], breakpoint=1)}
    example = find_example(LISTED, views)
    assert example is not None
    assert (example["broken"], example["went_on"]) == (["2. x", "3. y"], ["2. b", "3. c"])


def test_texts_whose_tokens_the_store_lacks_are_shown_whole() -> None:
    # a view without token arrays has its whole text as one token, and no step
    views = {name: view(name, []) | {"tokens": [f"all of {name}"]} for name in ("r", "w")}
    example = find_example(LISTED, views)
    assert example is not None
    assert (example["broken"], example["went_on"]) == (["all of w"], ["all of r"])
