from __future__ import annotations

import pytest
from pydantic import ValidationError

from heal_core.sft.config import LoraConfig, SftConfig


def test_defaults_are_the_methods() -> None:
    config = SftConfig()
    assert (config.learning_rate, config.batch_size, config.warmup_ratio) == (1e-5, 8, 0.05)
    assert (config.weight_decay, config.adam_beta1, config.adam_beta2) == (1e-4, 0.9, 0.95)


def test_a_step_is_shared_out_evenly_over_processes() -> None:
    assert [SftConfig().device_share(n) for n in (1, 2, 8)] == [8, 4, 1]


@pytest.mark.parametrize("num_processes", [3, 16])
def test_a_step_that_cannot_be_shared_out_evenly_is_refused(num_processes: int) -> None:
    with pytest.raises(ValueError, match=f"evenly over {num_processes} processes"):
        SftConfig().device_share(num_processes)


def test_identity_holds_what_is_learnt_and_not_where() -> None:
    config = SftConfig()
    assert SftConfig(num_threads=2, save_every_steps=5, device="cpu").identity() == config.identity()
    assert SftConfig(learning_rate=2e-5).identity() != config.identity()
    assert SftConfig(seed=1).identity() != config.identity()
    watched = SftConfig(num_held_out=0, report_to=("tensorboard",), micro_batch_tokens=64, save_total_limit=3)
    assert watched.identity() == config.identity()


def test_an_adapter_is_part_of_what_is_learnt_and_none_leaves_the_key_as_it_was() -> None:
    assert "lora" not in SftConfig().identity()
    ranks = [SftConfig(lora=LoraConfig(r=r)).identity() for r in (8, 16)]
    assert ranks[0] != ranks[1] != SftConfig().identity()


def test_the_checkpoint_before_is_always_kept() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        SftConfig(save_total_limit=1)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="epochs"):
        SftConfig(epochs=3)  # type: ignore[call-arg]
