"""Generators with their settings, through the real package; each mistake is answered with what is expected."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.gym import library
from heal_core.gym.library import check_installed, make_generator

needs_package = pytest.mark.usefixtures("reasoning_gym")


@needs_package
def test_settings_and_seed_reach_the_generator() -> None:
    made = make_generator("chain_sum", {"min_terms": 3, "max_terms": 3}, None, size=7, seed=5)
    assert (len(made), made.config.seed, made.config.min_terms, made.config.max_terms) == (7, 5, 3, 3)
    again = make_generator("chain_sum", {"max_terms": 3, "min_terms": 3}, None, size=9, seed=5)
    assert made[6] == again[6]
    assert made[6] != make_generator("chain_sum", {"min_terms": 3, "max_terms": 3}, None, size=7, seed=6)[6]


@needs_package
def test_a_curriculum_sets_levels() -> None:
    # of gcd: value has the bounds 100, 1000, 10000, 100000, and level 1 ends at the third
    first, second = (make_generator("gcd", {}, {"value": level}).config for level in (0, 1))
    assert (first.max_value, second.max_value) == (1000, 10000)
    everything = make_generator("gcd", {}, 3).config
    assert everything.max_value == 100000 and everything.max_numbers > second.max_numbers
    kept = make_generator("gcd", {"min_value": 7}, None).config
    assert kept.min_value == 7


@needs_package
def test_nested_settings_are_the_generators_own() -> None:
    made = make_generator("arc_agi", {"board_format_opts": {"col_delimiter": ";"}}, None)
    assert ";" in made[0]["answer"]


@needs_package
@pytest.mark.parametrize(
    ("name", "config", "curriculum", "message"),
    [
        ("chain_sums", {}, None, r"no generator 'chain_sums'. Is chain_sum or .* meant\? Expected one of ab, "),
        ("boxnet", {}, None, "no reference answer"),
        ("composite", {}, None, "give each of them as a source of its own"),
        ("chain_sum", {"min_term": 1}, None, "unknown min_term. Expected: min_terms: 2, max_terms: 6, "),
        ("chain_sum", {"min_terms": 9}, None, "max_terms must be >= min_terms. Its defaults: min_terms: 2"),
        ("chain_sum", {"min_terms": "many"}, None, "reasoning-gym refuses the settings of chain_sum: TypeError"),
        ("chain_sum", {"seed": 1}, None, "seed stands beside dataset"),
        ("gcd", {}, 4, "level 4, expected 0 to 3"),
        ("gcd", {}, {"terms": 0}, r"Expected attributes and levels: num_terms \(0 to 3\), value \(0 to 3\)"),
        ("gcd", {}, {"value": -1}, r"value: -1. Expected"),
        ("gcd", {"max_value": 5}, 1, "sets max_value, which its curriculum sets too"),
        ("acre", {}, 0, "has no curriculum"),
        ("arc_agi", {"board_format_opts": {"colour": 1}}, None, "Expected: alphabet: "),
    ],
)
def test_a_mistake_is_answered(name: str, config: dict[str, Any], curriculum: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_generator(name, config, curriculum)


def test_without_the_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(library.metadata, "version", missing)
    for ask in (check_installed, lambda: make_generator("gcd", {}, None)):
        with pytest.raises(InputError, match=r"pip install 'heal-distill\[reasoning-gym\]'.*C compiler"):
            ask()


@needs_package
def test_a_package_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("No module named 'pycosat'")

    monkeypatch.setattr(library, "import_module", broken)
    with pytest.raises(InputError, match=r"reasoning-gym .* cannot be imported: No module named 'pycosat'"):
        make_generator("gcd", {}, None)
