"""What changed between two runs, on small stores whose numbers can be worked out by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.plan import Slot
from heal_core.records import Kind
from heal_core.store.compare import NUM_EXAMPLES, compare_runs, find_compared_run
from heal_core.store.inspect import open_store
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]
LABELS = {
    "c": ("correct", None),
    "w": ("wrong", "different"),
    "t": ("unverifiable", "timeout"),
    "u": ("unverifiable", "unparsable_gold"),
}
PHASES = ("rollouts", "profiles", "repairs", "selection", "equal_tokens", "training", "evaluation")


class Runs:
    """Writes runs into one workspace, each given by what is of interest; a letter stands for an answer.

    c is correct, w wrong, t took the verifier too long, u has a reference answer that cannot be parsed, x would be
    correct but was cut.
    """

    def __init__(
        self, workspace: Workspace, table_row: Callable[..., Row], make_rows: Callable[..., list[Row]]
    ) -> None:
        self.workspace = workspace
        self._table_row = table_row
        self._make_rows = make_rows
        self._rows: defaultdict[str, list[Row]] = defaultdict(list)

    def add(self, table: str, key: str, **values: Any) -> None:
        """Note a row that is to be stored under a content key."""
        row = self._table_row(table, **values)
        row[next(iter(row))] = key  # the first column is the key
        self._rows[table].append(row)

    def add_run(
        self,
        run_id: str,
        problems: Mapping[str, str] | None = None,
        bands: Mapping[str, str] | None = None,
        rollouts: Mapping[str, str] | None = None,
        arms: Mapping[str, Mapping[str, str]] | None = None,
        k: int | None = None,
        closed: Sequence[str] = PHASES,
        recipes: Mapping[str, str] | None = None,
        **run: Any,
    ) -> None:
        """Note a run.

        Args:
            problems: Split by problem.
            rollouts: The teacher's answers by problem.
            arms: The students' answers by arm and problem.
            k: Of the evaluation; None when the run has none.
            closed: Phases that it closed; all of them complete it.
            recipes: By arm (the teacher's is ""); the same recipe means the same texts as in another run.
        """
        self.add("runs", run_id, **run)
        for problem_id, split in (problems or {}).items():
            self.add("problems", problem_id, question=f"{problem_id}?")
            self.add("run_problems", f"{run_id} {problem_id}", run_id=run_id, problem_id=problem_id, split=split)
        for problem_id, band in (bands or {}).items():
            self.add("decisions", f"{run_id} {problem_id}", run_id=run_id, phase="band", subject_id=problem_id,
                     problem_id=problem_id, decision=band)  # fmt: skip
        for arm, answers in {"": rollouts or {}, **(arms or {})}.items():
            recipe = (recipes or {}).get(arm, f"{run_id} {arm}")
            for problem_id, letters in answers.items():
                self.add_samples(run_id, "evaluation" if arm else "rollouts", problem_id, letters, recipe, arm)
        if k is not None:
            self.add_evaluated(run_id, k, *(["teacher"] if rollouts else []), *(arms or {}))
        for phase in closed:
            self.add("run_events", f"{run_id} {phase}", run_id=run_id, event="phase", phase=phase,
                     detail=json.dumps({"seconds": 2.0, "made": {"tokens": 5}}))  # fmt: skip
        if tuple(closed) == PHASES:
            self.add("run_events", f"{run_id} end", run_id=run_id, event="completed")

    def add_evaluated(self, run_id: str, k: int, *arms: str) -> None:
        """Note that a run has evaluated these arms; its own averages are of no interest here."""
        self._rows["evaluations"] += [
            {
                "evaluation_id": f"{run_id} {arm}", "run_id": run_id, "arm": arm, "band": "all", "k": k,
                "num_problems": 1, "avg_at_k": 0.0, "standard_error": None, "pass_at_k": 0.0,
                "truncated_share": 0.0, "no_answer_share": 0.0,
            }
            for arm in arms
        ]  # fmt: skip

    def add_samples(
        self, run_id: str, phase: str, problem_id: str, letters: str, recipe: str = "r", arm: str = ""
    ) -> list[str]:
        """Note graded samples that the run uses in a phase; return their ids."""
        kind = Kind.REPAIR if phase == "repairs" else Kind.ROLLOUT
        parent_id, hint_id = (f"{problem_id} wrong", "h") if kind == Kind.REPAIR else (None, None)
        slots = [
            Slot(kind, problem_id, recipe, index, f"{problem_id}?", 20, parent_id=parent_id, hint_id=hint_id)
            for index in range(len(letters))
        ]
        self._rows["trajectories"] += self._make_rows(slots)
        for slot, letter in zip(slots, letters, strict=True):
            label, reason = LABELS["c" if letter == "x" else letter]
            verdict_id = f"v {slot.row_id} {label}"
            self.add("verdicts", verdict_id, trajectory_id=slot.row_id, label=label, reason=reason)
            self.add("run_rows", f"{run_id} {phase} {arm} {slot.row_id}", run_id=run_id, phase=phase, arm=arm,
                     kind=str(kind), row_id=slot.row_id, cut=letter == "x", verdict_id=verdict_id)  # fmt: skip
        return [slot.row_id for slot in slots]

    def write(self) -> None:
        """Store what was noted; columns that later migrations added are null."""
        with Store(self.workspace) as store:
            for table, rows in self._rows.items():
                columns = store.part_schema(table).names if table != "trajectories" else ()
                store.append(table, [dict.fromkeys(columns) | row for row in rows])
        self._rows.clear()

    def compare(self, run_a: str = "a", run_b: str = "b") -> dict[str, Any]:
        self.write()
        with open_store(self.workspace.root) as store:
            found = compare_runs(store, run_a, run_b)
        assert json.loads(json.dumps(found)) == found
        return found


@pytest.fixture
def runs(workspace: Workspace, table_row: Callable[..., Row], make_rows: Callable[..., list[Row]]) -> Runs:
    return Runs(workspace, table_row, make_rows)


def held_out(*problem_ids: str) -> dict[str, str]:
    return dict.fromkeys(problem_ids, "held_out")


def scores(found: dict[str, Any]) -> dict[tuple[str, str], Row]:
    return {(row.pop("arm"), row.pop("band")): row for row in found["evaluation"]["scores"]}


# ---- which run is meant


def test_runs_are_found_by_the_beginning_of_an_id_or_by_the_order_of_writing(runs: Runs) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for number, run_id in enumerate(["aa1", "ab2", "b%3"]):
        # the clock jumps back: the order of writing counts
        runs.add_run(run_id, closed=[], started_at=began - timedelta(days=number))
        runs.write()
    meant = {"last": "b%3", "previous": "ab2", "aa": "aa1", "b%3": "b%3"}
    with open_store(runs.workspace.root) as store:
        assert {name: find_compared_run(store, name) for name in meant} == meant
        with pytest.raises(InputError, match=r"'a' begins more than one id \(aa1, ab2 \.\.\.\): give more of it"):
            find_compared_run(store, "a")
        with pytest.raises(InputError, match=r"no run has an id that begins with '%'\. `heal status`"):
            find_compared_run(store, "%")  # an id is no pattern


def test_with_evaluations_alone_the_last_is_the_newest_of_them(runs: Runs) -> None:
    for run_id in ("noon", "evening"):
        runs.add_run(run_id, closed=[], purpose="evaluation")
        runs.write()
    with open_store(runs.workspace.root) as store:
        assert find_compared_run(store, "last") == "evening"
        with pytest.raises(InputError, match="no run so far"):
            find_compared_run(store, "previous")


def test_an_evaluation_between_two_nights_is_none_of_them(runs: Runs) -> None:
    for run_id, purpose in (("night1", "distillation"), ("night2", "distillation"), ("noon", "evaluation")):
        runs.add_run(run_id, closed=[], purpose=purpose)
        runs.write()
    with open_store(runs.workspace.root) as store:
        assert [find_compared_run(store, name) for name in ("previous", "last", "noon")] == ["night1", "night2", "noon"]


def test_a_store_with_one_run_or_none_says_how_to_get_another(runs: Runs) -> None:
    runs.write()
    with open_store(runs.workspace.root) as store, pytest.raises(InputError, match=r"no run so far. `heal run"):
        find_compared_run(store, "last")
    runs.add_run("only", closed=[])
    runs.write()
    with open_store(runs.workspace.root) as store:
        assert find_compared_run(store, "last") == "only"
        with pytest.raises(InputError, match=r"no previous run: the store holds only only\. .*changed setting"):
            find_compared_run(store, "previous")


# ---- what was asked


def test_only_settings_that_differ_are_told(runs: Runs) -> None:
    runs.add_run("a", config='{"pure": {"score": "ratio", "epsilon": 0.01}, "gone": 1, "scorer": null}', seed=1)
    runs.add_run("b", config='{"pure": {"score": "jump", "epsilon": 0.01}, "epochs": [1, 2], "scorer": null}', seed=2,
               git_revision="abc", closed=["rollouts"])  # fmt: skip
    found = runs.compare()
    assert found["settings"] == [
        {"setting": "epochs", "a": None, "b": "[1,2]"},
        {"setting": "gone", "a": "1", "b": None},
        {"setting": "pure.score", "a": "ratio", "b": "jump"},
    ]
    told = {side: [run[name] for name in ("run_id", "state", "last_phase", "git_revision", "seed")]
            for side, run in found["runs"].items()}  # fmt: skip
    assert told == {"a": ["a", "completed", "evaluation", None, 1], "b": ["b", "unfinished", "rollouts", "abc", 2]}


def test_another_model_behind_the_same_settings_is_told(runs: Runs) -> None:
    for recipe_id, files, seed in (("old", "f1", 1), ("new", "f2", 2)):
        made = {"model": {"files": files, "engine": "hf 1"}, "seed": seed, "sampling": {"top_p": seed}}
        runs.add("recipes", recipe_id, settings=json.dumps(made))
    for run_id, recipe_id in (("a", "old"), ("b", "new")):
        runs.add_run(run_id, held_out("p"), rollouts={"p": "c"}, recipes={"": recipe_id})
    # that only run b has come to equal_tokens is no difference in how rows were made; seed and top_p are settings
    runs.add_samples("b", "equal_tokens", "p", "c", "new")
    assert runs.compare()["recipes"] == [{"item": "model.files", "a": "f1", "b": "f2", "phases": ["rollouts"]}]


def test_another_verifier_is_told(runs: Runs) -> None:
    runs.add_run("a", held_out("p"), rollouts={"p": "c"}, recipes={"": "r"})
    runs.add_run("b", held_out("p"))
    (row_id,) = runs.add_samples("b", "guided", "p", "c", "s")
    runs.add("verdicts", "v2", trajectory_id=row_id, verifier_version="2")
    runs.add("run_rows", "regraded", run_id="b", phase="guided", row_id=row_id, verdict_id="v2")
    assert runs.compare()["recipes"] == [{"item": "verifier math", "a": "1", "b": "1, 2", "phases": ["verdicts"]}]


def test_problems_are_shared_new_gone_or_moved(runs: Runs) -> None:
    runs.add_run("a", {"p1": "train", "p2": "train", "p3": "held_out", "p4": "train"})
    runs.add_run("b", {"p1": "train", "p2": "held_out", "p3": "held_out", **{f"q{i}": "train" for i in range(7)}})
    problems = runs.compare()["problems"]
    names = ("num_a", "num_b", "num_shared", "num_only_a", "num_only_b", "num_moved")
    assert [problems[name] for name in names] == [4, 10, 3, 1, 7, 1]
    by_split = {split: list(row.values()) for split, row in problems["by_split"].items()}
    # a, b, shared, only a, only b, moved here: of 3 training problems p1 stays, p4 goes, p2 moves
    assert by_split == {"train": [3, 8, 1, 1, 7, 0], "held_out": [1, 2, 1, 0, 0, 1]}
    assert problems["only_a"] == [{"problem_id": "p4", "a": "train", "b": None, "question": "p4?"}]
    assert problems["moved"] == [{"problem_id": "p2", "a": "train", "b": "held_out", "question": "p2?"}]
    assert [row["problem_id"] for row in problems["only_b"]] == [f"q{i}" for i in range(NUM_EXAMPLES)]


# ---- what became of it


def test_the_funnel_tells_what_did_not_happen_from_what_was_not_reached(runs: Runs) -> None:
    runs.add_run("a", {"p": "train"}, {"p": "extremely_hard"}, {"p": "ccw"})
    kept, _ = runs.add_samples("a", "repairs", "p", "cw")
    for phase in ("gate", "cap"):
        runs.add("decisions", phase, run_id="a", phase=phase, subject_id=kept)
    for number, reason in enumerate(["duplicate: of line 1", "duplicate: of line 2"]):
        runs.add("quarantine", str(number), run_id="a", reason=reason)
    runs.add_run("b", {"p": "train"}, rollouts={"p": "ww"}, closed=["rollouts"])
    rows = {(row["phase"], row["outcome"], row["reason"]): row for row in runs.compare()["funnel"]}
    told = {key: [row[name] for name in ("a", "b", "difference", "num_in_phase_a", "num_in_phase_b")]
            for key, row in rows.items()}  # fmt: skip
    assert told == {
        ("rows", "quarantined", "duplicate"): [2, 0, -2, 3, 1],
        ("rows", "train", None): [1, 1, 0, 3, 1],
        ("rollouts", "correct", None): [2, 0, -2, 3, 2],
        ("rollouts", "wrong", None): [1, 2, 1, 3, 2],
        ("problems", "extremely_hard", "train"): [1, None, None, 1, None],
        ("repairs", "kept", None): [1, None, None, 2, None],
        ("repairs", "wrong", None): [1, None, None, 2, None],
    }


def test_repairs_that_wait_for_selection_are_not_called_dropped(runs: Runs) -> None:
    for run_id, letters, closed in (("a", "cwww", PHASES), ("b", "ccww", PHASES[:3])):
        runs.add_run(run_id, {"p": "train"}, {"p": "extremely_hard"}, {"p": "ww"}, closed=closed)
        runs.add_samples(run_id, "repairs", "p", letters, run_id)
    rows = {(row["item"], row["metric"]): row for row in runs.compare()["yields"]}
    told = {key: [row["a"], row["b"], row["difference"]] for key, row in rows.items()}
    # 1 of 4 and 2 of 4 are verified; no cap decided on them: in a none was kept, b has not come to it
    assert told["problems", "verified_share"] == [0.25, 0.5, 0.25]
    assert told["problems", "num_repaired"] == [1, 1, 0]
    assert told["problems", "kept_share"] == [0, None, None]
    assert told["repairs", "num_samples"] == [4, 4, 0]
    assert told["rollouts", "correct_share"] == [0, 0, 0]
    kept = [row for row in runs.compare()["funnel"] if row["outcome"] == "undecided"]
    assert [(row["a"], row["b"]) for row in kept] == [(1, 2)]


def test_samples_of_the_evaluation_are_compared_on_the_same_problems_only(runs: Runs) -> None:
    for run_id in "ab":
        runs.add_run(run_id, held_out("p"), {"p": "easy"}, {"p": "c"}, {"heal": {"p": "c"}}, k=1)
    assert {row["item"] for row in runs.compare()["yields"] if row["topic"] == "samples"} == {"rollouts"}


def test_spend_tells_what_a_run_sampled_itself(runs: Runs) -> None:
    runs.add_run("a", held_out("p"), rollouts={"p": "cc"}, closed=["rollouts"], recipes={"": "r"})
    runs.add_run("b", held_out("p"), rollouts={"p": "cc"}, closed=["rollouts", "profiles"], recipes={"": "r"})
    rollouts, profiles = runs.compare()["spend"]
    # they share the texts; each event says that 5 tokens were newly made, in 2 seconds
    assert rollouts["num_tokens_a"] == rollouts["num_tokens_b"] > 0
    assert (rollouts["num_new_tokens_a"], rollouts["wall_seconds_b"]) == (5, 2.0)
    assert (profiles["phase"], profiles["wall_seconds_a"], profiles["wall_seconds_b"]) == ("profiles", None, 2.0)


# ---- scores


def test_scores_are_compared_on_the_problems_that_both_evaluated(runs: Runs) -> None:
    runs.add_run("a", held_out("p1", "p2", "p3", "p4"), {"p1": "easy", "p2": "easy", "p3": "easy", "p4": "easy"},
               arms={"heal": {"p1": "cc", "p2": "cw", "p3": "ww", "p4": "cc"}}, k=2)  # fmt: skip
    runs.add_run("b", held_out("p1", "p2", "p3", "p5"), {"p1": "easy", "p2": "easy", "p3": "hard", "p5": "hard"},
               arms={"heal": {"p1": "cccc", "p2": "cccw", "p3": "cwww", "p5": "wwww"}}, k=4)  # fmt: skip
    found = runs.compare()
    evaluation = found["evaluation"]
    assert (evaluation["k_a"], evaluation["k_b"], evaluation["num_problems"]) == (2, 4, 3)
    assert evaluation["why_empty"] is None
    # p3 is easy to the teacher of a and hard to that of b: b's word counts
    assert evaluation["num_changed_band"] == 1
    assert evaluation["changed_band"] == [{"problem_id": "p3", "a": "easy", "b": "hard"}]
    rows = scores(found)
    assert list(rows) == [("heal", "all"), ("heal", "easy"), ("heal", "hard")]
    # p1 1 and 1, p2 1/2 and 3/4, p3 0 and 1/4: means 1/2 and 2/3, differences 0, 1/4, 1/4. A resampled mean is 1/4
    # times the share of draws that are not p1: 0 with probability (1/3)^3 = 3.7 %, 1/4 with (2/3)^3 = 30 %, both
    # more than the 2.5 % of a tail
    assert rows["heal", "all"] == {
        "num_problems": 3, "num_same_answers": 0, "a": 0.5, "b": pytest.approx(2 / 3),
        "difference": pytest.approx(1 / 6), "interval": [0.0, 0.25],
    }  # fmt: skip
    # p1, p2: (1 + 1/2) / 2 and (1 + 3/4) / 2
    assert (rows["heal", "easy"]["a"], rows["heal", "easy"]["b"]) == (0.75, 0.875)
    assert rows["heal", "easy"]["interval"] == [0.0, 0.25]
    # an interval of p3 alone would have no width
    assert rows["heal", "hard"] == {
        "num_problems": 1, "num_same_answers": 0, "a": 0.0, "b": 0.25, "difference": 0.25, "interval": None,
    }  # fmt: skip


def test_the_other_way_round_the_difference_has_the_other_sign_and_the_other_bands(runs: Runs) -> None:
    for run_id, band, answer in (("a", "easy", "cw"), ("b", "hard", "cc")):
        runs.add_run(run_id, held_out("p"), {"p": band}, arms={"heal": {"p": answer}}, k=2)
    there, back = scores(runs.compare()), scores(runs.compare("b", "a"))
    assert {key: row["difference"] for key, row in there.items()} == {("heal", "all"): 0.5, ("heal", "hard"): 0.5}
    assert {key: row["difference"] for key, row in back.items()} == {("heal", "all"): -0.5, ("heal", "easy"): -0.5}


def test_the_teachers_score_is_of_its_first_k_rollouts_of_held_out_problems(runs: Runs) -> None:
    problems = {"p": "held_out", "t": "train"}
    easy = dict.fromkeys(problems, "easy")
    runs.add_run("a", problems, easy, {"p": "cwcc", "t": "cccc"}, k=2)
    runs.add_run("b", problems, easy, {"p": "cwcc", "t": "cccc"}, k=4)
    row = scores(runs.compare())["teacher", "all"]
    assert (row["num_problems"], row["a"], row["b"]) == (1, 0.5, 0.75)


def test_a_cut_or_unverifiable_answer_is_not_correct_and_an_ungradable_problem_is_in_neither(runs: Runs) -> None:
    easy = dict.fromkeys(["p", "q"], "easy")
    answers_a = {"heal": {"p": "xc", "q": "uu"}, "base": {"p": "tt", "q": "cc"}}
    answers_b = {"heal": {"p": "cc", "q": "cc"}, "base": {"p": "cw", "q": "cc"}}
    for run_id, answers in (("a", answers_a), ("b", answers_b)):
        runs.add_run(run_id, held_out("p", "q"), easy, arms=answers, k=2)
    found = runs.compare()
    assert (found["evaluation"]["num_problems"], found["evaluation"]["num_ungradable"]) == (1, 1)
    told = {key: (row["num_problems"], row["a"], row["b"]) for key, row in scores(found).items()}
    # q is left out of base too, where it was graded
    assert told == {
        ("heal", "all"): (1, 0.5, 1.0), ("heal", "easy"): (1, 0.5, 1.0),
        ("base", "all"): (1, 0.0, 0.5), ("base", "easy"): (1, 0.0, 0.5),
    }  # fmt: skip


def test_the_same_answers_are_told_from_equal_scores(runs: Runs) -> None:
    easy = dict.fromkeys(["p", "q"], "easy")
    answers = {"p": "cw", "q": "cc"}
    for run_id in "ab":
        # the untrained student's answers are the same rows in both; the trained ones answer as well, by chance
        runs.add_run(run_id, held_out("p", "q"), easy, arms={"base": answers, "heal": answers}, k=2,
                   recipes={"base": "student"})  # fmt: skip
    rows = scores(runs.compare())
    assert {arm: rows[arm, "all"]["num_same_answers"] for arm in ("base", "heal")} == {"base": 2, "heal": 0}
    assert {arm: rows[arm, "all"]["interval"] for arm in ("base", "heal")} == {"base": [0, 0], "heal": [0, 0]}


def test_a_problem_whose_answers_are_not_all_there_is_not_compared_in_any_arm(runs: Runs) -> None:
    easy = dict.fromkeys(["p", "q", "r"], "easy")
    answers = dict.fromkeys(easy, "cc")
    runs.add_run("a", held_out(*easy), easy, arms={"base": answers, "heal": answers | {"q": "c"}}, k=2)
    # run b has no answers of base to r
    runs.add_run("b", held_out(*easy), easy, arms={"base": {"p": "cc", "q": "cc"}, "heal": answers}, k=2)
    assert {key: row["num_problems"] for key, row in scores(runs.compare()).items()} == dict.fromkeys(
        [("base", "all"), ("base", "easy"), ("heal", "all"), ("heal", "easy")], 1
    )


def test_only_arms_of_both_are_compared(runs: Runs) -> None:
    for run_id, arm in (("a", "rejection_sampling"), ("b", "equal_tokens")):
        runs.add_run(run_id, held_out("p"), {"p": "easy"}, {"p": "c"}, {arm: {"p": "c"}}, k=1)
    found = runs.compare()
    assert (found["evaluation"]["only_a"], found["evaluation"]["only_b"]) == (["rejection_sampling"], ["equal_tokens"])
    assert {arm for arm, _ in scores(found)} == {"teacher"}


def test_runs_without_scores_in_common_say_why(runs: Runs) -> None:
    runs.add_run("a", held_out("p"), {"p": "easy"}, {"p": "c"}, k=1)
    runs.add_run("begun", held_out("p"), {"p": "easy"}, {"p": "c"}, closed=PHASES[:2])
    runs.add_run("opened", held_out("p"), closed=[])
    runs.add_run("elsewhere", held_out("q"), {"q": "easy"}, {"q": "c"}, k=1)
    runs.add("runs", "other arms")
    runs.add_evaluated("other arms", 1, "heal")
    why = {}
    for run_b in ("begun", "opened", "elsewhere", "other arms"):
        evaluation = runs.compare("a", run_b)["evaluation"]
        assert evaluation["scores"] == []
        why[run_b] = evaluation["why_empty"]
    assert why == {
        "begun": "run B (begun) has no evaluation: the last phase that it closed is profiles",
        "opened": "run B (opened) has no evaluation: it closed no phase",
        "elsewhere": "the runs share no held-out problem that both evaluated and that can be graded",
        "other arms": "the runs share no arm: A has teacher; B has heal",
    }
    assert runs.compare("begun", "opened")["evaluation"]["why_empty"].count("has no evaluation") == 2
