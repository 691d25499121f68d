"""The wording that gates look for: what ships, what a run adds, and what is refused as a pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from heal_core.config import RunConfig, load_config, parse_config
from heal_core.errors import ConfigError
from heal_core.gate_rules import GateRules, count_matches, find_all, find_first, shipped_rules
from heal_core.gates import GatesConfig
from heal_core.keys import content_key

SETTINGS: dict[str, Any] = {
    "workspace": "w",
    "problems": {"path": "p.jsonl"},
    "teacher": {"model_name_or_path": "t"},
    "student": {"model_name_or_path": "s"},
}


def with_gates(**gates: Any) -> RunConfig:
    return parse_config({**SETTINGS, "gates": gates}, "test")


def key(config: RunConfig) -> str:
    return content_key(config.identity())


def test_each_shipped_pattern_passes_what_a_users_own_has_to() -> None:
    shipped = shipped_rules()
    assert GateRules(**shipped.model_dump()) == shipped
    assert all(getattr(shipped, kind) for kind in GateRules.model_fields)
    assert not any("{answer}" in pattern for pattern in shipped.meta_references)


def test_each_shipped_pattern_has_a_language_and_a_note() -> None:
    given = yaml.safe_load((Path(__file__).parents[2] / "heal_core/gate_rules.yaml").read_text())
    for kind in GateRules.model_fields:
        assert {"en", "zh"} <= given[kind].keys()
        for rules in given[kind].values():
            assert all(rule.keys() == {"pattern", "note"} and rule["note"] for rule in rules)


@pytest.mark.parametrize(
    "rules",
    [
        {"meta_references": [r"\bsolution key\b"]},
        {"meta_references": [{"pattern": r"\bsolution key\b", "note": "our teacher's word for it"}]},
        {"meta_references": {"en": [r"\bsolution key\b"], "de": []}},
    ],
)
def test_a_file_and_a_list_with_the_same_patterns_are_the_same_run(rules: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules))
    inline, from_file = with_gates(rules=rules), with_gates(rules=str(path))
    assert inline.gates.rules == GateRules(meta_references=(r"\bsolution key\b",))
    assert key(inline) == key(from_file) != key(with_gates())
    # what is stored of a run needs the file no more
    path.unlink()
    assert parse_config(from_file.model_dump(mode="json"), "stored") == from_file


def test_a_file_with_other_patterns_is_another_run(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    keys = set()
    for pattern in ("one", "two"):
        path.write_text(yaml.safe_dump({"restarts": [pattern]}))
        keys.add(key(with_gates(rules=str(path))))
    assert len(keys) == 2


def test_settings_that_came_later_are_in_the_identity_only_where_they_are_used() -> None:
    # an older HEAL wrote these and no others
    assert with_gates().identity()["gates"].keys() == {
        "enabled", "early_fraction", "late_fraction", "min_length_ratio", "min_natural_paths",
    }  # fmt: skip
    changes = {
        "form": ["G9"],
        "max_foreign_share": 0.5,
        "loop_ngram": 9,
        "loop_repeats": 9,
        "rules": {"restarts": ["x"]},
    }
    for name, value in changes.items():
        assert name in with_gates(**{name: value}).identity()["gates"]
    demo = load_config(Path(__file__).parents[2] / "deployments/lab/demo.yaml")
    assert key(demo) == "251da1d90a12c09aa5f8f62bddbe60ac"


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"rules": {"restarts": ["fine", "(half"]}}, r"gates.rules: restarts, pattern 2 \('\(half'\).*missing \)"),
        ({"rules": {"restarts": ["x*"]}}, "matches an empty text"),
        ({"rules": {"restarts": ["x" * 1001]}}, "1001 characters, at most 1000"),
        ({"rules": {"restarts": [7]}}, "pattern 1 is 7: a text was expected"),
        ({"rules": {"restarts": "x"}}, "a list of patterns was expected"),
        ({"rules": {"restarts": [{"pattern": "x", "why": "y"}]}}, "`pattern` and `note`"),
        ({"rules": {"restart": ["x"]}}, "unknown key 'gates.rules.restart'.*did you mean 'restarts'"),
        ({"rules": "no/such.yaml"}, "no/such.yaml cannot be read: No such file"),
        ({"enabled": ["G7"]}, "gates.enabled has G7, which is set in gates.form"),
        ({"form": ["G2"]}, "gates.form has G2, which is set in gates.enabled"),
        ({"enabled": ["G6"]}, "reported and never refuses"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_place(gates: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_gates(**gates)


def test_a_file_that_is_no_yaml_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("restarts: [")
    with pytest.raises(ConfigError, match=r"rules\.yaml is not valid YAML"):
        with_gates(rules=str(tmp_path / "rules.yaml"))


def test_a_pattern_that_runs_away_is_refused_before_anything_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heal_core.gate_rules._PROBE_SECONDS", 0.05)
    with pytest.raises(ConfigError, match=r"restarts, pattern 1 .*takes longer than 0.05 s"):
        with_gates(rules={"restarts": [r"(a|aa)+$"]})


def test_a_search_that_runs_away_all_the_same_ends_with_the_patterns_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heal_core.gate_rules.SEARCH_SECONDS", 0.05)
    with pytest.raises(ConfigError, match=r"\(z\|zz\)\+\$.*longer than 0.05 s on a text of 61 characters"):
        find_first(r"(z|zz)+$", "z" * 60 + "!")


def test_own_patterns_are_added_to_those_that_ship() -> None:
    both = shipped_rules() + GateRules(restarts=("own", shipped_rules().restarts[0]))
    assert both.restarts == (*shipped_rules().restarts, "own")
    assert both.hesitations == shipped_rules().hesitations
    assert GatesConfig().rules == GateRules()


def test_matches_that_overlap_are_one_place() -> None:
    # "but wait" at 0..8, "wait," at 4..9 overlaps it; "wait." at 10 is another
    assert count_matches((r"but wait", r"wait[,.]"), "but wait, wait.") == 2
    assert count_matches((), "wait") == 0


def test_case_and_typographic_apostrophes_make_no_difference() -> None:
    assert list(find_all("let's", "So LET\u2019S go, let's.")) == [(3, 8), (13, 18)]
