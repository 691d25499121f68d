"""What is verified anew, and what is told of it; with the real verifier where something is graded."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from heal_core.reverify import grade_pending, survey, tell_bands, tell_changes, todays_verdicts
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace
from heal_core.verify.config import VerifyConfig
from heal_core.verify.grade import verifier_identity
from heal_core.verify.pool import VerifierPool

VERIFY, LONGER = VerifyConfig(), VerifyConfig(timeout_seconds=20)
KINDS = ("rollout", "hint", "guided", "repair")
NUM_ROLLOUTS = 8
CONFIG = {"bands": {"hard_below": 0.5}, "rollouts": {"num_generations": NUM_ROLLOUTS}}
RIGHT, WRONG = "So \\boxed{2}.", "So \\boxed{3}."


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(VerifyConfig(num_workers=1, timeout_seconds=30)) as shared:
        yield shared


class Maker:
    """Writes texts with verdicts into a store, and what a run uses of them."""

    def __init__(self, store: Store, table_row: Any, make_slot: Any, make_rows: Any) -> None:
        self.store, self.table_row, self.make_slot, self.make_rows = store, table_row, make_slot, make_rows

    def text(
        self, text: str, problem: str = "p0", index: int = 0, verdict: tuple[str, str | None] | None = ("wrong", None),
        today: bool = False, run: str | None = None, cut: bool = False, **slot: Any,
    ) -> str:  # fmt: skip
        """Store a text and its verdict (label, reason), by another version unless it is `today`'s; return its id."""
        made = self.make_slot(problem, index, **slot)
        (row,) = self.make_rows([made])
        self.store.append("problems", [self.table_row("problems", problem_id=problem)])
        self.store.append("trajectories", [row | {"text": text}])
        verdict_id = f"v {made.row_id}" if verdict else None
        if verdict:
            name, version = verifier_identity("math")
            said = self.table_row(
                "verdicts", verdict_id=verdict_id, trajectory_id=made.row_id, label=verdict[0], reason=verdict[1],
                extracted=None, verifier=name, verifier_version=version if today else "0", limit_seconds=5.0,
            )  # fmt: skip
            self.store.append("verdicts", [said])
        if run:
            used = self.table_row(
                "run_rows", run_row_id=f"{run} {made.row_id}", run_id=run, row_id=made.row_id, cut=cut,
                verdict_id=verdict_id,
            )  # fmt: skip
            self.store.append("run_rows", [used])
            of = self.table_row("run_problems", run_problem_id=f"{run} {problem}", run_id=run, problem_id=problem)
            self.store.append("run_problems", [of])
        return str(made.row_id)


@pytest.fixture
def maker(store: Store, table_row: Any, make_slot: Any, make_rows: Any) -> Maker:
    return Maker(store, table_row, make_slot, make_rows)


def test_each_trajectory_is_counted_once(store: Store, maker: Maker) -> None:
    todays = maker.text(RIGHT, index=0, today=True, run="a")
    older = maker.text(RIGHT, index=1)
    repaired = maker.text(RIGHT, index=2, kind="repair", run="a")
    maker.text("Mind the sum.", index=3, kind="hint", verdict=None, run="a")
    maker.text(RIGHT, index=4, verdict=None)
    found = survey(store, None, KINDS, VERIFY)
    assert (found.answered, found.pending) == ((todays,), tuple(sorted([older, repaired])))
    assert (found.num_hints, found.num_never_graded, found.num_all) == (1, 1, 5)
    assert survey(store, "a", KINDS, VERIFY).pending == (repaired,)
    assert survey(store, None, ["rollout"], VERIFY).pending == (older,)
    assert survey(store, "another", KINDS, VERIFY).num_all == 0


def test_flips_are_told_against_the_verdict_before(store: Store, maker: Maker, pool: VerifierPool) -> None:
    flipped = maker.text(RIGHT, index=0, verdict=("wrong", "different"))
    maker.text(RIGHT, index=1, verdict=("correct", None))
    maker.text(WRONG, index=2, verdict=("wrong", "different"))
    lost = maker.text(WRONG, index=3, kind="repair", verdict=("correct", None))
    first = maker.text(WRONG, index=4, verdict=("wrong", None), today=True)
    found = survey(store, None, KINDS, VERIFY)
    assert grade_pending(store, pool, found.pending, VERIFY) == 4
    told = tell_changes(store, todays_verdicts(store, [*found.answered, *found.pending], VERIFY))
    assert told["labels"] == [
        {"kind": "repair", "before_label": "correct", "now_label": "wrong", "num": 1},
        {"kind": "rollout", "before_label": "wrong", "now_label": "correct", "num": 1},
        {"kind": "rollout", "before_label": "correct", "now_label": "correct", "num": 1},
        {"kind": "rollout", "before_label": "wrong", "now_label": "wrong", "num": 1},
    ]
    assert (told["num_flipped"], told["num_first"], told["num_gave_up"]) == (2, 1, 0)
    assert [(row["trajectory_id"], row["now_extracted"], row["answer"]) for row in told["examples"]] == [
        (lost, "3", "2"),
        (flipped, "2", "2"),
    ]
    assert told["examples"][0]["before_verifier_version"] == "0"
    assert told["examples"][0]["now_verifier_version"] == verifier_identity("math")[1]
    assert survey(store, None, KINDS, VERIFY).pending == ()
    assert first not in [row["trajectory_id"] for row in told["examples"]]


def test_what_ran_out_of_time_is_graded_again_under_a_higher_limit(
    store: Store, maker: Maker, pool: VerifierPool
) -> None:
    """Of the same version: a loaded machine made it give up. A run with the low limit keeps what it rests on."""
    row_id = maker.text(RIGHT, index=0, verdict=("unverifiable", "timeout"), today=True)
    died = maker.text(RIGHT, index=1, verdict=("unverifiable", "verifier_died"), today=True)
    unreadable = maker.text(RIGHT, index=2, verdict=("unverifiable", "unparsable_gold"), today=True)
    assert survey(store, None, KINDS, VERIFY).pending == ()
    assert tell_changes(store, todays_verdicts(store, [row_id, died, unreadable], VERIFY))["num_gave_up"] == 2
    found = survey(store, None, KINDS, LONGER)
    assert (set(found.pending), found.answered) == ({row_id, died}, (unreadable,))
    assert grade_pending(store, pool, found.pending, LONGER) == 2
    told = tell_changes(store, todays_verdicts(store, found.pending, LONGER))
    assert told["labels"] == [{"kind": "rollout", "before_label": "unverifiable", "now_label": "correct", "num": 2}]
    assert {(row["before_limit_seconds"], row["now_limit_seconds"]) for row in told["examples"]} == {(5.0, 20.0)}
    assert todays_verdicts(store, [row_id], VERIFY) == [f"v {row_id}"]


def test_bands_are_those_of_the_view_with_the_runs_own_verdicts_and_move_with_others(
    store: Store, maker: Maker, pool: VerifierPool
) -> None:
    for index in range(NUM_ROLLOUTS):
        # the run: 3 of 7 graded right, one of them cut and one without a reading; today: 6 of 8, or 5 as one is cut
        label = (
            ("correct", None) if index < 4 else ("unverifiable", "timeout") if index == 4 else ("wrong", "different")
        )
        maker.text(RIGHT if index < 6 else WRONG, "p0", index, label, run="run", cut=index == 3)
        maker.text(WRONG, "p1", index, ("wrong", "different"), run="run")
    own = [row["verdict_id"] for row in store.rows("SELECT verdict_id FROM verdicts")]
    rates = store.rows("SELECT problem_id, num_graded, num_correct FROM pass_rates ORDER BY problem_id")
    assert [tuple(row.values()) for row in rates] == [("p0", 7, 3), ("p1", 8, 0)]
    same = tell_bands(store, "run", CONFIG, own)
    assert (same["num_pass_rate_changed"], same["bands"]) == (0, [])
    found = survey(store, "run", KINDS, VERIFY)
    grade_pending(store, pool, found.pending, VERIFY)
    told = tell_bands(store, "run", CONFIG, todays_verdicts(store, found.pending, VERIFY))
    assert told == {
        "run_id": "run",
        "num_problems": 2,
        "num_pass_rate_changed": 1,
        "num_band_changed": 1,
        "bands": [{"before": "hard", "now": "easy", "num": 1}],
    }
    after = store.rows("SELECT problem_id, num_graded, num_correct FROM pass_rates ORDER BY problem_id")
    assert after == rates  # the run keeps what it rests on


KILLED = """
    import os, signal, sys
    from heal_core.reverify import grade_pending, survey
    from heal_core.store.store import Store
    from heal_core.store.workspace import Workspace
    from heal_core.verify.config import VerifyConfig
    from heal_core.verify.pool import VerifierPool

    num = 0

    def count():
        global num
        num += 1
        if num == 25:
            os.kill(os.getpid(), signal.SIGKILL)

    workspace = Workspace(sys.argv[1])
    verify = VerifyConfig(num_workers=1)
    with workspace.lock(), Store(workspace) as store, VerifierPool(verify) as pool:
        found = survey(store, None, ["rollout"], verify)
        grade_pending(store, pool, found.pending, verify, count, shard_trajectories=10)
"""


@pytest.mark.slow
def test_a_kill_loses_at_most_a_shard_and_the_next_start_goes_on(
    workspace: Workspace, table_row: Any, make_slot: Any, make_rows: Any, pool: VerifierPool
) -> None:
    with Store(workspace) as store:
        maker = Maker(store, table_row, make_slot, make_rows)
        ids = sorted(maker.text(RIGHT, index=index) for index in range(40))
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(workspace.root)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    with workspace.lock(), Store(workspace) as store:
        found = survey(store, None, KINDS, VERIFY)
        assert (found.answered, found.pending) == (tuple(ids[:20]), tuple(ids[20:]))
        assert grade_pending(store, pool, found.pending, VERIFY) == 20
        assert store.rows("SELECT label, count(*) AS num FROM latest_verdicts GROUP BY label") == [
            {"label": "correct", "num": 40}
        ]
        assert grade_pending(store, pool, survey(store, None, KINDS, VERIFY).pending, VERIFY) == 0
