"""The command `heal` as a user starts it, and one finished run on the lab that tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.server import launch
from heal_core.engines.vllm.program import find_program
from heal_core.errors import ConfigError
from heal_core.gym.library import library_version
from heal_core.store.inspect import open_store
from tests.serving import serve

ROOT = Path(__file__).parents[1]
# As many processes as cores run tests; threads that share a core wait for each other. Children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HEAL_"))},
    "OMP_NUM_THREADS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
QUIET_SERVER = {"PREFECT_SERVER_ANALYTICS_ENABLED": "0", "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL"}
REDUCED = {
    "chunk_problems": 8,
    "problems.limit": 36,
    "problems.held_out_fraction": 0.35,
    "rollouts.num_generations": 8,
    "repair.max_paths": 2,
    "repair.num_generations": 4,
    "guided.num_generations": 2,
    "curriculum.epochs": [1, 1, 1],
    "evaluation.num_generations": 2,
    "verify.num_workers": 1,
}
"""What makes the demo small: seconds of sampling, yet problems of every band, and repairs that are kept."""


@pytest.fixture(scope="session")
def reasoning_gym() -> None:
    """Skip what needs the package reasoning-gym where it could not be built."""
    if library_version() is None:
        pytest.skip("reasoning-gym is not installed: make test builds it where there is a C compiler")


@pytest.fixture(scope="session")
def lm_eval() -> None:
    """Skip what needs lm-evaluation-harness where it is not installed."""
    if find_spec("lm_eval") is None:
        pytest.skip("lm-eval is not installed: make lm-eval")


@pytest.fixture(scope="session")
def vllm_installed() -> None:
    """Skip what needs vLLM where it is not installed."""
    try:
        find_program(None)
    except ConfigError:
        pytest.skip("vLLM is not installed: make vllm")


@pytest.fixture
def lm_eval_task(tmp_path: Path) -> Path:
    """A folder with the task `lab_choice` for lm-eval: three problems of the lab, three choices each."""
    folder = tmp_path / "lm_eval_tasks"
    folder.mkdir()
    rows = [
        {"question": f"Work modulo 100. Start with {10 * start}.\n1. Add 7.\nWhat is the result?",
         "choices": [f"{10 * start + 7}", f"{10 * start + 8}", "99"]}
        for start in range(3)
    ]  # fmt: skip
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "lab_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "docs.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Problem:\n{{question}}\n\nSolution:\n",
        "doc_to_choice": "choices",
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc"}],
        "metadata": {"version": 1.0},
    }
    (folder / "lab_choice.yaml").write_text(yaml.safe_dump(task))
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests stay in one process when several run them: a file's, and all that share the finished run."""
    for item in items:
        if item.get_closest_marker("xdist_group") is not None:
            continue
        shared = "finished_run" if "finished_run" in getattr(item, "fixturenames", ()) else item.path.name
        item.add_marker(pytest.mark.xdist_group(shared))


@dataclass(frozen=True)
class Heal:
    """Starts `heal` from the repository's root, in the interpreter that runs the tests; `environment` adds to it."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Return the finished command with its output."""
        return subprocess.run(
            self._command(arguments),
            cwd=ROOT,
            env={**ENVIRONMENT, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, log: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Return the running command, in a process group of its own; its output goes to `log`."""
        with log.open("wb") as output:
            return subprocess.Popen(
                self._command(arguments),
                cwd=ROOT,
                env={**ENVIRONMENT, **self.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def config(self, workspace: Path, **settings: Any) -> Path:
        """Return the file, beside the workspace, of the reduced demo's settings; `a__b=c` sets `a.b`."""
        tree = yaml.safe_load((ROOT / "deployments/lab/demo.yaml").read_text())
        changes = {**REDUCED, **{name.replace("__", "."): value for name, value in settings.items()}}
        for name, value in {"workspace": str(workspace), **changes}.items():
            *parents, last = name.split(".")
            group = tree
            for parent in parents:
                group = group.setdefault(parent, {})
            group[last] = value
        path = workspace.with_name(f"{workspace.name}.yaml")
        path.write_text(yaml.safe_dump(tree))
        return path

    @staticmethod
    def _command(arguments: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-m", "flows.cli.main", *map(str, arguments)]


@pytest.fixture(scope="session")
def serve_model() -> Callable[..., Any]:
    """Return a context manager: the running server of the model in a folder, with arguments of `model_server.py`."""
    return serve


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a Prefect server for the tests of this process, started as a run starts its own."""
    folder = tmp_path_factory.mktemp("prefect")
    server, address = launch(folder / "server.log", PREFECT_HOME=str(folder), **QUIET_SERVER)
    yield address
    server.kill()
    server.wait()


@dataclass(frozen=True)
class FinishedRun:
    """A workspace in which `heal run CONFIG` came to its end."""

    heal: Heal
    config: Path
    workspace: Path
    summary: dict[str, Any]

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query on the published store."""
        with open_store(self.workspace) as store:
            cursor = store.execute(query)
            columns = [column[0] for column in cursor.description]
            return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]

    def one(self, query: str) -> Any:
        """Return the only value of a query."""
        (row,) = self.rows(query)
        (value,) = row.values()
        return value


@pytest.fixture
def heal() -> Heal:
    return Heal()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The whole method on the reduced lab, run once for all tests; they must leave it as it is."""
    folder = tmp_path_factory.mktemp("lab")
    heal, workspace = Heal(), folder / "workspace"
    config = heal.config(workspace)
    done = heal("run", config, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return open_run(heal, config, workspace)


def open_run(heal: Heal, config: Path, workspace: Path) -> FinishedRun:
    return FinishedRun(heal, config, workspace, json.loads((workspace / "summary.json").read_text()))


@pytest.fixture(scope="session", name="open_run")
def open_run_fixture() -> Callable[[Heal, Path, Path], FinishedRun]:
    """Return a function that reads what another run has left."""
    return open_run
