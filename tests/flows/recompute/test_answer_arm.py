"""The arm `answer` beside `generated` on the scripted world: what is asked, who is shown what, what is used again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from heal_core.prompts import guided_prompt, student_prompt
from tests.flows.recompute.ledger import ScriptedEngine
from tests.flows.recompute.test_nights import AT_ONCE

pytestmark = pytest.mark.slow

ANSWER = {**AT_ONCE, "hints.arm": "answer"}


@pytest.fixture(scope="module")
def asked(lab: Any) -> Iterator[list[Any]]:
    """Record what scorers are asked."""
    requests: list[Any] = []
    score = ScriptedEngine.score

    def record(self: ScriptedEngine, batch: Any) -> Any:
        requests.extend(batch)
        return score(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedEngine, "score", record)
        yield requests


@pytest.fixture(scope="module")
def both(lab: Any, asked: list[Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, list[Any]]:
    """Return a run of each arm in one workspace, and what the second asked of its scorer."""
    workspace = tmp_path_factory.mktemp("arms") / "workspace"
    generated = lab.run(workspace, AT_ONCE)
    asked.clear()
    return generated, lab.run(workspace, ANSWER), list(asked)


def test_no_hint_is_written_and_every_broken_path_is_continued_in_sight_of_the_answer(both: Any) -> None:
    generated, answer, _ = both
    assert generated.calls["hints"] > 0 == answer.calls["hints"]
    assert answer.calls["rollouts"] == answer.calls["guided"] == 0  # shared with the other arm
    paths = "SELECT subject_id FROM decisions WHERE run_id = $run AND phase = 'path' AND decision = 'kept'"
    continued = "SELECT DISTINCT parent_id FROM run_repairs WHERE run_id = $run"
    assert set(answer.rows(paths)) == set(answer.rows(continued))
    # of the other arm's paths, those whose tries all leaked are missing
    assert set(generated.rows(paths)) < set(answer.rows(paths))
    (counts,) = answer.rows("SELECT num_attempted, num_paths FROM repair_yield_by_arm WHERE run_id = $run")
    assert answer.calls["repairs"] == counts[0] == 5 * counts[1] > 0


def test_both_arms_stand_beside_each_other_in_sql(both: Any) -> None:
    _, answer, _ = both
    arms = answer.rows("SELECT hint_arm, num_verified, num_kept FROM repair_yield_by_arm ORDER BY hint_arm")
    assert [arm for arm, *_ in arms] == ["answer", "generated"]
    assert all(num_verified >= num_kept > 0 for _, num_verified, num_kept in arms)
    assert answer.rows("SELECT DISTINCT hint_id FROM run_repairs WHERE hint_arm = 'answer'") == [(None,)]


def test_reliance_reads_the_repair_under_the_prompt_that_told_the_answer_and_nothing_else_does(both: Any) -> None:
    _, answer, requests = both
    told = dict(answer.rows("SELECT question, answer FROM problems"))
    prompts = {request.prompt for request in requests if request.request_id.endswith("/hinted")}
    assert prompts and prompts <= {guided_prompt(question, reference) for question, reference in told.items()}
    others = {request.prompt for request in requests if not request.request_id.endswith("/hinted")}
    assert others and others <= {student_prompt(question) for question in told}
    unmeasured = "SELECT count(*) FROM pure_scores WHERE run_id = $run AND reliance IS NULL AND ratio IS NOT NULL"
    assert answer.rows(unmeasured) == [(0,)]


def test_a_training_example_has_no_trace_of_the_prompt_that_told_the_answer(both: Any) -> None:
    _, answer, _ = both
    kept = answer.rows(
        "SELECT t.prefix || t.text, p.question, p.answer FROM stage_examples s "
        "JOIN trajectories t USING (trajectory_id) JOIN problems p ON p.problem_id = t.problem_id "
        "WHERE s.run_id = $run AND t.kind = 'repair' AND s.stage = 'III'"
    )
    assert kept
    for response, question, reference in kept:
        prompt = guided_prompt(question, reference)
        assert not any(line and line in response for line in prompt.split("\n"))


def test_every_drop_has_a_reason_and_every_refusal_of_a_gate_its_detail(both: Any) -> None:
    for run in both[:2]:
        unexplained = "SELECT * FROM decisions WHERE run_id = $run AND decision = 'dropped' AND reason IS NULL"
        assert run.rows(unexplained) == []
        outcomes = run.rows("SELECT outcome, reason FROM repair_outcomes WHERE run_id = $run AND verified")
        assert {outcome for outcome, _ in outcomes} <= {
            "kept", "dropped by gate", "dropped by PURE", "dropped by cap",
        }  # fmt: skip
        assert all((reason is None) == (outcome == "kept") for outcome, reason in outcomes)
        dropped = run.rows(
            "SELECT d.subject_id, d.reason, f.detail FROM decisions d LEFT JOIN gate_findings f ON f.run_id = d.run_id "
            "AND f.trajectory_id = d.subject_id AND f.gate = d.reason AND f.refused "
            "WHERE d.run_id = $run AND d.phase IN ('gate', 'gate_base', 'hint_gate') AND d.decision = 'dropped'"
        )
        assert dropped and all(detail for *_, detail in dropped)
        # every text that a gate could refuse was examined by all of them, once
        (examined,) = run.rows(
            "SELECT count(*), count(DISTINCT trajectory_id), min(len(gates)), max(len(gates)) FROM gate_results "
            "WHERE run_id = $run AND phase <> 'hints'"
        )
        (decided,) = run.rows("SELECT count(*) FROM decisions WHERE run_id = $run AND phase IN ('gate', 'gate_base')")
        assert examined == (decided[0], decided[0], 9, 9)


def test_each_gate_is_measured_on_rollouts_that_saw_neither_hint_nor_answer(both: Any) -> None:
    generated, answer, _ = both
    rates = "SELECT gate, num_texts, num_judged, num_refused FROM gate_rates WHERE run_id = $run AND phase = 'rollouts'"
    found = {gate: counts for gate, *counts in generated.rows(rates)}
    assert found.keys() == {"G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10"}
    assert found["G6"][1] == 0 < found["G8"][1] == found["G8"][0]  # rollouts have a seam where they would have been cut
    assert found["G2"][2] == 0  # the world's plain texts name no hint
    # both arms rest on the same rollouts
    assert sorted(generated.rows(rates)) == sorted(answer.rows(rates))
    guided = "SELECT num_judged FROM gate_rates WHERE run_id = $run AND phase = 'guided' AND gate = 'G8'"
    assert generated.rows(guided) == [(0,)]
