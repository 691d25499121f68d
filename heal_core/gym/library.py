"""The optional package reasoning-gym: importing it, and a generator with its settings.

What does not belong here: what HEAL asks beyond its scorers (`rules`), rows (`generate`), verdicts (`verify/gym`).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from importlib import import_module, metadata
from typing import Any

from heal_core.errors import InputError
from heal_core.gym.rules import REFUSED

PACKAGE = "reasoning-gym"

_REMEDY = "Install it with `pip install 'heal-distill[reasoning-gym]'`; that needs a C compiler."
_BESIDE = ("seed", "size")  # settings of every generator that have a key of their own


def library_version() -> str | None:
    """Return the version of reasoning-gym, None where it is not installed."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def check_installed() -> None:
    """Look for reasoning-gym without importing it.

    Raises:
        InputError: If it is not installed.
    """
    if library_version() is None:
        raise InputError(f"problems of reasoning-gym need the package {PACKAGE}, which is not installed. {_REMEDY}")


def import_library() -> None:
    """Import reasoning-gym: about a second, once per process.

    Raises:
        InputError: If it cannot be imported.
    """
    check_installed()
    try:
        import_module("reasoning_gym")
    except ImportError as error:
        raise InputError(f"{PACKAGE} {library_version()} cannot be imported: {error}. {_REMEDY}") from error


def make_generator(
    name: str,
    config: Mapping[str, Any],
    curriculum: Mapping[str, int] | int | None,
    *,
    size: int = 1,
    seed: int = 0,
) -> Any:
    """Return the generator (reasoning-gym's `ProceduralDataset`) with these settings.

    Args:
        name: As reasoning-gym registers it, such as `chain_sum`.
        config: Settings of the generator; what is left out has its default.
        curriculum: Levels of the attributes of its curriculum, or one level for all.
        size: How many entries it has.
        seed: What they depend on.

    Raises:
        InputError: If the package is missing, or name, settings or levels cannot be meant.
    """
    import_library()
    factory: Any = import_module("reasoning_gym.factory")
    if name in REFUSED:
        raise InputError(f"the generator {name} of reasoning-gym cannot be used: {REFUSED[name]}.")
    if name not in factory.DATASETS:
        near = difflib.get_close_matches(name, factory.DATASETS, n=3)
        meant = f" Is {' or '.join(near)} meant?" if near else ""
        raise InputError(
            f"reasoning-gym {library_version()} has no generator {name!r}.{meant} "
            f"Expected one of {', '.join(sorted(set(factory.DATASETS) - set(REFUSED)))}."
        )
    kind, config_kind = factory.DATASETS[name]
    settings = _settings(name, config, config_kind)
    try:
        if curriculum is None:
            filled = config_kind(**settings)
        else:
            filled = _at_levels(factory, name, settings, curriculum)
        filled = dataclasses.replace(filled, size=size, seed=seed)
        return kind(config=filled)
    except InputError:
        raise
    except Exception as error:  # each generator checks its settings in its own way
        raise InputError(
            f"reasoning-gym refuses the settings of {name}: {type(error).__name__}: {str(error).rstrip('.')}. "
            f"Its defaults: {_defaults(config_kind)}."
        ) from error


def _settings(name: str, config: Mapping[str, Any], config_kind: type) -> dict[str, Any]:
    """Return the settings with nested ones as the generator's own types."""
    for key in _BESIDE:
        if key in config:
            raise InputError(f"config of {name}: {key} stands beside dataset and config, not in it; move it there.")
    fields = {field.name: field for field in dataclasses.fields(config_kind)}
    unknown = sorted(set(config) - set(fields))
    if unknown:
        raise InputError(f"config of {name}: unknown {', '.join(unknown)}. Expected: {_defaults(config_kind)}.")
    settings = dict(config)
    for key, value in config.items():
        factory = fields[key].default_factory
        default: Any = None if factory is dataclasses.MISSING else factory()
        if isinstance(value, Mapping) and dataclasses.is_dataclass(default) and not isinstance(default, type):
            try:
                settings[key] = dataclasses.replace(default, **value)
            except TypeError as error:
                raise InputError(f"config of {name}: {key}: {error}. Expected: {_defaults(type(default))}.") from error
    return settings


def _at_levels(factory: Any, name: str, settings: dict[str, Any], levels: Mapping[str, int] | int) -> Any:
    """Return the generator's settings at levels of its curriculum; attributes without one are at their first."""
    if not factory.has_curriculum(name):
        raise InputError(f"the generator {name} has no curriculum; leave `curriculum` out, and set its config.")
    curriculum = factory.create_curriculum(name)
    attributes = curriculum.attributes
    shown = ", ".join(f"{key} (0 to {len(attribute.levels) - 1})" for key, attribute in attributes.items())
    if isinstance(levels, int):
        highest = max((len(attribute.levels) for attribute in attributes.values()), default=1) - 1
        if not 0 <= levels <= highest:
            raise InputError(f"curriculum of {name}: level {levels}, expected 0 to {highest}.")
        curriculum.set_global_level(levels)
    else:
        for attribute, level in levels.items():
            if attribute not in attributes or not 0 <= level < len(attributes[attribute].levels):
                raise InputError(
                    f"curriculum of {name}: {attribute}: {level}. Expected attributes and levels: {shown}."
                )
            curriculum.set_attr_level(attribute, level)
    made = curriculum.generate_configuration(settings)
    contested = sorted(key for key, value in settings.items() if getattr(made, key) != value)
    if contested:
        raise InputError(
            f"config of {name} sets {', '.join(contested)}, which its curriculum sets too; leave it out of one of them."
        )
    return made


def _defaults(config_kind: type) -> str:
    """Return the settings of a generator with their defaults, as a message shows them."""
    shown = []
    for field in dataclasses.fields(config_kind):
        if field.name in _BESIDE:
            continue
        if field.default_factory is not dataclasses.MISSING:
            shown.append(f"{field.name}: {field.default_factory()}")
        elif field.default is not dataclasses.MISSING:
            shown.append(f"{field.name}: {field.default}")
        else:
            shown.append(field.name)
    return ", ".join(shown) or "no settings"
