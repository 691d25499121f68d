from __future__ import annotations

import pytest
from pydantic import ValidationError

from heal_core.sft.config import SftConfig


def test_defaults_are_the_methods() -> None:
    config = SftConfig()
    assert (config.learning_rate, config.batch_size, config.warmup_ratio) == (1e-5, 8, 0.05)
    assert (config.weight_decay, config.adam_beta1, config.adam_beta2) == (1e-4, 0.9, 0.95)


def test_batch_is_split_over_devices_and_accumulation() -> None:
    # 8 = 2 per device x 2 processes x 2 accumulated
    assert SftConfig(per_device_train_batch_size=2).split_batch(2) == (2, 2)
    assert SftConfig().split_batch(1) == (8, 1)
    assert SftConfig().split_batch(4) == (2, 1)


def test_batches_that_cannot_be_exact_are_refused() -> None:
    with pytest.raises(ValidationError, match="batch_size 8 is not a multiple"):
        SftConfig(per_device_train_batch_size=3)
    with pytest.raises(ValueError, match="3 processes"):
        SftConfig().split_batch(3)
    with pytest.raises(ValueError, match="16 processes"):
        SftConfig().split_batch(16)


def test_identity_holds_what_is_learnt_and_not_where() -> None:
    config = SftConfig()
    assert SftConfig(num_threads=2, save_every_steps=5, device="cpu").identity() == config.identity()
    assert SftConfig(learning_rate=2e-5).identity() != config.identity()
    assert SftConfig(seed=1).identity() != config.identity()


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="epochs"):
        SftConfig(epochs=3)  # type: ignore[call-arg]
