"""What Prefect costs a run (P7): wall time under it over that of the same core calls in a plain loop.

    python -m benchmarks.orchestration                     the reduced lab run, 3 rounds, 10 minutes
    python -m benchmarks.orchestration --server            the same beside a server that is up, as nights have it
    python -m benchmarks.orchestration --whole             the demo, 1 round, 12 minutes
    python -m benchmarks.orchestration --shards 4 --shard-seconds 30

Both sides are processes of their own that end with the same tables, compared at the end:
`heal run CONFIG` with a server of its own or that of `--server`, and the phases of `flows.heal` with every task
replaced by the function in it. Also counted: task runs per run, and what that makes of 5,000
problems. With `--shards`, shards that only wait stand in for the work of a large model.
"""

from __future__ import annotations

import argparse
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.timing import interleave, print_report, ratio, spread, timed
from deployments.api import PrefectApi
from deployments.processes import new_server, use_server, wait_until_healthy
from heal_core.store.inspect import open_store

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "deployments" / "lab" / "demo.yaml"
REDUCED: dict[str, dict[str, Any]] = {
    "problems": {"limit": 64},
    "rollouts": {"num_generations": 8},
    "repair": {"max_paths": 2, "num_generations": 4},
    "curriculum": {"epochs": [1, 1, 1]},
    "evaluation": {"num_generations": 2},
}
_MANY_PROBLEMS = 5_000
_COMPARED = (
    "SELECT phase, arm, row_id, cut FROM run_rows ORDER BY ALL",
    "SELECT phase, subject_id, decision, reason FROM decisions ORDER BY ALL",
    "SELECT arm, stage, position, trajectory_id FROM stage_examples ORDER BY ALL",
)


@contextmanager
def running_server(home: Path) -> Iterator[None]:
    """Have a server up, and the environment of this process name it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    address = use_server(home, port)
    server = new_server(home, port)
    server.start()
    try:
        with PrefectApi(f"{address}/api") as api:
            wait_until_healthy(server, api)
        yield
    finally:
        server.stop(30)


def measure_runs(is_whole: bool, num_rounds: int) -> dict[str, Any]:
    """Return the figures of whole runs, each in a workspace of its own."""
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        turns = _workspaces(Path(folder), is_whole)
        made: dict[str, list[Path]] = {"heal": [], "bare": []}

        def side(name: str, command: list[str]) -> float:
            config, workspace = next(turns)
            made[name].append(workspace)
            return timed(lambda: _run([*command, str(config)]))

        bare = [sys.executable, "-m", "benchmarks.orchestration", "--bare"]
        seconds = interleave(
            {
                "heal": lambda: side("heal", [sys.executable, "-m", "flows.cli.main", "run"]),
                "bare": lambda: side("bare", bare),
            },
            num_rounds,
        )
        if {_contents(path) for path in made["heal"]} != {_contents(path) for path in made["bare"]}:
            raise SystemExit("the two sides did not end with the same tables")
        return {
            "seconds": {name: spread(values) for name, values in seconds.items()},
            "heal_over_bare": ratio(seconds["heal"], seconds["bare"]),
            "run_seconds": spread([_phase_seconds(path) for path in made["heal"]]),
            "task_runs": _count_task_runs(made["heal"]),
        }


def _workspaces(folder: Path, is_whole: bool) -> Iterator[tuple[Path, Path]]:
    settings = yaml.safe_load(DEMO.read_text())
    if not is_whole:
        for name, group in REDUCED.items():
            settings[name] = {**settings.get(name, {}), **group}
    number = 0
    while True:
        workspace = folder / f"workspace-{number}"
        config = folder / f"config-{number}.yaml"
        config.write_text(yaml.safe_dump({**settings, "workspace": str(workspace)}))
        number += 1
        yield config, workspace


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _contents(workspace: Path) -> str:
    with open_store(workspace) as store:
        return repr([store.execute(query).fetchall() for query in _COMPARED])


def _phase_seconds(workspace: Path) -> float:
    with open_store(workspace) as store:
        (row,) = store.execute("SELECT sum(wall_seconds) FROM phase_spend").fetchall()
    return float(row[0])


def _count_task_runs(workspaces: list[Path]) -> dict[str, float]:
    """Return how many task runs a run had, and what its chunks make of a run over many problems."""
    home = os.environ.get("PREFECT_HOME")
    databases = {Path(home) / "prefect.db"} if home else {path / ".prefect" / "prefect.db" for path in workspaces}
    num_all = 0
    for path in databases:
        with sqlite3.connect(path) as database:
            num_all += database.execute("SELECT count(*) FROM task_run").fetchone()[0]
    num = num_all / len(workspaces)
    with open_store(workspaces[0]) as store:
        ((chunks, problems),) = store.execute("SELECT count(DISTINCT chunk_index), count(*) FROM problems").fetchall()
    return {
        "num": num,
        "chunks": chunks,
        "problems": problems,
        "per_chunk": round(num / chunks, 1),
        f"of_{_MANY_PROBLEMS}_problems_at_most": round(num / chunks * _MANY_PROBLEMS / (problems / chunks)),
    }


def run_bare(config: Path) -> None:
    """Do what `heal run` does without Prefect: every task is the function in it."""
    from prefect import Task

    from flows.heal import PHASES
    from heal_core.config import load_config
    from tasks.problems import take_in_problems
    from tasks.session import Session

    class Done:
        def __init__(self, value: Any) -> None:
            self.value = value

        def wait(self) -> None:
            pass

        def result(self) -> Any:
            return self.value

    class Plain:
        """Replaces the methods by which flows call tasks."""

        def __call__(self, *arguments: Any) -> Any:
            return self.fn(*arguments)  # type: ignore[attr-defined]

        def submit(self, *arguments: Any) -> Done:
            return Done(self.fn(*arguments))  # type: ignore[attr-defined]

    Task.__call__ = Plain.__call__  # type: ignore[method-assign,assignment]
    Task.submit = Plain.submit  # type: ignore[method-assign,assignment]
    with Session.open(load_config(config)) as session:
        take_in_problems(session)
        for name, run_phase in PHASES.items():
            with session.phase(name):
                run_phase(session)


def measure_shards(num_shards: int, shard_seconds: float) -> dict[str, Any]:
    """Return what shards of a given length take under Prefect, over the length itself."""
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        from flows.cli.run import prepare_prefect

        prepare_prefect(Path(folder))
        from prefect import flow

        from tasks.policy import cached_task

        class Shard:
            def __init__(self, number: int) -> None:
                self.label, self.cache_key = f"shard {number}", f"shard {number}"

        @cached_task("wait")  # type: ignore[untyped-decorator]
        def wait(session: Any, work: Any) -> int:
            time.sleep(shard_seconds)
            return 1

        @flow(validate_parameters=False)
        def shards() -> float:
            return timed(lambda: [wait(None, Shard(number)) for number in range(num_shards)])

        seconds = shards()
    work = num_shards * shard_seconds
    return {
        "num_shards": num_shards,
        "shard_seconds": shard_seconds,
        "seconds": round(seconds, 3),
        "overhead": round(seconds / work - 1, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bare", type=Path, metavar="CONFIG", help="run one config without Prefect, and print nothing")
    parser.add_argument("--whole", action="store_true", help="the demo as it is, instead of a reduced one")
    parser.add_argument("--server", action="store_true", help="beside a server that is up, instead of one per run")
    parser.add_argument("--rounds", type=int, default=None, help="runs of each side")
    parser.add_argument("--shards", type=int, default=0, help="instead: so many shards that wait")
    parser.add_argument("--shard-seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    if arguments.bare:
        run_bare(arguments.bare)
        return
    if arguments.shards:
        print_report("orchestration", measure_shards(arguments.shards, arguments.shard_seconds))
        return
    num_rounds = arguments.rounds or (1 if arguments.whole else 3)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]  # of the user's own server
    with tempfile.TemporaryDirectory(prefix="orchestration-") as home, ExitStack() as stack:
        if arguments.server:
            stack.enter_context(running_server(Path(home)))
        print_report("orchestration", measure_runs(arguments.whole, num_rounds))


if __name__ == "__main__":
    main()
