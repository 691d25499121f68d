from __future__ import annotations

import sys
from pathlib import Path

import pytest

from heal_core.doctor.lm_eval import check_lm_eval
from heal_core.lm_eval.config import LmEvalConfig


def test_an_interpreter_without_the_harness_is_told_with_the_remedy(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    finding = check_lm_eval(LmEvalConfig(tasks=["lab"], python=str(bare)))
    assert (finding.check, finding.state) == ("lm-eval", "fail")
    assert "pip install 'heal-distill[lm-eval]'" in finding.found and finding.remedy


@pytest.mark.full
def test_tasks_that_are_there_are_told(lm_eval: None, lm_eval_task: Path) -> None:
    finding = check_lm_eval(LmEvalConfig(tasks=["lab_choice"], include_path=str(lm_eval_task)))
    assert (finding.state, finding.found) == ("ok", "lm-eval 0.4.13 knows lab_choice")
