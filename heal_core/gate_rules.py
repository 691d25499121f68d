"""The wording that gates look for: data (`gate_rules.yaml`), to which a run may add patterns of its own.

Patterns are checked when a config is read: that they are regular expressions, match something, and do not take an age.
What does not belong here: which gate uses which kind of them, and how (`gates`, `seams`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import regex
import yaml
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from heal_core.errors import ConfigError

MAX_PATTERN_CHARS = 1000
MAX_PATTERNS = 500
SEARCH_SECONDS = 10.0
"""A search that takes longer ends the run with the pattern's name: what the gates say must not depend on the clock."""
_PROBE_SECONDS = 2.0
_PROBES = ("a" * 2000 + "!", *(part * 2000 for part in ("a", "1", " ", "a ", "1+", "等", "\n")))
"""Texts on which a pattern with nested repeats runs away; one that is meant takes milliseconds."""

KINDS = ("meta_references", "hesitations", "restarts")


class GateRules(BaseModel):
    """Regular expressions without case, by what they tell: a run's own, or those that HEAL ships.

    Each kind is a list of patterns, or of mappings with a `pattern` and a `note`, or such lists by language. A text
    in place of all of it is the path of a YAML file that holds it. What is kept are the patterns: two files with the
    same patterns are the same rules.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    meta_references: tuple[str, ...] = ()
    """Words that speak of the hint or the answer (G2)."""
    hesitations: tuple[str, ...] = ()
    """Words of doubt (G6)."""
    restarts: tuple[str, ...] = ()
    """Words that begin anew (G8)."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if given is None:
            return {}
        where = "gates.rules"
        if isinstance(given, str | Path):
            where, given = f"gates.rules: {given}", _read_file(Path(given))
        if not isinstance(given, Mapping):
            return given
        return {kind: _flatten(f"{where}: {kind}", rules) if kind in KINDS else rules for kind, rules in given.items()}

    @field_validator(*KINDS)
    @classmethod
    def _check(cls, patterns: tuple[str, ...], info: Any) -> tuple[str, ...]:
        if len(patterns) > MAX_PATTERNS:
            raise ValueError(f"gates.rules: {info.field_name} has {len(patterns)} patterns, at most {MAX_PATTERNS} go")
        for number, pattern in enumerate(patterns, start=1):
            if fault := _fault(pattern):
                raise ValueError(f"gates.rules: {info.field_name}, pattern {number} ({pattern[:80]!r}): {fault}")
        return tuple(dict.fromkeys(patterns))

    def __add__(self, other: GateRules) -> GateRules:
        """Return the rules of both; those of `other` come last."""
        return self.model_copy(
            update={kind: tuple(dict.fromkeys((*getattr(self, kind), *getattr(other, kind)))) for kind in KINDS}
        )


@cache
def shipped_rules() -> GateRules:
    """Return the rules of `gate_rules.yaml`."""
    given = yaml.safe_load((resources.files("heal_core") / "gate_rules.yaml").read_text(encoding="utf-8"))
    fragments = given.pop("fragments")
    rules = {kind: _flatten(kind, by_language) for kind, by_language in given.items()}
    for name, text in fragments.items():
        rules = {kind: [pattern.replace(f"{{{name}}}", text) for pattern in own] for kind, own in rules.items()}
    return GateRules().model_copy(update={kind: tuple(own) for kind, own in rules.items()})


def find_all(pattern: str, text: str) -> Iterator[tuple[int, int]]:
    """Yield where a pattern occurs, as [start, end), from left to right; typographic apostrophes count as plain ones.

    Raises:
        ConfigError: If the search takes longer than `SEARCH_SECONDS`.
    """
    try:
        for match in _compiled(pattern).finditer(plain_quotes(text), timeout=SEARCH_SECONDS):
            yield match.span()
    except TimeoutError:
        raise ConfigError(
            f"the gates' pattern {pattern!r} took longer than {SEARCH_SECONDS:g} s on a text of {len(text)} characters "
            f"that begins {text[:60]!r}. Write it without repeats within repeats, or with bounds ({{0,20}} for *). "
            "What was sampled is stored; the next run goes on from there."
        ) from None


def find_first(pattern: str, text: str) -> int | None:
    """Return where a pattern occurs first, None where it does not.

    Raises:
        ConfigError: As `find_all`.
    """
    return next((start for start, _ in find_all(pattern, text)), None)


def count_matches(patterns: tuple[str, ...], text: str) -> int:
    """Return how many places of a text patterns match; places that overlap count as one.

    Raises:
        ConfigError: As `find_all`.
    """
    num, end = 0, -1
    for start, stop in sorted(span for pattern in patterns for span in find_all(pattern, text)):
        num += start >= end
        end = max(end, stop)
    return num


def plain_quotes(text: str) -> str:
    """Return a text with plain apostrophes, of the same length."""
    return text.replace("\u2019", "'")


@cache
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern, regex.IGNORECASE)


@cache
def _fault(pattern: str) -> str | None:
    """Return what is wrong with a pattern, None where nothing is."""
    if len(pattern) > MAX_PATTERN_CHARS:
        return f"it has {len(pattern)} characters, at most {MAX_PATTERN_CHARS} go"
    try:
        compiled = _compiled(pattern)
    except regex.error as error:
        return f"not a regular expression: {error}"
    if compiled.search(""):
        return "it matches an empty text, so that it would match everywhere"
    for text in _PROBES:
        try:
            compiled.search(text, timeout=_PROBE_SECONDS)
        except TimeoutError:
            return (
                f"it takes longer than {_PROBE_SECONDS:g} s on {len(text)} characters: write it without repeats within "
                "repeats, or with bounds ({0,20} for *)"
            )
    return None


def _read_file(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(f"gates.rules: {path} cannot be read: {error.strerror}. Give a YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"gates.rules: {path} is not valid YAML: {error}") from error


def _flatten(where: str, rules: Any) -> list[Any]:
    """Return the patterns of a list, or of lists by language.

    Raises:
        ValueError: If a rule is neither a pattern nor a mapping with one.
    """
    if isinstance(rules, Mapping):
        return [pattern for language, own in rules.items() for pattern in _flatten(f"{where}.{language}", own)]
    if not isinstance(rules, list | tuple):
        raise ValueError(f"{where} is {rules!r}: a list of patterns was expected, or such lists by language")
    patterns = []
    for number, rule in enumerate(rules, start=1):
        pattern = rule.get("pattern") if isinstance(rule, Mapping) and set(rule) <= {"pattern", "note"} else rule
        if not isinstance(pattern, str):
            raise ValueError(
                f"{where}, pattern {number} is {rule!r}: a text was expected, or a mapping of `pattern` and `note`"
            )
        patterns.append(pattern)
    return patterns
