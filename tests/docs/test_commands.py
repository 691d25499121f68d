"""Every command in the pages exists with its options and settings. Nothing is run here.

Queries of `heal sql` are run by `test_sql_cookbook`; what commands print is shown as it was seen.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from flows.cli.main import app
from heal_core.config import parse_config
from heal_core.config_reference import SHOWN_ONCE, list_settings
from tests.docs.pages import PAGES, ROOT, blocks, name_of, prose

HEAL = re.compile(
    r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?heal (?!stage I)"
)  # "heal stage I: .." is what training prints
OPERATORS = {"|", "||", "&&", ";", ">", "<", "&"}
OVERRIDE = re.compile(r"([a-z_]+(?:\.[a-z_]+)*)=.+")
MODEL_KEYS = {setting.key.split(".", 1)[1] for setting in list_settings() if setting.key.startswith("teacher.")}
KEYS = {setting.key for setting in list_settings()} | {f"{m}.{key}" for m in SHOWN_ONCE[:2] for key in MODEL_KEYS}


def commands_in(text: str) -> Iterator[str]:
    """Yield the commands of a block that begin with `heal`, each on one line, without prompt and variables."""
    lines = iter(text.splitlines())
    for line in lines:
        if not HEAL.match(line):
            continue
        command = HEAL.sub("heal ", line)
        while command.endswith("\\") or command.count('"') % 2:  # it goes on
            command = command.removesuffix("\\") + " " + next(lines)
        yield command


def all_commands() -> list[tuple[str, str, bool]]:
    """Return page and command, of fenced blocks (whole) and of code within sentences (perhaps in part)."""
    found = []
    for page in PAGES:
        found += [(name_of(page), command, True) for _, text in blocks(page) for command in commands_in(text)]
        inline = re.findall(r"`(heal [^`]+)`", prose(page))
        found += [(name_of(page), " ".join(command.split()), False) for command in inline]
    return list(dict.fromkeys(found))


def words_of(command: str) -> list[str]:
    """Return the arguments of `heal`, up to what the shell does with its output."""
    words = shlex.split(command, comments=True)[1:]
    end = next((place for place, word in enumerate(words) if word in OPERATORS), len(words))
    return words[:end]


def parse(words: list[str], is_whole: bool) -> dict[str, Any]:
    """Return the parameters of a command line; one that names no command or option of `heal` raises.

    So does a whole one that lacks an argument.
    """
    command: Any = typer.main.get_command(app)
    words = list(words)
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"heal has no command {words[0]}"
        command = command.commands[words.pop(0)]
    context = command.context_class(command, info_name="heal", allow_extra_args=True)
    given, left, _ = command.make_parser(context).parse_args(words)
    assert not left, f"{left} is too much"
    lacking = [parameter.name for parameter in command.params if parameter.required and not given.get(parameter.name)]
    assert not (is_whole and lacking), f"{lacking} is missing"
    return given


ALL = all_commands()


@pytest.mark.parametrize(
    ("command", "is_whole"),
    [pytest.param(command, whole, id=f"{page}: {command[:70]}") for page, command, whole in ALL],
)
def test_a_command_exists_with_its_options(command: str, is_whole: bool) -> None:
    words = words_of(command)
    parse(words, is_whole)
    settings = [found[1] for word in words if (found := OVERRIDE.fullmatch(word)) and "." in found[1]]
    assert [key for key in settings if key not in KEYS and key != "a.b"] == []


def test_commands_are_found_and_mistakes_are_seen() -> None:
    assert len(ALL) > 100
    assert {page for page, _, _ in ALL} >= {"README.md", "docs/howto.md", "docs/operations.md"}
    with pytest.raises(Exception, match="untill"):
        parse(["run", "my.yaml", "--untill", "07:00"], True)
    with pytest.raises(AssertionError, match="no command"):
        parse(["stats"], True)
    with pytest.raises(AssertionError, match="missing"):
        parse(["run", "--json"], True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_modules_and_targets_exist(page: Path) -> None:
    text = page.read_text()
    modules = set(re.findall(r"python3? (?:-P )?-m ([\w.]+)", text))
    assert [module for module in sorted(modules) if importlib.util.find_spec(module) is None] == []
    makefile = (ROOT / "Makefile").read_text()
    targets = set(
        re.findall(r"(?:^|`)(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)", "\n".join(t for _, t in blocks(page)), re.M)
    )
    targets |= set(re.findall(r"`make ([a-z][a-z-]*)`", prose(page)))
    assert [target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, re.M)] == []


def test_settings_in_yaml_are_meant() -> None:
    """Each block with settings of a run is a config, once it has what every run needs."""
    groups = {key.split(".")[0] for key in KEYS}
    found = 0
    for page in PAGES:
        for text in (text for language, text in blocks(page) if language == "yaml"):
            settings = yaml.safe_load(text)
            if not settings.keys() & groups:
                continue  # of another program
            settings.setdefault("workspace", "w")
            for model in ("teacher", "student"):
                settings.setdefault(model, {}).setdefault("model_name_or_path", model)
            if not settings.setdefault("problems", {}).keys() & {"path", "sources"}:
                settings["problems"]["path"] = "p"
            parse_config(settings, name_of(page))
            found += 1
    assert found > 10
