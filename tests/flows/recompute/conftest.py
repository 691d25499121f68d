"""The method on a scripted world, with everything that is asked of its children counted.

Config, keys, flows, Prefect with its cache, the store and the verifier's processes are real.
Scripted are the two parts that would only cost time here: the engine, and the trainer, which
writes a folder that follows from what it is given. Both have tests of their own
(tests/flows/test_heal.py, tests/heal_core/engines, tests/heal_core/sft).
"""

from __future__ import annotations

import contextvars
import json
import queue
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import polars as pl
import pytest
from prefect import flow
from prefect.context import FlowRunContext
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_LOGGING_LEVEL,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

import flows.heal
import flows.profiles
import flows.rollouts
import flows.selection
import flows.training
import tasks.session
import tasks.training
from heal_core.config import RunConfig, parse_config
from heal_core.engines import identity
from heal_core.engines.base import EngineConfig
from heal_core.records import Verdict
from heal_core.sft.preflight import DecodedExample, PreflightReport
from heal_core.sft.spec import StageResult, StageSpec
from heal_core.verify.config import VerifyConfig
from heal_core.verify.pool import GradeItem, VerifierPool
from tests.flows.recompute.ledger import KINDS, Ledger, ScriptedEngine, Shelf
from tests.flows.recompute.world import HELD_OUT_LEVELS, SETTINGS, TRAIN_LEVELS, draw, write_problems

_KIND_OF_PHASE = {
    "ceiling": "rollouts",
    "control_hints": "hints",
    "control_pure": "scores",
    "control_repairs": "repairs",
    "equal_tokens": "rollouts",
    "evaluation": "answers",
    "promotion": "answers",
    "pure": "scores",
    "training": "stages",
}


class Lab:
    """The world on disk, the runs in it, and the ledger of what they wanted and asked for."""

    def __init__(self, folder: Path, call_in_flow: Callable[[Callable[[], Any], Path], Any]) -> None:
        self.folder = folder
        self.ledger = Ledger(self.weights_of)
        self.end_verifiers: Callable[[], None] = lambda: None
        self._call_in_flow = call_in_flow
        self._shelves: dict[Path, Shelf] = {}
        for model in ("teacher", "student", "scorer"):
            self.write_model(folder / model, model)
        write_problems(folder / "train.jsonl", TRAIN_LEVELS)
        write_problems(folder / "held_out.jsonl", HELD_OUT_LEVELS, first=50)

    def write_model(self, path: Path, weights: str) -> None:
        """Write a folder that is identified as a model is; the scripted engine reads no more of it."""
        path.mkdir(parents=True)
        (path / "config.json").write_text('{"max_position_embeddings": 4096}')
        (path / "chat_template.jinja").write_text("{{ messages }}")
        (path / "model.safetensors").write_text(weights)

    def weights_of(self, model: EngineConfig) -> str:
        """Return what of a model shapes its texts: the bytes of its files, the precision, the versions."""
        folder = identity.resolve_folder(model)
        files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
        return f"{draw(files, model.dtype, [identity.version(name) for name in ('transformers', 'torch')]):x}"

    def config(self, workspace: Path, changes: Mapping[str, Any]) -> RunConfig:
        """Return the base settings with `{"a.b": value}` applied; `LAB` in a text is the world's folder."""
        tree = json.loads(json.dumps(SETTINGS))
        paths = {
            "workspace": str(workspace),
            "teacher.model_name_or_path": "LAB/teacher",
            "student.model_name_or_path": "LAB/student",
            "problems.path": "LAB/train.jsonl",
            "problems.evaluation_path": "LAB/held_out.jsonl",
        }
        for name, value in {**paths, **changes}.items():
            *parents, last = name.split(".")
            group = tree
            for parent in parents:
                group = group.setdefault(parent, {})
            group[last] = value.replace("LAB", str(self.folder)) if isinstance(value, str) else value
        return parse_config(tree, "the test's settings")

    def copy(self, workspace: Path, to: Path) -> Path:
        """Return a copy of a workspace, cache and all."""
        shutil.copytree(workspace, to, symlinks=True)
        self._shelves[to] = self._shelves[workspace].copy()
        return to

    def run(self, workspace: Path, changes: Mapping[str, Any] | None = None, **options: Any) -> Run:
        """Return what a run came to, after noting what it left in the workspace."""
        summary = self.start(workspace, changes, **options)
        counted, made = self.ledger.session.made, Counter[str]()
        for name, num in counted.items():
            made[_KIND_OF_PHASE.get(name, name)] += num
        shelf = self._shelves.setdefault(workspace, Shelf())
        missing = shelf.count_missing(self.ledger.wanted)
        shelf.add(self.ledger.wanted)
        profile_ids = frozenset(self.ledger.profile_ids)
        return Run(workspace, summary["run_id"], summary, missing, self.ledger.calls, made, counted, profile_ids)

    def start(
        self,
        workspace: Path,
        changes: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Return the outcome of a run, of which nothing is noted; what it raises is raised."""
        config = self.config(workspace, changes or {})
        return self.call(lambda: flows.heal.distil(config, **options), workspace)

    def call(self, function: Callable[[], Any], workspace: Path) -> dict[str, Any]:
        """Return what a function returns that is called within a flow, with the workspace's cache."""
        return dict(self._call_in_flow(function, workspace / "cache"))

    def train(self, spec: StageSpec, on_progress: Any = None, on_preflight: Any = None) -> StageResult:
        """Return the result of a stage, after writing its folder."""
        self.ledger.calls["stages"] += 1
        examples = pl.read_parquet(spec.examples_path).rows()
        parent = identity.digest_files(Path(spec.model_name_or_path))
        learnt = draw(parent, examples, spec.num_optimizer_steps, spec.config.identity())
        self.write_model(spec.output_dir, f"{learnt:x}")
        return stage_result(spec, len(examples))


def stage_result(spec: StageSpec, num_examples: int) -> StageResult:
    """Return a result whose counts are right; nothing here reads its measurements."""
    counts = {"num_examples": num_examples, "num_dropped_over_long": 0, "num_optimizer_steps": spec.num_optimizer_steps}
    example = DecodedExample(example_id="", without_loss="", with_loss="")
    preflight = PreflightReport(
        **counts, num_tokens=1, longest_tokens=1, max_length_tokens=1, loss_share=0.5, num_exposures=1,
        num_exposed_tokens=1, padding_share=0.0, first_example=example,
    )  # fmt: skip
    return StageResult(
        **counts, stage=spec.stage, arm=spec.arm, training_key="", num_tokens=1, loss_first=2.0, loss_last=1.0,
        steps=(), resumed_from_step=0, seconds=0.1, peak_memory_mib=1.0, device="cpu", dtype="float32",
        versions={}, preflight=preflight,
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What one run came to.

    Attributes:
        missing: How many rows of each kind it wanted that the workspace did not answer before.
        calls: How often its children were asked; profiles are computed without any.
        made: What the run counted itself, by kind.
        counted: The same by the names under which it counts.
        profile_ids: The profiles that it uses.
    """

    workspace: Path
    run_id: str
    summary: dict[str, Any]
    missing: Counter[str]
    calls: Counter[str]
    made: Counter[str]
    counted: Counter[str]
    profile_ids: frozenset[str]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the workspace as the first query finds it; `$run` is the run's id."""
        return self._connection.execute(query, {"run": self.run_id} if "$run" in query else None).fetchall()

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(self.workspace / "heal.duckdb", read_only=True)

    def ids(self) -> dict[str, set[str]]:
        """Return the ids of the rows that the run uses, by kind."""
        ids: dict[str, set[str]] = {kind: set() for kind in KINDS} | {"profiles": set(self.profile_ids)}
        query = "SELECT phase, row_id, verdict_id FROM run_rows WHERE run_id = $run"
        for phase, row_id, verdict_id in self.rows(query):
            ids[_KIND_OF_PHASE.get(phase, phase)].add(row_id)
            if verdict_id is not None:
                ids["verdicts"].add(verdict_id)
        return ids


class ScriptedSession(tasks.session.Session):
    """A session whose engines are scripted."""

    lab: ClassVar[Lab]

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.lab.ledger.begin(self)

    def engine(self, config: EngineConfig) -> Any:
        return ScriptedEngine(self.lab.ledger, self.lab.weights_of(config))


class LastingPool:
    """A real verifier pool that outlives the sessions; what hung once is not waited for again."""

    def __init__(self, config: VerifyConfig, ledger: Ledger) -> None:
        self.real = VerifierPool(config)
        self._ledger = ledger
        self._hung: dict[str, Verdict] = {}

    def __enter__(self) -> LastingPool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def grade_all(self, items: Sequence[GradeItem]) -> Iterator[tuple[str, Verdict]]:
        # new problems are asked for too, whether their references can be graded: that is no verdict
        self._ledger.calls["verdicts"] += sum(item.text != item.reference.statement for item in items)
        texts = {item.item_id: item.text for item in items}
        hung = [item_id for item_id, text in texts.items() if text in self._hung]
        yield from ((item_id, self._hung[texts[item_id]]) for item_id in hung)
        for item_id, verdict in self.real.grade_all([item for item in items if item.item_id not in hung]):
            if verdict.reason == "timeout":
                self._hung[texts[item_id]] = verdict
            yield item_id, verdict


class Pools:
    """One pool per limit, all ended together; `end` also serves to start anew under other versions."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pools: dict[VerifyConfig, LastingPool] = {}

    def open(self, config: VerifyConfig) -> LastingPool:
        if config not in self._pools:
            self._pools[config] = LastingPool(config, self._ledger)
        return self._pools[config]

    def end(self) -> None:
        for pool in self._pools.values():
            pool.real.close()
        self._pools.clear()


@pytest.fixture(scope="session")
def call_in_flow(prefect_server: str) -> Iterator[Callable[[Callable[[], Any], Path], Any]]:
    """Return a function that calls another inside a running flow, with a folder for the tasks' results.

    One flow serves all runs: to begin and end a flow of its own takes as long as a whole run here.
    """
    settings = {
        PREFECT_API_URL: prefect_server,
        PREFECT_API_REQUEST_TIMEOUT: 120,
        PREFECT_LOGGING_LEVEL: "CRITICAL",
        PREFECT_LOGGING_TO_API_ENABLED: False,
    }
    jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    @flow(name="runs", task_runner=flows.heal.TASK_RUNNER, validate_parameters=False)
    def serve() -> None:
        while (job := jobs.get()) is not None:
            job()

    def call(function: Callable[[], Any], results: Path) -> Any:
        done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def job() -> None:
            context = FlowRunContext.get()
            assert context is not None
            store = ResultStore(result_storage=LocalFileSystem(basepath=str(results)))
            try:
                with context.model_copy(update={"result_store": store}):
                    done.put((function(), None))
            except BaseException as error:  # noqa: BLE001  raised again in the thread that asked
                done.put((None, error))

        jobs.put(job)
        value, error = done.get(timeout=120)
        if error is not None:
            raise error
        return value

    with temporary_settings(settings):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(serve,))
        thread.start()
        yield call
        jobs.put(None)
        thread.join()


@pytest.fixture(scope="module")
def lab(call_in_flow: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The world with a ledger in place of the engine and of the training child, for all runs of a module."""
    lab = Lab(tmp_path_factory.mktemp("lab"), call_in_flow)
    ledger, pools = lab.ledger, Pools(lab.ledger)
    lab.end_verifiers = pools.end

    def noting(work: type, note: Callable[[Any], None]) -> Callable[..., Any]:
        def make(*parts: Any) -> Any:
            made = work(*parts)
            note(made)
            return made

        return make

    ScriptedSession.lab = lab
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.heal, "Session", ScriptedSession)
        patch.setattr(tasks.session, "VerifierPool", pools.open)
        patch.setattr(tasks.training, "run_stage", lab.train)
        for module, name, note in (
            (flows.rollouts, "SampleWork", ledger.note_samples),
            (flows.rollouts, "VerifyWork", ledger.note_verdicts),
            (flows.profiles, "ProfileWork", ledger.note_profiles),
            (flows.selection, "ScoreWork", ledger.note_scores),
            (flows.training, "StageWork", ledger.note_stage),
        ):
            patch.setattr(module, name, noting(getattr(module, name), note))
        yield lab
    pools.end()
