"""Settings of the verifier: bounds and unknown keys."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from heal_core.verify.config import VerifyConfig


@pytest.mark.parametrize(
    "wrong",
    [{"timeout_seconds": 0}, {"num_workers": 0}, {"max_tasks_per_worker": 0}, {"max_memory_gib": 0.1}, {"timeout": 5}],
)
def test_a_setting_that_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        VerifyConfig(**wrong)
