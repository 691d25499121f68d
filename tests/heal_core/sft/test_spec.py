from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.errors import TrainingError
from heal_core.sft.config import SftConfig
from heal_core.sft.spec import StageSpec, finished_result, num_optimizer_steps, read_spec, training_key

ROWS = [("a", "1+1", "2"), ("b", "2+2", "4")]


def test_steps_round_up() -> None:
    assert num_optimizer_steps(num_examples=10, epochs=2, batch_size=8) == 3  # 20 / 8 = 2.5
    assert num_optimizer_steps(num_examples=8, epochs=2, batch_size=8) == 2


@given(st.integers(1, 10**6), st.integers(1, 9), st.integers(1, 512))
def test_steps_show_every_example_and_less_than_a_batch_more(n: int, epochs: int, batch_size: int) -> None:
    shown = num_optimizer_steps(n, epochs, batch_size) * batch_size
    assert 0 <= shown - n * epochs < batch_size


def test_spec_survives_json(make_spec: Callable[..., StageSpec], tmp_path: Path) -> None:
    spec = make_spec(ROWS, config=SftConfig(launcher=("accelerate", "launch"), seed=3))
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    assert read_spec(tmp_path / "spec.json") == spec
    assert spec.num_exposures == 24  # 3 steps of 8


def test_a_wrong_spec_names_its_key(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"stage": "I", "epochs": 2}')
    with pytest.raises(TrainingError, match="epochs"):
        read_spec(tmp_path / "spec.json")
    with pytest.raises(TrainingError, match=r"missing\.json"):
        read_spec(tmp_path / "missing.json")


def test_key_follows_what_is_learnt(make_spec: Callable[..., StageSpec], tmp_path: Path) -> None:
    key = training_key(make_spec(ROWS))
    assert training_key(make_spec(ROWS, arm="b1", output_dir=tmp_path / "elsewhere")) == key
    assert training_key(make_spec(ROWS[::-1])) != key
    assert training_key(make_spec(ROWS, num_optimizer_steps=4)) != key
    assert training_key(make_spec(ROWS, config=SftConfig(learning_rate=1e-4))) != key


def test_a_folder_that_is_not_this_training_is_never_taken_for_it(
    make_spec: Callable[..., StageSpec],
) -> None:
    spec = make_spec(ROWS)
    assert finished_result(spec) is None
    spec.output_dir.mkdir()
    with pytest.raises(TrainingError, match="no training result"):
        finished_result(spec)
    (spec.output_dir / "result.json").write_text("{")
    with pytest.raises(TrainingError, match="not a training result"):
        finished_result(spec)
