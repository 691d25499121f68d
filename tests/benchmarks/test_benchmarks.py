"""Each benchmark runs at toy size and prints its figures as JSON; none of its times is asserted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{script}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def report(script: str, *arguments: str) -> dict[str, Any]:
    done = run(script, *arguments)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    figures = dict(json.loads(line))
    assert figures["benchmark"] == script
    assert figures["versions"]["duckdb"] and figures["machine"]["cpus"]
    return figures


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "store"
    made = run("synthetic", "--trajectories", "500", "--rows-per-part", "100", str(folder))
    assert made.returncode == 0, made.stderr
    return folder


def test_ingest_reports_a_ratio_against_each_peer() -> None:
    figures = report("ingest", "--trajectories", "60", "--tokens", "5", "--executemany-rows", "10", "--rounds", "2")
    peers = {"insert_once", "insert_twice", "on_conflict", "executemany"}
    assert figures["times_as_fast"].keys() == peers
    assert all(figures["times_as_fast"][peer]["of_medians"] > 0 for peer in peers)


def test_queries_give_the_same_in_the_store_and_in_polars(workspace: Path) -> None:
    figures = report("queries", str(workspace), "--rounds", "1")
    assert figures["num_trajectories"] == 500
    # 72 of the 500 belong to 3 repaired problems; 428 rollouts are 27 problems
    assert figures["views"]["pass_rates"]["rows"] == figures["views"]["bands"]["rows"] == 27


def test_queries_refuse_to_compare_results_that_differ(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace, tmp_path / "store")
    next((tmp_path / "store" / "parts" / "verdicts").glob("*.parquet")).unlink()
    done = run("queries", str(tmp_path / "store"), "--rounds", "1")
    assert done.returncode == 1 and "they differ" in done.stderr


def test_publish_reports_sizes_times_and_the_interval() -> None:
    figures = report("publish", "--trajectories", "200", "--rounds", "1")
    assert figures["published_bytes"] >= figures["published_bytes_without_texts"] > 0
    assert figures["interval_seconds"] >= 10.0


def test_cleaning_finds_what_was_planted() -> None:
    figures = report("cleaning", "--problems", "1000", "--templates", "10", "--rounds", "1")["found"]
    assert set(figures["exact"]["recall"].values()) == {1.0}
    # each of the 100 planted ones is in the cluster of another
    assert figures["exact"]["num_clusters"] <= 900
    usual = figures["decontamination"]["contaminated_share"]
    assert usual["near_duplicate"] > 0.5
    strict = report("cleaning", "--problems", "1000", "--templates", "10", "--rounds", "1", "--share", "0")["found"]
    shares = strict["decontamination"]["contaminated_share"]
    assert shares["near_duplicate"] == 1.0
    assert shares["dense_template"] > usual["dense_template"] and shares["lab"] > usual["lab"]


def test_publish_can_measure_the_copying_alone() -> None:
    figures = report("publish", "--copy-gib", "0.001", "--rounds", "1")
    assert figures["copied_bytes"] == int(0.001 * 2**30)
    assert figures["copy_seconds"]["median"] > 0


@pytest.mark.parametrize("source", ["synthetic", "stored"])
def test_encodings_give_the_arrays_back_and_report_bytes_per_token(source: str, workspace: Path) -> None:
    chosen = ["--workspace", str(workspace)] if source == "stored" else ["--trajectories", "50", "--tokens", "20"]
    figures = report("encodings", "--rounds", "1", *chosen)
    assert figures["synthetic"] is (source == "synthetic")
    for alternative in figures["alternatives"].values():
        assert 0 < sum(alternative["by_column"].values()) <= alternative["bytes_per_token"]


def test_drawing_draws_the_tokens_of_one_cumulative_sum() -> None:
    figures = report("drawing", "--rows", "40", "--vocabulary", "60000", "--rounds", "1")  # three tiles, many blocks
    assert figures["tokens_that_differ"] == 0
    assert figures["faster_than"].keys() == {"plain", "cumulative"}


def test_early_stopping_is_replayed_on_the_texts_of_a_workspace(workspace: Path) -> None:
    figures = report("early_stop", "--workspace", str(workspace), "--rule", "1,2,none", "--rule", "none,5,100000")
    texts = figures["texts"]
    assert sum(texts.values()) > 0
    # tokens of the synthetic texts repeat now and then; none has a line of 100,000
    assert 0 < sum(found["stopped"] for found in figures["1,2,none"].values()) <= sum(texts.values())
    assert all(found == {"stopped": 0, "tokens_saved": 0} for found in figures["none,5,100000"].values())


def test_the_verifier_is_measured_beside_plain_math_verify() -> None:
    figures = report("verifier", "--classes", "percent")
    row = figures["classes"]["percent"]
    assert row == figures["all"] and row["n"] >= 20
    assert row["heal"]["precision"] == 1.0 and row["math_verify"]["recall"] < row["heal"]["recall"]
    assert all(error["verifier"] == "math_verify" for error in figures["disagreements"])


def test_the_verifier_refuses_a_class_that_it_does_not_know() -> None:
    done = run("verifier", "--classes", "palindromes")
    assert done.returncode == 2 and "no triple of these classes" in done.stderr


def test_topk_tells_how_often_the_breakpoint_is_certain_and_never_of_a_wrong_one(finished_run: Any) -> None:
    figures = report("topk", str(finished_run.workspace), "--model", "deployments/lab/teacher", "--limit", "48")
    assert figures["num_rollouts"] + figures["num_without_choice"] == 48
    assert figures["top"].keys() == {"1", "5", "20", "64"}
    for told in figures["top"].values():
        assert told["certain"] + told["uncertain"] == pytest.approx(1, abs=1e-3)
        assert (told["certain_but_wrong"], told["tokens_outside_interval"]) == (0, 0)
    assert figures["top"]["1"]["uncertain"] > figures["top"]["64"]["uncertain"]
    assert figures["top"]["1"]["width_nats"]["p99"] > figures["top"]["64"]["width_nats"]["p99"]
