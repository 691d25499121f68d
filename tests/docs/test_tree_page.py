"""docs/tree.md has a line for every file, and names no file that is gone."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

SECTION = re.compile(r"^## (?P<title>[^\n]+)\n(?P<text>.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
ROOTS = ("flows", "tasks", "heal_core", "deployments", "benchmarks")
SUFFIXES = (".py", ".sql", ".yaml")
NAME = re.compile(r"[\w./-]+(?:\.(?:py|sql|yaml|md|toml|lock|log|jsonl)\b|/(?=\s))")


def names() -> list[tuple[str, str]]:
    """Return the files and folders that are named, each with the folder of its section, as paths from the root."""
    found = []
    for section in SECTION.finditer((ROOT / "docs/tree.md").read_text()):
        folder = section["title"] if section["title"].endswith("/") else ""
        found += [(folder, name) for name in NAME.findall(section["text"])]
    return found


def test_every_file_has_a_line() -> None:
    named = {folder + name for folder, name in names()}
    folders = tuple(path for path in named if path.endswith("/") and path.count("/") > 1)
    files = [path for root in ROOTS for path in (ROOT / root).rglob("*") if path.suffix in SUFFIXES]
    paths = [path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py"]
    assert len(paths) > 250
    assert [path for path in paths if path not in named and not path.startswith(folders)] == [], "docs/tree.md"


def test_every_folder_of_tests_has_a_line() -> None:
    named = {folder + name for folder, name in names()}
    folders = {path.parent.relative_to(ROOT).as_posix() + "/" for path in (ROOT / "tests/heal_core").rglob("test_*.py")}
    above = {folder.split("/", 3)[2] for folder in folders if folder.count("/") > 2}
    assert [name for name in sorted(above) if f"tests/heal_core/{name}/" not in named] == []


def test_no_line_is_of_a_file_that_is_gone() -> None:
    gone = [f"{folder}{name}" for folder, name in names() if not any((ROOT / f / name).exists() for f in (folder, ""))]
    assert gone == []
