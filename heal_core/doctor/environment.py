"""The Python environment and the machine: interpreter, platform, versions of packages, clock.

Judged by metadata alone, so that this works where a package is broken: none is imported.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from heal_core.doctor.finding import Finding, State

PACKAGE = "heal-distill"
_NAMED = ("prefect", "fastapi", "sqlalchemy", "duckdb", "torch", "transformers", "trl")
_SANDBOX_SECONDS = 10.0
_CONSEQUENCES = {
    "fastapi": "a newer one breaks every flow",
    "sqlalchemy": "with a newer one cron schedules create no runs",
}


def check_python() -> Finding:
    """Judge the interpreter by the range in the installed package's metadata."""
    version = platform.python_version()
    required = str(metadata.metadata(PACKAGE)["Requires-Python"] or "") if installed_version(PACKAGE) else ""
    if SpecifierSet(required).contains(version, prereleases=True):
        return Finding("python", "ok", f"{version}, {sys.executable}")
    remedy = "make the environment anew: `rm -rf .venv && make PYTHON=/path/to/python3.11 .venv/.stamp`"
    return Finding("python", "fail", f"{version}, but HEAL needs {required} ({sys.executable})", remedy)


def check_platform() -> Finding:
    """Judge the operating system: only Linux ends children whose parent was killed."""
    found = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPU cores"
    if sys.platform == "linux":
        return Finding("platform", "ok", found)
    remedy = "run nights on Linux; here, after a kill, `pgrep -fl 'heal_core|flows.server'`, and `kill` what is left"
    return Finding("platform", "warn", f"{found}: engines and training outlive a `heal` that is killed", remedy)


def check_sandbox() -> Finding:
    """Tell whether bubblewrap can shut a program off, as the checking of model-written code will need it."""
    program = shutil.which("bwrap")
    if program is None:
        return Finding("sandbox", "ok", "no bubblewrap, and none needed: this version runs no model-written code")
    command = [program, "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SANDBOX_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    else:
        said = done.stderr.strip() if done.returncode else ""
    if not said:
        return Finding("sandbox", "ok", f"{program} works; this version runs no model-written code")
    return Finding("sandbox", "ok", f"{program} does not work here ({said}), and is not needed by this version")


def check_clock() -> Finding:
    """Tell the local time, in which `heal run --until 07:00` is read."""
    return Finding("clock", "ok", f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z (UTC%z)}")


def check_versions() -> Iterator[Finding]:
    """Compare every package that HEAL needs, directly or not, with what its dependents ask for."""
    if installed_version(PACKAGE) is None:
        found = f"{PACKAGE} is not installed for {sys.executable}, so that no range of versions is known"
        yield Finding("packages", "fail", found, "in HEAL's folder `make .venv/.stamp`, then use .venv/bin/heal")
        return
    wanted = _wanted_versions()
    faults = [fault for name, ranges in wanted.items() if (fault := _version_fault(name, ranges))]
    yield from faults
    if not faults:
        named = ", ".join(f"{name} {installed_version(name)}" for name in _NAMED)
        yield Finding("packages", "ok", f"{named}; all {len(wanted)} are in the ranges asked for")


def installed_version(name: str) -> str | None:
    """Return the version of an installed package, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _wanted_versions() -> dict[str, dict[str, SpecifierSet]]:
    """Return for each package that HEAL needs, directly or not, who asks for which versions."""
    wanted: dict[str, dict[str, SpecifierSet]] = {}
    owners = [PACKAGE]
    for owner in owners:  # which grow meanwhile
        for requirement in map(Requirement, metadata.requires(owner) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                name = canonicalize_name(requirement.name)
                if name not in wanted and installed_version(name):
                    owners.append(name)
                ranges = wanted.setdefault(name, {})
                ranges[owner] = ranges.get(owner, SpecifierSet()) & requirement.specifier
    return wanted


def _version_fault(name: str, ranges: Mapping[str, SpecifierSet]) -> Finding | None:
    """Return what is wrong with a package's version; where only another package minds, it is a warning."""
    installed = installed_version(name)
    minding = {
        by: wanted for by, wanted in ranges.items() if not (installed and wanted.contains(installed, prereleases=True))
    }
    if not minding:
        return None
    asked = ", ".join(f"{by} needs {name}{wanted}" for by, wanted in sorted(minding.items()))
    consequence = f": {_CONSEQUENCES[name]}" if name in _CONSEQUENCES else ""
    good = ",".join(sorted({str(clause) for wanted in ranges.values() for clause in wanted}))
    state: State = "fail" if installed is None or PACKAGE in minding else "warn"
    return Finding(
        f"package {name}",
        state,
        f"{installed or 'not installed'}, but {asked}{consequence}",
        f"`{sys.executable} -m pip install '{name}{good}'`",
    )
