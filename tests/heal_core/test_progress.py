import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.progress import Progress, ProgressMeter, describe_seconds, read_progress, write_progress

Reports = list[tuple[Progress, bool]]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def meter(clock: Clock, reports: Reports) -> ProgressMeter:
    return ProgressMeter(lambda progress, is_final: reports.append((progress, is_final)), clock=clock)


@pytest.fixture
def progress() -> Progress:
    return Progress(
        run_id="ab12", phase="repairs", work="repairs", unit="repairs", done=320, total=640, num_new=300,
        num_new_tokens=24360, tokens_per_second=812.0, eta_seconds=230.0, started_at="2026-01-01T00:00:00+00:00",
        updated_at="2026-01-01T00:00:30+00:00", process_id=7,
    )  # fmt: skip


def test_rate_and_time_left_are_those_of_what_was_newly_made(
    clock: Clock, meter: ProgressMeter, reports: Reports
) -> None:
    meter.begin("run", "repairs", "repairs", "repairs", 640)
    for _ in range(20):  # 320 exist already: each chunk takes 10 ms
        clock.seconds += 0.01
        meter.advance(16)
    clock.seconds += 10
    meter.advance(16, num_new=16, num_new_tokens=800)
    last = reports[-1][0]
    # 16 took 10 s, so the 304 that are left take 190 s; 336 in 10.2 s would have said 9 s
    assert (last.done, last.num_new) == (336, 16)
    assert last.eta_seconds == pytest.approx(190)
    assert last.tokens_per_second == pytest.approx(80)


def test_the_time_in_which_a_model_was_loaded_foretells_nothing(
    clock: Clock, meter: ProgressMeter, reports: Reports
) -> None:
    meter.begin("run", "rollouts", "rollouts", "samples", 100)
    clock.seconds += 60
    meter.skip_time()
    clock.seconds += 3
    meter.advance(1, num_new=1, num_new_tokens=30)
    last = reports[-1][0]
    assert (last.eta_seconds, last.tokens_per_second) == (pytest.approx(297), pytest.approx(10))


def test_of_a_chunk_that_exists_in_part_only_the_new_counts(
    clock: Clock, meter: ProgressMeter, reports: Reports
) -> None:
    meter.begin("run", "rollouts", "rollouts", "rollouts", 48)
    clock.seconds += 4
    meter.advance(16, num_new=2, num_new_tokens=100)
    # 2 took 4 s, 32 are left
    assert reports[-1][0].eta_seconds == pytest.approx(64)


def test_nothing_is_foretold_before_something_new_was_made(
    clock: Clock, meter: ProgressMeter, reports: Reports
) -> None:
    meter.begin("run", "rollouts", "rollouts", "rollouts", 32)
    clock.seconds += 5
    meter.advance(16)
    assert [(p.done, p.eta_seconds, p.tokens_per_second) for p, _ in reports] == [(0, None, None), (16, None, None)]


def test_a_skip_while_another_thread_makes_something_does_not_swallow_its_time(
    clock: Clock, meter: ProgressMeter, reports: Reports
) -> None:
    meter.begin("run", "rollouts", "rollouts", "rollouts", 48)
    clock.seconds += 9.9
    meter.advance(16)
    clock.seconds += 0.1
    meter.advance(16, num_new=16)
    meter.finish()
    assert reports[-1][0].eta_seconds == pytest.approx(10)  # and not 0.1


def test_reports_come_at_the_beginning_at_intervals_and_at_the_end(
    clock: Clock, meter: ProgressMeter, reports: Reports
) -> None:
    meter.begin("run", "rollouts", "rollouts", "rollouts", 4)
    for seconds in (1.0, 0.9, 0.2, 0.1):  # the third is 2.1 s after the beginning
        clock.seconds += seconds
        meter.advance(1, num_new=1)
    meter.finish()
    assert [(p.done, is_final) for p, is_final in reports] == [(0, False), (3, False), (4, True)]


def test_what_comes_outside_a_piece_of_work_is_not_counted(meter: ProgressMeter, reports: Reports) -> None:
    meter.advance(1)
    meter.finish()
    assert reports == []
    meter.begin("run", "rollouts", "rollouts", "rollouts", 1)
    meter.finish()
    meter.advance(1)  # a late thread
    meter.finish()
    assert [(p.done, is_final) for p, is_final in reports] == [(0, False), (0, True)]


def test_threads_count_together_and_reports_keep_their_order() -> None:
    reports: Reports = []
    meter = ProgressMeter(lambda progress, is_final: reports.append((progress, is_final)), min_seconds=0)
    meter.begin("run", "rollouts", "rollouts", "rollouts", 4000)

    def work() -> None:
        for _ in range(1000):
            meter.advance(1, num_new=1, num_new_tokens=3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    meter.finish()
    dones = [p.done for p, _ in reports]
    assert dones == sorted(dones) and dones[-1] == 4000
    assert reports[-1][0].num_new_tokens == 12000


def test_a_report_says_who_works_and_since_when(meter: ProgressMeter, reports: Reports) -> None:
    meter.begin("run", "repairs", "hints", "hints", 8)
    first = reports[0][0]
    assert (first.run_id, first.phase, first.work, first.process_id) == ("run", "repairs", "hints", os.getpid())
    assert datetime.fromisoformat(first.started_at) <= datetime.fromisoformat(first.updated_at)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "repairs: 320 of 640, 812 tokens/s, about 4 min left"),
        ({"work": "hints", "unit": "hints"}, "repairs, hints: 320 of 640, 812 tokens/s, about 4 min left"),
        ({"tokens_per_second": None, "eta_seconds": None}, "repairs: 320 of 640"),
        ({"work": "repairs wave 0", "eta_seconds": None}, "repairs wave 0: 320 of 640, 812 tokens/s"),
        (
            {"phase": "training", "work": "heal, stage II", "unit": "steps", "tokens_per_second": None, "total": 1234},
            "training, heal, stage II: 320 of 1,234 steps, about 4 min left",
        ),
        ({"done": 640, "eta_seconds": 0.0}, "repairs: 640 of 640, 812 tokens/s"),
    ],
)
def test_one_line_tells_a_person(progress: Progress, changes: dict[str, object], line: str) -> None:
    assert replace(progress, **changes).describe() == line  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "1 h"),
        (7800, "2 h 10 min"),
        (273600, "3 d 4 h"),
        (86400, "1 d"),
    ],
)
def test_durations_are_told_in_one_or_two_units(seconds: float, words: str) -> None:
    assert describe_seconds(seconds) == words


@given(done=st.integers(0, 100), total=st.integers(0, 100))
def test_the_share_lies_between_nothing_and_all(done: int, total: int) -> None:
    progress = Progress("r", "p", "w", "u", done, total, 0, 0, None, None, "", "", 1)
    assert 0 <= progress.share <= 1


def test_what_is_written_is_read_again(tmp_path: Path, progress: Progress) -> None:
    path = tmp_path / "progress.json"
    write_progress(path, progress)
    write_progress(path, replace(progress, done=321))
    assert read_progress(path) == replace(progress, done=321)
    assert json.loads(path.read_text())["done"] == 321
    assert os.listdir(tmp_path) == ["progress.json"]


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-20], lambda _: "", lambda _: "null", lambda _: "[1]", lambda _: '{"done": 1}']
)
def test_a_file_that_is_missing_or_cut_is_none(
    tmp_path: Path, progress: Progress, damage: Callable[[str], str]
) -> None:
    path = tmp_path / "progress.json"
    assert read_progress(path) is None
    path.write_text(damage(progress.to_json()))
    assert read_progress(path) is None


def test_a_place_that_cannot_be_written_loses_the_file_and_nothing_else(tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "logs").write_text("a file")
    write_progress(tmp_path / "logs" / "progress.json", progress)
    (tmp_path / "progress.json").mkdir()
    write_progress(tmp_path / "progress.json", progress)
    assert sorted(os.listdir(tmp_path)) == ["logs", "progress.json"]
