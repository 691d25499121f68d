"""Nights on the scripted world: what fails, what is tried again, what ends at a time, what is promoted."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

import flows.promotion
from heal_core.deadline import Deadline
from heal_core.errors import (
    EngineStalledError,
    InputError,
    RequestError,
    StoreError,
    TooManyFailuresError,
    TransientError,
)
from heal_core.promotion import PromotionConfig, decide_promotion
from heal_core.records import EVALUATION
from heal_core.store.check import check_store
from heal_core.store.workspace import Workspace
from tasks.slots import LIMIT_NAME
from tests.flows.recompute.world import HELD_OUT_LEVELS, TRAIN_LEVELS, level_of, write_problems

pytestmark = pytest.mark.slow

AT_ONCE = {"failures.retry_delay_seconds": 0.0, "failures.max_retries": 2}
ALWAYS = 10**6


def died() -> EngineStalledError:
    return EngineStalledError("the engine's child died")


class Faults:
    """Makes the engine fail at prompts that hold a text: the first `times` calls, or always."""

    def __init__(self) -> None:
        self._planned: list[tuple[str, str, Exception]] = []
        self._left: Counter[int] = Counter()
        self.met: Counter[str] = Counter()

    def plan(self, text: str, error: Exception, times: int = ALWAYS, kind: str = "") -> None:
        self._left[len(self._planned)] = times
        self._planned.append((text, kind, error))

    def clear(self) -> None:
        self._left.clear()

    def __call__(self, kind: str, prompt: str) -> None:
        for index, (text, of_kind, error) in enumerate(self._planned):
            if text in prompt and of_kind in ("", kind) and self._left[index] > 0:
                self._left[index] -= 1
                self.met[text] += 1
                raise error


@pytest.fixture
def faults(lab: Any) -> Iterator[Faults]:
    lab.ledger.fail = Faults()
    yield lab.ledger.fail
    lab.ledger.fail = lambda kind, prompt: None


@pytest.fixture(scope="module")
def undisturbed(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lab.run(tmp_path_factory.mktemp("undisturbed") / "workspace", AT_ONCE)


def everything(run: Any) -> list[tuple[Any, ...]]:
    """Return what a run rests on and decided, without when."""
    tables = {
        "run_rows": "phase, arm, row_id, cut, verdict_id",
        "decisions": "phase, subject_id, decision, reason, value",
        "stage_examples": "arm, stage, position, trajectory_id",
        "evaluations": "arm, band, avg_at_k, num_problems",
        "promotions": "checkpoint_id, decision, difference",
    }
    return [
        (table, *row)
        for table, columns in tables.items()
        for row in run.rows(f"SELECT {columns} FROM {table} WHERE run_id = $run ORDER BY ALL")
    ]


def without_promotion(run: Any) -> list[tuple[Any, ...]]:
    return [row for row in everything(run) if "promotion" not in row[:2] and row[0] != "promotions"]


def quarantined(run: Any) -> list[tuple[str, str]]:
    sql = "SELECT p.question, q.work FROM quarantine q JOIN problems p USING (problem_id) WHERE q.run_id = $run"
    return [(question.partition(" holds")[0], work) for question, work in run.rows(f"{sql} ORDER BY ALL")]


def is_sound(workspace: Path) -> bool:
    """Return whether nothing is wrong but the scripted trainer's weights, which are none."""
    findings = check_store(Workspace(workspace)).findings
    return not [finding for finding in findings if "model.safetensors cannot be read" not in finding.what]


# ---- what fails


def test_an_engine_that_fails_twice_costs_nothing(lab: Any, faults: Faults, undisturbed: Any, tmp_path: Path) -> None:
    faults.plan("Shelf 3 ", died(), times=2)
    run = lab.run(tmp_path / "workspace", AT_ONCE)
    assert faults.met == {"Shelf 3 ": 2}
    assert quarantined(run) == []
    assert everything(run) == everything(undisturbed)


@pytest.mark.parametrize(
    ("error", "tries"),
    # a shard is tried once and twice again, then its problem alone as often; what cannot pass is tried once each time
    [
        (died(), 6),
        pytest.param(RequestError("too long"), 2, marks=pytest.mark.full),
        (ZeroDivisionError("a defect"), 2),
    ],
)
def test_a_problem_that_always_fails_is_out_and_the_run_goes_on(
    lab: Any, faults: Faults, tmp_path: Path, error: Exception, tries: int
) -> None:
    faults.plan("Shelf 4 ", error)
    run = lab.run(tmp_path / "workspace", AT_ONCE)
    assert faults.met == {"Shelf 4 ": tries}
    assert quarantined(run) == [("Shelf 4 (hard)", "rollouts")]
    ((reason, phase),) = run.rows("SELECT reason, phase FROM quarantine WHERE run_id = $run")
    assert (reason, phase) == (f"{type(error).__name__}: {error}", "rollouts")
    assert run.summary["quarantined"] == {"rows": 0, "problems": 1}
    assert "1 quarantined" in run.summary["title"]
    num_problems = len(TRAIN_LEVELS) + len(HELD_OUT_LEVELS)
    assert run.counted["rollouts"] == 16 * (num_problems - 1)
    # every count adds up: 11 rows, 11 problems, one of them in no band
    funnel = run.rows("SELECT phase, outcome, num, num_in_phase FROM funnel WHERE run_id = $run")
    assert {(phase, of) for phase, _, _, of in funnel if phase in ("rows", "problems")} == {
        ("rows", num_problems),
        ("problems", num_problems),
    }
    assert [num for phase, outcome, num, _ in funnel if (phase, outcome) == ("problems", "quarantined")] == [1]
    assert is_sound(run.workspace)


@pytest.mark.parametrize(
    ("kind", "work", "shelf"),
    [
        pytest.param("hints", "hints try 1", "Shelf 5 (never)", marks=pytest.mark.full),
        ("repairs", "repairs", "Shelf 5 (never)"),
        pytest.param("guided", "guided", "Shelf 3 (hard)", marks=pytest.mark.full),
        ("answers", "evaluation heal", "Shelf 51 (hard)"),
    ],
)
def test_a_run_that_is_resumed_leaves_out_what_failed_where_it_failed(
    lab: Any, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, work: str, shelf: str
) -> None:
    def fail_at(asked_kind: str, prompt: str) -> None:
        if asked_kind == kind and prompt.startswith(shelf) and lab.ledger.session.progress._names[2] == work:
            raise died()

    lab.ledger.fail = fail_at
    broken = flows_summarise(monkeypatch)
    with pytest.raises(StoreError, match="killed"):
        lab.start(tmp_path / "workspace", AT_ONCE)
    broken.undo()
    lab.ledger.fail = lambda kind, prompt: pytest.fail("what is out is not asked for") if shelf in prompt else None
    run = lab.run(tmp_path / "workspace", AT_ONCE)
    assert quarantined(run) == [(shelf, work)]
    arms = {row[0] for row in run.rows("SELECT num_problems FROM evaluations WHERE run_id = $run AND band = 'all'")}
    assert arms == {2 if kind == "answers" else 3}, "all arms are measured on the same problems"
    assert is_sound(run.workspace)


def flows_summarise(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Have a run fail after its last phase, as if it had been killed there."""

    def kill(*_: Any) -> None:
        raise StoreError("killed")

    monkeypatch.setitem(__import__("flows.heal").heal.PHASES, "promotion", kill)
    return monkeypatch


@pytest.mark.parametrize("error", [died(), pytest.param(RequestError("not a number"), marks=pytest.mark.full)])
def test_a_fault_of_all_problems_puts_none_in_quarantine(
    lab: Any, faults: Faults, undisturbed: Any, tmp_path: Path, error: Exception
) -> None:
    faults.plan("", error)
    with pytest.raises(TransientError, match="fails on everything, so that no problem was put in quarantine"):
        lab.start(tmp_path / "workspace", AT_ONCE)
    faults.clear()
    run = lab.run(tmp_path / "workspace", AT_ONCE)
    assert (run.run_id, quarantined(run)) == (undisturbed.run_id, [])
    assert everything(run) == everything(undisturbed)


def test_an_engine_that_is_gone_on_the_second_night_costs_no_problem(lab: Any, faults: Faults, tmp_path: Path) -> None:
    workspace, train = tmp_path / "workspace", tmp_path / "train.jsonl"
    changes = {**AT_ONCE, "problems.path": str(train), "failures.max_quarantined_share": 0.5}
    write_problems(train, TRAIN_LEVELS)
    lab.run(workspace, changes)
    write_problems(train, (*TRAIN_LEVELS, "easy", "hard"))
    faults.plan("", died())
    # what is stored already is no sign of life
    with pytest.raises(TransientError, match="fails on everything"):
        lab.start(workspace, changes)
    faults.clear()
    assert quarantined(lab.run(workspace, changes)) == []


def test_a_fault_of_everything_after_a_quarantine_goes_on_with_the_same_run(
    lab: Any, faults: Faults, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    faults.plan("Shelf 4 ", RequestError("too long"))
    asked_students: list[str] = []

    def fail(kind: str, prompt: str) -> None:
        faults(kind, prompt)
        if kind == "answers":
            asked_students.append(prompt)
        if asked_students:
            raise died()

    lab.ledger.fail = fail
    with pytest.raises(TransientError, match="fails on everything"):
        lab.start(workspace, {**AT_ONCE, "failures.max_quarantined_share": 0.1})
    first = lab.ledger.session.run_id
    lab.ledger.fail = faults
    run = lab.run(workspace, {**AT_ONCE, "failures.max_quarantined_share": 0.1})
    assert (run.run_id, run.counted["stages"]) == (first, 0)
    assert quarantined(run) == [("Shelf 4 (hard)", "rollouts")]


def test_a_run_that_loses_too_many_fails_and_tries_them_again_when_it_is_started_again(
    lab: Any, faults: Faults, undisturbed: Any, tmp_path: Path
) -> None:
    for number in (1, 4):
        faults.plan(f"Shelf {number} ", RequestError("too long"))
    # 0.05 of 11 problems: one may fail
    with pytest.raises(TooManyFailuresError, match=r"2 of 11 problems .* allows 1"):
        lab.start(tmp_path / "workspace", AT_ONCE)
    faults.clear()
    run = lab.run(tmp_path / "workspace", AT_ONCE)
    assert run.rows("SELECT attempt, run_id, basis_id FROM runs ORDER BY attempt") == [
        (0, undisturbed.run_id, undisturbed.run_id),
        (1, run.run_id, undisturbed.run_id),
    ]
    assert quarantined(run) == []
    assert everything(run) == everything(undisturbed)


def test_retry_tries_what_failed_and_makes_nothing_else_anew(
    lab: Any, faults: Faults, undisturbed: Any, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    faults.plan("Shelf 4 ", died())
    first = lab.run(workspace, AT_ONCE)
    faults.clear()
    assert lab.start(workspace, AT_ONCE)["state"] == "nothing_new", "an ordinary start leaves it at that"
    again = lab.run(workspace, AT_ONCE, retry=True)
    assert again.run_id != first.run_id
    assert (again.counted["rollouts"], again.counted["guided"]) == (16, 2)
    assert again.counted["hints"] == again.counted["repairs"] == 0
    # but for the student that it is paired with, it is the run that would have been
    assert without_promotion(again) == without_promotion(undisturbed)
    assert lab.start(workspace, AT_ONCE, retry=True)["state"] == "nothing_new", "nothing is left to be retried"


def test_a_users_mistake_is_neither_retried_nor_put_in_quarantine(lab: Any, faults: Faults, tmp_path: Path) -> None:
    faults.plan("Shelf 4 ", InputError("no such file"))
    with pytest.raises(InputError):
        lab.start(tmp_path / "workspace", AT_ONCE)
    assert faults.met == {"Shelf 4 ": 1}


# ---- what ends at a time


class Countdown(Deadline):
    """A time that is over after so many pieces of work were begun."""

    left = 0

    @property
    def seconds_left(self) -> float:
        type(self).left -= 1
        return float(self.left)


@pytest.mark.parametrize(
    "num_begun", [pytest.param(1, marks=pytest.mark.full), 4, pytest.param(9, marks=pytest.mark.full), 14]
)
def test_a_run_ends_at_its_time_and_the_next_start_goes_on(
    lab: Any, undisturbed: Any, tmp_path: Path, num_begun: int
) -> None:
    workspace = tmp_path / "workspace"
    Countdown.left = num_begun
    changes = {**AT_ONCE, "chunk_problems": 32}
    outcome = lab.start(workspace, changes, until=Countdown(datetime(2026, 1, 1, 7, tzinfo=UTC)))
    assert (outcome["state"], outcome["run_id"]) == ("stopped", undisturbed.run_id)
    assert "2026-01-01 07:00" in outcome["title"]
    run = lab.run(workspace, changes)
    events = [event for (event,) in run.rows("SELECT event FROM run_events ORDER BY rowid") if event != "phase"]
    assert events == ["started", "stopped", "started", "completed"]
    assert everything(run) == everything(undisturbed)


def test_a_run_ends_at_its_token_budget_and_each_start_has_one_of_its_own(
    lab: Any, undisturbed: Any, tmp_path: Path
) -> None:
    workspace, budget, num_sampled = tmp_path / "workspace", 2500, []
    outcome = lab.start(workspace, AT_ONCE, max_tokens=budget)
    while outcome["state"] == "stopped":
        num_sampled.append(
            sum(lab.ledger.calls[kind] for kind in ("rollouts", "hints", "repairs", "guided", "answers"))
        )
        assert num_sampled[-1] > 0, "it would never come to its end"
        assert f"of {budget:,}" in outcome["title"]
        outcome = lab.start(workspace, AT_ONCE, max_tokens=budget)
    assert len(num_sampled) >= 2
    run = lab.run(workspace, AT_ONCE)
    assert run.summary["state"] == "nothing_new"
    spent = [json.loads(detail)["num_tokens"] for (detail,) in run.rows(
        "SELECT detail FROM run_events WHERE event = 'stopped' ORDER BY rowid"
    )]  # fmt: skip
    # a text of the world has at most 60 tokens
    assert len(spent) == len(num_sampled) and all(budget <= num < budget + 60 for num in spent)
    assert everything(run) == everything(undisturbed)


def test_a_run_takes_a_slot_of_the_server_for_its_models_and_gives_it_back(lab: Any, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    limit = GlobalConcurrencyLimitCreate(name=LIMIT_NAME, limit=1)
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(limit)
        try:
            client.increment_concurrency_slots(names=[LIMIT_NAME], slots=1, mode="concurrency").raise_for_status()
            outcome = lab.start(workspace, AT_ONCE, until=Deadline(datetime.now(UTC) + timedelta(seconds=2)))
            assert (outcome["state"], "no slot of the limit heal-models" in outcome["reason"]) == ("stopped", True)
            client.release_concurrency_slots(names=[LIMIT_NAME], slots=1, occupancy_seconds=1.0).raise_for_status()
            assert lab.start(workspace, AT_ONCE)["state"] == "completed"
            assert client.read_global_concurrency_limit_by_name(LIMIT_NAME).active_slots == 0
        finally:
            client.delete_global_concurrency_limit_by_name(LIMIT_NAME)


def test_a_retry_of_a_run_whose_problems_have_changed_says_so(lab: Any, tmp_path: Path) -> None:
    workspace, train = tmp_path / "workspace", tmp_path / "train.jsonl"
    changes = {**AT_ONCE, "problems.path": str(train)}
    write_problems(train, TRAIN_LEVELS)
    run = lab.run(workspace, changes)
    assert lab.start(workspace, changes, retry=run.run_id)["state"] == "nothing_new"
    write_problems(train, (*TRAIN_LEVELS, "easy"))
    with pytest.raises(InputError, match=f"run {run.run_id} cannot be gone on with: the problems changed"):
        lab.start(workspace, changes, retry=run.run_id)


def test_a_run_whose_time_is_over_while_it_waits_is_stopped(lab: Any, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    with workspace.lock():
        over = Deadline(datetime(2026, 1, 1, tzinfo=UTC))
        outcome = lab.start(workspace.root, {**AT_ONCE, "on_busy": "wait"}, until=over)
    assert (outcome["state"], outcome["run_id"]) == ("stopped", None)


# ---- what is promoted


def scores(run: Any, phase: str, arm: str) -> dict[str, float]:
    sql = (
        "SELECT problem_id, avg((label = 'correct')::INT) FROM run_trajectories "
        f"WHERE run_id = $run AND phase = '{phase}' AND arm = '{arm}' GROUP BY problem_id"
    )
    return dict(run.rows(sql))


def test_a_first_student_is_compared_with_the_untrained_one(undisturbed: Any) -> None:
    ((decision, best, difference, num),) = undisturbed.rows(
        "SELECT decision, best_checkpoint_id, difference, num_problems FROM promotions"
    )
    heal, base = scores(undisturbed, "evaluation", "heal"), scores(undisturbed, "evaluation", "base")
    assert (best, num) == (None, 3)
    assert difference == pytest.approx(np.mean([heal[problem] - base[problem] for problem in heal]))
    promoted = decide_promotion(heal, base, False, PromotionConfig())
    assert decision == promoted.decision


@pytest.fixture
def worsen(lab: Any) -> Iterator[Callable[[], None]]:
    """Return a function after which students that are trained from then on answer hard problems wrongly."""
    known = set(), []  # type: tuple[set[str], list[bool]]

    def reword(asked: Any) -> Any:
        if asked.kind != "rollout" or not known[1]:
            known[0].add(asked.weights)
            return asked
        return asked if asked.weights in known[0] or level_of(asked) != "hard" else replace(asked, sample_index=7)

    lab.ledger.reword = reword
    yield lambda: known[1].append(True)
    lab.ledger.reword = lambda asked: asked


def test_students_are_paired_with_the_best_ever_on_the_held_out_problems_of_today(
    lab: Any, tmp_path: Path, worsen: Callable[[], None]
) -> None:
    workspace, held_out = tmp_path / "workspace", tmp_path / "held_out.jsonl"
    changes = {**AT_ONCE, "problems.evaluation_path": str(held_out), "promotion.margin_points": -100.0}
    write_problems(held_out, HELD_OUT_LEVELS, first=50)
    first = lab.run(workspace, changes)
    worsen()
    write_problems(held_out, (*HELD_OUT_LEVELS, "easy"), first=50)
    second = lab.run(workspace, {**changes, "sft.learning_rate": 2e-5})
    lab.ledger.reword = lambda asked: asked
    third = lab.run(workspace, {**changes, "sft.learning_rate": 3e-5})
    query = (
        "SELECT checkpoint_id, best_checkpoint_id, num_problems, avg_at_k, best_avg_at_k, difference, becomes_best "
        "FROM promotions WHERE decision = 'promoted' ORDER BY rowid"
    )
    (one, *of_first), (two, *of_second), (three, *of_third) = third.rows(query)
    # in 2 tries: easy is right in both, hard in the first, never in none: 1, 1/2, 0 of three problems, 1 more of four
    assert of_first == [None, 3, 0.5, 0.5, 0.0, True]
    # it has none of the hard one; only the new problem is put to the best of before: 2 answers
    assert of_second == [one, 4, 0.5, 0.625, -0.125, False]
    assert second.counted["promotion"] == 2
    # not with the second, which is the latest but not the best
    assert of_third == [one, 4, 0.625, 0.625, 0.0, True]
    assert (workspace / "students" / "latest").resolve() == workspace / "checkpoints" / three
    assert len({one, two, three, first.run_id}) == 4
    assert is_sound(workspace)


def test_a_run_that_goes_on_after_another_student_became_the_best_is_paired_with_that(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "workspace"
    changes = {**AT_ONCE, "promotion.margin_points": -100.0}
    lab.run(workspace, changes)
    decide = flows.promotion.decide
    monkeypatch.setattr(flows.promotion, "decide", lambda *_: (_ for _ in ()).throw(StoreError("killed")))
    with pytest.raises(StoreError, match="killed"):
        lab.start(workspace, {**changes, "sft.learning_rate": 2e-5})
    monkeypatch.setattr(flows.promotion, "decide", decide)
    third = lab.run(workspace, {**changes, "sft.learning_rate": 3e-5})
    second = lab.run(workspace, {**changes, "sft.learning_rate": 2e-5})
    ((best,),) = second.rows("SELECT best_checkpoint_id FROM promotions WHERE run_id = $run")
    assert [(best,)] == third.rows("SELECT checkpoint_id FROM promotions WHERE run_id = $run")


def test_a_student_below_the_margin_is_refused_and_the_old_one_stays(lab: Any, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    lab.run(workspace, {**AT_ONCE, "promotion.margin_points": -100.0})
    latest = (workspace / "students" / "latest").resolve()
    # nothing is above a margin of 100 points
    second = lab.run(workspace, {**AT_ONCE, "promotion.margin_points": 100.0, "sft.learning_rate": 2e-5})
    assert second.rows("SELECT decision, reason, becomes_best FROM promotions WHERE run_id = $run") == [
        ("refused", "below_margin", False)
    ]
    assert (workspace / "students" / "latest").resolve() == latest


def test_problems_that_a_student_was_trained_on_do_not_count(lab: Any, tmp_path: Path) -> None:
    workspace, train, held_out = tmp_path / "workspace", tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    changes = {
        **AT_ONCE,
        "problems.path": str(train),
        "problems.evaluation_path": str(held_out),
        "promotion.margin_points": -100.0,
    }
    write_problems(train, TRAIN_LEVELS)
    write_problems(held_out, HELD_OUT_LEVELS, first=50)
    lab.run(workspace, changes)
    # the last training problem of before (number 7) is held out now
    write_problems(train, TRAIN_LEVELS[:-1])
    write_problems(tmp_path / "more.jsonl", TRAIN_LEVELS[-1:], first=7)
    held_out.write_text(held_out.read_text() + (tmp_path / "more.jsonl").read_text())
    second = lab.run(workspace, changes)
    assert second.rows("SELECT num_problems FROM promotions WHERE run_id = $run") == [(3,)]
    assert len(scores(second, "evaluation", "heal")) == 4


def test_a_student_may_start_from_the_latest_and_a_night_with_nothing_new_trains_nothing(
    lab: Any, tmp_path: Path
) -> None:
    workspace, train = tmp_path / "workspace", tmp_path / "train.jsonl"
    changes = {
        **AT_ONCE, "problems.path": str(train), "student_start": "latest", "promotion.margin_points": -100.0,
    }  # fmt: skip
    write_problems(train, TRAIN_LEVELS)
    first = lab.run(workspace, changes)
    assert lab.start(workspace, changes)["state"] == "nothing_new"
    write_problems(train, (*TRAIN_LEVELS, "easy"))
    second = lab.run(workspace, changes)
    assert lab.start(workspace, changes)["state"] == "nothing_new"
    starts = second.rows("SELECT run_id, start_checkpoint_id FROM runs ORDER BY rowid")
    ((latest,),) = second.rows(f"SELECT checkpoint_id FROM promotions WHERE run_id = '{first.run_id}'")
    assert starts == [(first.run_id, None), (second.run_id, latest)]
    parents = second.rows(
        "SELECT c.parent_checkpoint_id FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id "
        "WHERE r.run_id = $run AND r.phase = 'training' AND c.stage = 'I'"
    )
    assert parents == [(latest,)]
    shutil.rmtree(workspace / "checkpoints" / second.rows("SELECT checkpoint_id FROM promotions")[-1][0])
    write_problems(train, (*TRAIN_LEVELS, "easy", "easy"))
    with pytest.raises(StoreError, match=r"latest promoted student .* is gone"):
        lab.start(workspace, changes)


def test_the_promoted_student_is_evaluated_on_the_problems_of_today(lab: Any, tmp_path: Path) -> None:
    workspace, held_out = tmp_path / "workspace", tmp_path / "held_out.jsonl"
    changes = {**AT_ONCE, "problems.evaluation_path": str(held_out), "promotion.margin_points": -100.0}
    write_problems(held_out, HELD_OUT_LEVELS, first=50)
    with pytest.raises(InputError, match="no student has been promoted"):
        lab.start(workspace, changes, purpose=EVALUATION)
    first = lab.run(workspace, changes)
    write_problems(held_out, (*HELD_OUT_LEVELS, "easy"), first=50)
    run = lab.run(workspace, changes, purpose=EVALUATION)
    # 16 rollouts of the teacher, and 2 answers of each student, to the new problem alone
    assert (run.counted["rollouts"], run.counted["evaluation"], run.counted["stages"]) == (16, 4, 0)
    ((purpose, num),) = run.rows(
        "SELECT purpose, (SELECT count(*) FROM run_problems p WHERE p.run_id = r.run_id) FROM runs r "
        "WHERE run_id = $run"
    )
    assert (purpose, num) == ("evaluation", 4)
    arms = dict(run.rows("SELECT arm, num_problems FROM evaluations WHERE run_id = $run AND band = 'all'"))
    assert arms == {"teacher": 4, "base": 4, "latest": 4}
    assert lab.start(workspace, changes, purpose=EVALUATION)["state"] == "nothing_new"
    assert json.loads((workspace / "summaries" / f"{run.run_id}.json").read_text())["evaluation"]["latest"]
    assert first.run_id != run.run_id


def test_a_time_to_come_is_not_over() -> None:
    deadline = Deadline(datetime.now(UTC) + timedelta(hours=1))
    deadline.check()
    assert 3590 < deadline.seconds_left <= 3600
