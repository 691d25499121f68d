"""`heal import` as a person meets it: rollouts of a finished run go out as OpenR1, in again, and on to the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli.imports import _find_files

pytestmark = pytest.mark.slow

WANTED = {"extremely_hard": 5, "hard": 2, "easy": 4}
"""Training problems by band, of which there are few, so that it takes seconds; and two held-out ones."""

TEXTS = (
    "SELECT t.problem_id, t.text, first(k.token_ids) AS token_ids, first(k.entropies) AS entropies "
    "FROM trajectories t JOIN tokens k USING (trajectory_id) JOIN recipes c USING (recipe_id) "
    "WHERE t.kind = 'rollout' AND c.model_name_or_path = '{model}' GROUP BY ALL"
)


@pytest.fixture(scope="module")
def openr1(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of some problems of the finished run with all their rollouts, as `heal export` writes it."""
    bands = finished_run.rows("SELECT problem_id, split, band FROM bands ORDER BY problem_id")
    ids = [row["problem_id"] for row in bands if row["split"] == "held_out"][:2]
    for band, num in WANTED.items():
        ids += [row["problem_id"] for row in bands if row["split"] == "train" and row["band"] == band][:num]
    exported = tmp_path_factory.mktemp("exported") / "openr1.parquet"
    done = finished_run.heal("export", "openr1", exported, "-w", finished_run.workspace, "--held-out")
    assert done.returncode == 0, done.stderr
    rows = [row for row in pq.read_table(exported).to_pylist() if row["problem_id"] in ids]
    assert len(rows) >= 10
    rows[0]["generations"].append("much too long " * 1000)
    rows[0]["finish_reasons"].append("length")
    path = tmp_path_factory.mktemp("openr1") / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_rollouts_go_out_and_in_and_on_to_the_end(
    heal: Any, finished_run: Any, openr1: Path, open_run: Any, tmp_path: Path
) -> None:
    config = heal.config(
        tmp_path / "workspace",
        problems__path=str(openr1),  # the file of rollouts is the source of problems too
        problems__limit=None,
        controls__rejection_sampling=False,
        controls__equal_tokens=False,
    )
    generations = [text for texts in pq.read_table(openr1)["generations"].to_pylist() for text in texts]
    first, again = (heal("import", config, openr1, "--model", "lab-teacher", "--json") for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stdout + first.stderr + again.stderr
    counts, counts_again = (json.loads(done.stdout)["files"][0] for done in (first, again))
    assert (counts["num_read"], counts["num_imported"]) == (len(generations), len(generations) - 1)
    assert (counts["num_unmatched"], counts["reasons"]) == (0, {"too_long": 1})
    assert (counts_again["num_imported"], counts_again["num_there"]) == (0, len(generations) - 1)
    status = heal("status", "--workspace", tmp_path / "workspace")
    assert "no run yet" in status.stdout
    assert f"imported: {openr1}, {len(generations) - 1} of {len(generations)} rollouts" in status.stdout

    done = heal("run", config, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    run = open_run(heal, config, tmp_path / "workspace")
    assert run.summary["state"] == "completed"
    assert f"{run.summary['imported_rollouts']} of {run.summary['rollouts']} rollouts were imported" in done.stdout

    # the teacher reads what it sampled as it sampled it
    sampled, imported = (
        {(row["problem_id"], row["text"]): row for row in of.rows(TEXTS.format(model=model))}
        for of, model in ((finished_run, "deployments/lab/teacher"), (run, "lab-teacher"))
    )
    assert imported and imported.keys() <= sampled.keys()
    for key, row in imported.items():
        assert row["token_ids"] == sampled[key]["token_ids"]
        np.testing.assert_allclose(row["entropies"], sampled[key]["entropies"], atol=1e-4)

    # all rollouts of training problems are imported, those of held-out problems sampled
    origins = run.rows(
        "SELECT split, origin, model, source, num_rollouts, num_problems FROM rollout_origins ORDER BY ALL"
    )
    assert [(row["split"], row["origin"]) for row in origins] == [("held_out", "sampled"), ("train", "imported")]
    assert all(row["num_rollouts"] == 8 * row["num_problems"] for row in origins)
    assert (origins[1]["model"], origins[1]["source"]) == ("lab-teacher", str(openr1))
    assert run.summary["generated"]["rollouts"] == origins[0]["num_rollouts"]
    funnel = run.rows("SELECT sum(num) AS num FROM funnel WHERE phase = 'rollouts' AND reason = 'imported'")
    assert funnel == [{"num": origins[1]["num_rollouts"]}]

    # and what follows is made of them: same verdicts, wrong ones continued from their own tokens, examples of them
    verdicts = "SELECT problem_id, num_correct FROM pass_rates WHERE split = 'train'"
    before = {row["problem_id"]: row["num_correct"] for row in finished_run.rows(verdicts)}
    after = {row["problem_id"]: row["num_correct"] for row in run.rows(verdicts)}
    assert after.items() <= before.items()
    repairs = run.rows(
        "SELECT r.num_prefix_tokens, t.prefix, w.text AS wrong FROM run_repairs r "
        "JOIN trajectories t USING (trajectory_id) JOIN trajectories w ON w.trajectory_id = r.parent_id "
        "JOIN recipes c ON c.recipe_id = w.recipe_id WHERE c.kind = 'imported'"
    )
    assert repairs and len(repairs) == run.one("SELECT count(*) FROM run_repairs")
    assert all(row["wrong"].startswith(row["prefix"]) for row in repairs)
    assert run.one("SELECT count(*) FROM example_lineage WHERE model_name_or_path = 'lab-teacher'")
    assert heal("store", "check", "--workspace", tmp_path / "workspace").returncode == 0


def test_a_file_of_two_names_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    monkeypatch.chdir(tmp_path)
    files = _find_files(["b.jsonl", str(tmp_path / "*.jsonl"), "./a.jsonl"])
    assert [file.place for file in files] == ["b.jsonl", str(tmp_path / "a.jsonl")]


def test_a_mistake_is_told_with_its_remedy(heal: Any, tmp_path: Path) -> None:
    config = heal.config(tmp_path / "workspace")
    lab = "deployments/lab/problems.jsonl"
    for arguments, said in [
        ((config, lab), f"{lab} holds no rollouts"),
        ((config, "rollouts.num_generations=8"), "no file of rollouts is named"),
    ]:
        done = heal("import", *arguments)
        assert done.returncode == 2
        assert said in done.stderr
