"""The Python environment and the machine: interpreter, platform, versions of packages, sandbox, clock.

Packages are judged by metadata alone, so that this works where one is broken: none is imported with this module.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from heal_core.children import child_environment
from heal_core.doctor.finding import Finding, State

PACKAGE = "heal-distill"
_NAMED = ("prefect", "fastapi", "sqlalchemy", "duckdb", "torch", "transformers", "trl")
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
    """Run a program in the sandbox for model-written code, and see that it is shut in."""
    command = [sys.executable, "-m", "heal_core.sandbox.probe"]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:  # something that it imports is broken, which other checks name
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Finding("sandbox", "warn", f"could not be tried: {said}", f"`{' '.join(command)}` says more")
    found = json.loads(done.stdout)
    if "program" in found:
        return Finding("sandbox", "ok", f"{found['program']} has shut a program in")
    return Finding("sandbox", "warn", f"problems of type code would be refused: {found['fault']}", found["remedy"])


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
