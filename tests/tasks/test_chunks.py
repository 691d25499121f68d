"""The tasks of a chunk do what is missing and nothing twice; through `.fn`, on real engines and verifiers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heal_core.config import RunConfig, load_config
from heal_core.engines.base import SamplingConfig
from heal_core.engines.price import PriceConfig
from heal_core.plan import Slot
from heal_core.prompts import hinted_prompt, student_prompt
from heal_core.records import Kind
from heal_core.store.reads import read_run_problems, read_tokens
from tasks.problems import take_in_problems
from tasks.profiles import ProfileWork, profile_chunk
from tasks.samples import SampleWork, VerifyWork, sample_chunk, verify_chunk
from tasks.scores import ScoreWork, score_chunk
from tasks.session import Session

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[2] / "deployments" / "lab" / "demo.yaml"
SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, max_tokens=96)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    lab = DEMO.parent
    overrides = [
        f"workspace={tmp_path_factory.mktemp('workspace')}",
        f"problems.path={lab / 'problems.jsonl'}",
        "problems.limit=12",
        f"teacher.model_name_or_path={lab / 'teacher'}",
        f"student.model_name_or_path={lab / 'student'}",
        "teacher.num_threads=1",
    ]
    with Session.open(load_config(DEMO, overrides)) as session:
        take_in_problems.fn(session)
        yield session


@pytest.fixture(scope="module")
def problems(session: Session) -> list[dict[str, Any]]:
    return read_run_problems(session.store, session.run_id)[:2]


def rollouts(session: Session, problems: list[dict[str, Any]], num: int) -> SampleWork:
    recipe_id = session.recipe(Kind.ROLLOUT, session.teacher, SAMPLING, student_prompt("{}"))
    slots = [
        Slot(Kind.ROLLOUT, problem["problem_id"], recipe_id, index, student_prompt(problem["question"]), 96)
        for problem in problems
        for index in range(num)
    ]
    return SampleWork("rollouts", "chunk 0", slots, session.teacher, SAMPLING, session.store.epoch)


@pytest.fixture(scope="module")
def row_ids(session: Session, problems: list[dict[str, Any]]) -> list[str]:
    """Return two sampled rollouts of each of two problems."""
    used = sample_chunk.fn(session, rollouts(session, problems, 2))
    return [row_id for row_id, _ in used.values()]


def num_rows(session: Session, table: str) -> int:
    return int(session.store.rows(f"SELECT count(*) AS num FROM {table}")[0]["num"])


def test_problems_are_taken_in_once(session: Session) -> None:
    run_id, before = session.run_id, num_rows(session, "problems")
    assert take_in_problems.fn(session) == run_id
    assert num_rows(session, "problems") == before == num_rows(session, "run_problems") == 12
    assert num_rows(session, "runs") == 1


def test_sampling_skips_what_exists_without_an_engine(
    session: Session, problems: list[dict[str, Any]], row_ids: list[str]
) -> None:
    session.close_engine()
    made, num = session.made["rollouts"], num_rows(session, "trajectories")
    used = sample_chunk.fn(session, rollouts(session, problems, 2))
    assert [row_id for row_id, _ in used.values()] == row_ids
    assert session._engine is None
    assert (session.made["rollouts"], num_rows(session, "trajectories")) == (made, num)


def test_sampling_more_makes_only_the_rest(
    session: Session, problems: list[dict[str, Any]], row_ids: list[str]
) -> None:
    made = session.made["rollouts"]
    used = sample_chunk.fn(session, rollouts(session, problems, 3))
    assert session.made["rollouts"] == made + 2
    assert set(row_ids) < {row_id for row_id, _ in used.values()}


def test_what_is_sampled_is_counted_as_spent(session: Session, problems: list[dict[str, Any]]) -> None:
    before = session.spent.total
    work = rollouts(session, problems, 4)
    with session.phase("rollouts"):
        used = sample_chunk.fn(session, work)
        sampled = [row_id for row_id, _ in list(used.values())]
    spent = {name: value - getattr(before, name) for name, value in session.spent.as_dict().items()}
    (event,) = session.store.rows("SELECT detail FROM run_events WHERE phase = 'rollouts'")
    detail = json.loads(event["detail"])
    assert detail["spent"] == pytest.approx(spent)
    new = session.store.frame_for(
        sampled,
        "SELECT sum(num_prompt_tokens) AS prompts, sum(num_tokens) AS tokens FROM trajectories "
        "SEMI JOIN wanted ON trajectory_id = id WHERE sample_index = 3",
    ).row(0)
    assert (detail["spent"]["prompt_tokens"], detail["spent"]["completion_tokens"]) == new
    assert detail["made"]["tokens"] == new[1] > 0


def test_prices_are_noted_when_they_are_others_than_before(session: Session) -> None:
    def noted(**prices: dict[str, float]) -> int:
        models = {
            role: getattr(session.config, role).model_copy(update={"price": PriceConfig(**price)})
            for role, price in prices.items()
        }
        start = Session(session.config.model_copy(update=models), session.workspace, session.store, session.verifiers)
        start.begin(session.run_id, None)
        start.note_prices()
        return int(session.store.rows("SELECT count(*) AS num FROM run_events WHERE event = 'priced'")[0]["num"])

    assert noted() == 0  # without prices a run's events are what they were
    assert noted(teacher={"completion": 2.0}) == 1
    assert noted(teacher={"completion": 2.0}) == 1
    assert noted(teacher={"completion": 3.0}, student={"hour": 1.0}) == 2
    prices = session.store.rows("SELECT role, completion, cached_prompt, hour FROM run_prices ORDER BY role")
    assert [tuple(row.values()) for row in prices] == [
        ("scorer", 3.0, 0.0, 0.0),  # the scorer is the teacher
        ("student", 0.0, 0.0, 1.0),
        ("teacher", 3.0, 0.0, 0.0),
    ]
    assert noted() == 3
    assert session.store.rows("FROM run_prices") == []


def test_verifying_skips_what_has_a_verdict(session: Session, row_ids: list[str]) -> None:
    work = VerifyWork("rollouts", "chunk 0", row_ids, session.config.verify, session.store.epoch)
    assert sum(verify_chunk.fn(session, work).values()) == 4
    session.verifiers.close()
    assert sum(verify_chunk.fn(session, work).values()) == 0
    assert session.verifiers.worker_pids == []
    assert num_rows(session, "verdicts") == 4


def test_profiling_skips_what_is_profiled_under_the_same_settings(session: Session, row_ids: list[str]) -> None:
    rows = [{"trajectory_id": row_id, "problem_id": "p"} for row_id in row_ids]

    def profile(config: RunConfig) -> int:
        return int(profile_chunk.fn(session, ProfileWork(config, "chunk 0", rows, session.store.epoch)))

    assert [profile(session.config), profile(session.config)] == [4, 0]
    steps = session.config.steps.model_copy(update={"min_step_tokens": 50})
    assert (
        ProfileWork(session.config.model_copy(update={"steps": steps}), "chunk 0", rows, "e")
        .ids.keys()
        .isdisjoint(ProfileWork(session.config, "chunk 0", rows, "e").ids)
    )
    assert num_rows(session, "profiles") == 4


def sample_repair(session: Session, problem: dict[str, Any], parent_id: str) -> dict[str, Any]:
    """Return the row of a continuation of a rollout's first tokens under a hint."""
    parent = read_tokens(session.store, [parent_id])[parent_id]
    hint = Slot(Kind.HINT, problem["problem_id"], "hints", 0, student_prompt("Give a hint."), 12, parent_id=parent_id)
    cut = 5
    repair = Slot(
        Kind.REPAIR,
        problem["problem_id"],
        session.recipe(Kind.REPAIR, session.teacher, SAMPLING, hinted_prompt("{}", "{}")),
        0,
        hinted_prompt(problem["question"], "Mind the second step."),
        64,
        parent_id=parent_id,
        hint_id=hint.row_id,
        prefix_token_ids=tuple(parent.token_ids[:cut].tolist()),
        prefix=parent.text[: parent.token_starts[cut]],
        cut_tokens=cut,
    )
    for slot in (hint, repair):
        sample_chunk.fn(
            session, SampleWork("repairs", "chunk 0", [slot], session.teacher, SAMPLING, session.store.epoch)
        )
    return {**session.store.rows("SELECT * FROM trajectories WHERE trajectory_id = ?", [repair.row_id])[0], **problem}


def test_scoring_skips_what_is_scored_by_the_same_scorer(
    session: Session, problems: list[dict[str, Any]], row_ids: list[str]
) -> None:
    row = sample_repair(session, problems[0], row_ids[0])
    work = ScoreWork("chunk 0", [row], "a scorer", session.scorer, session.store.epoch)
    assert score_chunk.fn(session, work) == list(work.rows)
    session.close_engine()
    assert score_chunk.fn(session, work) == list(work.rows)
    assert session._engine is None
    (score,) = session.store.rows("SELECT * FROM scores")
    assert score["trajectory_id"] == row["trajectory_id"]
    # the responses' own tokens are among those the scorer read
    assert score["num_scored_tokens"] >= row["num_tokens"]
    assert (
        ScoreWork("chunk 0", [row], "another scorer", session.scorer, session.store.epoch)
        .rows.keys()
        .isdisjoint(work.rows)
    )
