"""deployments/prefect.yaml and what the environment changes in it, without a server."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

from deployments.local import MODELS_LIMIT, Settings, read_deployments
from heal_core.errors import ConfigError
from tasks.slots import LIMIT_NAME

ROOT = Path(__file__).parents[2]
UNCHANGED = Settings(
    home=Path("unused"), port=4200, config=None, cron=None, evaluation_cron=None, timezone=None, until=None
)


def by_name(settings: Settings) -> dict[str, Any]:
    return {deployment["name"]: deployment for deployment in read_deployments(settings)["deployments"]}


@pytest.mark.parametrize("name", ["nightly", "evaluate-latest", "backfill"])
def test_a_deployment_names_a_flow_and_gives_what_it_takes(name: str) -> None:
    deployment = by_name(UNCHANGED)[name]
    path, function = deployment["entrypoint"].split(":")
    assert (ROOT / path).is_file()
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), function)
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)
    assert deployment["work_pool"]["name"] == "heal"


def test_the_limit_on_models_is_the_one_that_runs_ask() -> None:
    # not imported from there: the server's environment is set before Prefect is imported
    assert MODELS_LIMIT == LIMIT_NAME


def test_nights_and_evaluations_have_a_schedule_and_a_backfill_has_none() -> None:
    schedules = {name: deployment.get("schedules", []) for name, deployment in by_name(UNCHANGED).items()}
    assert {name: len(found) for name, found in schedules.items()} == {
        "nightly": 1,
        "evaluate-latest": 1,
        "backfill": 0,
    }
    assert all(schedule["timezone"] for found in schedules.values() for schedule in found)


def test_the_environment_replaces_settings(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text((ROOT / "deployments/lab/demo.yaml").read_text())
    changed = by_name(
        dataclasses.replace(
            UNCHANGED,
            config=str(config),
            cron="30 1 * * 1-5",
            evaluation_cron="0 9 * * *",
            timezone="Europe/Berlin",
            until="05:45",
        )
    )
    assert {deployment["parameters"]["config"] for deployment in changed.values()} == {str(config)}
    assert changed["nightly"]["schedules"] == [{"cron": "30 1 * * 1-5", "timezone": "Europe/Berlin"}]
    assert changed["evaluate-latest"]["schedules"] == [{"cron": "0 9 * * *", "timezone": "Europe/Berlin"}]
    assert [deployment["parameters"].get("until") for deployment in changed.values()] == ["05:45", None, None]
    assert {deployment["work_pool"]["job_variables"]["env"]["TZ"] for deployment in changed.values()} == {
        "Europe/Berlin"
    }


def test_an_empty_until_means_never() -> None:
    assert by_name(dataclasses.replace(UNCHANGED, until=""))["nightly"]["parameters"]["until"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timezone": "Mars/Base"}, "no time zone 'Mars/Base'"),
        ({"until": "7pm"}, "7pm"),
        ({"cron": "61 * * * *"}, "no cron line"),
        ({"config": "nothing.yaml"}, "nothing.yaml cannot be read"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(change: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_deployments(dataclasses.replace(UNCHANGED, **change))  # type: ignore[arg-type]


def test_a_port_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAL_PORT", "http")
    with pytest.raises(ConfigError, match="HEAL_PORT is 'http'"):
        Settings.from_environment()
