"""Rollouts whose breakpoint is open are read again, exactly those; through `.fn`, on the lab teacher.

Its rollouts are sampled by an engine that tells of each distribution the most probable token alone, cut from the
model's own logits, as a server does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heal_core.breakpoints import BreakpointConfig
from heal_core.config import RunConfig, load_config
from heal_core.engines.base import EngineConfig, EngineDescription, GenerationRequest, SamplingConfig
from heal_core.engines.hf import HfEngine
from heal_core.engines.identity import identify_model
from heal_core.entropy_bounds import entropy_interval, middle_and_radius
from heal_core.errors import ModelError
from heal_core.plan import Slot
from heal_core.profiles import profile_entropy
from heal_core.prompts import student_prompt
from heal_core.records import Completion, Kind
from heal_core.rescoring import GivenTokens, find_rescorer, has_same_weights, read_again
from heal_core.store.reads import TokenRow, read_run_problems, read_tokens
from tasks.decisions import assign_bands
from tasks.problems import take_in_problems
from tasks.profiles import ProfileWork, profile_chunk, profile_key
from tasks.repairs import cut_paths
from tasks.rescoring import (
    RescoreWork,
    note_breakpoints,
    open_rows,
    read_used_profiles,
    rescore_chunk,
    rescored_key,
)
from tasks.samples import SampleWork, VerifyWork, sample_chunk, verify_chunk
from tasks.session import Session

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[2] / "deployments" / "lab" / "demo.yaml"
LAB = DEMO.parent
SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, max_tokens=224)
NUM_TOP = 1


class TopTokensEngine:
    """The engine `hf` of a model, except that its entropies are known from the `num_top` most probable tokens.

    `exact` has the entropies of the whole distributions, by slot.
    """

    def __init__(self, config: EngineConfig, num_top: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._engine = HfEngine(config)
        self._num_top = num_top
        self._model = AutoModelForCausalLM.from_pretrained(config.model_name_or_path, dtype="float32")
        self._tokenizer = AutoTokenizer.from_pretrained(config.model_name_or_path)
        self.exact: dict[str, np.ndarray] = {}

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingConfig) -> Iterator[Completion]:
        prompts = {request.slot_id: request.prompt for request in requests}
        for completion in self._engine.generate(requests, sampling):
            logprobs = self._read(prompts[completion.slot_id], completion.token_ids)
            self.exact[completion.slot_id] = -(logprobs.exp() * logprobs).sum(-1).numpy()
            top = logprobs.topk(self._num_top).values
            middles, radii = middle_and_radius(*entropy_interval(top.numpy(), logprobs.shape[1]))
            yield replace(completion, entropies=middles, entropy_radii=radii, entropy_source=f"top_{self._num_top}")

    def _read(self, prompt: str, token_ids: np.ndarray) -> Any:
        """Return the log-probabilities of each token's distribution."""
        import torch

        from heal_core.chat import render_prompt_ids

        prompt_ids = render_prompt_ids(self._tokenizer, prompt)
        ids = torch.tensor([[*prompt_ids, *token_ids.tolist()]])
        with torch.inference_mode():
            logits = self._model(ids).logits[0, len(prompt_ids) - 1 : -1]
        return torch.log_softmax(logits, dim=-1)

    def close(self) -> None:
        self._engine.close()


def lab_config(workspace: Path, *overrides: str) -> RunConfig:
    """Return the demo with a teacher behind a server that is never asked, and a scorer with its weights."""
    settings = [
        f"workspace={workspace}",
        f"problems.path={LAB / 'problems.jsonl'}",
        "problems.limit=8",
        "rollouts.num_generations=8",
        "evaluation.num_generations=1",
        f"student.model_name_or_path={LAB / 'student'}",
        "teacher.engine=openai",
        "teacher.server.base_url=http://127.0.0.1:9/v1",
        f"teacher.model_name_or_path={LAB / 'teacher'}",
        f"scorer.model_name_or_path={LAB / 'teacher'}",
        "scorer.dtype=float32",
        "scorer.num_threads=1",
        *overrides,
    ]
    return load_config(DEMO, settings)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, dict[str, np.ndarray]]]:
    """A run that has sampled, graded, profiled and banded its rollouts, and their exact entropies."""
    with Session.open(lab_config(tmp_path_factory.mktemp("workspace"))) as session:
        take_in_problems.fn(session)
        assert session.config.scorer is not None
        engine = TopTokensEngine(session.config.scorer, NUM_TOP)
        session._engine = (session.teacher, engine)
        problems = read_run_problems(session.store, session.run_id)
        recipe_id = session.recipe(Kind.ROLLOUT, session.teacher, SAMPLING, student_prompt("{}"))
        slots = [
            Slot(Kind.ROLLOUT, problem["problem_id"], recipe_id, index, student_prompt(problem["question"]), 224)
            for problem in problems
            for index in range(6)
        ]
        work = SampleWork("rollouts", "chunk 0", slots, session.teacher, SAMPLING, session.store.epoch)
        rows_of_slots = sample_chunk.fn(session, work)
        used = dict(rows_of_slots.values())
        verify_chunk.fn(session, VerifyWork("rollouts", "", list(used), session.config.verify, session.store.epoch))
        session.close_phase("rollouts", "", Kind.ROLLOUT, used)
        rows = [{"trajectory_id": row_id, "problem_id": "p"} for row_id in used]
        profile_chunk.fn(session, ProfileWork(session.config, "chunk 0", rows, session.store.epoch))
        assign_bands.fn(session)
        yield session, {row_id: engine.exact[slot_id] for slot_id, (row_id, _) in rows_of_slots.items()}


@pytest.fixture(scope="module")
def session(sampled: tuple[Session, dict[str, np.ndarray]]) -> Session:
    return sampled[0]


@pytest.fixture(scope="module")
def exact(sampled: tuple[Session, dict[str, np.ndarray]]) -> dict[str, int | None]:
    """Return the breakpoint of each rollout by entropies of the whole distribution, read here."""
    session, entropies = sampled
    tokens = read_tokens(session.store, list(entropies))
    config = session.config
    found = {
        row_id: profile_entropy(row.text, row.token_starts, entropies[row_id], config.steps, config.breakpoints)
        for row_id, row in tokens.items()
    }
    return {row_id: p.breakpoint.step_index if p.breakpoint else None for row_id, p in found.items()}


def profiles_of(session: Session) -> dict[str, dict[str, Any]]:
    """Return the profiles from what the engine told, under the session's settings."""
    rows = session.store.rows("SELECT * FROM profiles WHERE entropy_source <> 'rescored'")
    return {
        row["trajectory_id"]: row
        for row in rows
        if row["profile_id"] == profile_key(session.config, row["trajectory_id"])
    }


def rescore(session: Session) -> tuple[list[dict[str, Any]], int]:
    """Return what was to be read again, and how much of it was."""
    rows = open_rows(session)
    assert session.config.scorer is not None
    work = RescoreWork(session.config, "chunk 0", rows, session.config.scorer, session.store.epoch)
    return rows, int(rescore_chunk.fn(session, work))


def test_a_certain_breakpoint_is_the_exact_one(session: Session, exact: dict[str, int | None]) -> None:
    profiles = profiles_of(session)
    certain = [row_id for row_id, profile in profiles.items() if profile["is_certain"]]
    assert 0 < len(certain) < len(profiles)
    assert {profiles[row_id]["entropy_source"] for row_id in profiles} == {"top_1"}
    assert all(profiles[row_id]["breakpoint_step"] == exact[row_id] for row_id in certain)


def test_the_entropies_lie_within_the_radii_of_their_steps(session: Session) -> None:
    rows, _ = rescore(session)
    reread = read_used_profiles(session, [row["trajectory_id"] for row in rows])
    for row_id, profile in profiles_of(session).items():
        if row_id in reread:
            off = np.abs(np.array(profile["step_entropies"]) - reread[row_id]["step_entropies"])
            assert (off <= np.array(profile["step_entropy_radii"]) + 1e-5).all()


def test_exactly_the_open_ones_are_read_again_and_once(session: Session, exact: dict[str, int | None]) -> None:
    rows, _ = rescore(session)
    profiles = profiles_of(session)
    assert {row["trajectory_id"] for row in rows} == {i for i, p in profiles.items() if not p["is_certain"]}
    session.close_engine()
    assert rescore(session) == (rows, 0)
    assert session._engine is None  # nothing was loaded for nothing
    used = read_used_profiles(session, list(profiles))
    assert {row_id: profile["breakpoint_step"] for row_id, profile in used.items()} == exact
    reread = [profile for profile in used.values() if profile["entropy_source"] == "rescored"]
    assert len(reread) == len(rows)
    assert all(profile["is_certain"] and profile["step_entropy_radii"] is None for profile in reread)


def test_the_run_says_what_its_breakpoints_rest_on(session: Session, exact: dict[str, int | None]) -> None:
    rows, _ = rescore(session)
    profiles = profiles_of(session)
    counts = note_breakpoints.fn(session, rows)
    assert counts == {"certain": len(profiles) - len(rows), "rescored": len(rows)}
    assert note_breakpoints.fn(session, rows) == counts  # a run that is resumed comes to the same
    view = session.store.rows("SELECT * FROM breakpoint_sources WHERE run_id = ?", [session.run_id])
    told = {(row["outcome"], row["reason"]): row["num_rollouts"] for row in view}
    num_moved = sum(profiles[row["trajectory_id"]]["breakpoint_step"] != exact[row["trajectory_id"]] for row in rows)
    assert {row["entropy_source"] for row in view} == {"top_1"}
    assert told[("certain", None)] == len(profiles) - len(rows)
    assert told.get(("rescored", "moved"), 0) == num_moved
    assert told.get(("rescored", "same_step"), 0) == len(rows) - num_moved


def test_a_breakpoint_that_moved_is_told_from_one_that_did_not(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = profiles_of(session)
    monkeypatch.setattr(session, "run_id", "moved")
    steps = session.config.steps.model_copy(update={"min_step_tokens": 3})
    monkeypatch.setattr(session, "config", session.config.model_copy(update={"steps": steps}))
    session.close_phase("rollouts", "", Kind.ROLLOUT, dict.fromkeys(first, False))
    rows = [{"trajectory_id": row_id, "problem_id": "p"} for row_id in first]
    profile_chunk.fn(session, ProfileWork(session.config, "chunk 0", rows, session.store.epoch))
    profiles = profiles_of(session)
    doubtful = [profiles[row["trajectory_id"]] for row in open_rows(session)]
    assert session.config.scorer is not None
    model = identify_model(session.config.scorer)
    made = [
        profile
        | {
            "profile_id": rescored_key(session.config, profile["trajectory_id"], model),
            "entropy_source": "rescored",
            "breakpoint_step": profile["breakpoint_step"] + (number == 0),
        }
        for number, profile in enumerate(doubtful[:3])
    ]
    session.store.append("profiles", made)
    note_breakpoints.fn(session, doubtful)
    view = session.store.rows("SELECT outcome, reason, num_rollouts FROM breakpoint_sources WHERE run_id = 'moved'")
    told = {(row["outcome"], row["reason"]): row["num_rollouts"] for row in view}
    assert told[("rescored", "moved")] == 1
    assert told[("rescored", "same_step")] == 2
    assert told[("uncertain", None)] == len(doubtful) - 3


def test_paths_are_cut_at_the_exact_breakpoint(session: Session, exact: dict[str, int | None]) -> None:
    rescore(session)
    paths = cut_paths.fn(session)
    assert paths
    starts = {i: (p["step_start_tokens"], p["breakpoint_step"]) for i, p in profiles_of(session).items()}
    cuts = {path.trajectory_id: len(path.prefix_token_ids) for _, path in paths}
    assert cuts == {row_id: starts[row_id][0][exact[row_id] or 0] for row_id in cuts}


def test_a_setting_leaves_out_what_is_not_repaired(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = open_rows(session)
    paths = {path.trajectory_id for _, path in cut_paths.fn(session)}
    repaired = session.config.model_copy(update={"breakpoints": BreakpointConfig(rescore="repaired")})
    monkeypatch.setattr(session, "config", repaired)
    wanted = {row["trajectory_id"] for row in open_rows(session)}
    assert wanted < {row["trajectory_id"] for row in rows}
    assert wanted <= paths


def test_without_a_model_the_middles_stand_and_are_counted(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    never = session.config.model_copy(update={"breakpoints": BreakpointConfig(rescore="never")})
    assert find_rescorer(never) is None
    monkeypatch.setattr(session, "config", never)
    monkeypatch.setattr(session, "run_id", "another")
    profiles = profiles_of(session)
    session.close_phase("rollouts", "", Kind.ROLLOUT, dict.fromkeys(profiles, False))
    assert read_used_profiles(session, list(profiles)) == profiles
    num_open = sum(not profile["is_certain"] for profile in profiles.values())
    assert note_breakpoints.fn(session, []) == {"certain": len(profiles) - num_open, "uncertain": num_open}


def test_what_no_engine_can_read_stays_uncertain(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert session.config.scorer is not None
    steps = session.config.steps.model_copy(update={"min_step_tokens": 2})
    monkeypatch.setattr(session, "config", session.config.model_copy(update={"steps": steps}))
    monkeypatch.setattr(GivenTokens, "is_readable", False)
    ids = [row["trajectory_id"] for row in session.store.rows("SELECT trajectory_id FROM trajectories")]
    rows = [{"trajectory_id": row_id, "problem_id": "p"} for row_id in ids]
    profile_chunk.fn(session, ProfileWork(session.config, "chunk 0", rows, session.store.epoch))
    rows, num_read = rescore(session)
    assert (len(rows) > 0, num_read) == (True, 0)
    used = read_used_profiles(session, [row["trajectory_id"] for row in rows])
    assert {profile["entropy_source"] for profile in used.values()} == {"top_1"}


def test_profiles_of_both_sources_have_ids_of_their_own(session: Session) -> None:
    config, model = session.config, session.config.scorer
    assert model is not None
    rows = [{"trajectory_id": "t", "problem_id": "p"}]
    (one,) = RescoreWork(config, "", rows, model, "").rows
    (other,) = RescoreWork(config, "", rows, model.model_copy(update={"dtype": "bfloat16"}), "").rows
    assert len({one, other, profile_key(config, "t")}) == 3


def test_who_may_read_again(session: Session, tmp_path: Path) -> None:
    """The teacher's own weights, by an engine that tells exact entropies."""
    config, scorer = session.config, session.config.scorer
    assert scorer is not None
    assert find_rescorer(config) == scorer
    assert find_rescorer(config.model_copy(update={"scorer": None})) is None
    student = EngineConfig(model_name_or_path=str(LAB / "student"))
    assert find_rescorer(config.model_copy(update={"scorer": student})) is None
    moved = tmp_path / "moved"
    moved.symlink_to(LAB / "teacher")
    assert has_same_weights(config.teacher, EngineConfig(model_name_or_path=str(moved)))
    hub = EngineConfig(model_name_or_path="owner/name", revision="a")
    assert has_same_weights(hub, hub)
    assert not has_same_weights(hub, hub.model_copy(update={"revision": "b"}))
    assert not has_same_weights(config.teacher, hub)


def test_an_engine_without_exact_entropies_is_refused(new_top_scorer: Any) -> None:
    with pytest.raises(ModelError, match="set `scorer`"):
        read_again(new_top_scorer, [GivenTokens("t", "?", np.array([1, 2]))])


@pytest.fixture
def new_top_scorer(session: Session) -> Any:
    """An engine that scores, but whose entropies have radii."""

    class Scorer:
        description = EngineDescription("m", "0", "none", "served", "float32", 99, 9, frozenset())

        def score(self, requests: Sequence[Any]) -> Iterator[Any]:
            from heal_core.engines.base import ScoreResult

            for request in requests:
                zeros = np.zeros(len(request.token_ids))
                yield ScoreResult(request.request_id, zeros, zeros, zeros, "top_20")

    return Scorer()


def test_tokens_that_a_server_did_not_name_cannot_be_read_again() -> None:
    row = TokenRow("t", "p", "", "a", np.array([3, -1]), np.zeros(2), np.zeros(2), np.zeros(2, dtype=int))
    assert not GivenTokens("t", "?", row.token_ids).is_readable
    assert GivenTokens("t", "?", row.token_ids[:1]).is_readable
