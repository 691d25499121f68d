"""What runs want, and what engine, verifier and trainer were really asked, in the same terms.

A meaning is all that shapes a row, written down here without HEAL's content keys. So a key
that stands for two meanings (a stale row would be used again) is found, and so is a meaning
that is made twice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from heal_core import prompts
from heal_core.engines.base import GenerationRequest, SamplingConfig, ScoreRequest, ScoreResult
from heal_core.keys import STAGE_VERSIONS
from heal_core.records import Completion, FinishReason
from heal_core.verify.grade import verifier_identity
from tasks.profiles import ProfileWork
from tasks.samples import SampleWork, VerifyWork
from tasks.scores import ScoreWork
from tasks.session import Session
from tasks.shards import PROBE_ID
from tasks.training import StageWork
from tests.flows.recompute.world import TOWER, Asked, complete, draw, is_finished, is_math, level_of, write

SAMPLED = ("rollouts", "hints", "repairs", "guided", "answers")
KINDS = (*SAMPLED, "verdicts", "profiles", "scores", "stages")
_KIND_OF_PHASE = {
    "ceiling": "rollouts",
    "control_hints": "hints",
    "control_repairs": "repairs",
    "equal_tokens": "rollouts",
    "evaluation": "answers",
    "promotion": "answers",
}


class Shelf:
    """What a workspace holds: by kind and meaning, up to which limit the row answers a demand."""

    def __init__(self) -> None:
        self.limits: dict[str, dict[Any, float]] = {kind: {} for kind in KINDS}

    def copy(self) -> Shelf:
        other = Shelf()
        other.limits = {kind: dict(limits) for kind, limits in self.limits.items()}
        return other

    def count_missing(self, wanted: dict[str, dict[Any, float]]) -> Counter[str]:
        """Return how many rows a demand (kind, meaning, limit) still needs, by kind."""
        return Counter(
            kind
            for kind, limits in wanted.items()
            for meaning, limit in limits.items()
            if self.limits[kind].get(meaning, -1.0) < limit
        )

    def add(self, wanted: dict[str, dict[Any, float]]) -> None:
        """Note that a demand was met; what came to its end under the limit answers every limit."""
        for kind, limits in wanted.items():
            for meaning, limit in limits.items():
                answers = math.inf if _ends(kind, meaning, limit) else limit
                self.limits[kind][meaning] = max(answers, self.limits[kind].get(meaning, -1.0))


def _ends(kind: str, meaning: Any, limit: float) -> bool:
    if kind in SAMPLED:
        return is_finished(write(meaning), limit)
    return kind != "verdicts" or TOWER not in meaning[1]


class Ledger:
    """What the current run wants (`wanted`), and how often its children were asked (`calls`)."""

    def __init__(self, weights_of: Callable[[Any], str]) -> None:
        self.weights_of = weights_of
        self.session: Session
        self.wanted: dict[str, dict[Any, float]] = {}
        self.calls: Counter[str] = Counter()
        self.profile_ids: set[str] = set()
        self.reword: Callable[[Asked], Asked] = lambda asked: asked
        self.fail: Callable[[str, str], None] = lambda kind, prompt: None
        self._meanings: dict[str, Any] = {}
        self._slots: dict[str, tuple[str, str, Asked]] = {}
        self._rows: dict[str, tuple[Asked, str]] = {}

    def begin(self, session: Session) -> None:
        self.session = session
        self.wanted = {kind: {} for kind in KINDS}
        self.calls = Counter()
        self.profile_ids = set()

    def bind(self, key: str, meaning: Any) -> Any:
        """Return the meaning, after noting that the key stands for it in all runs."""
        known = self._meanings.setdefault(key, meaning)
        assert known == meaning, f"one key for two meanings: {known} and {meaning}"
        return meaning

    def note_samples(self, work: SampleWork) -> None:
        kind = _KIND_OF_PHASE.get(work.phase, work.phase)
        weights = self.weights_of(work.model)
        for slot in work.slots:
            asked = Asked(
                kind=str(slot.kind),
                stage_version=STAGE_VERSIONS[slot.kind],
                weights=weights,
                temperature=work.sampling.temperature,
                top_p=work.sampling.top_p,
                early_stop=work.sampling.early_stop,
                seed=self.session.config.seed,
                prompt=slot.prompt,
                prefix_token_ids=slot.prefix_token_ids,
                sample_index=slot.sample_index,
                parent=self._rows[slot.parent_id][1] if slot.parent_id else "",
                hint=self._rows[slot.hint_id][1] if slot.hint_id else "",
            )
            self._slots[slot.slot_id] = kind, slot.row_id, self.bind(slot.slot_id, asked)
            self.wanted[kind][asked] = slot.limit_tokens

    def note_verdicts(self, work: VerifyWork) -> None:
        for row_id in work.row_ids:
            asked, text = self._rows[row_id]
            verifier = verifier_identity("math" if is_math(level_of(asked)) else "numeric")
            self.wanted["verdicts"][asked, text, verifier] = work.config.timeout_seconds

    def note_profiles(self, work: ProfileWork) -> None:
        config = self.session.config
        self.profile_ids |= work.ids.keys()
        for profile_id, row_id in work.ids.items():
            settings = config.steps, config.breakpoints, STAGE_VERSIONS["profile"]
            self.wanted["profiles"][self.bind(profile_id, (self._rows[row_id], settings))] = 0.0

    def note_scores(self, work: ScoreWork) -> None:
        pure, steps = self.session.config.pure, self.session.config.steps
        scorer = self.weights_of(self.session.scorer), STAGE_VERSIONS["score"], prompts.BOXED.cue
        for score_id, row in work.rows.items():
            settings = *scorer, steps, pure.epsilon, pure.min_prompt_uncertainty
            self.wanted["scores"][self.bind(score_id, (self._rows[row["trajectory_id"]], settings))] = 0.0

    def note_stage(self, work: StageWork) -> None:
        config = self.session.config
        parent = self._meanings[work.parent.checkpoint_id] if work.parent else self.weights_of(config.student)
        examples = [draw(self._rows[row_id]) for row_id in work.row_ids]
        settings = config.sft.identity(), config.seed, STAGE_VERSIONS["checkpoint"]
        meaning = draw(parent, examples, work.num_optimizer_steps, settings)
        self.wanted["stages"][self.bind(work.checkpoint_id, meaning)] = 0.0

    def probe(self, request: GenerationRequest) -> Completion:
        """Return an answer to what belongs to no problem; it is not counted."""
        self.fail("probe", request.prompt)
        none = np.zeros(0)
        return Completion(request.slot_id, none, none, none, none, "", FinishReason.STOP, 1, 0.01)

    def answer(self, request: GenerationRequest) -> Completion:
        """Return the scripted answer to a request, which is counted and must be what its slot was noted for."""
        kind, row_id, asked = self._slots[request.slot_id]
        assert (asked.prompt, asked.prefix_token_ids) == (request.prompt, request.prefix_token_ids)
        self.fail(kind, request.prompt)
        self.calls[kind] += 1
        completion = complete(request, self.reword(asked))
        self._rows[row_id] = asked, completion.text
        return completion


class ScriptedEngine:
    """An engine that answers by the rules of the world."""

    def __init__(self, ledger: Ledger, weights: str) -> None:
        self.ledger = ledger
        self.weights = weights

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingConfig) -> Iterator[Completion]:
        for request in reversed(requests):  # the order is not that of the requests
            yield self.ledger.probe(request) if request.slot_id == PROBE_ID else self.ledger.answer(request)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        for request in reversed(requests):
            self.ledger.calls["scores"] += request.request_id.endswith("/plain")  # one such per text
            given = request.token_ids or tuple(request.text or "")
            about = self.weights, request.prompt, request.context_token_ids, request.cue, given
            logprobs = np.array([-0.2 - draw(about, t) % 1000 / 400 for t in range(len(given))])
            yield ScoreResult(request.request_id, logprobs, np.zeros(len(given)))
