"""What the tests of several checks share: settings of a run on the lab, versions, a teacher to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from heal_core.config import RunConfig, parse_config

LAB = Path(__file__).parents[3] / "deployments/lab"


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., RunConfig]:
    """Return a function that builds a run's settings on the lab; `a__b=c` sets `a.b`."""

    def build(**settings: Any) -> RunConfig:
        tree: dict[str, Any] = {
            "workspace": str(tmp_path / "workspace"),
            "problems": {"path": str(LAB / "problems.jsonl"), "limit": 40, "duplicate_jaccard": 0.95},
            "teacher": {"model_name_or_path": str(LAB / "teacher"), "dtype": "float32"},
            "student": {"model_name_or_path": str(LAB / "student")},
            "rollouts": {"sampling": {"max_tokens": 224}},
            "hints": {"sampling": {"max_tokens": 48}},
        }
        for name, value in settings.items():
            *groups, last = name.split("__")
            group = tree
            for key in groups:
                group = group.setdefault(key, {})
            group[last] = value
        return parse_config(tree, "test")

    return build


@pytest.fixture
def fake_versions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that lets metadata tell these versions, None for a package that is not installed."""
    real = metadata.version

    def install(**versions: str | None) -> None:
        def version(name: str) -> str:
            found = versions[name] if name in versions else real(name)
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(metadata, "version", version)

    return install


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """Return a copy of the lab's teacher to damage."""
    return shutil.copytree(LAB / "teacher", tmp_path / "teacher")
