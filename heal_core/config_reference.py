"""The page of settings in the documents, written from the config classes.

    python -m heal_core.config_reference > docs/configuration.md

Keys, defaults and ranges are those that pydantic knows, meanings the docstrings under the fields; "(pace)" stands at
what is in no run's identity. The prose around the tables is `config_reference.md`, where a line `{table a, b.c}` is
replaced by the settings at and below these keys. What does not belong here: the meanings, which stand with the fields.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from heal_core.config import RunConfig
from heal_core.config_ranges import describe_choices, describe_default, forms
from heal_core.pure import AUTO

COMMAND = "python -m heal_core.config_reference > docs/configuration.md"

SHOWN_ONCE = ("student", "scorer", "problems.decontaminate[]")
"""Groups whose keys are those of another one, `teacher` or `problems.sources[]`."""
IDENTIFIED_BY_CONTENT = ("evaluation.student", "evaluation.lm_eval.include_path")
"""Paths that are in no identity, since what lies there is, wherever that may be: they are not pace."""

_PLACEHOLDER = re.compile(r"^\{table (.+)\}$", re.MULTILINE)

Group = TypeVar("Group", bound=BaseModel)


@dataclass(frozen=True)
class Setting:
    """A key of the config as the page shows it; keys of the items of a list have `[]` before them.

    Attributes:
        default: What holds where the key is left out; "required" where it must not be.
        choices: Which values are taken.
        meaning: The docstring under the field; empty without one.
        is_pace: Whether a run with another value is the same run.
    """

    key: str
    default: str
    choices: str
    meaning: str
    is_pace: bool


def configuration_page() -> str:
    """Return the page as Markdown: the template with its tables filled in."""
    tables = list_tables()
    return _PLACEHOLDER.sub(lambda found: _markdown(tables[found[1]]), _template().replace("{command}", COMMAND))


def list_settings() -> list[Setting]:
    """Return every setting of a run, those of a group that is like another one left out."""
    return list(_settings_below(RunConfig, ""))


def list_tables() -> dict[str, list[Setting]]:
    """Return the settings of each table, by what its placeholder names: a setting is in the one that names it best."""
    tables: dict[str, list[Setting]] = {named: [] for named in _PLACEHOLDER.findall(_template())}
    table_of = {place: table for named, table in tables.items() for place in named.split(", ")}
    for setting in list_settings():
        places = [place for place in table_of if f"{setting.key}.".startswith(f"{place}.")]
        if places:
            table_of[max(places, key=len)].append(setting)
    return tables


def _template() -> str:
    return (resources.files("heal_core") / "config_reference.md").read_text(encoding="utf-8")


def _markdown(settings: Sequence[Setting]) -> str:
    lines = ["| key | default | range | meaning |", "|---|---|---|---|"]
    for setting in settings:
        meaning = setting.meaning.rstrip(".") + " (pace)" * setting.is_pace
        cells = (f"`{setting.key.rsplit('[].', 1)[-1]}`", setting.default, setting.choices, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _settings_below(group: type[BaseModel], prefix: str) -> Iterator[Setting]:
    schemas, meanings = group.model_json_schema()["properties"], _docstrings(group)
    for name, field in group.model_fields.items():
        key, inner = prefix + name, _group_of(field.annotation)
        if key in SHOWN_ONCE:
            continue
        is_list = any(form.get("type") == "array" for form in forms(schemas[name]))
        if inner is None or is_list or field.default is None:  # a group that is always there has no row of its own
            default = field.get_default(call_default_factory=True)
            yield Setting(
                key=key,
                default="required" if field.is_required() else describe_default(default),
                choices=describe_choices(name, schemas[name]),
                meaning=meanings.get(name, ""),
                is_pace="[]" not in key and _is_pace(key, is_group=inner is not None),
            )
        below = f"{key}[]" if is_list else key
        if inner is not None and below not in SHOWN_ONCE:
            yield from _settings_below(inner, f"{below}.")


def _group_of(annotation: Any) -> type[BaseModel] | None:
    """Return the config class in an annotation: of `tuple[A, ...] | None` A."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((group for part in get_args(annotation) if (group := _group_of(part)) is not None), None)


def _docstrings(group: type[BaseModel]) -> dict[str, str]:
    """Return what stands under each field, in the class or in one that it inherits from, on one line.

    Read here and not by pydantic (`use_attribute_docstrings`), which would do so at every start of HEAL.
    """
    found: dict[str, str] = {}
    for owner in reversed([cls for cls in group.__mro__ if issubclass(cls, BaseModel) and cls is not BaseModel]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def _is_pace(key: str, is_group: bool) -> bool:
    """Return whether a run keeps its identity when this setting is another one, or a group is not there."""
    if key in IDENTIFIED_BY_CONTENT:
        return False
    other = _altered(_everything(), key.split("."), is_group)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's, of values that are not of their field's type
        return other.identity() == _everything().identity()


@cache
def _everything() -> RunConfig:
    """Return a config with every group in it, and in which each decides something; values need not be valid."""
    config = _filled(RunConfig)
    return config.model_copy(update={"pure": config.pure.model_copy(update={"score": AUTO})})


def _filled(group: type[Group]) -> Group:
    values: dict[str, Any] = {}
    for name, field in group.model_fields.items():
        inner = _group_of(field.annotation)
        if inner is not None and not isinstance(field.default, tuple):
            values[name] = _filled(inner)
        elif field.is_required():
            values[name] = "given"
    return group.model_construct(**values)


def _altered(config: Group, names: Sequence[str], is_group: bool) -> Group:
    """Return the config with another value at this place, or without the group there; unchecked."""
    name, *below = names
    value = getattr(config, name)
    if below:
        other = _altered(value, below, is_group)
    elif is_group:
        other = None
    else:
        other = not value if isinstance(value, bool) else "another"
    return config.model_copy(update={name: other})


if __name__ == "__main__":
    sys.stdout.write(configuration_page())
