from __future__ import annotations

import pytest

from heal_core.doctor.finding import Finding


def test_a_finding_without_a_remedy_is_no_finding() -> None:
    with pytest.raises(AssertionError):
        Finding("disk", "warn", "5 GiB free")
    with pytest.raises(AssertionError):
        Finding("disk", "ok", "50 GiB free", "buy a disk")
