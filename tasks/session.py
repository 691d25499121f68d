"""What the tasks of one run share: config, store, the engine that is loaded, counters.

A session holds the workspace's lock from `open` to its end, and at most one engine at a
time. It is a plain object, so that Prefect neither copies nor hashes it.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from heal_core import interruption
from heal_core.budget import TokenBudget
from heal_core.config import RunConfig
from heal_core.deadline import Deadline
from heal_core.engines import gpu
from heal_core.engines.base import Engine, EngineConfig, SamplingConfig
from heal_core.engines.price import PriceConfig
from heal_core.engines.start import start_engine
from heal_core.grading import choose_verdicts
from heal_core.keys import content_key
from heal_core.logs import log_context
from heal_core.progress import Progress, ProgressMeter, write_progress
from heal_core.recipes import make_recipe
from heal_core.records import GateFinding, Kind
from heal_core.roles import check_found
from heal_core.spend import Spend, SpendMeter
from heal_core.store.reads import (
    is_complete,
    read_bands,
    read_closed_phases,
    read_known,
    read_noted_prices,
    read_run_problems,
)
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace
from heal_core.verify.pool import VerifierPool
from tasks.artifacts import ProgressArtifact
from tasks.quarantine import Quarantine

logger = logging.getLogger("heal")

_TIME_OF_DAY = re.compile(r"\d\d:\d\d:\d\d")
_TELL_AGAIN_SECONDS = 600.0
_WORDS = {
    "guided": "guided samples",
    "rescored": "rollouts read again",
    "equal_tokens": "rollouts",
    "ceiling": "rollouts",
    "control_hints": "hints of controls",
    "control_repairs": "repairs of controls",
    "validity": "texts of the validity test",
    "evaluation": "answers",
    "promotion": "answers",
    "optimizer_steps": "optimizer steps",
    "lm_evals": "evaluations by lm-eval",
}
"""How the log names what is counted under a phase's name or a column's."""


GatedText = tuple[str, str, Sequence[GateFinding]]
"""A text that gates examined: its id, its problem's, and what they found."""


@dataclass(frozen=True)
class _PhaseBegin:
    """What had been made, and when it was, as a phase began; `spent` counts from there."""

    made: Counter[str]
    started: float
    spent: SpendMeter


class Session:
    """One process's work on one run. Engines are not thread-safe: use them under `engine_lock`."""

    def __init__(
        self,
        config: RunConfig,
        workspace: Workspace,
        store: Store,
        verifiers: VerifierPool,
        deadline: Deadline | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.config = config
        self.deadline = deadline
        self.budget = TokenBudget(max_tokens)
        self.workspace = workspace
        self.store = store
        self.verifiers = verifiers
        self.engine_lock = threading.Lock()
        self.made: Counter[str] = Counter()
        self._made_lock = threading.Lock()
        self.run_id = ""
        self.start_checkpoint_id: str | None = None
        self.phase_name = ""
        self._artifact = ProgressArtifact()
        self.progress = ProgressMeter(self._show)
        self.spent = SpendMeter()
        self._phase_begin: _PhaseBegin | None = None
        self._quarantine: Quarantine | None = None
        self._engine: tuple[EngineConfig, Engine] | None = None
        self._free_before: list[int] | None = None
        self._server_told = ("", 0.0)

    @classmethod
    @contextmanager
    def open(
        cls, config: RunConfig, deadline: Deadline | None = None, max_tokens: int | None = None
    ) -> Iterator[Session]:
        """Yield a session that may last until `deadline` and sample `max_tokens`.

        Its store is published and its children ended afterwards.

        Raises:
            WorkspaceBusyError: If another run holds the workspace, and `on_busy` is refuse.
            TimeIsUpError: If the deadline came while it was waited for.
            StoreError: If the workspace cannot be used.
        """
        workspace = Workspace(config.workspace)
        workspace.create()
        lock = workspace.lock() if config.on_busy == "refuse" else workspace.lock_when_free(deadline)
        with lock, Store(workspace) as store, VerifierPool(config.verify) as verifiers:
            session = cls(config, workspace, store, verifiers, deadline, max_tokens)
            try:
                yield session
            finally:
                session.close_engine()
                session._artifact.close()

    def begin(self, run_id: str, start_checkpoint_id: str | None) -> None:
        """Say which run this is, once its row is stored."""
        self.run_id = run_id
        self.start_checkpoint_id = start_checkpoint_id
        self._quarantine = Quarantine(self.store, run_id, self.config.failures)

    @property
    def quarantine(self) -> Quarantine:
        """Return which problems are out of the run."""
        assert self._quarantine is not None, "the run has not begun"
        return self._quarantine

    def check_end(self) -> None:
        """Raise when the run has to end now.

        Raises:
            LimitReachedError: If the time given to it is over, or its token budget spent.
            KeyboardInterrupt: If its process was asked to end.
        """
        interruption.check()
        self.budget.check()
        if self.deadline is not None:
            self.deadline.check()

    def enter_work(self, work: str) -> None:
        """Begin a piece of work of the phase: what failed in it in an earlier start of the run is left out."""
        self.quarantine.enter_work(self.phase_name, work)

    def finish_work(self) -> None:
        """End a piece of work."""
        self.progress.finish()

    def _show(self, progress: Progress, is_final: bool) -> None:
        """Show how far the work is: a file for `heal status`, an artifact for Prefect."""
        spent = self.spent.total
        progress = replace(
            progress,
            spent_prompt_tokens=spent.prompt_tokens,
            spent_cached_tokens=spent.cached_tokens,
            spent_completion_tokens=spent.completion_tokens,
            costs=self.spent.costs,
        )
        write_progress(self.workspace.progress, progress)
        self._artifact.report(progress, is_final)

    def read_problems(self, split: str | None = None) -> list[dict[str, Any]]:
        """Return the run's problems that are not out, with their chunk."""
        problems = read_run_problems(self.store, self.run_id, split)
        return [problem for problem in problems if problem["problem_id"] not in self.quarantine]

    def read_bands(self, split: str | None = None) -> dict[str, str]:
        """Return the band of each problem of the run that is not out."""
        bands = read_bands(self.store, self.run_id, split)
        return {problem_id: band for problem_id, band in bands.items() if problem_id not in self.quarantine}

    @property
    def teacher(self) -> EngineConfig:
        return self.config.teacher

    @property
    def scorer(self) -> EngineConfig:
        return self.config.scorer or self.config.teacher

    def engine(self, config: EngineConfig) -> Engine:
        """Return the engine of a model, ending the one that was loaded before."""
        if self._engine is None or self._engine[0] != config:
            self.close_engine()
            logger.info("loading %s", config.model_name_or_path)
            self._free_before = gpu.free_mib()
            log_path = self.workspace.logs / "engine.log"
            self._engine = (config, start_engine(config, log_path, self._note_server))
            found = self._engine[1].description.capabilities  # waits until it is loaded
            check_found(self.config, config, found)
            self.progress.skip_time()
        return self._engine[1]

    def _note_server(self, state: str) -> None:
        """Say what is not well with servers in `heal status`, and in the log where it is news."""
        self.progress.note(state)
        what = _TIME_OF_DAY.sub("", state)
        told, told_at = self._server_told
        # a limit on requests per minute would else fill the log of a night
        if what and (what != told or time.monotonic() - told_at > _TELL_AGAIN_SECONDS):
            self._server_told = what, time.monotonic()
            logger.warning("%s", state)

    def close_engine(self) -> None:
        """End the engine's child and see that the memory of the GPU, if there is one, is free for what comes next."""
        if self._engine is None:
            return
        self._engine[1].close()
        self._engine = None
        if lacking := gpu.wait_until_free(self._free_before):
            logger.warning(
                "the engine has ended, but GPU %s has less free memory than before it was loaded: another process "
                "took some (`nvidia-smi` shows which), and what comes next may not fit",
                ", ".join(map(str, lacking)),
            )

    def recipe(
        self,
        kind: Kind | str,
        model: EngineConfig,
        sampling: SamplingConfig | None,
        template: str = "",
        identity: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the id of a way to make texts or scores, stored so that SQL can explain it.

        `identity` replaces reading the model's files, for a checkpoint that HEAL made.
        """
        recipe = make_recipe(kind, model, sampling, self.config.seed, template, identity)
        if not read_known(self.store, "recipes", "recipe_id", [recipe.recipe_id]):
            self.store.append("recipes", [recipe.row()])
        return recipe.recipe_id

    @property
    def is_complete(self) -> bool:
        """Return whether an earlier start of this run came to its end."""
        return is_complete(self.store, self.run_id)

    @property
    def closed_phases(self) -> set[str]:
        """Return the phases of the run that have been closed."""
        return read_closed_phases(self.store, self.run_id)

    def count(self, what: str, num: int) -> None:
        """Note that so many were newly made; chunks are graded in other threads than they are sampled in."""
        with self._made_lock:
            self.made[what] += num

    def spend(self, spend: Spend, price: PriceConfig | None) -> None:
        """Note what an engine was made to do, at the price of its model."""
        self.spent.add(spend, price)
        if self._phase_begin is not None:
            self._phase_begin.spent.add(spend, price)

    def note_prices(self) -> None:
        """Store the prices of this start where they are others than those noted last: they count from then on."""
        prices = self.config.prices()
        if prices != (read_noted_prices(self.store, self.run_id) or {}):
            self.record_event("priced", detail={"prices": prices})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Log and record what a phase of the run took."""
        self._phase_begin = _PhaseBegin(Counter(self.made), time.monotonic(), SpendMeter())
        self.phase_name = name
        with log_context(run=self.run_id, phase=name):
            self.check_end()
            yield
            self.store.check_decided()
            detail = self.phase_detail()
            words = ", ".join(f"{num} {_WORDS.get(key, key)}" for key, num in detail["made"].items()) or "nothing"
            logger.info("%s: done in %.1f s; newly made: %s", name, detail["seconds"], words)
        self._phase_begin = None
        self.record_event("phase", name, detail)

    def phase_detail(self) -> dict[str, Any]:
        """Return what the present phase took so far, for an event; empty between phases."""
        begin = self._phase_begin
        if begin is None:
            return {}
        return {
            "seconds": time.monotonic() - begin.started,
            "made": dict(self.made - begin.made),
            "spent": begin.spent.as_dict(),
        }

    def record_event(self, event: str, phase: str | None = None, detail: Mapping[str, Any] | None = None) -> None:
        """Note what happened to the run."""
        row = {
            "event_id": uuid.uuid4().hex,
            "run_id": self.run_id,
            "event": event,
            "phase": phase,
            "detail": json.dumps(dict(detail or {}), sort_keys=True),
            "happened_at": datetime.now(UTC),
        }
        self.store.append("run_events", [row])

    def close_phase(self, phase: str, arm: str, kind: Kind | str, used: Mapping[str, bool]) -> None:
        """Store which rows the run uses in a phase; `used` maps a row id to whether it counts as cut."""
        verdict_ids = choose_verdicts(self.store, list(used), self.config.verify)
        rows = [
            {
                "run_row_id": content_key("run_row", self.run_id, phase, arm, row_id),
                "run_id": self.run_id,
                "phase": phase,
                "arm": arm,
                "kind": str(kind),
                "row_id": row_id,
                "cut": cut,
                "verdict_id": verdict_ids[row_id],
            }
            for row_id, cut in sorted(used.items())
        ]
        self.store.append_decided("run_rows", rows, {"run_id": self.run_id, "phase": phase, "arm": arm})
        self.store.publish(force=True)

    def record_decisions(
        self,
        phase: str,
        decisions: Sequence[tuple[str, str, str, str | None, float | None]],
        arm: str | None = None,
    ) -> None:
        """Store decisions as (subject id, problem id, decision, reason, value); those of a control name its `arm`."""
        named = [arm] if arm else []
        rows = [
            {
                "decision_id": content_key("decision", self.run_id, phase, subject_id, *named),
                "run_id": self.run_id,
                "phase": phase,
                "subject_id": subject_id,
                "problem_id": problem_id,
                "decision": decision,
                "reason": reason,
                "value": value,
                "arm": arm,
            }
            for subject_id, problem_id, decision, reason, value in sorted(decisions, key=lambda d: d[0])
        ]
        self.store.append_decided(
            "decisions", rows, {"run_id": self.run_id, "phase": phase} | ({"arm": arm} if arm else {})
        )

    def record_gate_results(self, phase: str, texts: Sequence[GatedText], arm: str | None = None) -> None:
        """Store what every gate found in texts of a phase, whether or not it refuses in this run."""
        named = [arm] if arm else []
        rows = [
            {
                "gate_result_id": content_key("gate_result", self.run_id, phase, text_id, *named),
                "run_id": self.run_id,
                "phase": phase,
                "arm": arm,
                "trajectory_id": text_id,
                "problem_id": problem_id,
                "gates": [finding.gate for finding in findings],
                "refused": [finding.refused for finding in findings],
                "gate_values": [finding.value for finding in findings],
                "details": [finding.detail for finding in findings],
            }
            for text_id, problem_id, findings in sorted(texts, key=lambda text: text[0])
        ]
        self.store.append_decided(
            "gate_results", rows, {"run_id": self.run_id, "phase": phase} | ({"arm": arm} if arm else {})
        )
