"""The whole lab run with the teacher on vLLM, beside the one with the engine hf: the same up to sampling error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heal_core.bands import BandsConfig, assign_band

NUM_DRAWS = 10_000
ALPHA = 1e-3


def chance_of(observed: float, draws: np.ndarray) -> float:
    """Return how often chance alone gives at least what was observed."""
    return float((1 + (draws >= observed).sum()) / (1 + len(draws)))


def bands_of(num_correct: np.ndarray, num_generations: int) -> np.ndarray:
    """Return the band of each count, same shape."""
    names = [str(assign_band(num_generations, c, num_generations, BandsConfig())) for c in range(num_generations + 1)]
    return np.array(names)[num_correct]


def test_the_criterion_tells_engines_apart_that_differ() -> None:
    # 36 problems of 8 rollouts, as in the run below
    rng = np.random.default_rng(0)
    rates = np.linspace(0.05, 0.95, 36)
    ours = rng.binomial(8, rates)
    assert min(compare(ours, rng.binomial(8, rates), 8).values()) > ALPHA
    assert compare(ours, rng.binomial(8, rates * 0.6), 8)["overall"] <= ALPHA
    # the same overall, other problems solved
    assert compare(ours, rng.binomial(8, rates[::-1]), 8)["by problem"] <= ALPHA
    assert compare(ours, rng.binomial(8, rates[::-1]), 8)["bands"] <= ALPHA


def compare(ours: np.ndarray, theirs: np.ndarray, num: int) -> dict[str, float]:
    """Return how likely such differences are if both engines solve each problem equally often.

    Given how many of a problem's 2 N rollouts are correct, chance alone decides on which side they are
    (hypergeometric), so that problems may be as different as they like.

    Args:
        ours: Correct rollouts per problem, shape [P].
        theirs: The same of the other engine.
        num: N, rollouts per problem on each side.
    """
    rng = np.random.default_rng(1)
    both = ours + theirs
    drawn = rng.hypergeometric(both, 2 * num - both, num, size=(NUM_DRAWS, len(both)))
    differences, drawn_differences = 2 * ours - both, 2 * drawn - both
    other = (bands_of(drawn, num) != bands_of(both - drawn, num)).sum(axis=1)
    return {
        "overall": chance_of(abs(differences.sum()), np.abs(drawn_differences.sum(axis=1))),
        "by problem": chance_of((differences**2).sum(), (drawn_differences**2).sum(axis=1)),
        "bands": chance_of((bands_of(ours, num) != bands_of(theirs, num)).sum(), other),
    }


@pytest.mark.full
@pytest.mark.usefixtures("vllm_installed")
def test_the_lab_run_through_vllm_gives_a_funnel_like_that_of_hf(
    finished_run, open_run: Callable, tmp_path: Path
) -> None:
    heal, workspace = finished_run.heal, tmp_path / "workspace"
    config = heal.config(
        workspace,
        teacher__engine="vllm",
        teacher__launch={"args": ["--enforce-eager"], "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"}},
    )
    done = heal("run", config, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    served = open_run(heal, config, workspace)

    query = "SELECT problem_id, num_graded, num_correct FROM pass_rates ORDER BY problem_id"
    ours, theirs = finished_run.rows(query), served.rows(query)
    assert [row["problem_id"] for row in ours] == [row["problem_id"] for row in theirs]
    assert {row["num_graded"] for row in ours + theirs} == {8}
    counts = [np.array([row["num_correct"] for row in rows]) for rows in (ours, theirs)]
    found = compare(*counts, 8)
    assert min(found.values()) > ALPHA, found

    # the later phases did their work on texts of this engine
    assert served.one("SELECT count(*) FROM trajectories WHERE kind = 'repair'") > 0
    assert served.one("SELECT count(*) FROM scores") > 0
    # answers of students, which `hf` samples, are exact
    sources = "SELECT DISTINCT entropy_source FROM run_trajectories WHERE phase = 'rollouts'"
    assert [row["entropy_source"] for row in served.rows(sources)] == ["top_20"]
    assert {stage["name"] for stage in served.summary["stages"]} == {"I", "II", "III"}
