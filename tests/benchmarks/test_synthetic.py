"""The synthetic store: it opens, its counts add up, and a seed gives the same store again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heal_core.store.inspect import open_store

ROOT = Path(__file__).parents[2]
NUM = 1_000


def make_store(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.synthetic", "--trajectories", str(NUM), *arguments, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "store"
    assert make_store(folder)["synthetic"] is True
    return folder


def rows(workspace: Path, query: str) -> list[tuple[Any, ...]]:
    with open_store(workspace) as store:
        return store.execute(query).fetchall()


def test_a_synthetic_store_has_as_many_trajectories_as_were_asked_for(workspace: Path) -> None:
    # 15 % of 1,000 give 6 repaired problems, each with 4 hints and 20 repairs; the rest are rollouts
    kinds = dict(rows(workspace, "SELECT kind, count(*) FROM trajectories GROUP BY kind"))
    assert kinds == {"hint": 24, "repair": 120, "rollout": NUM - 144}


def test_each_phase_of_its_funnel_adds_up(workspace: Path) -> None:
    sums = rows(workspace, "SELECT phase, sum(num), any_value(num_in_phase) FROM funnel GROUP BY phase ORDER BY ALL")
    num_problems = -(-(NUM - 144) // 16)
    assert sums == [
        ("paths", 24, 24),
        ("problems", num_problems, num_problems),
        ("repairs", 120, 120),
        ("rollouts", NUM - 144, NUM - 144),
        ("rows", num_problems + 3, num_problems + 3),
    ]
    assert rows(workspace, "SELECT count(*) FROM funnel WHERE outcome IS NULL OR outcome = 'undecided'") == [(0,)]


def test_its_token_arrays_fit_their_trajectories(workspace: Path) -> None:
    misfits = (
        "SELECT count(*) FROM tokens JOIN trajectories USING (trajectory_id) WHERE token_starts[1] <> 0 "
        "OR list_last(token_starts) >= len(text) OR num_tokens <> len(token_ids) OR num_tokens <> len(entropies) "
        "OR num_tokens <> len(logprobs) OR num_tokens <> len(token_starts)"
    )
    assert rows(workspace, misfits) == [(0,)]
    assert rows(workspace, "SELECT count(*) FROM tokens") == [(NUM,)]


def test_only_repaired_problems_are_extremely_hard_training_problems(workspace: Path) -> None:
    hardest = "SELECT problem_id FROM bands WHERE band = 'extremely_hard' AND split = 'train'"
    repaired = "SELECT problem_id FROM trajectories WHERE kind = 'repair'"
    assert rows(workspace, f"({hardest}) EXCEPT ({repaired})") == []
    assert rows(workspace, f"SELECT count(DISTINCT problem_id) FROM ({hardest})") == [(6,)]


def test_the_same_seed_gives_the_same_parts_and_another_seed_gives_others(workspace: Path, tmp_path: Path) -> None:
    def parts(folder: Path) -> set[str]:
        return {path.name for path in (folder / "parts").glob("*/*.parquet")}

    make_store(tmp_path / "again")
    make_store(tmp_path / "other", "--seed", "1")
    assert parts(tmp_path / "again") == parts(workspace)
    assert len(parts(tmp_path / "other") & parts(workspace)) <= 1  # the recipes have no draw in them


def test_a_folder_that_holds_something_is_left_alone(workspace: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        make_store(workspace)
    assert "is not empty" in refused.value.stderr
