import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import flows.schedule
from flows.cli.look import status
from flows.schedule import Deployment, Failure, FlowRun, ServerState
from heal_core.errors import StoreError
from heal_core.progress import Progress, write_progress
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Events = Mapping[str, list[tuple[str, dict[str, Any]]]]
Told = Callable[[], dict[str, Any]]
Printed = Callable[..., str]

STATES: Events = {
    "interrupted0": [("started", {}), ("phase", {})],
    "completed001": [("started", {}), ("completed", {"seconds": 1, "quarantined": 0})],
    "completed002": [("started", {}), ("completed", {"seconds": 1, "quarantined": 2})],
    "stopped00000": [("stopped", {"reason": "the time is over: it was to end at 2026-01-01 07:00 UTC"})],
    "failed000000": [("failed", {"error": "EngineStalledError: no sign of life for 600 s\nTraceback ..."})],
    "goes0on00000": [("failed", {"error": "X: y"}), ("started", {})],
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace in which nothing ran yet, and no Prefect server anywhere."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    workspace = Workspace(tmp_path / "w")
    workspace.create()
    return workspace


@pytest.fixture
def told(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Told:
    """Return a function that returns what `heal status --json` says."""

    def ask() -> dict[str, Any]:
        status(workspace.root, as_json=True)
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return ask


@pytest.fixture
def printed(workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Printed:
    """Return a function that returns what `heal status` prints, into a pipe or on a terminal of 80 columns."""

    def ask(terminal: bool = False) -> str:
        if terminal:
            monkeypatch.setenv("FORCE_COLOR", "1")
            monkeypatch.setenv("COLUMNS", "80")
        status(workspace.root, as_json=False)
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return ask


def write_runs(workspace: Workspace, events: Events) -> None:
    with Store(workspace) as store:
        columns = {table: dict.fromkeys(store.part_schema(table).names) for table in ("runs", "run_events")}
        for run_id, happened in events.items():
            known = {"run_id": run_id, "config": "{}", "problems_digest": "d", "seed": 0, "heal_version": "0"}
            store.append("runs", [columns["runs"] | known | {"started_at": datetime.now(UTC)}])
            for number, (event, detail) in enumerate(happened):
                row = {
                    "event_id": f"{run_id} {number}",
                    "run_id": run_id,
                    "event": event,
                    "phase": "rollouts" if event == "phase" else None,
                    "detail": json.dumps(detail),
                    "happened_at": datetime.now(UTC),
                }
                store.append("run_events", [columns["run_events"] | row])


def progress(run_id: str = "goes0on00000", process_id: int | None = None, age_seconds: float = 0) -> Progress:
    updated = datetime.now(UTC) - timedelta(seconds=age_seconds)
    return Progress(
        run_id=run_id, phase="repairs", work="repairs", unit="repairs", done=320, total=640, num_new=300,
        num_new_tokens=24360, tokens_per_second=812.0, eta_seconds=230.0, started_at="2026-01-01T00:00:00+00:00",
        updated_at=updated.isoformat(timespec="seconds"), process_id=process_id or os.getpid(),
    )  # fmt: skip


# ---- before the first publication


def test_a_workspace_in_which_nothing_ran_says_so(workspace: Workspace, told: Told, printed: Printed) -> None:
    assert printed() == f"{workspace.root}: no run yet. `heal run CONFIG.yaml` starts one.\n"
    nothing: dict[str, Any] = {"runs": [], "imports": [], "scheduled": [], "failed": []}
    assert told() == {"running": None, "server": None, **nothing}


def test_a_folder_that_is_no_workspace_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="point --workspace"):
        status(tmp_path)


def test_a_first_run_is_shown_before_it_has_published_anything(
    workspace: Workspace, told: Told, printed: Printed
) -> None:
    with workspace.lock():
        write_progress(workspace.progress, progress("ab12"))
        lines = printed().splitlines()
        answer = told()
    assert re.fullmatch(rf"running now: process {os.getpid()}, since \d\d:\d\d \(\d+ s\)", lines[0])
    assert lines[1:] == ["  run ab12", "  repairs: 320 of 640, 812 tokens/s, about 4 min left"]
    running = answer["running"]
    assert (running["process_id"], running["run_id"], running["phase"]) == (os.getpid(), "ab12", "repairs")
    assert (running["done"], running["total"], running["tokens_per_second"]) == (320, 640, 812)
    assert running["eta_seconds"] == 230
    assert answer["runs"] == []


def test_what_a_run_has_spent_so_far_is_shown(workspace: Workspace, told: Told, printed: Printed) -> None:
    spent = replace(
        progress("ab12"), spent_prompt_tokens=81200, spent_cached_tokens=5000, spent_completion_tokens=24360,
        costs={"USD": 0.4123},
    )  # fmt: skip
    with workspace.lock():
        write_progress(workspace.progress, spent)
        assert printed().splitlines()[3] == "  spent: 24,360 tokens, 81,200 of prompts (5,000 cached), 0.41 USD"
        assert told()["running"]["costs"] == {"USD": 0.4123}


def test_a_process_that_has_not_said_what_it_does_is_shown(workspace: Workspace, told: Told, printed: Printed) -> None:
    with workspace.lock():
        assert (
            printed().splitlines()[1]
            == "  it has begun no phase yet, or it is `heal import`, `heal verify` or `heal store`"
        )
        assert (told()["running"]["process_id"], told()["running"]["run_id"]) == (os.getpid(), None)


@pytest.mark.parametrize(
    "left",
    [progress(process_id=2**22 + 1), progress(age_seconds=120)],
    ids=["of another process", "of an earlier process with the same number"],
)
def test_progress_that_an_earlier_process_left_is_not_shown(workspace: Workspace, told: Told, left: Progress) -> None:
    write_progress(workspace.progress, left)
    assert told()["running"] is None
    with workspace.lock():
        assert told()["running"]["run_id"] is None


def test_progress_of_long_ago_says_so(workspace: Workspace, printed: Printed) -> None:
    with workspace.lock():
        write_progress(workspace.progress, progress(age_seconds=600))
        os.utime(workspace.lock_file, (0, datetime.now(UTC).timestamp() - 7200))
        lines = printed().splitlines()
    assert lines[0].endswith("(2 h)")
    assert lines[2].endswith("about 4 min left (as of 10 min ago)")


def test_a_first_run_that_was_killed_is_not_taken_for_none(workspace: Workspace, printed: Printed) -> None:
    write_runs(workspace, {"ab12": [("started", {})]})
    workspace.database.unlink()
    assert "nothing is published yet" in printed() and "the same `heal run` goes on" in printed()


# ---- how runs stand


def test_each_run_has_a_state(workspace: Workspace, told: Told) -> None:
    write_runs(workspace, STATES)
    states = {run["run_id"]: run["state"] for run in told()["runs"]}
    assert states == {
        "interrupted0": "interrupted",
        "completed001": "completed",
        "completed002": "completed",
        "stopped00000": "stopped",
        "failed000000": "failed",
        "goes0on00000": "interrupted",  # nobody holds the workspace
    }
    assert list(states) == list(reversed(STATES))


def test_what_runs_now_is_running_and_only_that(workspace: Workspace, told: Told) -> None:
    write_runs(workspace, STATES)
    with workspace.lock():
        starting = {run["run_id"]: run["state"] for run in told()["runs"]}
        write_progress(workspace.progress, progress("goes0on00000"))
        states = {run["run_id"]: run["state"] for run in told()["runs"]}
        write_progress(workspace.progress, progress("failed000000"))
        again = {run["run_id"]: run["state"] for run in told()["runs"]}
    # it has yet to say which of them it goes on with
    assert {starting["goes0on00000"], starting["interrupted0"]} == {"unfinished"}
    assert (states["goes0on00000"], states["interrupted0"], states["failed000000"]) == (
        "running", "interrupted", "failed",
    )  # fmt: skip
    # it was started again, and the store that is published does not know it yet
    assert again["failed000000"] == "running"


def test_a_pipe_gets_everything_in_full(workspace: Workspace, printed: Printed) -> None:
    write_runs(workspace, STATES)
    out = printed()
    assert "completed002  completed, 2 quarantined" in out
    assert "\n failed000000 failed: EngineStalledError: no sign of life for 600 s\n" in out
    assert "\n stopped00000 stopped: the time is over: it was to end at 2026-01-01 07:00 UTC\n" in out
    assert "Traceback" not in out
    assert all(name in out for name in ("problems", "rollouts", datetime.now().strftime("%Y-%m-%d %H:%M")))


def test_a_terminal_of_80_columns_is_not_overrun(workspace: Workspace, printed: Printed) -> None:
    long = {"long00000000": [("phase", {}), ("failed", {"error": "EngineStalledError: " + "many words " * 20})]}
    write_runs(workspace, {**STATES, **long})
    with workspace.lock():
        write_progress(workspace.progress, progress("goes0on00000"))
        lines = printed(terminal=True).splitlines()
    # but for a command to copy, which has the path of the workspace in it
    assert max(len(line) for line in lines if "heal retry" not in line) <= 80
    (row,) = [line.split() for line in lines if line.startswith(" completed002")]
    assert row[:4] == ["completed002", "completed,", "2", "quarantined"]
    assert any("running" in line for line in lines if line.startswith(" goes0on00000"))


def test_of_many_runs_a_terminal_shows_the_newest(workspace: Workspace, printed: Printed) -> None:
    write_runs(workspace, {f"night{number:07}": [("completed", {})] for number in range(25)})
    assert printed().count("completed") == 25
    lines = printed(terminal=True).splitlines()
    nights = [line.split()[0] for line in lines if line.startswith(" night")]
    assert nights == [f"night{number:07}" for number in range(24, 4, -1)]
    assert " and 5 older ones, which --json shows" in lines


def test_the_newest_is_told_how_to_go_on_unless_it_is_through(workspace: Workspace, printed: Printed) -> None:
    write_runs(workspace, {"first0000000": [("failed", {"error": "X: ends:\nwhile\nthe cause"})]})
    command = f"heal retry first0000000 -w {workspace.root}"
    assert printed().endswith(f"failed: X: ends: the cause\n to go on with the newest: {command}\n")
    write_runs(workspace, {"second000000": [("completed", {})]})
    assert "heal retry" not in printed()


def test_an_error_does_not_steer_the_terminal(workspace: Workspace, printed: Printed) -> None:
    write_runs(workspace, {"ab12": [("failed", {"error": "X: \x1b]0;title\x07\x1b[2J end"})]})
    assert "ab12 failed: X:  ]0;title  [2J end" in printed()


# ---- what comes next


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[[ServerState], None]:
    """Return a function that has a server answer so."""

    def answer(state: ServerState) -> None:
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
        monkeypatch.setattr(flows.schedule, "server_state", lambda url: state)

    return answer


def deployment(name: str, next_run: FlowRun | None, late: tuple[FlowRun, ...] = ()) -> Deployment:
    return Deployment("d", f"nightly/{name}", "nightly", "heal", False, (), datetime.now(UTC), next_run, late)


def test_next_and_late_runs_are_shown_in_their_order(
    workspace: Workspace, told: Told, printed: Printed, server: Callable[[ServerState], None]
) -> None:
    now = datetime.now(UTC)
    soon = FlowRun("f1", "keen-owl", now + timedelta(hours=5, seconds=1))
    later = FlowRun("f2", "calm-fox", now + timedelta(hours=29, seconds=1))
    late = FlowRun("f3", "slow-ox", now - timedelta(minutes=20))
    server(ServerState("http://s/api", deployments=(deployment("a", later), deployment("b", soon, (late,)))))
    lines = printed().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["next: nightly/b", "next: nightly/b", "next: nightly/a"]
    assert lines[0].endswith("(late for 20 min: no worker has taken it)")
    assert lines[1].endswith("(in 5 h)") and lines[2].endswith("(in 1 d 5 h)")
    answer = told()
    assert [(run["flow_run"], run["is_late"]) for run in answer["scheduled"]] == [
        ("slow-ox", True),
        ("keen-owl", False),
        ("calm-fox", False),
    ]
    assert datetime.fromisoformat(answer["scheduled"][1]["expected_start"]) == soon.expected_start.replace(
        microsecond=0
    )
    assert answer["server"] == {"url": "http://s/api", "error": None}


def test_a_night_that_failed_before_its_run_was_opened_is_shown(
    workspace: Workspace, printed: Printed, told: Told, server: Callable[[ServerState], None]
) -> None:
    failure = Failure("nightly my", "Failed", "Flow run encountered an exception: ModelError: gone", datetime.now(UTC))
    server(ServerState("http://s/api", deployments=(replace(deployment("a", None), failed=failure),)))
    line = next(line for line in printed().splitlines() if line.startswith("last:"))
    assert line.startswith("last: nightly/a, Failed ") and line.endswith("exception: ModelError: gone")
    assert [run["state"] for run in told()["failed"]] == ["Failed"]


def test_a_server_that_cannot_be_asked_is_told_and_the_runs_are_shown(
    workspace: Workspace, told: Told, printed: Printed, server: Callable[[ServerState], None]
) -> None:
    write_runs(workspace, STATES)
    server(ServerState("http://s/api", "Connection refused"))
    assert printed().endswith("next: the Prefect server http://s/api cannot be asked: Connection refused\n")
    answer = told()
    assert len(answer["runs"]) == len(STATES)
    assert (answer["scheduled"], answer["server"]["error"]) == ([], "Connection refused")


def test_a_server_without_runs_of_ours_says_where_to_look(
    workspace: Workspace, printed: Printed, server: Callable[[ServerState], None]
) -> None:
    server(ServerState("http://s/api", deployments=(deployment("a", None),)))
    assert printed().endswith("next: the Prefect server http://s/api has no run of HEAL's; `heal doctor` says why\n")


def test_neither_torch_nor_prefect_is_loaded(workspace: Workspace) -> None:
    write_runs(workspace, STATES)
    code = (
        "import sys; from pathlib import Path; from flows.cli.look import status; status(Path(sys.argv[1]));"
        "assert not {'torch', 'prefect', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(workspace.root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
