"""All checks of a run on the lab: their order, and that they leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heal_core.config import RunConfig
from heal_core.doctor.checkup import check_run

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_run_on_the_lab_passes_and_its_workspace_is_not_made(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    findings = list(check_run(make_config(student_start="latest")))
    assert {finding.check: finding.state for finding in findings if finding.state != "ok"} == {}
    assert [finding.check for finding in findings] == [
        "file system", "disk", "lock", "store", "latest student", "teacher", "student", "memory", "problems",
        "verifier", "notify",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_the_environment_is_judged_without_importing_what_may_be_broken() -> None:
    code = (
        "import sys; from pathlib import Path; from heal_core.doctor import checkup; "
        "list(checkup.check_environment()); list(checkup.check_folder(Path('.'))); "
        "print([name for name in ('torch', 'prefect', 'duckdb', 'transformers', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
