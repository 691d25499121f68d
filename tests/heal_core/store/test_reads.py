from collections.abc import Callable
from typing import Any

import pytest

from heal_core.errors import StoreError
from heal_core.plan import Attempt, GradedAttempt, Slot
from heal_core.records import FinishReason, Kind, Step
from heal_core.reference import Reference
from heal_core.store.parts import list_parts
from heal_core.store.reads import (
    is_complete,
    next_chunk_index,
    read_attempts,
    read_bands,
    read_checkpoint,
    read_closed_phases,
    read_extra_tokens,
    read_kept,
    read_known,
    read_pass_rates,
    read_references,
    read_run_problems,
    read_run_trajectories,
    read_texts,
    read_tokens,
    read_verdicts,
    steps_of,
)
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]
TableRow = Callable[..., Row]
MakeSlot = Callable[..., Slot]
MakeRows = Callable[..., list[Row]]


class RunMaker:
    """Stores a run by hand: problems, the trajectories it uses in a phase, their verdicts, decisions."""

    def __init__(self, store: Store, table_row: TableRow, make_rows: MakeRows) -> None:
        self.store = store
        self.table_row = table_row
        self.make_rows = make_rows
        self._number = 0

    def _fresh(self) -> str:
        self._number += 1
        return f"id{self._number}"

    def add_problem(self, problem_id: str, split: str = "train", band: str | None = None, chunk: int = 0) -> None:
        row = self.table_row("problems", problem_id=problem_id, question=f"{problem_id}?", chunk_index=chunk)
        self.store.append("problems", [row])
        link = self.table_row("run_problems", run_problem_id=self._fresh(), problem_id=problem_id, split=split)
        self.store.append("run_problems", [link])
        if band:
            self.decide("band", problem_id, band)

    def use(self, slot: Slot, phase: str, label: str | None = "correct", cut: bool = False, length: int = 5) -> str:
        """Store a trajectory, that the run uses it in `phase`, and its verdict; return its id."""
        (row,) = self.make_rows([slot], **{slot.problem_id: length})
        self.store.append("trajectories", [row])
        verdict_id = None
        if label is not None:
            verdict_id = self._fresh()
            reason = None if label == "correct" else "different"
            verdict = self.table_row(
                "verdicts", verdict_id=verdict_id, trajectory_id=slot.row_id, label=label, reason=reason
            )
            self.store.append("verdicts", [verdict])
        used = self.table_row(
            "run_rows", run_row_id=self._fresh(), phase=phase, row_id=slot.row_id, kind=str(slot.kind), cut=cut,
            verdict_id=verdict_id,
        )  # fmt: skip
        self.store.append("run_rows", [used])
        return slot.row_id

    def decide(self, phase: str, subject: str, decision: str, reason: str | None = None, **changes: Any) -> None:
        row = self.table_row(
            "decisions", decision_id=self._fresh(), phase=phase, subject_id=subject, problem_id=subject,
            decision=decision, reason=reason,
        )  # fmt: skip
        self.store.append("decisions", [row | changes])


@pytest.fixture
def run(store: Store, table_row: TableRow, make_rows: MakeRows) -> RunMaker:
    return RunMaker(store, table_row, make_rows)


# ---- slots and tokens


def test_attempts_are_told_by_slot_with_their_limits(store: Store, make_slot: MakeSlot, make_rows: MakeRows) -> None:
    short, long, other = make_slot(limit=3), make_slot(limit=9), make_slot(index=1)
    for slot in (short, long, other):
        store.append("trajectories", make_rows([slot], p0=5))
    assert read_attempts(store, [long]) == {
        long.slot_id: sorted(
            [
                Attempt(short.row_id, long.slot_id, 3, 3, FinishReason.LENGTH),
                Attempt(long.row_id, long.slot_id, 9, 5, FinishReason.STOP),
            ],
            key=lambda attempt: attempt.row_id,
        )
    }
    assert read_attempts(store, [make_slot(index=2)]) == {}
    assert read_attempts(store, []) == {}


def test_tokens_come_from_the_parts_that_hold_them(store: Store, make_slot: MakeSlot, make_rows: MakeRows) -> None:
    slots = [make_slot("p0"), make_slot("p1", prefix="So ")]
    rows = {row["trajectory_id"]: row for slot in slots for row in make_rows([slot])}
    for row in rows.values():
        store.append("trajectories", [row])
    found = read_tokens(store, [*rows, *rows, "unknown"])
    assert found.keys() == rows.keys()
    for row_id, tokens in found.items():
        row = rows[row_id]
        assert (tokens.problem_id, tokens.prefix, tokens.text) == (row["problem_id"], row["prefix"], row["text"])
        assert tokens.token_ids.tolist() == row["token_ids"].tolist()
        assert tokens.logprobs == pytest.approx(row["logprobs"], rel=1e-6)
        assert tokens.entropies == pytest.approx(row["entropies"], rel=1e-6)
    assert read_tokens(store, []) == {}


def test_tokens_are_those_of_the_row_that_was_merged(store: Store, make_slot: MakeSlot, make_rows: MakeRows) -> None:
    # an engine that is not reproducible wrote the slot twice: text and tokens must be of one attempt
    first, second = make_slot(), make_slot(index=1)
    store.append("trajectories", make_rows([first], p0=3))
    store.append("trajectories", make_rows([first, second], p0=6))
    found = read_tokens(store, [first.row_id, second.row_id])
    assert {row_id: len(tokens.token_ids) for row_id, tokens in found.items()} == {first.row_id: 3, second.row_id: 6}
    assert found[first.row_id].text.count(" ") == 3


def test_which_keys_are_known(store: Store, table_row: TableRow) -> None:
    store.append("recipes", [table_row("recipes", recipe_id=name) for name in ("a", "b'; DROP TABLE recipes; --")])
    asked = ["a", "c", "a", "b'; DROP TABLE recipes; --"]
    assert read_known(store, "recipes", "recipe_id", asked) == {"a", "b'; DROP TABLE recipes; --"}
    assert read_known(store, "recipes", "recipe_id", []) == set()


def test_stored_steps_are_the_steps_that_were_cut() -> None:
    steps = (Step(0, 4, 0, 2), Step(4, 9, 2, 3), Step(9, 20, 3, 8))
    profile = {
        "num_steps": 3,
        "step_start_chars": [step.start_char for step in steps],
        "step_start_tokens": [step.start_token for step in steps],
    }
    assert steps_of(profile, num_chars=20, num_tokens=8) == steps
    assert steps_of({"num_steps": 0, "step_start_chars": [], "step_start_tokens": []}, 0, 0) == ()


# ---- runs


def test_problems_come_in_the_order_of_their_chunks(store: Store, run: RunMaker) -> None:
    assert next_chunk_index(store) == 0
    for name, split, chunk in (("a", "train", 1), ("b", "held_out", 0), ("c", "train", 0)):
        run.add_problem(name, split, chunk=chunk)
    assert [row["problem_id"] for row in read_run_problems(store, "run")] == ["b", "c", "a"]
    assert [row["problem_id"] for row in read_run_problems(store, "run", "train")] == ["c", "a"]
    assert read_run_problems(store, "another run") == []
    assert next_chunk_index(store) == 2


def test_pass_rates_count_what_was_graded(store: Store, run: RunMaker, make_slot: MakeSlot) -> None:
    run.add_problem("p0", band="hard")
    run.add_problem("p1", "held_out")
    labels = [("correct", False), ("correct", True), ("wrong", False), ("unverifiable", False), (None, False)]
    for index, (label, cut) in enumerate(labels):
        run.use(make_slot("p0", index=index), "rollouts", label, cut)
    run.use(make_slot("p0", index=9, kind=Kind.REPAIR), "repairs")  # of another phase
    graded, none = read_pass_rates(store, "run")
    # 1 correct and 1 wrong, and the correct one that counts as cut is wrong: 1 of 3
    assert (graded["num_generations"], graded["num_graded"], graded["num_correct"]) == (5, 3, 1)
    assert (graded["num_truncated"], graded["pass_rate"]) == (1, pytest.approx(1 / 3))
    assert (none["num_generations"], none["num_graded"], none["pass_rate"]) == (0, 0, None)
    assert read_bands(store, "run") == {"p0": "hard"}
    assert read_bands(store, "run", "held_out") == {}


def test_a_run_keeps_the_verdict_it_rests_on_when_a_newer_one_comes(
    store: Store, run: RunMaker, make_slot: MakeSlot, table_row: TableRow
) -> None:
    # a later verifier once changed the tables of runs that were long complete
    run.add_problem("p0")
    row_id = run.use(make_slot(), "rollouts", "wrong")
    store.append("verdicts", [table_row("verdicts", verdict_id="new", trajectory_id=row_id, verifier_version="2")])
    (row,) = read_run_trajectories(store, "run", "rollouts").to_dicts()
    assert row["label"] == "wrong"
    assert store.rows("SELECT label FROM latest_verdicts") == [{"label": "correct"}]


def test_verdicts_are_told_by_trajectory_for_the_verifiers_that_are_asked_for(
    store: Store, table_row: TableRow
) -> None:
    for name, changes in {
        "first": {},
        "longer": {"limit_seconds": 20.0, "reason": "timeout"},
        "newer": {"verifier_version": "2"},
        "other": {"trajectory_id": "t1"},
    }.items():
        store.append("verdicts", [table_row("verdicts", verdict_id=name, **changes)])
    told = read_verdicts(store, ["t0"], [("math", "1")])
    assert told == {
        "t0": [
            GradedAttempt("first", "t0", ("math", "1"), None, 5.0),
            GradedAttempt("longer", "t0", ("math", "1"), "timeout", 20.0),
        ]
    }
    assert [v.verdict_id for v in read_verdicts(store, ["t0"], [("math", "1"), ("math", "2")])["t0"]][2:] == ["newer"]


def test_token_arrays_are_not_read_from_a_damaged_part(store: Store, make_slot: MakeSlot, make_rows: MakeRows) -> None:
    store.append("trajectories", make_rows([make_slot()]))
    (part,) = list_parts(store.workspace.parts)
    data = bytearray(part.path.read_bytes())
    data[8] ^= 1  # in a page, since a damaged footer is met by the view `tokens` first
    part.path.write_bytes(data)
    with pytest.raises(StoreError, match=f"{part.path} is damaged.*Restore it from a backup"):
        read_tokens(store, [make_slot().row_id])


def test_a_damaged_footer_is_told_with_what_finds_it(
    workspace: Workspace, make_slot: MakeSlot, make_rows: MakeRows
) -> None:
    store = Store(workspace)
    store.append("trajectories", make_rows([make_slot()]))
    (part,) = list_parts(workspace.parts)
    data = bytearray(part.path.read_bytes())
    length = int.from_bytes(data[-8:-4], "little")  # of the footer, which stands before it
    data[-8 - length : -8] = bytes(length)
    part.path.write_bytes(data)
    with pytest.raises(StoreError, match=r"cannot be read.*`heal store check"):
        store.close()


def test_trajectories_are_those_of_the_run_the_phase_and_the_arm(
    store: Store, run: RunMaker, make_slot: MakeSlot, table_row: TableRow
) -> None:
    run.add_problem("p0", chunk=1)
    run.add_problem("p1", chunk=0)
    ids = [run.use(make_slot(name, index=i), "rollouts") for name, i in (("p0", 1), ("p0", 0), ("p1", 3))]
    run.use(make_slot("p1", index=4), "equal_tokens")
    store.append("run_rows", [table_row("run_rows", run_row_id="x", phase="rollouts", arm="heal", row_id=ids[0])])
    frame = read_run_trajectories(store, "run", "rollouts")
    assert frame["trajectory_id"].to_list() == [ids[2], ids[1], ids[0]]
    assert frame["question"].to_list() == ["p1?", "p0?", "p0?"]
    assert read_run_trajectories(store, "run", "rollouts", "heal")["trajectory_id"].to_list() == [ids[0]]
    assert read_run_trajectories(store, "another", "rollouts").height == 0


def test_extra_tokens_are_those_of_hints_repairs_and_guided_samples(
    store: Store, run: RunMaker, make_slot: MakeSlot
) -> None:
    run.add_problem("p0")
    run.add_problem("p1")
    run.use(make_slot("p0"), "rollouts", length=7)
    run.use(make_slot("p0", kind=Kind.HINT, parent_id="t"), "hints", None, length=2)
    run.use(make_slot("p0", kind=Kind.REPAIR, parent_id="t"), "repairs", "wrong", length=4)
    run.use(make_slot("p1", kind=Kind.GUIDED), "guided", length=3)
    assert read_extra_tokens(store, "run") == {"p0": 6, "p1": 3}


def test_responses_are_prefix_and_text(store: Store, run: RunMaker, make_slot: MakeSlot) -> None:
    run.add_problem("p0")
    row_id = run.use(make_slot(kind=Kind.REPAIR, prefix="So far. ", parent_id="t"), "repairs", length=1)
    (row,) = read_texts(store, [row_id, row_id])
    assert row["response"].startswith("So far. ")
    assert (row["question"], row["num_tokens"]) == ("p0?", 1)
    assert read_references(store, ["p0", "p0"]) == {"p0": Reference("2")}


def test_what_a_phase_kept_comes_with_its_value(store: Store, run: RunMaker) -> None:
    run.decide("pure", "a", "kept", value=0.5)
    run.decide("pure", "b", "dropped", "shortcut", value=2.0)
    run.decide("gate", "c", "kept")
    assert read_kept(store, "run", "pure") == {"a": 0.5}
    assert read_kept(store, "run", "gate") == {"c": None}


def test_events_say_which_phases_are_closed_and_whether_the_run_is(store: Store, table_row: TableRow) -> None:
    events = [("started", None), ("phase", "rollouts"), ("phase", "rollouts"), ("phase", "repairs")]
    for number, (event, phase) in enumerate(events):
        store.append("run_events", [table_row("run_events", event_id=f"e{number}", event=event, phase=phase)])
    assert read_closed_phases(store, "run") == {"rollouts", "repairs"}
    assert not is_complete(store, "run")
    store.append("run_events", [table_row("run_events", event_id="end", event="completed")])
    assert is_complete(store, "run")
    assert not is_complete(store, "another")


def test_an_arm_that_was_not_trained_has_no_checkpoint(store: Store) -> None:
    with pytest.raises(StoreError, match="run run has no checkpoint of arm heal, stage II; run its training first"):
        read_checkpoint(store, "run", "heal", "II")


# ---- the funnel


def test_the_outcomes_of_each_phase_of_the_funnel_add_up(
    store: Store, run: RunMaker, make_slot: MakeSlot, table_row: TableRow
) -> None:
    run.add_problem("p0", band="extremely_hard")
    run.add_problem("p1", band="hard")
    run.add_problem("p2", "held_out", band="easy")
    store.append("quarantine", [table_row("quarantine", reason="no_answer: expected text in one of answer")])
    left_out = [("a.csv", 5, 0), ("b.csv", 0, 0), ("a.csv", 2, 1)]
    for index, (source, num_filtered_out, num_not_sampled) in enumerate(left_out):
        counts = {"num_filtered_out": num_filtered_out, "num_not_sampled": num_not_sampled}
        row = table_row("run_sources", run_source_id=f"rs{index}", position=index, source=source, **counts)
        store.append("run_sources", [row])
    for index, (label, cut) in enumerate([("correct", False), ("wrong", False), ("wrong", True), ("correct", True)]):
        run.use(make_slot("p0", index=index), "rollouts", label, cut)
    run.decide("path", "path a", "kept")
    run.decide("path", "path b", "dropped", "no_breakpoint")
    run.decide("path", "path c", "dropped", "hint_G1")
    repairs = [
        ("correct", False, [("gate", "kept", None), ("pure", "kept", None), ("cap", "kept", None)]),
        ("correct", False, [("gate", "kept", None), ("pure", "kept", None), ("cap", "dropped", "same_path")]),
        ("correct", False, [("gate", "kept", None), ("pure", "dropped", "shortcut")]),
        ("correct", False, [("gate", "dropped", "G3")]),
        ("correct", False, []),
        ("correct", True, []),
        ("wrong", False, []),
        ("unverifiable", False, []),
    ]
    for index, (label, cut, decisions) in enumerate(repairs):
        row_id = run.use(make_slot("p0", index=index, kind=Kind.REPAIR, parent_id="t"), "repairs", label, cut)
        for phase, decision, reason in decisions:
            run.decide(phase, row_id, decision, reason)
    guided = run.use(make_slot("p1", kind=Kind.GUIDED), "guided")
    run.decide("gate", guided, "kept")
    run.decide("cap", guided, "kept")

    rows = store.rows("SELECT phase, outcome, reason, num, num_in_phase FROM funnel WHERE run_id = 'run'")
    totals = {row["phase"]: row["num_in_phase"] for row in rows}
    # every row of the source, every rollout, problem, path, repair and guided sample, each once
    assert totals == {"rows": 12, "rollouts": 4, "problems": 3, "paths": 3, "repairs": 8, "guided": 1}
    for phase, total in totals.items():
        assert sum(row["num"] for row in rows if row["phase"] == phase) == total
    found = {(row["phase"], row["outcome"], row["reason"]): row["num"] for row in rows}
    assert found == {
        ("rows", "quarantined", "no_answer"): 1,
        ("rows", "filtered_out", "a.csv"): 7,
        ("rows", "not_sampled", "a.csv"): 1,
        ("rows", "train", None): 2,
        ("rows", "held_out", None): 1,
        ("rollouts", "correct", None): 1,
        ("rollouts", "wrong", None): 1,
        ("rollouts", "truncated", None): 2,
        ("problems", "extremely_hard", "train"): 1,
        ("problems", "hard", "train"): 1,
        ("problems", "easy", "held_out"): 1,
        ("paths", "hinted", None): 1,
        ("paths", "dropped", "no_breakpoint"): 1,
        ("paths", "dropped", "hint_G1"): 1,
        ("repairs", "kept", None): 1,
        ("repairs", "dropped by cap", "same_path"): 1,
        ("repairs", "dropped by PURE", "shortcut"): 1,
        ("repairs", "dropped by gate", "G3"): 1,
        ("repairs", "undecided", None): 1,
        ("repairs", "truncated", None): 1,
        ("repairs", "wrong", None): 1,
        ("repairs", "unverifiable", None): 1,
        ("guided", "kept", None): 1,
    }


def test_the_yield_of_repairs_is_told_per_problem(store: Store, run: RunMaker, make_slot: MakeSlot) -> None:
    run.add_problem("p0", band="extremely_hard")
    run.add_problem("p1", band="extremely_hard")  # nothing was repaired there
    run.add_problem("p2", band="hard")
    ids = [
        run.use(make_slot(index=i, kind=Kind.REPAIR, parent_id=path), "repairs", label)
        for path, i, label in (("a", 0, "correct"), ("a", 1, "correct"), ("b", 0, "wrong"))
    ]
    run.decide("gate", ids[0], "kept")
    run.decide("gate", ids[1], "dropped", "G4")
    run.decide("cap", ids[0], "kept")
    rows = store.rows("SELECT * EXCLUDE (num_correct, num_graded) FROM repair_yield ORDER BY problem_id")
    assert rows == [
        {
            "run_id": "run", "problem_id": "p0", "num_paths": 2, "num_attempted": 3, "num_verified": 2,
            "num_passed_gates": 1, "num_kept": 1, "verified_share": pytest.approx(2 / 3), "num_skipped": 0,
            "estimated_tokens_saved": 0,
        },
        {
            "run_id": "run", "problem_id": "p1", "num_paths": 0, "num_attempted": 0, "num_verified": 0,
            "num_passed_gates": 0, "num_kept": 0, "verified_share": None, "num_skipped": 0,
            "estimated_tokens_saved": 0,
        },
    ]  # fmt: skip


def test_what_a_quota_left_out_is_in_the_yield_and_in_the_funnel(
    store: Store, run: RunMaker, make_slot: MakeSlot
) -> None:
    run.add_problem("p0", band="extremely_hard")
    run.add_problem("p1", band="extremely_hard")
    for index in range(3):
        run.use(make_slot("p0", index=index, kind=Kind.REPAIR, parent_id="a"), "repairs", "correct")
    run.use(make_slot("p1", kind=Kind.REPAIR, parent_id="b"), "repairs", "wrong")
    for problem_id, decision, num in (("p0", "met", 7), ("p1", "not_met", 0)):
        run.decide("quota", problem_id, decision, value=float(num))
    (lengths,) = store.rows("SELECT sum(num_tokens)::INT AS num FROM trajectories WHERE problem_id = 'p0'")
    rows = store.rows("SELECT num_attempted, num_skipped, estimated_tokens_saved FROM repair_yield ORDER BY problem_id")
    assert rows == [
        {"num_attempted": 3, "num_skipped": 7, "estimated_tokens_saved": round(7 * lengths["num"] / 3)},
        {"num_attempted": 1, "num_skipped": 0, "estimated_tokens_saved": 0},
    ]
    funnel = store.rows("SELECT outcome, reason, num, num_in_phase FROM funnel WHERE phase = 'repairs'")
    assert {"outcome": "skipped", "reason": "quota", "num": 7, "num_in_phase": 11} in funnel
    assert sum(row["num"] for row in funnel) == 11
