"""`heal export`: what a run made, in the layouts that other tools read, also while a run writes. Without Prefect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.look import WorkspaceOption

if TYPE_CHECKING:
    from heal_core.export.model import ModelExport
    from heal_core.export.openr1 import OpenR1Export
    from heal_core.export.stage import StageExport

app = typer.Typer(
    name="export",
    help="Write training data, problems or a trained student for other tools to read.",
    no_args_is_help=True,
)

RunOption = Annotated[
    str, typer.Option("--run", help="A run: the beginning of its id, `last` or `previous`.", metavar="RUN")
]
ArmOption = Annotated[str, typer.Option(help="heal, or a control that the run trained, such as equal_tokens.")]
StageOption = Annotated[
    Literal["I", "II", "III"], typer.Option(help="Each stage holds the one before; III is what was trained on last.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
CheckOption = Annotated[
    bool, typer.Option(help="Render each example with the student's chat template. Takes seconds to load.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
TRL_DEFAULT_LENGTH = 1024
"""What TRL's `max_length` is unless it is set: longer examples lose their end."""


@app.command("messages")
def export_messages(
    path: Annotated[Path, typer.Argument(metavar="OUT", help="A file that ends in .jsonl or .parquet.")],
    workspace: WorkspaceOption = Path("."),
    run: RunOption = "last",
    arm: ArmOption = "heal",
    stage: StageOption = "III",
    layout: Annotated[
        Literal["messages", "prompt-completion", "text"],
        typer.Option(help="messages; prompt and completion as messages; or both as text, rendered as HEAL trains it."),
    ] = "messages",
    check: CheckOption = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="Write nothing if the chat template would lose or change a text.")
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the examples of a stage for TRL, in training order: one user and one assistant turn each."""
    from heal_core.export.files import check_target
    from heal_core.export.stage import StageExporter
    from heal_core.store.compare import find_compared_run
    from heal_core.store.inspect import open_store
    from heal_core.store.workspace import Workspace

    check_target(path, force)
    with open_store(workspace) as store:
        exporter = StageExporter(store, Workspace(workspace), find_compared_run(store, run), arm, stage)
        exported = exporter.write_for_trl(path, layout, check, strict)
    _print_stage(exported, as_json, {})


@app.command("sharegpt")
def export_sharegpt(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="LLaMA-Factory's dataset_dir, or a new folder.")],
    workspace: WorkspaceOption = Path("."),
    run: RunOption = "last",
    arm: ArmOption = "heal",
    stage: StageOption = "III",
    name: Annotated[
        str | None, typer.Option(help="What the data set is called; by default after arm and stage.")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Look up whether the student's chat template opens <think> in the prompt.")
    ] = True,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the examples of a stage as ShareGPT, with the entry in dataset_info.json that LLaMA-Factory wants."""
    from heal_core.errors import InputError
    from heal_core.export.files import check_target
    from heal_core.export.sharegpt import INFO_FILE, add_entry, check_name
    from heal_core.export.stage import StageExporter
    from heal_core.store.compare import find_compared_run
    from heal_core.store.inspect import open_store
    from heal_core.store.workspace import Workspace

    name = name or f"{arm}_stage_{stage}"
    if "/" in name or name.startswith("."):
        raise InputError(f"--name {name}: expected a name, not a path; it is the file's name too.")
    path = folder / f"{name}.jsonl"
    check_target(path, force)
    check_name(folder, name, force)
    with open_store(workspace) as store:
        exporter = StageExporter(store, Workspace(workspace), find_compared_run(store, run), arm, stage)
        exported = exporter.write_for_sharegpt(path, check)
    others = add_entry(folder, name, path.name)
    _print_stage(exported, as_json, {"dataset": name, "info": str(folder / INFO_FILE), "num_other_datasets": others})


@app.command("openr1")
def export_openr1(
    path: Annotated[Path, typer.Argument(metavar="OUT", help="A file that ends in .parquet, or in .jsonl.")],
    workspace: WorkspaceOption = Path("."),
    run: RunOption = "last",
    guided: Annotated[bool, typer.Option("--guided", help="Add the kept guided samples behind the rollouts.")] = False,
    repairs: Annotated[bool, typer.Option("--repairs", help="Add the kept repairs behind the rollouts.")] = False,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Write held-out problems too; they are not for training.")
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the problems of a run with all their rollouts, right and wrong, as OpenR1-Math has them."""
    from heal_core.export.files import check_target
    from heal_core.export.openr1 import export_openr1
    from heal_core.store.compare import find_compared_run
    from heal_core.store.inspect import open_store

    check_target(path, force)
    additions = [phase for phase, is_wanted in (("guided", guided), ("repairs", repairs)) if is_wanted]
    with open_store(workspace) as store:
        exported = export_openr1(store, find_compared_run(store, run), path, additions, held_out)
    if as_json:
        typer.echo(json.dumps(exported.to_json(), indent=2))
    else:
        _print_openr1(exported)


@app.command("model")
def export_model(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    workspace: WorkspaceOption = Path("."),
    run: RunOption = "last",
    arm: ArmOption = "heal",
    stage: StageOption = "III",
    adapter: Annotated[bool, typer.Option("--adapter", help="The LoRA adapter instead of whole weights.")] = False,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Precision of the weights; as trained unless given.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the card calls it; by default the hub's name, else the folder's.")
    ] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="Its licence, as the hub names it, such as apache-2.0.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id of the base student, where the config names a folder.")
    ] = None,
    language: Annotated[list[str] | None, typer.Option(help="An ISO 639 code, such as en. May be repeated.")] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="NAME", help="Upload it as OWNER/NAME; the token is HF_TOKEN.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a repository that only its owner sees.")] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a trained student as a Hugging Face folder with a model card, and upload it if asked."""
    from heal_core.errors import InputError
    from heal_core.export.folder import check_folder
    from heal_core.export.hub import check_push, push_folder
    from heal_core.export.model import ModelChoices
    from heal_core.export.model import export_model as write_model
    from heal_core.store.compare import find_compared_run
    from heal_core.store.inspect import open_store
    from heal_core.store.workspace import Workspace

    check_folder(folder, force)
    if push_to_hub:
        check_push(push_to_hub)
    elif private:
        raise InputError("--private is of a repository, and none was named: give --push-to-hub OWNER/NAME too.")
    choices = ModelChoices(
        name=name or push_to_hub or folder.absolute().name,
        as_adapter=adapter,
        dtype=dtype,
        license=license_id,
        base_model=base_model,
        languages=tuple(language or ()),
        for_hub=push_to_hub is not None,
    )
    with open_store(workspace) as store:
        run_id = find_compared_run(store, run)
        exported = write_model(store, Workspace(workspace), run_id, arm, stage, folder, choices)
    if not as_json:
        _print_model(exported, adapter)
    told = exported.to_json()
    if push_to_hub:
        message = f"Stage {stage} of arm {arm}, run {run_id}"
        told["url"] = push_folder(folder, push_to_hub, private, message)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    elif push_to_hub:
        typer.echo(f"pushed to {told['url']}")


# ---- what is printed


def _print_stage(exported: StageExport, as_json: bool, more: dict[str, Any]) -> None:
    if as_json:
        typer.echo(json.dumps({**exported.to_json(), **more}, indent=2))
        return
    typer.echo(
        f"wrote {exported.path}: {exported.num_examples} examples of arm {exported.arm}, stage {exported.stage}, "
        f"run {exported.run_id} ({exported.layout}): {_counts(exported.kinds)}"
    )
    if more:
        others = f", beside {more['num_other_datasets']} others" if more["num_other_datasets"] else ""
        typer.echo(f"  {more['info']} describes it as {more['dataset']}{others}")
    if exported.num_dropped_over_long is None:
        typer.echo("  the stage is not trained so far: which of them are too long is not known")
    elif exported.num_dropped_over_long:
        typer.echo(
            f"  {exported.num_dropped_over_long} of them training dropped, being longer than "
            f"{exported.max_length_tokens} tokens; they are in the file"
        )
    if exported.template is None:
        typer.echo(f"  not checked against a chat template: {exported.unchecked_because}")
        if exported.num_with_reasoning:
            typer.echo(
                f"  warning: {exported.num_with_reasoning} responses hold <think>..</think>: see that the trainer's "
                "template keeps it"
            )
    else:
        _print_template(exported)


def _print_template(exported: StageExport) -> None:
    from heal_core.export.stage import describe_faults

    report = exported.template
    assert report is not None
    if report.opening:
        typer.echo(f"  each response begins with {report.opening!r}, which the student's prompt opens")
    typer.echo(
        f"  with the chat template of {report.tokenizer}, {report.num_same} of {exported.num_examples} give exactly "
        "the tokens that HEAL trained on"
    )
    if report.faults:
        typer.echo(f"  warning: {describe_faults(report)}")
        if exported.layout != "text":
            typer.echo("  --layout text has prompt and response as HEAL trains them, whatever the template does")
    if report.longest_tokens > TRL_DEFAULT_LENGTH:
        typer.echo(
            f"  the longest has {report.longest_tokens} tokens: set TRL's max_length to that, or it cuts at "
            f"{TRL_DEFAULT_LENGTH}"
        )


def _print_model(exported: ModelExport, adapter_wanted: bool) -> None:
    typer.echo(
        f"wrote {exported.path}: {exported.what}, {exported.num_bytes / 1e6:.1f} MB, arm {exported.arm}, "
        f"stage {exported.stage}, run {exported.run_id}"
    )
    typer.echo(f"  {', '.join(exported.files)}")
    if exported.is_adapter:
        alone = "" if adapter_wanted else "the stage was trained with sft.lora.save: adapter and has no whole weights; "
        typer.echo(f"  {alone}it is loaded on top of {exported.base_model}")
    typer.echo(
        "  read README.md before you publish it; the licences of base model, teacher and problems are yours to check"
    )


def _print_openr1(exported: OpenR1Export) -> None:
    typer.echo(
        f"wrote {exported.path}: {exported.num_problems} problems of run {exported.run_id} "
        f"({_counts(exported.splits)}) with {exported.num_generations} generations ({_counts(exported.kinds)}), "
        f"{exported.num_correct} of them correct"
    )
    if exported.num_without_correct:
        typer.echo(f"  {exported.num_without_correct} problems have no correct generation: their messages are null")
    if exported.num_without_samples:
        typer.echo(f"  {exported.num_without_samples} problems have no rollouts so far, and no row")
    if exported.num_held_out_left_out:
        typer.echo(f"  left out: {exported.num_held_out_left_out} held-out problems")
    if num := exported.splits.get("held_out"):
        typer.echo(
            f"  warning: {num} problems are held out (column split): a student trained on them cannot be measured"
        )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{num} {name}" for name, num in counts.items()) or "nothing"
