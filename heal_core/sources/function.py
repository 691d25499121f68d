"""A function of the user's own as a source: `package.module:function`, called without arguments."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from heal_core.errors import InputError
from heal_core.sources.row import Refusal, SourceRow, as_written


def read_function(name: str) -> Iterator[SourceRow]:
    """Yield the rows that the function returns or yields; a row that is no mapping with the reason.

    Raises:
        InputError: If there is no such function, or it raises, or returns no rows.
    """
    function = _find(name)
    try:
        rows = enumerate(function(), start=1)
    except Exception as error:  # the user's code may raise anything
        raise InputError(_broke_off(name, 0, error)) from error
    line = 0
    while True:
        try:
            line, row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # the user's code may raise anything
            raise InputError(_broke_off(name, line, error)) from error
        if isinstance(row, Mapping):
            content: dict[str, Any] | Refusal = {str(key): as_written(value) for key, value in row.items()}
        else:
            content = Refusal(f"not_an_object: {type(row).__name__}, expected a mapping of columns")
        yield SourceRow(name, line, name, content)


def _find(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError(f"the function {name!r} is not of the form package.module:function, such as my_rows:problems.")
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.append(here)  # as relative paths count from where heal is started; last, so that it hides nothing
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # importing runs the user's code
        raise InputError(
            f"the function {name} cannot be imported: {type(error).__name__}: {error}. Expected "
            f"package.module:function, installed, or in the folder where heal is started ({here})."
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if not callable(function):
        raise InputError(f"{name} is {type(function).__name__}, expected a function that returns rows.")
    return function


def _broke_off(name: str, num_rows: int, error: Exception) -> str:
    return (
        f"the function {name} failed after {num_rows} rows: {type(error).__name__}: {error}. "
        "Expected an iterable of mappings, such as a list of dictionaries."
    )
