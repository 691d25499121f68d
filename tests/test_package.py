"""What a wheel of HEAL holds: every package of the source. An editable install would not miss one."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    roots = ("heal_core", "tasks", "flows", "deployments")
    found = [path.parent.relative_to(ROOT) for root in roots for path in (ROOT / root).rglob("__init__.py")]
    assert [name for path in found if (name := ".".join(path.parts)) not in listed] == []
    assert [name for name in listed if not (ROOT / name.replace(".", "/")).is_dir()] == []


def test_data_files_are_listed() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = [f"{package.replace('.', '/')}/{pattern}" for package, names in data.items() for pattern in names]
    read = [path for path in (ROOT / "heal_core").rglob("*") if path.suffix in {".sql", ".yaml", ".md", ".j2", ".css"}]
    assert [path for path in read if not any(path.match(pattern) for pattern in patterns)] == []
