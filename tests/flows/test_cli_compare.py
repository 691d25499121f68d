"""What `heal compare` prints, of a finished run and of comparisons drawn up by hand."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.cli.compare import print_comparison
from heal_core.report.comparison import MAX_LISTED

ROOT = Path(__file__).parents[2]


def printed(found: dict[str, Any], width: int = 80) -> str:
    output = io.StringIO()
    print_comparison(Console(file=output, width=width, highlight=False), found)
    return output.getvalue()


@pytest.fixture
def drawn() -> dict[str, Any]:
    """A comparison of two runs with little in it, to be changed."""
    run = {
        "run_id": "aaaa", "started": "2026-01-01 00:00", "state": "completed", "last_phase": "evaluation",
        "last_event": "2026-01-01 00:01:00", "heal_version": "1", "git_revision": None, "seed": 0,
        "purpose": None, "attempt": None, "start_checkpoint_id": None,
    }  # fmt: skip
    split = {"num_a": 3, "num_b": 3, "num_shared": 3, "num_only_a": 0, "num_only_b": 0, "num_moved_here": 0}
    problems = {**split, "num_moved": 0, "by_split": {"train": split, "held_out": split}}
    score = {"arm": "heal", "band": "all", "num_problems": 3, "num_same_answers": 0, "a": 0.5, "b": 0.25,
             "difference": -0.25, "interval": [-0.5, 0.0]}  # fmt: skip
    return {
        "runs": {"a": run, "b": run | {"run_id": "bbbb"}},
        "settings": [],
        "recipes": [],
        "problems": {**problems, "only_a": [], "only_b": [], "moved": []},
        "funnel": [],
        "yields": [],
        "spend": [],
        "evaluation": {
            "why_empty": None, "k_a": 4, "k_b": 4, "only_a": [], "only_b": [], "num_problems": 3, "num_ungradable": 0,
            "num_changed_band": 0, "changed_band": [], "scores": [score],
        },
    }  # fmt: skip


def line_with(text: str, *words: str) -> list[str]:
    """Return the cells of the only line that has these words."""
    (line,) = [line for line in text.splitlines() if all(word in line for word in words)]
    return line.split()


def test_scores_are_printed_in_points_with_their_interval(drawn: dict[str, Any]) -> None:
    text = printed(drawn)
    assert line_with(text, "HEAL") == ["HEAL", "all", "3", "50.0", "25.0", "-25.0", "[-50.0,", "0]"]
    assert "avg@4 in %" in text
    assert "paired bootstrap over problems" in text
    drawn["evaluation"]["k_b"] = 2
    assert "A avg@4, B avg@2, in %" in printed(drawn)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_problems": 1, "interval": None}, "one problem"),
        # every problem differs by the same, which is no reason for an interval without width
        ({"interval": [-0.25, -0.25]}, "no spread"),
        ({"difference": 0.0, "interval": [0.0, 0.0], "num_same_answers": 3}, "same answers"),
        # the same answers, graded otherwise
        ({"num_same_answers": 3}, "[-50.0, 0]"),
    ],
)
def test_an_interval_that_would_mislead_is_not_printed(
    drawn: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    drawn["evaluation"]["scores"][0].update(changes)
    (line,) = [line for line in printed(drawn).splitlines() if "HEAL" in line]
    assert line.rstrip().endswith(words)


def test_what_the_scores_leave_out_is_said(drawn: dict[str, Any]) -> None:
    drawn["evaluation"] |= {
        "num_problems": 1, "num_ungradable": 1, "num_changed_band": 7, "only_a": ["base"], "only_b": ["latest"],
        "changed_band": [{"problem_id": f"p{i}", "a": "easy", "b": "extremely_hard"} for i in range(5)],
    }  # fmt: skip
    text = " ".join(printed(drawn).split())
    # 3 problems are held out in both runs: 1 is compared, 1 cannot be graded, 1 is left
    assert "1 more held-out problems of both lack answers in one of them." in text
    assert "1 more left out: their reference answer cannot be parsed." in text
    assert "Bands are those of B's teacher; 7 of 1 problems had another in A: p0 easy -> extr. hard, p1" in text
    assert "... and 2 more" in text
    assert "only in A: student, untrained" in text
    assert "only in B: promoted student" in text


def test_a_comparison_without_scores_says_why(drawn: dict[str, Any]) -> None:
    drawn["evaluation"] |= {"why_empty": "run B (bbbb) has no evaluation: it closed no phase", "scores": []}
    drawn["runs"]["b"] |= {"state": "unfinished", "last_phase": None, "purpose": "evaluation"}
    text = printed(drawn)
    assert "nothing to compare. run B (bbbb) has no evaluation: it closed no phase." in " ".join(text.split())
    assert line_with(text, "state") == ["state", "completed", "unfinished,", "closed:", "nothing"]
    assert line_with(text, "purpose") == ["purpose", "-", "evaluation"]
    assert "students start from" not in text
    assert "avg@" not in text


def test_long_lists_are_bounded_and_long_values_begin_where_they_differ(drawn: dict[str, Any]) -> None:
    drawn["settings"] = [{"setting": f"s{i:02}", "a": "1", "b": None} for i in range(MAX_LISTED + 3)]
    same = "the same beginning " * 20
    drawn["recipes"] = [
        {"item": "template", "a": same + "first", "b": same + "second", "phases": ["hints"]},
        {"item": "model.files", "a": "0" * 64, "b": "1" * 64, "phases": ["repairs"]},
    ]
    drawn["problems"] |= {
        "num_only_b": 7,
        "only_b": [{"problem_id": f"p{i}", "a": None, "b": "held_out", "question": "q"} for i in range(5)],
    }
    text = printed(drawn)
    lines = [line.split() for line in text.splitlines()]
    assert ["s19", "1", "-"] in lines and ["s20", "1", "-"] not in lines
    assert text.count("... and 3 more") == 1 and text.count("... and 2 more") == 1
    # of a digest, its beginning
    assert line_with(text, "model.files") == ["model.files", "(repairs)", "0" * 12, "1" * 12]
    # of the same beginning only the last words, once for each value
    assert text.count("the same beginning") == 2 and "first" in text and "second" in text
    assert max(map(len, text.splitlines())) <= 80


def test_text_of_a_problem_neither_steers_the_terminal_nor_is_markup(drawn: dict[str, Any]) -> None:
    question = "Is \x1b[31m[red]1[/red]\n+ 1 even?"
    drawn["problems"] |= {
        "num_moved": 1, "moved": [{"problem_id": "p", "a": "train", "b": "held_out", "question": question}],
    }  # fmt: skip
    assert "  p  train -> held out  Is [31m[red]1[/red] + 1 even?" in printed(drawn).splitlines()


def test_a_number_that_a_run_has_not_come_to_is_a_dash(drawn: dict[str, Any]) -> None:
    row = {"phase": "repairs", "reason": None, "num_in_phase_a": 8, "num_in_phase_b": None}
    drawn["funnel"] = [row | {"outcome": "kept", "a": 2, "b": None, "difference": None}]
    drawn["yields"] = [
        {"topic": "repairs", "item": "problems", "metric": "kept_share", "a": 0.25, "b": None, "difference": None},
        {"topic": "repairs", "item": "problems", "metric": "num_problems", "a": 8.0, "b": 9.0, "difference": 1.0},
    ]
    text = printed(drawn)
    # 2 of 8 are 25 %
    assert line_with(text, " kept ") == ["kept", "2", "-", "-", "25.0", "-"]
    assert line_with(text, "repairs: kept") == ["repairs:", "kept,", "%", "25.0", "-", "-"]
    assert line_with(text, "extremely hard training") == ["extremely", "hard", "training", "problems", "8", "9", "+1"]


# Of a finished run


@pytest.mark.slow
def test_a_run_compared_with_itself_differs_in_nothing_and_has_the_scores_of_its_summary(finished_run: Any) -> None:
    run_id = finished_run.summary["run_id"]
    done = finished_run.heal("compare", "last", run_id[:6], "--json", "-w", finished_run.workspace)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["runs"]["a"] == found["runs"]["b"]
    assert found["runs"]["a"]["run_id"] == run_id
    assert found["settings"] == found["recipes"] == []
    assert [found["problems"][f"num_{kind}"] for kind in ("only_a", "only_b", "moved")] == [0, 0, 0]
    differences = [row["difference"] for part in ("funnel", "yields") for row in found[part]]
    assert differences == pytest.approx([0] * len(differences), abs=1e-9)
    assert {(row["phase"], row["outcome"], row["reason"]): row["a"] for row in found["funnel"]} == {
        (row["phase"], row["outcome"], row["reason"]): row["num"] for row in finished_run.summary["funnel"]
    }
    for row in found["evaluation"]["scores"]:
        assert (row["difference"], row["interval"]) == (0, [0, 0] if row["num_problems"] > 1 else None)
        assert row["num_same_answers"] == row["num_problems"]
    own = finished_run.rows("SELECT arm, band, num_problems, avg_at_k FROM evaluations")
    assert {(row["arm"], row["band"], row["num_problems"]): row["a"] for row in found["evaluation"]["scores"]} == {
        (row["arm"], row["band"], row["num_problems"]): pytest.approx(row["avg_at_k"]) for row in own
    }


@pytest.mark.slow
def test_a_comparison_fits_into_80_columns_when_piped(finished_run: Any) -> None:
    done = finished_run.heal("compare", "last", "last", "-w", finished_run.workspace)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for words in ("A and B are the same run", "settings: no difference", "funnel", "yields", "spend", "same answers"):
        assert words in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([], ["InputError", "there is no previous run", "`heal run`"]),
        (["none", "last"], ["InputError", "'none'", "`heal status`"]),
    ],
)
def test_a_run_that_is_not_there_is_a_mistake(finished_run: Any, runs: list[str], words: list[str]) -> None:
    done = finished_run.heal("compare", *runs, "-w", finished_run.workspace)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words)


@pytest.mark.slow
def test_comparing_loads_neither_torch_nor_prefect(finished_run: Any) -> None:
    script = (
        "import sys; sys.argv = ['heal', 'compare', 'last', 'last', '--json', '-w', sys.argv[1]]\n"
        "from flows.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(*sorted({'heal_core', 'torch', 'prefect', 'transformers'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", script, str(finished_run.workspace)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "heal_core", done.stdout + done.stderr
