import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from heal_core.quotas import QuotaConfig, candidate_waves, count_skipped, find_satisfied
from heal_core.repair import RepairConfig


def test_waves_are_fixed_ranges_of_candidate_indices() -> None:
    assert candidate_waves(12, QuotaConfig(verified=4, wave=5)) == [range(5), range(5, 10), range(10, 12)]
    assert candidate_waves(4, QuotaConfig(verified=4)) == [range(4)]
    assert candidate_waves(20, None) == [range(20)]


@given(st.integers(1, 40), st.integers(1, 50))
def test_waves_hold_every_candidate_once_and_in_order(num_generations: int, wave: int) -> None:
    waves = candidate_waves(num_generations, QuotaConfig(verified=1, wave=wave))
    assert [index for indices in waves for index in indices] == list(range(num_generations))
    assert all(len(indices) == wave for indices in waves[:-1])


def test_a_problem_has_enough_from_the_quota_on() -> None:
    assert find_satisfied({"a": 3, "b": 4, "c": 9}, QuotaConfig(verified=4)) == {"b", "c"}


def test_what_was_left_out_is_what_every_path_would_have_got_without_what_was_sampled() -> None:
    # 2 paths of 20 are 40, of which 15 were sampled; nothing was sampled of c, whose paths are all there is
    skipped = count_skipped({"a": 2, "b": 1, "c": 1}, {"a": 15, "b": 20}, 20)
    assert skipped == {"a": 25, "b": 0, "c": 20}


def test_a_quota_is_off_by_default_and_then_not_in_the_settings() -> None:
    assert RepairConfig().model_dump(mode="json") == {"max_paths": 10, "num_generations": 20}
    with_quota = RepairConfig(quota=QuotaConfig(verified=4))
    assert with_quota.model_dump(mode="json")["quota"] == {"verified": 4, "wave": 5}
    assert RepairConfig(**with_quota.model_dump(mode="json")) == with_quota


@pytest.mark.parametrize("settings", [{}, {"verified": 0}, {"verified": 4, "wave": 0}, {"verified": 4, "waves": 2}])
def test_a_quota_that_cannot_be_meant_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        QuotaConfig(**settings)
