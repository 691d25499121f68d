"""The committed page of settings is the one that the config classes make, and says something of each."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from heal_core.config import RunConfig, parse_config
from heal_core.config_reference import COMMAND, SHOWN_ONCE, configuration_page, list_settings, list_tables

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
SETTINGS = {setting.key: setting for setting in list_settings()}


def test_the_page_is_that_of_the_classes() -> None:
    assert PAGE.read_text() == configuration_page(), f"docs/configuration.md is stale; renew it with: {COMMAND}"


def test_every_field_says_what_it_means() -> None:
    lacking = [key for key, setting in SETTINGS.items() if not setting.meaning]
    assert lacking == [], "put a docstring under these fields"


def test_every_setting_is_in_one_table() -> None:
    tabled = [setting.key for settings in list_tables().values() for setting in settings]
    assert sorted(tabled) == sorted(SETTINGS), "name them in a {table ..} of heal_core/config_reference.md"
    assert all(list_tables().values()), "a {table ..} of heal_core/config_reference.md names no setting"
    groups = {key.split(".")[0] for key in SETTINGS} | {group for group in SHOWN_ONCE if "." not in group}
    assert groups == RunConfig.model_fields.keys()


def test_a_run_with_the_defaults_of_the_page_is_a_run_without_them() -> None:
    needed = {
        "workspace": "w",
        "problems": {"path": "p"},
        **{m: {"model_name_or_path": m} for m in ("teacher", "student")},
    }
    settings: dict[str, Any] = deepcopy(needed)
    for key, setting in SETTINGS.items():
        *groups, name = key.split(".")
        inside = any(key.startswith(f"{other}.") for other, at in SETTINGS.items() if at.choices == "group")
        if inside or "[]" in key or setting.default in ("required", "none", "`1/3`"):
            continue
        group = settings
        for part in groups:
            group = group.setdefault(part, {})
        group[name] = yaml.safe_load(setting.default.strip("`"))
    assert len(settings) > 20
    assert parse_config(settings, "page") == parse_config(needed, "short")


@pytest.mark.parametrize(
    ("key", "default", "choices"),
    [
        ("workspace", "required", "text"),
        ("on_busy", "`refuse`", "`refuse`, `wait`"),
        ("breakpoints.window_fraction", "`1/3`", "above 0, to 1"),
        ("teacher.dtype", "`auto`", "`auto`, `float32`, `bfloat16`, `float16`"),
        ("curriculum.epochs", "`[2, 1, 2]`", "list of 3, each >= 1"),
        ("sft.save_every_seconds", "`600.0`", "above 0 s, or none"),
        ("sft.lora", "none", "group"),
        ("problems.sources[].reasoning_gym.seed", "`0`", ">= 0, below 2^32"),
        ("hints.sampling.max_tokens", "`512`", ">= 1 tokens"),
    ],
)
def test_ranges_are_told_as_they_are_checked(key: str, default: str, choices: str) -> None:
    assert (SETTINGS[key].default, SETTINGS[key].choices) == (default, choices)


def test_pace_is_what_no_identity_holds() -> None:
    paces = {key for key, setting in SETTINGS.items() if setting.is_pace}
    assert {"workspace", "teacher.batch_size", "teacher.server.max_tries", "teacher.price", "sft.device"} <= paces
    # with another of these a run is another one: a server says other things with other arguments
    assert not {"seed", "teacher.launch", "teacher.server.base_url", "evaluation.student", "sft.lora"} & paces
    assert "rollouts.use_imported" not in paces  # it is in an identity only where it is not the default
    assert not {key for key in paces if key.startswith(("pure.", "gates.", "problems.", "rollouts."))}


def test_a_setting_is_one_line_of_the_page() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(), re.MULTILINE)
    shown = [key.rsplit("[].", 1)[-1] for key in SETTINGS]
    assert set(shown) <= set(rows) and len(rows) >= len(shown)
