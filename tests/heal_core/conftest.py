"""What the tests of several modules share: a scripted engine, slots, and an open store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from heal_core.engines.base import (
    Capability,
    EngineDescription,
    GenerationRequest,
    GivenText,
    SamplingConfig,
    ScoreRequest,
    ScoreResult,
    UnreadableText,
)
from heal_core.errors import EngineStalledError
from heal_core.fill import trajectory_row
from heal_core.plan import Slot
from heal_core.records import Completion, FinishReason, Kind
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace
from heal_core.words import words_of

Row = dict[str, Any]


class ScriptedEngine:
    """An engine whose every token follows from the slot's id and the position, as `hf` promises too.

    A slot's text ends by itself after `lengths[slot_id]` tokens (by default 1 to 12, from the
    id) and the end of the turn, which takes a token of the limit too. With `fail_after` the
    engine stalls once it gave so many completions. `score_tokens` says what a request's tokens
    are worth, in nats.
    """

    def __init__(
        self,
        lengths: Mapping[str, int] | None = None,
        fail_after: int | None = None,
        score_tokens: Callable[[ScoreRequest], Sequence[float]] | None = None,
    ) -> None:
        self.lengths = dict(lengths or {})
        self.fail_after = fail_after
        self.score_tokens = score_tokens or (lambda request: [-1.0] * len(request.token_ids or request.text or ""))
        self.generated: list[GenerationRequest] = []
        self.scored: list[ScoreRequest] = []
        self.read_texts: list[GivenText] = []

    @property
    def description(self) -> EngineDescription:
        return EngineDescription("scripted", "0", "none", "scripted", "float32", 4096, 97, frozenset(Capability))

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingConfig) -> Iterator[Completion]:
        for number, request in enumerate(reversed(requests)):  # the order is not that of the requests
            if number == self.fail_after:
                raise EngineStalledError("the scripted engine stalls here")
            self.generated.append(request)
            yield self._complete(request)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        for request in reversed(requests):
            self.scored.append(request)
            logprobs = np.array(self.score_tokens(request), dtype=np.float64)
            yield ScoreResult(request.request_id, logprobs, np.zeros(len(logprobs)))

    def read(self, texts: Sequence[GivenText]) -> Iterator[Completion | UnreadableText]:
        """Yield each text with a token per character; it is too long from 50 on."""
        for given in reversed(texts):
            self.read_texts.append(given)
            ids = np.array([ord(character) % 97 for character in given.text], dtype=np.int64)
            if len(ids) >= 50:
                yield UnreadableText(given.slot_id, f"too_long: {len(ids)} tokens")
                continue
            yield Completion(
                slot_id=given.slot_id,
                token_ids=ids,
                logprobs=-ids / 100,
                entropies=ids / 50,
                token_starts=np.arange(len(ids)),
                text=given.text,
                finish_reason=given.finish_reason,
                num_prompt_tokens=len(given.prompt.split()),
                seconds=0.5,
            )

    def count_prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        return [len(prompt.split()) for prompt in prompts]

    def close(self) -> None:
        pass

    def _complete(self, request: GenerationRequest) -> Completion:
        natural = self.lengths.get(request.slot_id, 1 + int(request.slot_id[:4], 16) % 12)
        num_tokens = min(natural, request.max_tokens)
        ids = [_token(request.slot_id, position) for position in range(num_tokens)]
        words = [f"{token} " for token in ids]
        return Completion(
            slot_id=request.slot_id,
            token_ids=np.array(ids, dtype=np.int64),
            logprobs=-np.array(ids, dtype=np.float64) / 100,
            entropies=np.array(ids, dtype=np.float64) / 50,
            token_starts=np.cumsum([0, *map(len, words)])[:-1],
            text="".join(words),
            finish_reason=FinishReason.STOP if natural < request.max_tokens else FinishReason.LENGTH,
            num_prompt_tokens=len(request.prompt.split()) + len(request.prefix_token_ids),
            seconds=0.5,
        )


def _token(slot_id: str, position: int) -> int:
    return hashlib.sha256(f"{slot_id}/{position}".encode()).digest()[0] % 97


@pytest.fixture
def new_engine() -> type[ScriptedEngine]:
    return ScriptedEngine


@pytest.fixture
def make_slot() -> Callable[..., Slot]:
    """Return a function that builds a slot; `problem` and `index` name it."""

    def build(problem: str = "p0", index: int = 0, limit: int = 20, **changes: Any) -> Slot:
        values: Row = {
            "kind": Kind.ROLLOUT,
            "problem_id": problem,
            "recipe_id": "recipe",
            "sample_index": index,
            "prompt": f"What is {problem}?",
            "limit_tokens": limit,
        }
        return Slot(**(values | changes))

    return build


@pytest.fixture
def make_rows() -> Callable[..., list[Row]]:
    """Return a function that builds the stored form of what the scripted engine makes of slots."""

    def build(slots: Sequence[Slot], **lengths: int) -> list[Row]:
        engine = ScriptedEngine(
            {slot.slot_id: lengths[slot.problem_id] for slot in slots if slot.problem_id in lengths}
        )
        by_id = {slot.slot_id: slot for slot in slots}
        completions = engine.generate([slot.request() for slot in slots], SamplingConfig())
        return [trajectory_row(by_id[completion.slot_id], completion) for completion in completions]

    return build


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    return workspace


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer's database of the newest schema that is not yet any store's: a new one takes half a second."""
    workspace = Workspace(tmp_path_factory.mktemp("empty"))
    workspace.create()
    Store(workspace).close()
    with duckdb.connect(str(workspace.writer_database)) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'store_epoch'")
    return workspace.writer_database


@pytest.fixture
def store(workspace: Workspace, empty_database: Path) -> Iterator[Store]:
    shutil.copyfile(empty_database, workspace.writer_database)
    with Store(workspace) as store:
        yield store


@pytest.fixture
def table_row() -> Callable[..., Row]:
    """Return a function that builds a row of a small table with its own id and otherwise plain values."""
    defaults: dict[str, Row] = {
        "problems": {
            "problem_id": "p0", "question": "1 + 1?", "answer": "2", "source": "s.jsonl", "uuid": "",
            "problem_type": "math", "spec": None, "chunk_index": 0,
        },
        "recipes": {"recipe_id": "recipe", "kind": "rollout", "model_name_or_path": "teacher", "settings": "{}"},
        "verdicts": {
            "verdict_id": "v0", "trajectory_id": "t0", "label": "correct", "extracted": "2", "reason": None,
            "verifier": "math", "verifier_version": "1", "extraction": None, "seconds": 0.1, "limit_seconds": 5.0,
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        },
        "runs": {
            "run_id": "run", "config": "{}", "problems_digest": "d", "seed": 0, "heal_version": "0",
            "git_revision": None, "started_at": datetime(2026, 1, 1, tzinfo=UTC), "basis_id": None, "attempt": 0,
            "start_checkpoint_id": None, "purpose": "distillation",
        },
        "run_events": {
            "event_id": "e0", "run_id": "run", "event": "started", "phase": None, "detail": "{}",
            "happened_at": datetime(2026, 1, 2, tzinfo=UTC),
        },
        "run_problems": {
            "run_problem_id": "rp0", "run_id": "run", "problem_id": "p0", "split": "train", "cluster_id": "c0",
            "benchmark": None,
        },
        "run_rows": {
            "run_row_id": "rr0", "run_id": "run", "phase": "rollouts", "arm": "", "kind": "rollout",
            "row_id": "t0", "cut": False, "verdict_id": None,
        },
        "decisions": {
            "decision_id": "d0", "run_id": "run", "phase": "gate", "subject_id": "t0", "problem_id": "p0",
            "decision": "kept", "reason": None, "value": None, "arm": None,
        },
        "gate_results": {
            "gate_result_id": "g0", "run_id": "run", "phase": "repairs", "arm": None, "trajectory_id": "t0",
            "problem_id": "p0", "gates": ["G2", "G6"], "refused": [False, None], "gate_values": [None, 0.0],
            "details": [None, None],
        },
        "audit_labels": {
            "audit_label_id": "a0", "run_id": "run", "trajectory_id": "t0", "problem_id": "p0", "auditor": "ann",
            "label": "genuine", "note": None, "hint_shown": False, "labelled_at": datetime(2026, 1, 4, tzinfo=UTC),
        },
        "quarantine": {
            "quarantine_id": "q0", "run_id": "run", "source": "s.jsonl", "line": 1, "reason": "no_answer", "raw": "{}",
            "problem_id": None, "phase": None, "work": None, "quarantined_at": None,
        },
        "run_sources": {
            "run_source_id": "rs0", "run_id": "run", "position": 0, "source": "s.jsonl", "split": "hash", "num_read": 4,
            "num_filtered_out": 0, "num_not_sampled": 0, "num_quarantined": 1, "num_problems": 3,
        },
        "run_evaluation_sets": {
            "run_evaluation_set_id": "re0", "run_id": "run", "position": 0, "source": "held_out", "num_problems": 1,
            "num_contaminated": 0,
        },
        "contamination": {
            "contamination_id": "co0", "run_id": "run", "source": "s.jsonl", "line": 2, "problem_id": "p9",
            "question": "Now: how many?", "evaluation_set": "e.jsonl", "evaluation_source": "e.jsonl",
            "evaluation_line": 1, "evaluation_question": "How many?", "num_shared": 1, "num_ngrams": 1,
            "passage": "how many",
        },
        "promotions": {
            "promotion_id": "pr0", "run_id": "run", "checkpoint_id": "c0", "decision": "promoted",
            "reason": "within_margin", "best_checkpoint_id": None, "num_problems": 9, "k": 2, "avg_at_k": 0.5,
            "best_avg_at_k": 0.25, "difference": 0.25, "low": 0.1, "high": 0.4, "margin": -0.01, "becomes_best": True,
            "decided_at": datetime(2026, 1, 3, tzinfo=UTC),
        },
        "ablations": {
            "ablation_id": "ab", "config": "{}", "settings": "{}", "heal_version": "0", "git_revision": None,
        },
        "ablation_runs": {
            "ablation_run_id": "ar0", "ablation_id": "ab", "position": 0, "seed": 0, "run_id": "run",
        },
        "ablation_scores": {
            "ablation_score_id": "as0", "ablation_id": "ab", "arm": "heal", "band": "all", "k": 2, "num_seeds": 1,
            "num_problems": 9, "avg_at_k": 0.5, "low": 0.25, "high": 0.75, "gap_closed": None, "truncated_share": 0.0,
            "num_beyond_teacher": 0.0,
        },
        "ablation_contrasts": {
            "ablation_contrast_id": "ac0", "ablation_id": "ab", "measure": "avg_at_k", "arm": "heal",
            "against": "base", "band": "all", "num_seeds": 1, "num_problems": 9, "num_pairs": 9, "value": 0.5,
            "value_against": 0.25, "difference": 0.25, "low": None, "high": None, "t_low": None, "t_high": None,
            "p_value": None, "p_adjusted": None, "is_primary": False, "is_claim": False,
            "minimum_detectable_difference": None, "is_powered": False,
        },
    }  # fmt: skip

    def build(table: str, **changes: Any) -> Row:
        assert changes.keys() <= defaults[table].keys()
        return defaults[table] | changes

    return build


@pytest.fixture(scope="session")
def ngrams_of() -> Callable[[str, int], frozenset[str]]:
    """The word n-grams of a text as text, for comparing every pair; a shorter text is one."""

    def ngrams(text: str, num_words: int) -> frozenset[str]:
        words = words_of(text)
        last_start = max(len(words) - num_words, 0)
        return frozenset(" ".join(words[start : start + num_words]) for start in range(last_start + 1))

    return ngrams
