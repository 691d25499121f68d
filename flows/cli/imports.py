"""`heal import`: rollouts that exist already, read by the teacher and stored for the runs to come. Without Prefect."""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.run import ConfigArgument, JsonOption

if TYPE_CHECKING:
    from heal_core.config import RunConfig
    from heal_core.engines.base import Engine
    from heal_core.imports.take_in import ImportedFile
    from heal_core.problems import LoadedProblems
    from heal_core.sources.files import SourceFile
    from heal_core.store.workspace import Workspace

_LINE_SECONDS = 30.0
"""How often a pipe is told how far it is; a terminal is told after each shard."""


def import_rollouts(
    config_path: ConfigArgument,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... [a.b=c ...]",
            help="Files of rollouts, globs or URLs, and settings that replace those of the config.",
        ),
    ],
    layout: Annotated[
        str, typer.Option("--format", help="openr1, nemo-skills, or auto: by the columns of each file.")
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(help="Who wrote the texts, where the rows do not say it in generation_model; else 'unknown'."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take in rollouts that exist already: the teacher reads them for their entropies, and runs use them.

    Texts are looked up among the problems of the config. `heal run` with it uses
    those of its training problems, and samples what lacks to
    rollouts.num_generations. Broken off, the same command goes on.
    """
    from heal_core.config import load_config
    from heal_core.engines.identity import identify_model
    from heal_core.gradable import find_new_ungradable
    from heal_core.imports.formats import check_format
    from heal_core.imports.take_in import Importer, Target
    from heal_core.problems import load_problems
    from heal_core.sandbox.probe import require_sandbox
    from heal_core.store.problems import store_problems
    from heal_core.store.store import Store
    from heal_core.store.workspace import Workspace
    from heal_core.verify.pool import VerifierPool

    paths, overrides = _sort_out(arguments)
    config = load_config(config_path, overrides)
    known_layout = check_format(layout)
    teacher = identify_model(config.teacher)
    workspace = Workspace(config.workspace)
    workspace.create()
    with workspace.lock(), Store(workspace) as store, _engine(config, workspace) as start_engine:
        with VerifierPool(config.verify) as verifiers:
            loaded = load_problems(config.problems, lambda problems: find_new_ungradable(store, problems, verifiers))
        if any(problem.problem_type == "code" for problem in loaded.problems):
            require_sandbox(config.verify.sandbox)  # without one, what can be graded is not known
        target = Target(loaded.problems, config.problems.columns, teacher, config.teacher.model_name_or_path)
        store_problems(store, loaded.problems, config.chunk_problems)
        with _shown() as show:
            importer = Importer(store, start_engine, target, show)
            files = [importer.take_in(file, known_layout, model) for file in _find_files(paths)]
    if as_json:
        typer.echo(
            json.dumps({"files": [file.to_json() for file in files], "problems": len(loaded.problems)}, indent=2)
        )
    else:
        _print(files, loaded, config, config_path)


def _sort_out(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files and the overrides; an argument with `=` is one unless it is a file or a URL.

    Raises:
        InputError: If no file is named.
    """
    from heal_core.errors import InputError

    overrides = [a for a in arguments if "=" in a and "://" not in a and not Path(a).exists()]
    paths = [a for a in arguments if a not in overrides]
    if not paths:
        raise InputError("no file of rollouts is named. Expected: heal import CONFIG.yaml FILE... [a.b=c ...]")
    return paths, overrides


def _find_files(paths: Sequence[str]) -> list[SourceFile]:
    """Return the files of all paths, each once under whatever name, in the order in which they are named.

    Raises:
        InputError: If there is none.
    """
    from heal_core.errors import InputError
    from heal_core.sources.files import find_files

    for path in paths:
        if "://" not in path and not glob.has_magic(path) and not Path(path).is_file():
            raise InputError(
                f"there is no file {path}. Expected rollouts as OpenR1 (Parquet) or NeMo-Skills (JSON Lines) has them."
            )
    found: dict[str, SourceFile] = {}
    for path in paths:
        for file in find_files(path):
            # by two names it would be read twice, and each of its texts be two samples
            found.setdefault(file.place if "://" in path else os.path.realpath(file.path), file)
    return list(found.values())


@contextmanager
def _engine(config: RunConfig, workspace: Workspace) -> Iterator[Callable[[], Engine]]:
    """Yield what starts the teacher when it is first needed; it ends afterwards."""
    from heal_core.engines.base import Capability
    from heal_core.engines.start import check_capability, declared_capabilities, start_engine

    teacher = config.teacher
    check_capability(teacher, Capability.GIVEN_TOKEN_LOGPROBS, "teacher", declared_capabilities(teacher))
    with closing(start_engine(teacher, workspace.logs / "engine.log")) as engine:
        yield lambda: engine


@contextmanager
def _shown() -> Iterator[Callable[[ImportedFile], None]]:
    """Yield what tells on stderr how far a file is: a line that changes on a terminal, one now and then elsewhere."""
    console = Console(stderr=True, highlight=False)
    started = told_at = time.monotonic()
    num_tokens: dict[str, int] = {}
    with console.status("reading problems and files", spinner="line") as status:

        def show(counts: ImportedFile) -> None:
            nonlocal told_at
            num_tokens[counts.source] = counts.num_new_tokens
            rate = sum(num_tokens.values()) / max(time.monotonic() - started, 1e-9)
            line = f"{counts.source}: {counts.num_read:,} read, {counts.num_imported:,} imported, {rate:,.0f} tokens/s"
            if console.is_terminal:
                status.update(line)
            elif time.monotonic() - told_at > _LINE_SECONDS:
                console.print(line, soft_wrap=True, markup=False)
                told_at = time.monotonic()

        yield show


# ---- what is printed


def _print(files: Sequence[ImportedFile], loaded: LoadedProblems, config: RunConfig, config_path: Path) -> None:
    for file in files:
        typer.echo(
            f"{file.source} ({file.format}): {file.num_read} generations read: {file.num_imported} imported "
            f"({file.num_new_tokens} tokens), {file.num_there} already there, {file.num_unmatched} of no problem of "
            f"the config, {file.num_quarantined} in quarantine"
        )
        for example in file.unmatched:
            typer.echo(f"  {example}")
        if file.reasons:
            reasons = ", ".join(f"{num} {reason}" for reason, num in file.reasons.most_common())
            typer.echo(f"  in quarantine: {reasons}")
    with_rollouts = {problem_id for file in files for problem_id in file.problem_ids}
    train = sum(problem.split == "train" for problem in loaded.problems if problem.problem_id in with_rollouts)
    typer.echo(
        f"{len(with_rollouts)} of {len(loaded.problems)} problems have rollouts of these files, {train} of them for "
        "training: runs use only theirs"
    )
    if any(file.num_quarantined for file in files):
        query = "SELECT source, line, generation_index, reason FROM import_quarantine"
        typer.echo(f'what is in quarantine: heal sql "{query}" -w {config.workspace}')
    if train and config.rollouts.use_imported:
        typer.echo(f"to go on with them: heal run {config_path}")
