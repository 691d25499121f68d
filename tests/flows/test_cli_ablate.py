"""`heal ablate`: what is asked, what is printed, and an ablation that is killed and goes on."""

from __future__ import annotations

import io
import json
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.ablation import seed_config
from flows.cli.ablate import answers, parse_arms, parse_seeds, parse_settings, print_ablation
from heal_core.ablation import AblationConfig, PathYield, contrast_scores, contrast_yields, score_arms
from heal_core.arms import CONTINUED, CONTROLS
from heal_core.config import load_config
from heal_core.errors import ConfigError
from heal_core.evaluation import GradedSample
from heal_core.records import FinishReason, VerdictLabel


def test_seeds_are_numbers_and_ranges() -> None:
    assert parse_seeds("0") == (0,)
    assert parse_seeds("0, 3,10-12") == (0, 3, 10, 11, 12)


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "1.5", "3-1"])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a list of seeds: 0,1,2 or 10-14"):
        parse_seeds(text)


def test_arms_go_by_name_or_number() -> None:
    assert parse_arms(None) == CONTROLS
    assert parse_arms("B2, b4,random_drop,answer") == ("equal_tokens", "unhinted", "random_drop", "answer_told")
    assert parse_arms("B2,equal_tokens") == ("equal_tokens",)
    with pytest.raises(ConfigError, match="B9 is no control; there are: B1 rejection_sampling"):
        parse_arms("B1,B9")


def test_settings_that_are_not_meant_are_named_as_options() -> None:
    with pytest.raises(ConfigError, match=r"--seeds has .* give each once"):
        parse_settings(seeds=(1, 1))
    with pytest.raises(ConfigError, match="--reseed 'some': input should be 'all' or 'training'"):
        parse_settings(seeds=(1,), reseed="some")
    with pytest.raises(ConfigError, match="--arms has equal_tokens, which only students tell apart from HEAL"):
        parse_settings(seeds=(1,), arms=("equal_tokens", "unhinted"), students=False)
    with pytest.raises(ConfigError, match="--reseed has training, which without students reseeds nothing"):
        parse_settings(seeds=(1,), arms=("unhinted",), reseed="training", students=False)


def outcome_of(num_seeds: int = 2) -> dict[str, Any]:
    """Return the outcome of an ablation with every control, on invented verdicts."""
    bands = {f"p{i}": ("easy", "hard", "extremely_hard")[i % 3] for i in range(60)}
    arms = ("teacher", "base", "heal", *CONTROLS)

    def of_arm(place: int, seed: int) -> list[GradedSample]:
        return [
            GradedSample(
                problem,
                band,
                VerdictLabel.CORRECT if (i * 7 + j * 5 + place * 3 + seed) % 11 < 6 else VerdictLabel.WRONG,
                None,
                FinishReason.STOP,
            )
            for i, (problem, band) in enumerate(bands.items())
            for j in range(2)
        ]

    seeds = [{arm: of_arm(place, seed) for place, arm in enumerate(arms)} for seed in range(num_seeds)]
    yields = [
        [
            PathYield(arm, f"path {i}", f"p{i}", (i + place + seed) % 6, 5, True)
            for i in range(12)
            for place, arm in enumerate(("heal", *CONTINUED))
        ]
        for seed in range(num_seeds)
    ]
    return {
        "state": "completed",
        "ablation_id": "0123456789ab",
        "scores": [asdict(row) for row in score_arms(seeds, 2)],
        "contrasts": [asdict(row) for row in contrast_scores(seeds, 2)],
        "yields": [asdict(row) for row in contrast_yields(yields)],
        "costs": [{"arm": arm, "num_examples": 123.4, "num_tokens": 456_789.0} for arm in ("heal", *CONTROLS)],
        "ceiling": {
            "num_problems": 40, "min_samples": 200, "max_samples": 213, "num_unsolved": 10, "num_repaired": 30,
            "num_unsolved_repaired": 6,
        },
    }  # fmt: skip


def printed(outcome: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=80)
    print_ablation(console, outcome, "workspace")
    return console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO


def test_tables_fit_on_eighty_columns() -> None:
    text = printed(outcome_of())
    assert "…" not in text
    for short in ("B1", "B8", "answer", "untrained", "HEAL", "teacher"):
        assert f"\n {short} " in text
    assert "B2 *" in text
    assert "457k" in text


def test_each_objection_has_its_sentence() -> None:
    outcome = outcome_of()
    lines = list(answers(outcome))
    assert len(lines) == len(CONTINUED) + 2
    assert any("10 of 40 extremely hard" in line and "200 to 213" in line and "6 of these" in line for line in lines)
    one_seed = list(answers(outcome_of(1)))
    assert all("no claim" in line for line in one_seed if "ceiling" not in line)
    outcome["contrasts"] = [row for row in outcome["contrasts"] if not row["is_primary"]]
    assert list(answers(outcome))[-1].endswith("not measured")


def test_an_ablation_that_stopped_says_where() -> None:
    text = printed({"state": "stopped", "seed": 3, "reason": "the token budget is spent"})
    assert "Stopped in the run of seed 3: the token budget is spent. The same command goes on" in " ".join(text.split())


def test_a_mistake_in_an_option_is_told_before_anything_runs(heal: Any, tmp_path: Path) -> None:
    done = heal("ablate", heal.config(tmp_path / "workspace"), "--arms", "B9")
    assert done.returncode == 2
    assert "B9 is no control" in done.stderr
    assert not (tmp_path / "workspace").exists()


def test_controls_that_do_not_go_with_the_config_are_refused_before_anything_runs() -> None:
    config = load_config("deployments/lab/demo.yaml", ["hints.arm=answer"])
    with pytest.raises(ConfigError, match=r"mismatched_hint .* writes none: leave that control out"):
        seed_config(config, AblationConfig(), 0)
    config = load_config("deployments/lab/demo.yaml", ["repair.quota.verified=4"])
    with pytest.raises(ConfigError, match=r"controls.unhinted .* repair.quota ends HEAL's continuations early"):
        seed_config(config, AblationConfig(), 0)
    seeded = seed_config(config, AblationConfig(arms=("equal_tokens", "random_drop")), 7)
    assert (seeded.seed, seeded.controls.arms) == (7, ("heal", "equal_tokens", "random_drop"))
    assert (
        seeded.model_copy(update={"seed": config.seed, "controls": config.controls, "promotion": config.promotion})
        == config
    ), "nothing else is another"


def test_without_students_the_continuations_alone_are_compared(
    finished_run: Any, open_run: Any, heal: Any, tmp_path: Path
) -> None:
    shutil.copytree(finished_run.workspace, tmp_path / "workspace", symlinks=True)
    config = heal.config(tmp_path / "workspace")
    arguments = ("--seeds", "0", "--arms", "B4", "--no-students")
    done = heal("ablate", config, *arguments, "--json", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["scores"], outcome["contrasts"]) == ([], [])
    (row,) = outcome["yields"]
    assert row["against"] == "unhinted" and row["num_problems"] > 0
    run = open_run(heal, config, tmp_path / "workspace")
    run_id = outcome["runs"][0]["run_id"]
    assert run.rows(f"FROM run_rows WHERE run_id = '{run_id}' AND kind = 'checkpoint'") == []
    stops = run.rows(f"SELECT detail FROM run_events WHERE run_id = '{run_id}' AND event = 'stopped'")
    assert [json.loads(row["detail"])["reason"] for row in stops] == ["no students were asked for"]
    # HEAL's own continuations are those of the run that was there
    verified = run.rows("SELECT run_id, sum(num_verified) AS num FROM path_yields WHERE arm = 'heal' GROUP BY ALL")
    assert len(verified) == 2 and len({row["num"] for row in verified}) == 1
    again = heal("ablate", config, *arguments, timeout=600)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "does the hint beat resampling? no claim" in " ".join(again.stdout.split())
    assert "avg@" not in again.stdout


@pytest.mark.full
def test_a_killed_ablation_goes_on_and_comes_to_what_an_undisturbed_one_does(heal: Any, tmp_path: Path) -> None:
    def ablate(name: str, **options: Any) -> Any:
        arguments = ("--seeds", "0,1", "--arms", "B1,B4,B5", "--json")
        return heal("ablate", heal.config(tmp_path / name), *arguments, timeout=1800, **options)

    undisturbed = ablate("undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    for seconds in (15, 40, 60):
        process = heal.start(
            tmp_path / "log", "ablate", heal.config(tmp_path / "killed"), "--seeds", "0,1", "--arms", "B1,B4,B5"
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = ablate("killed")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(run.stdout) for run in (undisturbed, done))
    compared = ("scores", "contrasts", "yields", "ceiling", "costs")
    assert {name: first[name] for name in compared} == {name: second[name] for name in compared}
