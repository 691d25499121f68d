"""Loading a model for real, in an engine's child."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from heal_core.doctor.engine import check_engine
from heal_core.engines.base import EngineConfig


@pytest.mark.slow
def test_the_engine_is_loaded_for_real(teacher: Path) -> None:
    model = EngineConfig(model_name_or_path=str(teacher), dtype="float32")
    good = check_engine(model)
    assert good.state == "ok", good
    assert re.search(r"loaded in [0-9.]+ s, [1-8] tokens in [0-9.]+ s \(hf transformers-.*, float32\)", good.found)
    os.truncate(teacher / "model.safetensors", 1_000_000)
    cut = check_engine(model)
    assert cut.state == "fail"
    assert str(teacher) in cut.found


def test_it_is_not_loaded_beside_a_run_or_from_the_network(teacher: Path) -> None:
    assert "not tried: a run" in check_engine(EngineConfig(model_name_or_path=str(teacher)), is_busy=True).found
    absent = check_engine(EngineConfig(model_name_or_path="heal-tests/no-such-model"))
    assert absent.state == "warn"
    assert "not on this disk" in absent.found
