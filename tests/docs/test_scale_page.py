"""docs/scale.md against the sums that it shows, and the sums against a calculation by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.scale import JOBS, MEASURED, RECIPES, markdown, phases_of, sum_up
from heal_core.config import load_config

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()


def test_the_tables_are_those_of_today() -> None:
    lacking = [line for line in markdown() if line and line not in PAGE.splitlines()]
    assert lacking == [], "docs/scale.md is stale: put in what `python -m benchmarks.scale` prints"


def test_the_sums_are_right() -> None:
    # N = 30 answers of 8,000 tokens; 15 % of the problems have 10 paths, 1.3 hints of 1,000 tokens each and 20 repairs
    # of 80 % of an answer; 20 % have 8 guided samples
    job = next(job for job in JOBS if job.name == "long")
    phases = {phase.name: phase for phase in phases_of(job, load_config(RECIPES / job.recipe))}
    beyond = 0.15 * 10 * 1.3 * 1_000 + 0.15 * 10 * 20 * 0.8 * 8_000 + 0.2 * 8 * 8_000
    assert phases["rollouts"].sampled_tokens == 240_000
    assert phases["B2, equal tokens"].sampled_tokens == pytest.approx(beyond)
    # 30 % of the 30 repairs are verified; 120 steps, read to half on average, and twice as a whole
    assert phases["PURE scores"].read_tokens == pytest.approx(0.3 * 30 * 8_000 * 62)
    sums = sum_up(job, list(phases.values()), 10**5)
    sampled = 10**5 * (240_000 + 2 * beyond)
    assert sums.sampled_tokens == pytest.approx(sampled)
    assert sums.gpu_hours == pytest.approx((sampled / 700 + 10**5 * 0.3 * 30 * 8_000 * 62 / 6_000) / 3600)
    assert sums.num_processes == -(-sampled // (7 * 86_400 * MEASURED.process_tokens_per_second))
    assert sums.index_bytes > sampled * MEASURED.index_text_bytes
    assert sums.num_workspaces == -(-sums.index_bytes // 10e9)


def test_the_recipe_for_a_lake_is_python() -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    compile(script, "lake.py", "exec")
