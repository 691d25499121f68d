"""`heal run --map`: what columns mean, as the setting `problems.columns`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.cli.run import _map_columns
from heal_core.config import load_config
from heal_core.errors import ConfigError


def test_a_mapping_is_the_setting_and_takes_any_name_of_a_column(tmp_path: Path) -> None:
    model = {"model_name_or_path": "m"}
    settings = {
        "workspace": "w",
        "problems": {"path": "p", "columns": {"x": "uuid"}},
        "teacher": model,
        "student": model,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    overrides = _map_columns(["question=problem", "meta.a=b: c=answer"])
    columns = load_config(tmp_path / "run.yaml", overrides).problems.columns
    assert columns == {"question": "problem", "meta.a=b: c": "answer"}
    assert load_config(tmp_path / "run.yaml", _map_columns([])).problems.columns == {"x": "uuid"}
    with pytest.raises(ConfigError, match=r"problems.columns.question.*'problem', 'answer'"):
        load_config(tmp_path / "run.yaml", _map_columns(["question=task"]))


@pytest.mark.parametrize("wrong", [["question"], ["=problem"], ["a=problem", "a=answer"]])
def test_what_is_no_mapping_is_refused(wrong: list[str]) -> None:
    with pytest.raises(ConfigError, match="not of the form COLUMN=MEANING"):
        _map_columns(wrong)
