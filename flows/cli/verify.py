"""`heal verify`: grade the store anew with today's verifier, and show what flipped. Loads neither torch nor Prefect."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.look import WorkspaceOption
from flows.cli.run import NO_SANDBOX, NoSandboxOption
from flows.cli.table import print_rows

if TYPE_CHECKING:
    from heal_core.progress import Progress, ProgressMeter
    from heal_core.reverify import Survey
    from heal_core.verify.config import VerifyConfig

_LINE_SECONDS = 30.0
"""How often a pipe is told how far it is; a terminal is told at once."""

_MAX_CELL_CHARS = 60


def verify(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] [verify.a=b ...]",
            help="Only what this run uses (the beginning of its id, `last` or `previous`), and settings that replace "
            "those of the run, or else of the newest run.",
        ),
    ] = None,
    workspace: WorkspaceOption = Path("."),
    kind: Annotated[
        list[str] | None, typer.Option(help="Only this kind: rollout, guided or repair. May be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be graded, and grade nothing.")] = False,
    no_sandbox: NoSandboxOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Grade what is stored with today's verifier and settings, sample nothing, and show which verdicts flipped.

    Left as it is: what the same version has graded, but for what ran out of time under a lower
    verify.timeout_seconds. Verdicts are added, none is changed: finished runs keep theirs.
    Broken off, the same command goes on.
    """
    from heal_core.config import parse_verify_config
    from heal_core.reverify import grade_pending, survey, tell_bands, tell_changes, todays_verdicts
    from heal_core.store.compare import LAST, find_compared_run
    from heal_core.store.inspect import find_run, open_store
    from heal_core.store.store import Store
    from heal_core.store.workspace import Workspace
    from heal_core.verify.grade import verifier_identities
    from heal_core.verify.pool import VerifierPool

    run_name, overrides = _sort_out([*(arguments or []), *([NO_SANDBOX] if no_sandbox else [])])
    kinds = _check_kinds(kind or [])
    with open_store(workspace) as reader:
        run = find_run(reader, find_compared_run(reader, run_name or LAST))
    stored = json.loads(run["config"])
    settings = parse_verify_config(stored, overrides)
    place = Workspace(workspace)
    with place.lock(), Store(place) as store:
        found = survey(store, run["run_id"] if run_name else None, kinds, settings)
        told: dict[str, Any] = {
            "run_id": run["run_id"] if run_name else None,
            "settings_of": run["run_id"],
            "overrides": overrides,
            "settings": settings.model_dump(mode="json"),
            "verifiers": dict(verifier_identities(settings)),
            "kinds": list(kinds),
            "dry_run": dry_run,
            "counts": _counts(found),
            "num_newly_graded": 0,
        }
        if not dry_run:
            with VerifierPool(settings) as verifiers, _progress(len(found.pending)) as meter:
                told["num_newly_graded"] = grade_pending(
                    store, verifiers, found.pending, settings, lambda: meter.advance(1, 1)
                )
            verdict_ids = todays_verdicts(store, [*found.answered, *found.pending], settings)
            told |= tell_changes(store, verdict_ids)
            told["problems"] = tell_bands(store, run["run_id"], stored, verdict_ids)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        _print(told, settings, workspace)


def _sort_out(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the run, if one was named, and the overrides.

    Raises:
        InputError: If more than one run was named.
    """
    from heal_core.errors import InputError

    runs = [argument for argument in arguments if "=" not in argument]
    if len(runs) > 1:
        raise InputError(f"one run, or none, can be verified at a time, found {', '.join(runs)}; settings are a.b=c.")
    return (runs[0] if runs else None), [argument for argument in arguments if "=" in argument]


def _check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds that are meant, all of them where none is named.

    Raises:
        InputError: If one is not graded.
    """
    from heal_core.errors import InputError
    from heal_core.records import Kind
    from heal_core.reverify import GRADED_KINDS

    for name in kinds:
        if name not in GRADED_KINDS:
            raise InputError(f"--kind {name}: expected one of {', '.join(GRADED_KINDS)}.")
    return tuple(dict.fromkeys(kinds)) or tuple(str(kind) for kind in Kind)


def _counts(found: Survey) -> dict[str, int]:
    return {
        "all": found.num_all,
        "pending": len(found.pending),
        "answered": len(found.answered),
        "never_graded": found.num_never_graded,
        "hints": found.num_hints,
    }


@contextmanager
def _progress(num_pending: int) -> Iterator[ProgressMeter]:
    """Yield what counts verdicts, shown on stderr: a line that changes on a terminal, one now and then elsewhere."""
    from heal_core.progress import ProgressMeter

    console = Console(stderr=True, highlight=False)
    told_at = time.monotonic()
    with console.status("", spinner="line") as status:

        def show(progress: Progress, is_final: bool) -> None:
            nonlocal told_at
            if console.is_terminal:
                status.update(progress.describe())
            elif progress.done and (is_final or time.monotonic() - told_at > _LINE_SECONDS):
                console.print(progress.describe(), soft_wrap=True)
                told_at = time.monotonic()

        meter = ProgressMeter(show, min_seconds=0.5)
        meter.begin("", "verdicts", "", "verdicts", num_pending)
        try:
            yield meter
        finally:
            meter.finish()


# ---- what is printed


def _print(told: Mapping[str, Any], settings: VerifyConfig, workspace: Path) -> None:
    counts = told["counts"]
    scope = f"run {told['run_id']}" if told["run_id"] else "the whole store"
    verifiers = ", ".join(f"{name} {version}" for name, version in told["verifiers"].items())
    typer.echo(f"{scope}, verified with {verifiers}, {settings.timeout_seconds:g} s per answer")
    verb = "to be graded" if told["dry_run"] else "graded now"
    typer.echo(
        f"{counts['all']} trajectories: {counts['pending']} {verb}, {counts['answered']} had such a verdict, "
        f"{counts['never_graded']} never graded so far, {counts['hints']} hints (not graded)"
    )
    if told["dry_run"]:
        typer.echo("nothing was graded (--dry-run)")
        return
    _print_changes(told)
    if told["problems"]:
        _print_problems(told["problems"])
    _print_next(told, settings, workspace)


def _print_changes(told: Mapping[str, Any]) -> None:
    if not told["labels"]:
        typer.echo("no trajectory has a verdict from before to compare with")
        return
    typer.echo(f"\nverdicts against the last one before: {told['num_flipped']} flipped")
    rows = [
        {"kind": row["kind"], "before": row["before_label"], "now": row["now_label"], "number": row["num"]}
        for row in told["labels"]
    ]
    print_rows(rows, ["kind", "before", "now", "number"])
    if told["examples"]:
        typer.echo("\nexamples (heal show ID):")
        columns = ["trajectory", "kind", "reference", "read before", "read now", "verdict before", "verdict now"]
        print_rows([_example(row) for row in told["examples"]], columns)


def _example(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "trajectory": row["trajectory_id"],
        "kind": row["kind"],
        "reference": _short(row["answer"]),
        "read before": _short(row["before_extracted"]),
        "read now": _short(row["now_extracted"]),
        "verdict before": _verdict(row, "before"),
        "verdict now": _verdict(row, "now"),
    }


def _verdict(row: Mapping[str, Any], side: str) -> str:
    """Return a verdict with what made it, such as `unverifiable (timeout), math-verify 0.9.0+1, 5 s`."""
    reason, limit = row[f"{side}_reason"], row[f"{side}_limit_seconds"]
    label = row[f"{side}_label"] + (f" ({reason})" if reason else "")
    verifier = f"{row[f'{side}_verifier']} {row[f'{side}_verifier_version']}"
    return f"{label}, {verifier}" + ("" if limit is None else f", {limit:g} s")


def _short(text: str | None) -> str:
    text = "" if text is None else text
    return text if len(text) <= _MAX_CELL_CHARS else text[: _MAX_CELL_CHARS - 3] + "..."


def _print_problems(problems: Mapping[str, Any]) -> None:
    bands = "; ".join(f"{row['num']} from {row['before']} to {row['now']}" for row in problems["bands"])
    typer.echo(
        f"\nproblems of run {problems['run_id']}: {problems['num_pass_rate_changed']} of {problems['num_problems']} "
        f"would have another pass rate, {problems['num_band_changed']} another band{f' ({bands})' if bands else ''}"
    )


def _print_next(told: Mapping[str, Any], settings: VerifyConfig, workspace: Path) -> None:
    """Say what can be done about it."""
    if told["num_gave_up"]:
        longer = f"verify.timeout_seconds={4 * settings.timeout_seconds:g}"
        typer.echo(
            f"{told['num_gave_up']} ran out of time or memory. To give them more: heal verify {longer} -w {workspace} "
            f"(and verify.max_memory_gib={2 * settings.max_memory_gib:g})"
        )
    if not told["num_flipped"]:
        return
    with_settings = " ".join(["heal run CONFIG.yaml", *told["overrides"]])
    typer.echo(
        f"`{with_settings}` uses these verdicts: a new run, which samples only what follows from them. "
        "Runs keep the verdicts that they rest on (run_rows.verdict_id)."
    )
