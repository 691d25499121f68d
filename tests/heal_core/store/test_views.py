"""The views, on two runs that share rows and are drawn so that every outcome occurs, and on small stores by hand."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from heal_core.plan import Slot
from heal_core.records import Kind
from heal_core.store.reads import read_extra_tokens
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]
TableRow = Callable[..., Row]
MakeSlot = Callable[..., Slot]
MakeRows = Callable[..., list[Row]]

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP_STARTS = {"blank_line": [0, 10, 20, 30, 40, 50, 60, 70, 80, 90], "newline": [0, 7, 14, 21]}
NUM_CONTINUATIONS = 3
ARMS = ("heal", "rejection_sampling", "equal_tokens")


class DrawnRun:
    """One run's rows, drawn so that every outcome occurs; trajectories have the same ids in every run."""

    def __init__(self, run_id: str, number: int, problems: list[str], tables: dict[str, list[Row]]) -> None:
        self.run_id = run_id
        self.number = number
        self.random = Random(run_id)
        self.tables = tables
        config = {
            "hints": {"arm": "generated"},
            "pure": {"score": "jump", "min_candidates": 3, "drop_fraction": 0.2, "min_prompt_uncertainty": 0.1},
            "curriculum": {"epochs": [2, 1, 2]},
            "scorer": None,
            "seed": number,
        }
        self.add("runs", run_id, config=json.dumps(config), problems_digest="d", seed=number, heal_version="0",
                 git_revision=None, started_at=START + timedelta(days=number), basis_id=run_id, attempt=0,
                 start_checkpoint_id=None, purpose="distillation")  # fmt: skip
        self.add("quarantine", f"{run_id}-q", source="s.jsonl", line=3, reason="no_answer", raw="{}", problem_id=None,
                 phase=None, work=None, quarantined_at=None)  # fmt: skip
        for problem_id in problems:
            self._problem(problem_id)
        self._later_phases()
        self._events()

    def add(self, table: str, key: str, **values: Any) -> str:
        """Store a row under its content key; one that several runs make is there once, as it was made first."""
        rows = self.tables[table]
        if table not in ("runs", "trajectories", "problems", "profiles", "verdicts", "scores", "checkpoints"):
            values["run_id"] = self.run_id
        rows.append({"key": key, **values})
        return key

    def use(
        self, phase: str, row_id: str, kind: str, arm: str = "", cut: bool = False, label: str | None = None
    ) -> str:
        """Note that the run uses a row, resting on its verdict."""
        verdict_id = None
        if label is not None:
            reason = None if label == "correct" else "different"
            verdict_id = self.add("verdicts", f"v-{row_id}", trajectory_id=row_id, label=label, extracted="42",
                                  reason=reason, verifier="math", verifier_version="1", seconds=0.1,
                                  extraction="boxed", limit_seconds=5.0, created_at=START)  # fmt: skip
        self.add("run_rows", f"{self.run_id}-{phase}-{arm}-{row_id}", phase=phase, arm=arm, kind=kind, row_id=row_id,
                 cut=cut, verdict_id=verdict_id)  # fmt: skip
        return row_id

    def sample(self, kind: str, row_id: str, problem_id: str, **changes: Any) -> str:
        """Store a trajectory; its length and time follow from its id, so that all runs agree."""
        drawn = Random(row_id)
        values: Row = {
            "slot_id": f"s-{row_id}", "kind": kind, "problem_id": problem_id, "parent_id": None, "hint_id": None,
            "recipe_id": f"recipe-{kind}", "sample_index": 0, "limit_tokens": 200, "prefix": "", "text": f"{row_id}.",
            "finish_reason": "stop", "num_prefix_tokens": 0, "num_tokens": drawn.randint(1, 99),
            "num_prompt_tokens": 7, "num_cached_tokens": None, "entropy_source": "exact",
            "entropy_radii": None, "mean_entropy_nats": drawn.random(), "mean_logprob_nats": -0.5,
            "seconds": drawn.random(), "created_at": START, "token_ids": [1], "logprobs": [-0.5],
            "entropies": [0.5], "token_starts": [0],
        }  # fmt: skip
        return self.add("trajectories", row_id, **(values | changes))

    def decide(self, phase: str, subject: str, problem_id: str, decision: str, reason: str | None = None,
               value: float | None = None) -> bool:  # fmt: skip
        self.add("decisions", f"{self.run_id}-{phase}-{subject}", phase=phase, subject_id=subject, arm=None,
                 problem_id=problem_id, decision=decision, reason=reason, value=value)  # fmt: skip
        return decision == "kept"

    def _problem(self, problem_id: str) -> None:
        fixed = Random(problem_id)  # what all runs agree on
        band = fixed.choice(["easy", "hard", "extremely_hard"])
        split = fixed.choice(["train", "train", "held_out"])
        self.add("problems", problem_id, question=f"{problem_id}?", answer="42", source="s.jsonl", uuid="",
                 problem_type="math", spec=None, chunk_index=0)  # fmt: skip
        self.add("run_problems", f"{self.run_id}-{problem_id}", problem_id=problem_id, split=split,
                 cluster_id=problem_id, benchmark="s.jsonl")  # fmt: skip
        wrong = []
        for index in range(8):
            row_id = self.sample("rollout", f"{problem_id}-r{index}", problem_id, sample_index=index)
            label = "wrong" if band == "extremely_hard" else fixed.choice(["correct", "wrong", "unverifiable"])
            cut = self.random.random() < 0.1
            self.use("rollouts", row_id, "rollout", cut=cut, label=label)
            if label == "wrong":
                wrong.append(row_id)
            if label == "correct" and not cut and split == "train":
                self._cap(row_id, problem_id, value=float(index))
        self.decide("band", problem_id, problem_id, band, value=fixed.random())
        if split == "train" and band == "extremely_hard":
            for row_id in wrong[:3]:
                self._path(row_id, problem_id)
        if split == "train" and band == "hard":
            for index in range(3):
                row_id = self.sample("guided", f"{problem_id}-g{index}", problem_id, sample_index=index)
                self._outcome("guided", row_id, problem_id)

    def _path(self, parent_id: str, problem_id: str) -> None:
        """Cut a wrong rollout where the run's own setting says, beside a profile of another setting."""
        fixed = Random(parent_id)
        for separator, starts in STEP_STARTS.items():
            step = fixed.randint(1, len(starts) - 1)
            # the other setting's id comes first, so that it would be taken if both fitted
            profile_id = f"{'b' if separator == 'blank_line' else 'a'}-{parent_id}"
            self.add("profiles", profile_id, trajectory_id=parent_id, separator=separator,
                     num_steps=len(starts), step_start_chars=starts, step_start_tokens=starts,
                     step_entropies=[0.1] * len(starts), breakpoint_step=step, surge_nats=0.25, window_size=3,
                     z_score=None, flat=False, entropy_source="exact", is_certain=True,
                     step_entropy_radii=None)  # fmt: skip
            if separator == "blank_line":
                kept_tokens = starts[step]
        if not self.decide("path", parent_id, problem_id, self.random.choice(["kept", "kept", "dropped"])):
            return
        hint_id = self.sample("hint", f"h-{parent_id}", problem_id, parent_id=parent_id)
        self.use("hints", hint_id, "hint")
        for index in range(NUM_CONTINUATIONS):
            row_id = self.sample("repair", f"c{index}-{parent_id}", problem_id, parent_id=parent_id, hint_id=hint_id,
                                 sample_index=index, prefix="so far ", num_prefix_tokens=kept_tokens)  # fmt: skip
            self._outcome("repairs", row_id, problem_id)

    def _outcome(self, phase: str, row_id: str, problem_id: str) -> None:
        label = Random(row_id).choice(["correct", "correct", "correct", "wrong", "unverifiable"])
        cut = self.random.random() < 0.1
        self.use(phase, row_id, "repair" if phase == "repairs" else "guided", cut=cut, label=label)
        if label != "correct" or cut:
            return
        if not self._drop_some("gate", row_id, problem_id, "G2"):
            return
        if phase == "repairs" and not self._score(row_id, problem_id):
            return
        self._cap(row_id, problem_id, value=0.5)

    def _drop_some(self, phase: str, row_id: str, problem_id: str, reason: str, value: float | None = None) -> bool:
        if self.random.random() < 0.3:
            return self.decide(phase, row_id, problem_id, "dropped", reason, value)
        return self.decide(phase, row_id, problem_id, "kept", None, value)

    def _score(self, row_id: str, problem_id: str) -> bool:
        rejected = Random(row_id).random() < 0.2
        terms = {"ratio": None, "jump": None, "reliance": None}
        if not rejected:
            terms = {"ratio": 2.0, "jump": 0.5, "reliance": 0.1}
        score_id = self.add("scores", f"score-{row_id}", trajectory_id=row_id, recipe_id="recipe-score", **terms,
                            step_perplexities=[1.0, 2.0, 3.0], answer_uncertainties=[0.9, 0.4, 0.2, 0.0],
                            span_start=1, span_end=2, reject_reason="empty_span" if rejected else None,
                            num_scored_tokens=50, seconds=0.25)  # fmt: skip
        self.use("pure", score_id, "score")
        if rejected:
            return self.decide("pure", row_id, problem_id, "dropped", "empty_span")
        return self._drop_some("pure", row_id, problem_id, "shortcut", 0.5)

    def _cap(self, row_id: str, problem_id: str, value: float) -> None:
        if self._drop_some("cap", row_id, problem_id, "over_cap", value):
            self.tables["examples"].append({"run_id": self.run_id, "row_id": row_id, "problem_id": problem_id})

    def _later_phases(self) -> None:
        examples = [row for row in self.tables["examples"] if row["run_id"] == self.run_id]
        # a row may serve twice, where one model is teacher and student
        self.use("evaluation", examples[0]["row_id"], "rollout", arm="base", label="correct")
        self.decide("pure_threshold", "pooled", "", "frozen", "jump", 0.6)
        for arm in ARMS:
            for stage in ("I", "II", "III"):
                for position, row in enumerate(examples):
                    self.add("stage_examples", f"{self.run_id}-{arm}-{stage}-{position}", arm=arm, stage=stage,
                             position=position, trajectory_id=row["row_id"],
                             problem_id=row["problem_id"])  # fmt: skip
                checkpoint_id = self.add("checkpoints", f"{arm}-{stage}-{self.number}", parent_checkpoint_id=None,
                                         stage=stage, folder="f", num_examples=9, num_dropped_over_long=0,
                                         num_optimizer_steps=5, num_tokens=900, loss_first=0.5, loss_last=0.1,
                                         seconds=2.0, result="{}")  # fmt: skip
                self.use("training", checkpoint_id, "checkpoint", arm=arm)
        for arm, share in {"teacher": 0.75, "base": 0.25, "heal": 0.5 + self.number / 8}.items():
            # a benchmark's scores are half of those over all problems
            for band, benchmark in (("all", None), ("hard", None), ("all", "gym")):
                self.add("evaluations", f"{self.run_id}-{arm}-{band}-{benchmark}", arm=arm, band=band, k=4,
                         num_problems=9, avg_at_k=share / 2 if benchmark else share, standard_error=0.03,
                         pass_at_k=share, truncated_share=0.0, no_answer_share=0.0, benchmark=benchmark)  # fmt: skip

    def _events(self) -> None:
        closed = [("rollouts", 8.0, {"tokens": 100}), ("repairs", 5.0, {"tokens": 30}), ("repairs", 0.5, {})]
        for number, (phase, seconds, made) in enumerate(closed):
            self.add("run_events", f"{self.run_id}-e{number}", event="phase", phase=phase,
                     detail=json.dumps({"seconds": seconds, "made": made}),
                     happened_at=START + timedelta(seconds=number))  # fmt: skip


KEYS = {
    "problems": "problem_id", "trajectories": "trajectory_id", "verdicts": "verdict_id", "profiles": "profile_id",
    "scores": "score_id", "checkpoints": "checkpoint_id", "runs": "run_id", "run_events": "event_id",
    "run_problems": "run_problem_id", "run_rows": "run_row_id", "decisions": "decision_id",
    "stage_examples": "stage_example_id", "evaluations": "evaluation_id", "quarantine": "quarantine_id",
    "run_sources": "run_source_id",
}  # fmt: skip


def draw_runs(store: Store) -> None:
    """Store the runs `first` (40 problems) and `second` (the last 30 of them), which was started a day later."""
    tables: dict[str, list[Row]] = defaultdict(list)
    problems = [f"p{number}" for number in range(40)]
    DrawnRun("first", 0, problems, tables)
    DrawnRun("second", 1, problems[10:], tables)
    for kind in ("rollout", "hint", "guided", "repair", "score"):
        recipe = {"recipe_id": f"recipe-{kind}", "kind": kind, "model_name_or_path": "teacher", "settings": "{}"}
        store.append("recipes", [recipe])
    for table, key in KEYS.items():
        store.append(table, [{key: row.pop("key"), **row} for row in tables[table]])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The drawn runs, for all tests; they must leave them as they are."""
    workspace = Workspace(tmp_path_factory.mktemp("drawn"))
    workspace.create()
    with Store(workspace) as store:
        draw_runs(store)
        yield store


@pytest.fixture
def drawn_afresh(store: Store) -> Store:
    """The drawn runs, to be changed."""
    draw_runs(store)
    return store


def totals(store: Store, query: str, by: str = "run_id") -> dict[Any, Row]:
    return {row.pop(by): row for row in store.rows(query)}


def test_what_is_drawn_has_every_outcome(drawn: Store) -> None:
    # the tests below compare sums, which would agree if nothing were there
    found = Counter(row["outcome"] for row in drawn.rows("SELECT outcome FROM repair_outcomes WHERE phase = 'repairs'"))
    assert found.keys() == {"truncated", "wrong", "unverifiable", "dropped by gate", "dropped by PURE",
                            "dropped by cap", "kept"}  # fmt: skip


# ---- counts add up


def test_the_funnel_adds_up_to_the_rows_that_each_phase_has(drawn: Store) -> None:
    funnel = drawn.rows("SELECT run_id, phase, sum(num)::INT AS num, any_value(num_in_phase) AS num_in_phase "
                        "FROM funnel GROUP BY ALL")  # fmt: skip
    expected = {
        (row["run_id"], row["phase"]): row["num"]
        for row in drawn.rows(
            "SELECT run_id, phase, count(*) AS num FROM run_rows WHERE phase IN ('rollouts', 'repairs', 'guided') "
            "GROUP BY ALL UNION ALL SELECT run_id, 'problems', count(*) FROM run_problems GROUP BY ALL "
            "UNION ALL SELECT run_id, 'rows', count(*) + 1 FROM run_problems GROUP BY ALL "
            "UNION ALL SELECT run_id, 'paths', count(*) FROM decisions WHERE phase = 'path' GROUP BY ALL"
        )
    }
    assert {(row["run_id"], row["phase"]): row["num"] for row in funnel} == expected
    assert all(row["num"] == row["num_in_phase"] for row in funnel)
    assert {run_id for run_id, _ in expected} == {"first", "second"}


def test_the_funnel_says_of_repairs_what_the_decisions_say(drawn: Store) -> None:
    # recounted from the tables, one repair at a time
    decided = {
        (row["run_id"], row["phase"], row["subject_id"]): row["decision"]
        for row in drawn.rows("SELECT * FROM decisions")
    }
    expected: Counter[tuple[str, str]] = Counter()
    for row in drawn.rows(
        "SELECT r.*, v.label FROM run_rows r JOIN verdicts v USING (verdict_id) WHERE phase = 'repairs'"
    ):
        stages = [decided.get((row["run_id"], phase, row["row_id"])) for phase in ("gate", "pure", "cap")]
        names = ["dropped by gate", "dropped by PURE", "dropped by cap"]
        dropped = [name for name, decision in zip(names, stages, strict=True) if decision == "dropped"]
        outcome = "truncated" if row["cut"] else row["label"] if row["label"] != "correct" else (dropped or ["kept"])[0]
        expected[row["run_id"], outcome] += 1
    found = drawn.rows("SELECT run_id, outcome, sum(num)::INT AS num FROM funnel WHERE phase = 'repairs' GROUP BY ALL")
    assert {(row["run_id"], row["outcome"]): row["num"] for row in found} == expected


def test_yields_by_problem_by_arm_and_by_position_have_the_same_sums(drawn: Store) -> None:
    # a path is cut at one place, so that paths add up too
    counts = "num_paths", "num_attempted", "num_verified", "num_passed_gates", "num_kept"
    sums = ", ".join(f"sum({count})::INT AS {count}" for count in counts)
    views = "repair_yield", "repair_yield_by_arm", "repair_yield_by_position"
    by_problem, by_arm, by_position = (
        totals(drawn, f"SELECT run_id, {sums} FROM {view} GROUP BY ALL") for view in views
    )
    assert by_problem == by_arm == by_position
    assert all(0 < row["num_kept"] < row["num_verified"] < row["num_attempted"] for row in by_problem.values())


def test_token_spend_adds_up_to_the_trajectories_that_a_run_uses(drawn: Store) -> None:
    sums = "sum(num_tokens)::INT AS tokens, sum(num_prompt_tokens)::INT AS prompts, sum(seconds) AS seconds"
    spent = totals(drawn, f"SELECT run_id, sum(num_samples)::INT AS num, {sums} FROM token_spend GROUP BY ALL")
    used = totals(drawn, f"SELECT run_id, count(*) AS num, {sums} FROM run_trajectories GROUP BY ALL")
    assert spent.keys() == used.keys() == {"first", "second"}
    for run_id, row in spent.items():
        assert row == pytest.approx(used[run_id])


def test_early_stops_say_what_was_given_up_and_what_that_saved_at_most(
    store: Store, table_row: TableRow, make_slot: MakeSlot, make_rows: MakeRows
) -> None:
    slots = [make_slot(index=i, limit=20) for i in range(4)] + [make_slot(index=0, limit=20, kind=Kind.HINT)]
    rows = make_rows(slots, p0=7)
    for row in rows[:2]:  # two rollouts; the engine answers in reverse order, so that the hint is the first
        row["finish_reason"] = "hopeless"
    store.append("trajectories", rows)
    for row in rows:
        store.append("run_rows", [table_row("run_rows", run_row_id=row["trajectory_id"], row_id=row["trajectory_id"],
                                            phase="hints" if row["kind"] == "hint" else "rollouts",
                                            cut=row["finish_reason"] == "hopeless")])  # fmt: skip
    found = store.rows("SELECT * FROM early_stops ORDER BY phase")
    # 7 tokens of 20 each: of the hints one of one, of the rollouts one of four
    assert found == [
        {"run_id": "run", "phase": "hints", "arm": "", "kind": "hint", "num_samples": 1, "num_stopped": 1,
         "stopped_share": 1.0, "num_tokens": 7, "limit_tokens": 20, "max_saved_tokens": 13},
        {"run_id": "run", "phase": "rollouts", "arm": "", "kind": "rollout", "num_samples": 4, "num_stopped": 1,
         "stopped_share": 0.25, "num_tokens": 7, "limit_tokens": 20, "max_saved_tokens": 13},
    ]  # fmt: skip


def test_a_run_in_which_nothing_was_given_up_has_no_early_stops(drawn: Store) -> None:
    assert drawn.rows("SELECT * FROM early_stops") == []


def test_truncated_shares_count_every_sample_once(drawn: Store) -> None:
    sums = "sum(num_samples)::INT AS num, sum(num_truncated)::INT AS cut"
    counted = totals(drawn, f"SELECT run_id, {sums} FROM truncated_shares GROUP BY ALL")
    used = totals(drawn, "SELECT run_id, count(*) AS num, sum(cut::INT)::INT AS cut FROM run_trajectories GROUP BY ALL")
    assert counted == used
    shares = [row["truncated_share"] for row in drawn.rows("SELECT truncated_share FROM truncated_shares")]
    assert 0 == min(shares) < max(shares) <= 1


# ---- where a path was cut


def test_a_repair_has_the_profile_that_cut_its_path_once(drawn: Store) -> None:
    rows = drawn.rows("SELECT * FROM run_repairs")
    (num,) = drawn.rows("SELECT count(*) AS num FROM run_rows WHERE phase = 'repairs'")
    assert len(rows) == num["num"]  # each path has two profiles, and only one cuts where the repair begins
    for row in rows:
        # the steps of blank_line begin at tokens 0, 10, 20, ...
        assert row["num_steps"] == 10
        assert row["breakpoint_step"] == row["break_tenth"] == row["num_prefix_tokens"] // 10
        assert row["break_share"] == pytest.approx(row["num_prefix_tokens"] / 100)
        assert row["hint_arm"] == "generated"
    assert len({row["break_tenth"] for row in rows}) > 3


def test_settings_that_cut_at_the_same_token_do_not_double_a_repair(drawn_afresh: Store) -> None:
    before = drawn_afresh.rows("SELECT * FROM run_repairs ORDER BY ALL")
    starts = [0, before[0]["num_prefix_tokens"]]
    (profile,) = drawn_afresh.rows("SELECT * FROM profiles WHERE profile_id = ?", [f"b-{before[0]['parent_id']}"])
    twin = {"profile_id": "zzz", "step_start_tokens": starts, "breakpoint_step": 1, "num_steps": 2}
    drawn_afresh.append("profiles", [profile | twin])
    assert drawn_afresh.rows("SELECT * FROM run_repairs ORDER BY ALL") == before


def test_the_profile_that_was_read_again_is_the_one_meant(drawn_afresh: Store) -> None:
    one = drawn_afresh.rows("SELECT * FROM run_repairs ORDER BY ALL")[0]
    (profile,) = drawn_afresh.rows("SELECT * FROM profiles WHERE profile_id = ?", [f"b-{one['parent_id']}"])
    again = {"profile_id": "zzz", "entropy_source": "rescored", "surge_nats": 0.75}
    drawn_afresh.append("profiles", [profile | again])
    rows = drawn_afresh.rows("SELECT surge_nats FROM run_repairs WHERE parent_id = ?", [one["parent_id"]])
    assert {row["surge_nats"] for row in rows} == {0.75}


def test_what_breakpoints_rest_on_is_counted(
    store: Store, table_row: TableRow, make_slot: MakeSlot, make_rows: MakeRows
) -> None:
    rows = make_rows([make_slot(index=index) for index in range(5)])
    store.append("trajectories", [row | {"entropy_source": "top_20"} for row in rows])
    outcomes = [("certain", None), ("rescored", "moved"), ("rescored", "moved"), ("uncertain", None)]
    ids = [row["trajectory_id"] for row in rows]
    store.append("decisions", [
        table_row("decisions", decision_id=f"b-{row_id}", phase="breakpoint", subject_id=row_id, decision=outcome,
                  reason=reason)
        for row_id, (outcome, reason) in zip(ids, outcomes, strict=False)
    ])  # fmt: skip
    paths = [table_row("decisions", decision_id=f"p-{ids[i]}", phase="path", subject_id=ids[i]) for i in (2, 4)]
    store.append("decisions", paths)
    assert store.rows("SELECT * EXCLUDE (run_id) FROM breakpoint_sources ORDER BY outcome") == [
        {"entropy_source": "top_20", "outcome": "certain", "reason": None, "num_rollouts": 1, "num_paths": 0},
        {"entropy_source": "top_20", "outcome": "rescored", "reason": "moved", "num_rollouts": 2, "num_paths": 1},
        {"entropy_source": "top_20", "outcome": "uncertain", "reason": None, "num_rollouts": 1, "num_paths": 0},
    ]


# ---- cost


def test_a_phase_that_was_closed_twice_took_the_sum_of_its_seconds(drawn: Store) -> None:
    rows = totals(drawn, "SELECT * FROM phase_spend WHERE run_id = 'first'", by="phase")
    # 5.0 s, then 0.5 s after a resume that sampled nothing
    assert (rows["repairs"]["wall_seconds"], rows["repairs"]["num_closed"]) == (5.5, 2)
    assert (rows["rollouts"]["num_new_tokens"], rows["repairs"]["num_new_tokens"]) == (100, 30)
    assert rows["training"]["num_trained_tokens"] == 9 * 900  # three arms of three stages
    assert rows["training"]["engine_seconds"] == pytest.approx(9 * 2.0)
    assert rows["training"]["wall_seconds"] is None  # it was never closed


def test_phases_add_up_to_what_the_kinds_of_samples_spent(drawn: Store) -> None:
    (spent,) = drawn.rows("SELECT sum(num_tokens)::INT AS tokens, sum(num_samples)::INT AS samples FROM token_spend "
                          "WHERE run_id = 'second' AND phase IN ('hints', 'repairs', 'guided')")  # fmt: skip
    (phase,) = drawn.rows("SELECT num_tokens AS tokens, num_samples AS samples FROM phase_spend "
                          "WHERE run_id = 'second' AND phase = 'repairs'")  # fmt: skip
    assert spent == phase


def test_a_validity_test_has_a_spend_of_its_own(
    store: Store, table_row: TableRow, make_slot: MakeSlot, make_rows: MakeRows
) -> None:
    kinds = {"validity_hints": Kind.HINT, "validity_natural": Kind.CONTINUATION, "validity_built": Kind.SHORTCUT,
             "repairs": Kind.REPAIR}  # fmt: skip
    rows = {phase: make_rows([make_slot("p0", index=n, kind=kind)], p0=5 + n)[0]
            for n, (phase, kind) in enumerate(kinds.items())}  # fmt: skip
    store.append("trajectories", list(rows.values()))
    used = [
        table_row("run_rows", run_row_id=phase, phase=phase, kind=row["kind"], row_id=row["trajectory_id"],
                  arm="test" if phase.startswith("validity") else "")
        for phase, row in rows.items()
    ]  # fmt: skip
    score = {
        "score_id": "s", "trajectory_id": rows["validity_built"]["trajectory_id"], "recipe_id": "recipe", "ratio": 1.0,
        "jump": 1.0, "reliance": 1.0, "step_perplexities": [1.0], "answer_uncertainties": [1.0, 0.0], "span_start": 0,
        "span_end": 0, "reject_reason": None, "num_scored_tokens": 40, "seconds": 1.0,
    }  # fmt: skip
    store.append("scores", [score])
    read = {"run_row_id": "s", "row_id": "s", "phase": "validity_scores", "kind": "validity_score", "arm": "test"}
    store.append("run_rows", [*used, table_row("run_rows", **read)])
    spent = {row["phase"]: row for row in store.rows("SELECT * FROM phase_spend")}
    # 5 of the hint and 6 of the natural text are sampled; the 7 of what is built are only read
    assert spent["validity"]["num_tokens"] == 5 + 6
    assert (
        spent["validity"]["num_prompt_tokens"]
        == sum(row["num_prompt_tokens"] for phase, row in rows.items() if phase.startswith("validity")) + 7
    )
    assert spent["validity_scores"]["num_scored_tokens"] == 40
    assert "selection" not in spent
    # and B2 has none of it to spend
    assert read_extra_tokens(store, "run") == {"p0": 8}


def test_an_example_costs_what_was_sampled_for_its_kind_on_training_problems(drawn: Store) -> None:
    rows = {(row["arm"], row["kind"]): row for row in drawn.rows("SELECT * FROM example_cost WHERE run_id = 'first'")}
    sampled = totals(
        drawn,
        "SELECT phase, sum(num_tokens)::INT AS tokens "
        "FROM run_trajectories JOIN run_problems USING (run_id, problem_id) "
        "WHERE run_id = 'first' AND split = 'train' AND phase <> 'evaluation' GROUP BY ALL",
        by="phase",
    )
    tokens = {phase: row["tokens"] for phase, row in sampled.items()}
    heal = {kind: rows["heal", kind] for kind in ("rollout", "guided", "repair", "all")}
    assert heal["rollout"]["num_tokens"] == rows["rejection_sampling", "all"]["num_tokens"] == tokens["rollouts"]
    assert heal["guided"]["num_tokens"] == tokens["guided"]
    assert heal["repair"]["num_tokens"] == tokens["hints"] + tokens["repairs"]
    assert heal["repair"]["num_scored_tokens"] > 0 == heal["rollout"]["num_scored_tokens"]
    for column in ("num_examples", "num_tokens", "num_scored_tokens", "engine_seconds"):
        assert heal["all"][column] == pytest.approx(sum(heal[kind][column] for kind in ("rollout", "guided", "repair")))
    (kept,) = drawn.rows("SELECT count(*) AS num FROM kept_examples WHERE run_id = 'first'")
    assert heal["all"]["num_examples"] == kept["num"]
    assert heal["all"]["tokens_per_example"] == pytest.approx(sum(tokens.values()) / kept["num"])


def price(store: Store, table_row: TableRow, event: str = "priced", run: str = "first", **prices: Row) -> None:
    """Note prices as a start of a run does."""
    row = table_row("run_events", event_id=event, run_id=run, event="priced", detail=json.dumps({"prices": prices}))
    store.append("run_events", [row])


def test_a_phase_costs_what_the_run_uses_at_the_price_of_its_model(drawn_afresh: Store, table_row: TableRow) -> None:
    teacher = {"currency": "USD", "prompt": 2.0, "cached_prompt": None, "completion": 5.0, "hour": 36.0}
    price(drawn_afresh, table_row, teacher=teacher, scorer={**teacher, "prompt": 100.0})
    rows = totals(drawn_afresh, "SELECT * FROM phase_spend WHERE run_id = 'first'", by="phase")
    rollouts, selection = rows["rollouts"], rows["selection"]
    tokens = rollouts["num_prompt_tokens"] * 2.0 + rollouts["num_tokens"] * 5.0
    assert rollouts["cost"] == pytest.approx(tokens / 1e6 + rollouts["engine_seconds"] / 100)  # 36 an hour
    # each score has read 50 tokens and took 0.25 s
    assert selection["engine_seconds"] == pytest.approx(selection["num_scored_tokens"] / 200)
    assert selection["cost"] == pytest.approx(selection["num_scored_tokens"] / 1e4 + selection["engine_seconds"] / 100)
    assert rollouts["currency"] == "USD"
    assert (rows["evaluation"]["cost"], rows["training"]["cost"]) == (None, None)  # the student has no price
    other = drawn_afresh.rows("SELECT cost FROM phase_spend WHERE run_id = 'second'")
    assert {row["cost"] for row in other} == {None}


def test_cached_prompt_tokens_have_their_own_price(
    store: Store, table_row: TableRow, make_slot: MakeSlot, make_rows: MakeRows
) -> None:
    rows = make_rows([make_slot(), make_slot(index=1)])
    rows[0] |= {"num_prompt_tokens": 100, "num_cached_tokens": 60}
    rows[1] |= {"num_prompt_tokens": 100, "num_cached_tokens": None}
    store.append("trajectories", rows)
    for number, row in enumerate(rows):
        store.append("run_rows", [table_row("run_rows", run_row_id=str(number), row_id=row["trajectory_id"])])
    spent = {"prompt_tokens": 100, "cached_tokens": 60, "completion_tokens": 7, "engine_seconds": 0.0}
    detail = json.dumps({"seconds": 1.0, "made": {"tokens": 7}, "spent": spent})
    store.append("run_events", [table_row("run_events", event_id="e", event="phase", phase="rollouts", detail=detail)])
    values = {"currency": "USD", "prompt": 1e6, "completion": 0.0, "hour": 0.0}
    for event, cached_prompt, cost, new_cost in [
        ("first", 1e5, 140 + 6, 40 + 6),
        ("second", 0.0, 140, 40),
        ("third", None, 200, 100),
    ]:  # the last one counts
        price(store, table_row, event, run="run", teacher={**values, "cached_prompt": cached_prompt})
        (row,) = store.rows("SELECT * FROM phase_spend")
        assert row["num_cached_tokens"] == 60
        assert (row["cost"], row["new_cost"]) == pytest.approx((cost, new_cost))
    price(store, table_row, "fourth", run="run")  # a start without prices
    (row,) = store.rows("SELECT * FROM phase_spend")
    assert (row["cost"], row["currency"]) == (None, None)


def test_rollouts_that_were_read_again_cost_what_their_reader_does(store: Store, table_row: TableRow) -> None:
    spent = {"prompt_tokens": 100, "cached_tokens": 0, "completion_tokens": 0, "engine_seconds": 0.0}
    detail = json.dumps({"seconds": 1.0, "made": {}, "spent": spent})
    store.append("run_events", [table_row("run_events", event_id="e", event="phase", phase="profiles", detail=detail)])
    teacher = {"currency": "USD", "prompt": 1e6, "completion": 1e6, "hour": 0.0}
    price(store, table_row, run="run", teacher=teacher, scorer={**teacher, "prompt": 2e6})
    (row,) = store.rows("SELECT * FROM phase_spend")
    assert row["new_cost"] == pytest.approx(200)


def test_what_was_spent_in_a_phase_that_was_broken_off_is_counted(store: Store, table_row: TableRow) -> None:
    def note(event_id: str, event: str, tokens: int, prompt_tokens: int) -> None:
        detail = {"seconds": 2.0, "made": {"tokens": tokens}, "spent": {"prompt_tokens": prompt_tokens}}
        row = table_row("run_events", event_id=event_id, event=event, phase="rollouts", detail=json.dumps(detail))
        store.append("run_events", [row])

    note("a", "stopped", 10, 100)
    note("b", "failed", 20, 200)
    note("c", "phase", 30, 300)
    old = table_row("run_events", event_id="d", event="failed", phase="rollouts", detail='{"error": "E"}')
    store.append("run_events", [old])  # as it was noted before
    price(store, table_row, run="run", teacher={"currency": "USD", "prompt": 1e6, "completion": 1e6, "hour": 0.0})
    (row,) = store.rows("SELECT * FROM phase_spend")
    assert (row["num_new_tokens"], row["num_closed"], row["wall_seconds"]) == (60, 1, 6.0)
    assert row["new_cost"] == pytest.approx(660)


def test_an_example_costs_money_where_prices_are_in_one_currency(drawn_afresh: Store, table_row: TableRow) -> None:
    values = {"currency": "USD", "prompt": 0.0, "completion": 1e6, "hour": 0.0}
    price(drawn_afresh, table_row, teacher=values, scorer=values)
    (row,) = drawn_afresh.rows("SELECT * FROM example_cost WHERE run_id = 'first' AND arm = 'heal' AND kind = 'all'")
    assert (row["currency"], row["cost"]) == ("USD", pytest.approx(row["num_tokens"]))
    assert row["cost_per_example"] == pytest.approx(row["tokens_per_example"])
    price(drawn_afresh, table_row, "later", teacher=values, scorer={**values, "currency": "CHF"})
    costs = {
        row["kind"]: row["cost"]
        for row in drawn_afresh.rows("SELECT * FROM example_cost WHERE run_id = 'first' AND arm = 'heal'")
    }
    assert (costs["all"], costs["repair"]) == (None, None)  # two currencies
    assert costs["rollout"] > 0


# ---- two runs


def test_a_run_compared_with_itself_differs_in_nothing(drawn: Store) -> None:
    rows = drawn.rows("SELECT * FROM run_comparison WHERE run_a = 'first' AND run_b = 'first'")
    assert {row["topic"] for row in rows} == {"funnel", "samples", "repairs", "pure", "examples", "training",
                                              "evaluation", "spend", "cost"}  # fmt: skip
    assert [row for row in rows if row["difference"] != pytest.approx(0, abs=1e-9)] == []


def test_a_comparison_has_the_metrics_of_both_runs_and_their_difference(drawn: Store) -> None:
    def metrics(run_id: str) -> dict[tuple[str, ...], float]:
        rows = drawn.rows("SELECT * FROM run_metrics WHERE run_id = ?", [run_id])
        return {(row["topic"], row["item"], row["metric"]): row["value"] for row in rows}

    first, second = metrics("first"), metrics("second")
    rows = {
        (row["topic"], row["item"], row["metric"]): row
        for row in drawn.rows("SELECT * FROM run_comparison WHERE run_a = 'first' AND run_b = 'second'")
    }
    assert rows.keys() == first.keys() | second.keys()
    for key, row in rows.items():
        assert (row["a"], row["b"]) == pytest.approx((first.get(key), second.get(key)))
    # 30 problems of the second run are among the 40 of the first
    rollouts = rows["samples", "rollouts", "num_samples"]
    assert (rollouts["a"], rollouts["b"], rollouts["difference"]) == (320, 240, -80)
    score = rows["evaluation", "heal, all", "avg_at_k"]
    assert score["difference"] == pytest.approx(0.125)
    assert score["standard_error"] == pytest.approx((0.03**2 + 0.03**2) ** 0.5)


def test_a_metric_that_one_run_lacks_has_no_difference(drawn_afresh: Store, table_row: TableRow) -> None:
    drawn_afresh.append("quarantine", [table_row("quarantine", run_id="second", reason="not_json")])
    (row,) = drawn_afresh.rows(
        "SELECT a, b, difference FROM run_comparison WHERE run_a = 'first' AND run_b = 'second' "
        "AND metric = 'quarantined: not_json'"
    )
    assert row == {"a": None, "b": 1, "difference": None}


def test_only_a_later_run_reuses_rows(drawn: Store) -> None:
    found = drawn.rows("SELECT * FROM run_reuse WHERE phase = 'rollouts'")
    rows = {row["run_id"]: [row["num_rows"], row["num_shared"], row["num_reused"]] for row in found}
    # both use the 8 rollouts of 30 problems; `first` was started earlier
    assert rows == {"first": [320, 240, 0], "second": [240, 240, 240]}


def test_settings_are_told_by_the_names_of_the_config(drawn: Store) -> None:
    rows = drawn.rows("SELECT setting, value FROM run_settings WHERE run_id = 'second'")
    assert {row["setting"]: row["value"] for row in rows} == {
        "hints.arm": "generated", "pure.score": "jump", "pure.min_candidates": "3", "pure.drop_fraction": "0.2",
        "pure.min_prompt_uncertainty": "0.1", "curriculum.epochs": "[2,1,2]", "scorer": None, "seed": "1",
    }  # fmt: skip


# ---- lineage, scores, verdicts, evaluation


def test_lineage_has_one_row_per_example_of_a_stage(drawn: Store) -> None:
    examples = drawn.rows("SELECT stage_example_id, run_id, arm, stage, position FROM stage_examples ORDER BY ALL")
    assert (
        drawn.rows("SELECT stage_example_id, run_id, arm, stage, position FROM example_lineage ORDER BY ALL")
        == examples
    )
    assert len(examples) > 100


def test_lineage_goes_from_a_repair_back_to_the_problem_and_on_to_the_checkpoint(drawn: Store) -> None:
    rows = drawn.rows("SELECT * FROM example_lineage WHERE kind = 'repair' AND arm = 'heal' AND run_id = 'second'")
    assert rows
    for row in rows:
        assert row["trajectory_id"].endswith(row["parent_id"]) and row["parent_id"].startswith(f"{row['problem_id']}-")
        assert (row["hint"], row["wrong_text"]) == (f"h-{row['parent_id']}.", f"{row['parent_id']}.")
        assert row["question"] == f"{row['problem_id']}?"
        assert (row["label"], row["verifier"], row["band"]) == ("correct", "math", "extremely_hard")
        assert (row["gate_decision"], row["pure_decision"], row["cap_decision"]) == ("kept", "kept", "kept")
        assert (row["score_id"], row["pure_score"]) == (f"score-{row['trajectory_id']}", 0.5)
        assert row["breakpoint_step"] == row["num_prefix_tokens"] // 10
        assert row["checkpoint_id"] == f"heal-{row['stage']}-1"
        assert row["model_name_or_path"] == "teacher"


def test_a_plain_rollout_has_no_hint_in_its_lineage(drawn: Store) -> None:
    rows = drawn.rows("SELECT DISTINCT hint_id, parent_id, breakpoint_step, pure_decision, gate_decision, label "
                      "FROM example_lineage WHERE kind = 'rollout'")  # fmt: skip
    assert [list(row.values()) for row in rows] == [[None, None, None, None, None, "correct"]]


def test_a_score_is_shown_with_the_rule_that_applied_and_the_reason(drawn: Store) -> None:
    rows = drawn.rows("SELECT * FROM pure_scores")
    counts = Counter((row["run_id"], row["problem_id"]) for row in rows if row["ratio"] is not None)
    for row in rows:
        num = counts[row["run_id"], row["problem_id"]]
        rejected = row["ratio"] is None
        assert row["num_candidates"] == num
        # the runs' setting: from three candidates on, a problem's own are compared
        assert row["rule"] == ("rejected" if rejected else "problem" if num >= 3 else "pooled")
        assert row["score"] == (None if rejected else 0.5)  # the jump, as pure.score says
        assert (row["prompt_uncertainty_nats"], row["num_span_steps"], row["num_steps"]) == (0.9, 1, 3)
        assert (row["score_name"], row["pooled_threshold"], row["min_candidates"]) == ("jump", 0.6, 3)
    assert {(row["decision"], row["reason"]) for row in rows} == {("kept", None), ("dropped", "shortcut"),
                                                                 ("dropped", "empty_span")}  # fmt: skip
    assert {row["rule"] for row in rows} == {"rejected", "problem", "pooled"}
    (used,) = drawn.rows("SELECT count(*) AS num FROM run_rows WHERE kind = 'score'")
    assert len(rows) == used["num"]


def test_the_gap_is_closed_from_the_untrained_student_to_the_teacher(drawn: Store) -> None:
    rows = totals(drawn, "SELECT arm, gain_over_base, gap_closed FROM eval_summary "
                         "WHERE run_id = 'first' AND band = 'all'", by="arm")  # fmt: skip
    # base 0.25, heal 0.5, teacher 0.75
    assert rows == {
        "base": {"gain_over_base": 0, "gap_closed": 0},
        "heal": {"gain_over_base": 0.25, "gap_closed": 0.5},
        "teacher": {"gain_over_base": 0.5, "gap_closed": 1},
    }


def test_a_benchmark_has_rows_of_its_own_which_are_not_among_those_of_bands(drawn: Store) -> None:
    rows = totals(drawn, "SELECT arm, benchmark, avg_at_k, gain_over_base, gap_closed FROM eval_benchmarks "
                         "WHERE run_id = 'first'", by="arm")  # fmt: skip
    # half of 0.25, 0.5 and 0.75
    assert rows == {
        "base": {"benchmark": "gym", "avg_at_k": 0.125, "gain_over_base": 0, "gap_closed": 0},
        "heal": {"benchmark": "gym", "avg_at_k": 0.25, "gain_over_base": 0.125, "gap_closed": 0.5},
        "teacher": {"benchmark": "gym", "avg_at_k": 0.375, "gain_over_base": 0.25, "gap_closed": 1},
    }
    assert {row["band"] for row in drawn.rows("SELECT band FROM eval_summary")} == {"all", "hard"}
    (num,) = drawn.rows("SELECT count(*) AS num FROM eval_summary WHERE run_id = 'first'")
    assert num["num"] == 6
    items = drawn.rows("SELECT DISTINCT item FROM run_metrics WHERE topic = 'evaluation' AND item LIKE 'heal%'")
    assert {row["item"] for row in items} == {"heal, all", "heal, hard", "heal, benchmark gym"}


# ---- on small stores


def test_two_verdicts_that_differ_are_a_disagreement_and_two_that_agree_are_none(
    store: Store, make_slot: MakeSlot, make_rows: MakeRows, table_row: TableRow
) -> None:
    agreed, versions, limits = slots = [make_slot(index=index) for index in range(3)]
    store.append("trajectories", make_rows(slots))
    verdicts: list[tuple[Slot, Row]] = [
        (agreed, {"label": "wrong"}),
        (agreed, {"label": "wrong", "verifier_version": "2", "extracted": "3"}),
        (versions, {"label": "wrong", "extracted": "1/2"}),
        (versions, {"label": "correct", "verifier_version": "2"}),
        (limits, {"label": "unverifiable", "reason": "timeout"}),
        (limits, {"label": "correct", "limit_seconds": 60.0}),
    ]
    for number, (slot, changes) in enumerate(verdicts):
        verdict = table_row("verdicts", verdict_id=f"v{number}", trajectory_id=slot.row_id, **changes)
        store.append("verdicts", [verdict])
    rows = store.rows(
        "SELECT differs_in, trajectory_id, earlier_verdict_id, earlier_label, earlier_extracted, "
        "later_verdict_id, later_label FROM verifier_disagreements ORDER BY ALL"
    )
    assert [list(row.values()) for row in rows] == [
        ["time limit", limits.row_id, "v4", "unverifiable", "2", "v5", "correct"],
        ["version", versions.row_id, "v2", "wrong", "1/2", "v3", "correct"],
    ]


def test_a_student_above_its_teacher_leaves_no_gap_to_close(store: Store) -> None:
    rows = [
        {"evaluation_id": arm, "run_id": "run", "arm": arm, "band": "all", "k": 4, "num_problems": 9, "avg_at_k": share,
         "standard_error": None, "pass_at_k": share, "truncated_share": 0.0, "no_answer_share": 0.0, "benchmark": None}
        for arm, share in {"teacher": 0.5, "base": 0.5, "heal": 0.75}.items()
    ]  # fmt: skip
    store.append("evaluations", rows)
    assert [row["gap_closed"] for row in store.rows("SELECT gap_closed FROM eval_summary")] == [None, None, None]


def test_a_run_that_was_stopped_early_can_be_looked_at(
    store: Store, make_slot: MakeSlot, make_rows: MakeRows, table_row: TableRow
) -> None:
    repair = make_slot(kind=Kind.REPAIR, parent_id="a rollout without a profile", prefix_token_ids=(1, 2, 3, 4))
    store.append("trajectories", make_rows([repair]))
    for table in ("runs", "problems", "run_problems"):
        store.append(table, [table_row(table)])
    store.append("verdicts", [table_row("verdicts", trajectory_id=repair.row_id)])
    used = table_row("run_rows", phase="repairs", kind="repair", row_id=repair.row_id, verdict_id="v0")
    store.append("run_rows", [used])
    assert store.rows("SELECT outcome, reason FROM repair_outcomes") == [{"outcome": "undecided", "reason": None}]
    (row,) = store.rows("SELECT * FROM run_repairs")
    assert (row["num_prefix_tokens"], row["break_tenth"], row["verified"], row["kept"]) == (4, None, True, False)
    (place,) = store.rows("SELECT break_tenth, num_attempted, num_kept FROM repair_yield_by_position")
    assert place == {"break_tenth": None, "num_attempted": 1, "num_kept": 0}
    assert store.rows("SELECT num_generations, pass_rate FROM pass_rates") == [
        {"num_generations": 0, "pass_rate": None}
    ]


def test_each_gate_has_its_own_rate_whichever_of_them_refused_first(store: Store, table_row: TableRow) -> None:
    gates = ["G2", "G5", "G6", "G9"]
    texts = {  # G5 has nothing to say of the first; the decisions name the first refusal of a gate that is switched on
        "t1": ("rollouts", [False, None, None, False], [None, None, 4.0, 1.0], None),
        "t2": ("rollouts", [True, True, None, False], [None, 0.2, 0.0, 2.0], "G2"),
        "t3": ("rollouts", [False, True, None, True], [None, 0.1, 2.0, 9.0], "G5"),
        "t4": ("repairs", [False, False, None, True], [None, 1.0, 1.0, 7.0], None),  # G9 is switched off
    }
    store.append("gate_results", [
        table_row("gate_results", gate_result_id=f"g-{text_id}", phase=phase, trajectory_id=text_id, gates=gates,
                  refused=refused, gate_values=values, details=["seen" if r else None for r in refused])
        for text_id, (phase, refused, values, _) in texts.items()
    ])  # fmt: skip
    store.append("decisions", [
        table_row("decisions", decision_id=f"d-{text_id}", phase="gate_base" if phase == "rollouts" else "gate",
                  subject_id=text_id, decision="dropped" if reason else "kept", reason=reason)
        for text_id, (phase, _, _, reason) in texts.items()
    ])  # fmt: skip
    rates = {(row.pop("phase"), row.pop("gate")): list(row.values()) for row in store.rows(
        "SELECT * EXCLUDE (run_id, arm) FROM gate_rates")}  # fmt: skip
    # texts, judged, refused, share, first, mean value
    assert rates["rollouts", "G2"] == [3, 3, 1, pytest.approx(1 / 3), 1, None]
    assert rates["rollouts", "G5"] == [3, 2, 2, 1.0, 1, pytest.approx(0.15)]
    assert rates["rollouts", "G6"] == [3, 0, 0, None, 0, pytest.approx(2.0)]
    assert rates["rollouts", "G9"] == [3, 3, 1, pytest.approx(1 / 3), 0, pytest.approx(4.0)]
    assert rates["repairs", "G9"] == [1, 1, 1, 1.0, 0, pytest.approx(7.0)]
    found = store.rows("SELECT trajectory_id, gate FROM gate_findings WHERE detail = 'seen' ORDER BY ALL")
    assert [tuple(row.values()) for row in found] == [
        ("t2", "G2"), ("t2", "G5"), ("t3", "G5"), ("t3", "G9"), ("t4", "G9"),
    ]  # fmt: skip


def test_hints_and_controls_have_rates_beside_those_of_the_run(store: Store, table_row: TableRow) -> None:
    rows = (("h1", "hints", None, "hint_gate"), ("h2", "control_hints", "random_breakpoint", "control_hint_gate"))
    for text_id, phase, arm, decided in rows:
        store.append("gate_results", [
            table_row("gate_results", gate_result_id=text_id, phase=phase, arm=arm, trajectory_id=text_id,
                      gates=["empty", "G1"], refused=[False, True], gate_values=[None, None], details=[None, "16"])
        ])  # fmt: skip
        decision = table_row("decisions", decision_id=text_id, phase=decided, subject_id=text_id, reason="G1")
        store.append("decisions", [decision | {"arm": arm}])
    assert store.rows("SELECT phase, arm, gate, num_first FROM gate_rates WHERE num_refused = 1 ORDER BY ALL") == [
        {"phase": "control_hints", "arm": "random_breakpoint", "gate": "G1", "num_first": 1},
        {"phase": "hints", "arm": None, "gate": "G1", "num_first": 1},
    ]
