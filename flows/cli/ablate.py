"""`heal ablate`: HEAL beside its controls over several seeds, one table with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.run import BudgetOption, ConfigArgument, OverridesArgument, UntilOption, prepare
from flows.cli.scores import new_table
from heal_core.arms import ARMS, CONTINUED, CONTROLS, HEAL
from heal_core.report.names import SHORT_BANDS

Row = dict[str, Any]


def ablate(
    config_path: ConfigArgument,
    overrides: OverridesArgument = None,
    seeds: Annotated[str, typer.Option(help="Seeds, each a run of its own: 0,1,2 or 10-14.")] = "0,1,2",
    arms: Annotated[
        str | None,
        typer.Option(help="Controls beside HEAL, by name or as B1 to B8, answer: B1,B2,B5. All, unless it is set."),
    ] = None,
    reseed: Annotated[
        str,
        typer.Option(help="What a seed reseeds: `all` of the pipeline, or the `training` of the students alone."),
    ] = "all",
    ceiling_samples: Annotated[
        int, typer.Option(min=0, help="Plain samples per extremely hard training problem, to see what stays unsolved.")
    ] = 0,
    students: Annotated[
        bool,
        typer.Option(
            "--students/--no-students",
            help="Without students, compare the teacher's continuations of wrong paths alone (B4, B5, B8, answer): "
            "nothing is trained.",
        ),
    ] = True,
    until: UntilOption = None,
    max_tokens: BudgetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")] = False,
) -> None:
    """Run HEAL and its controls over several seeds, and compare them; run again to go on.

    A run per seed in the config's workspace shares with the others what it can. No student is promoted.
    """
    from heal_core.config import load_config
    from heal_core.deadline import parse_deadline

    settings = parse_settings(
        seeds=parse_seeds(seeds),
        arms=parse_arms(arms, CONTROLS if students else CONTINUED),
        reseed=reseed,
        ceiling_samples=ceiling_samples,
        students=students,
    )
    config = load_config(config_path, overrides or [])
    deadline = parse_deadline(until) if until else None
    prepare(config, deadline)
    from flows.ablation import ablate as flow

    outcome = flow(config, settings, deadline, max_tokens)
    if as_json:
        typer.echo(json.dumps(outcome, indent=2, default=str))
    else:
        print_ablation(Console(), outcome, config.workspace)


def print_ablation(console: Console, outcome: dict[str, Any], workspace: str) -> None:
    """Print how an ablation ended: its tables, or why it stopped before it had them."""
    if outcome["state"] == "stopped":
        console.print(
            f"Stopped in the run of seed {outcome['seed']}: {outcome['reason']}. The same command goes on from there."
        )
        return
    console.rule(f"ablation {outcome['ablation_id']}")
    if outcome["scores"]:
        console.print(_scores(outcome))
        console.print(_legend(outcome), style="dim", highlight=False)
        console.print(_contrasts(outcome))
    if outcome["yields"]:
        console.print(_yields(outcome["yields"]))
    console.print("better, worse: both intervals exclude 0 and p < 0.05; else no claim; n.p.: not powered", style="dim")
    for line in answers(outcome):
        console.print(line, highlight=False)
    tables = ["ablation_scores"] if outcome["scores"] else []
    console.print(
        f"in SQL: {', '.join([*tables, 'ablation_contrasts'])} (ablation_id = '{outcome['ablation_id']}'), "
        f"path_yields, ceilings   store: {workspace}/heal.duckdb",
        highlight=False,
        soft_wrap=True,
    )


def answers(outcome: dict[str, Any]) -> Iterator[str]:
    """Yield what the ablation says to the objections against the method, one sentence each."""
    by_arm = {row["against"]: row for row in outcome["yields"]}
    questions = {
        "random_breakpoint": "does a break where entropy surges beat a random one",
        "unhinted": "does the hint beat resampling",
        "mismatched_hint": "does the hint's content matter",
        "answer_told": "does a hint beat the answer itself",
    }
    for arm, question in questions.items():
        if row := by_arm.get(arm):
            yield f"{question}? {_verdict(row)}: {_points(row)} points of verified continuations to {ARMS[arm].short}"
    ceiling = outcome["ceiling"]
    if ceiling["num_problems"]:
        num, unsolved = ceiling["num_problems"], ceiling["num_unsolved"]
        least, most = ceiling["min_samples"], ceiling["max_samples"]
        samples = f"{least}" if least == most else f"{least} to {most}"
        yield (
            f"ceiling: {unsolved} of {num} extremely hard training problems (of all seeds' texts) stay unsolved after "
            f"{samples} plain samples ({100 * unsolved / num:.0f} %); HEAL "
            f"has a verified repair for {ceiling['num_unsolved_repaired']} of these"
        )
    if not outcome["scores"]:
        return
    primary = next((row for row in outcome["contrasts"] if row["is_primary"]), None)
    if primary is None:
        yield "primary contrast (HEAL - B2 on the extremely hard): not measured"
    else:
        yield f"primary contrast (HEAL - B2 on the extremely hard): {_points(primary)} points, {_verdict(primary)}"


def _scores(outcome: dict[str, Any]) -> Table:
    rows = {(row["arm"], row["band"]): row for row in outcome["scores"]}
    costs = {row["arm"]: row for row in outcome["costs"]}
    bands = [band for band in SHORT_BANDS if ("teacher", band) in rows]
    first = rows["teacher", "all"]
    table = new_table(f"held-out problems: avg@{first['k']} in %, {first['num_seeds']} seeds")
    table.add_column("arm", no_wrap=True)
    names = [f"all\n({first['num_problems']})"]
    names += [f"{SHORT_BANDS[band].replace(' ', chr(10))}\n({rows['teacher', band]['num_problems']})" for band in bands]
    for name in (*names, "gap\nclosed", "be-\nyond", "ex-\namples", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm, arm_names in ARMS.items():
        if (arm, "all") not in rows:
            continue
        row, cost = rows[arm, "all"], costs.get(arm)
        interval = "" if row["low"] is None else f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        table.add_row(
            arm_names.short,
            f"{100 * row['avg_at_k']:.1f}{interval}",
            *(f"{100 * rows[arm, band]['avg_at_k']:.1f}" for band in bands),
            "" if row["gap_closed"] is None else f"{100 * row['gap_closed']:.0f} %",
            "" if arm == "teacher" else f"{row['num_beyond_teacher']:.1f}",
            "" if cost is None else f"{cost['num_examples']:.0f}",
            "" if cost is None else f"{cost['num_tokens'] / 1000:.0f}k",
            style="bold" if arm == HEAL else None,
        )
    return table


def _legend(outcome: dict[str, Any]) -> str:
    controls = {row["arm"]: None for row in outcome["scores"] if row["arm"] in CONTROLS}
    return "; ".join(f"{ARMS[arm].label}: {ARMS[arm].isolates}" for arm in controls)


def _contrasts(outcome: dict[str, Any]) -> Table:
    table = new_table("HEAL minus the other, points of avg@k; p after Holm, but of the primary one (*)")
    for name in ("to", "problems"):
        table.add_column(name, no_wrap=True)
    for name in ("points", "bootstrap", "t", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in outcome["contrasts"]:
        if row["band"] in ("all", "extremely_hard"):
            band = f"{SHORT_BANDS.get(row['band'], row['band'])} ({row['num_problems']})"
            star = " *" if row["is_primary"] else ""
            table.add_row(ARMS[row["against"]].short + star, band, *_cells(row), _mark(row))
    return table


def _yields(rows: list[Row]) -> Table:
    table = new_table("verified continuations of the same wrong paths of n problems, in %")
    for name in ("to", "n"):
        table.add_column(name, no_wrap=True)
    for name in ("HEAL", "other", "points", "bootstrap", "t", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        shares = [f"{100 * row[name]:.1f}" for name in ("value", "value_against")]
        table.add_row(ARMS[row["against"]].short, str(row["num_problems"]), *shares, *_cells(row), _mark(row))
    return table


def _cells(row: Row) -> list[str]:
    return [
        _points(row),
        _interval(row["low"], row["high"]),
        _interval(row["t_low"], row["t_high"]),
        "" if row["p_adjusted"] is None else f"{row['p_adjusted']:.3f}",
    ]


def _points(row: Row) -> str:
    return f"{100 * row['difference']:+.1f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def _mark(row: Row) -> str:
    """Return what may be claimed, in a word; nothing where nothing may, n.p. where that is for want of power."""
    if row["is_claim"]:
        return "better" if row["difference"] > 0 else "worse"
    return "" if row["is_powered"] else "n.p."


def _verdict(row: Row) -> str:
    if row["is_claim"]:
        return "yes" if row["difference"] > 0 else "no, worse"
    if row["num_seeds"] == 1:
        return "no claim of one seed"
    return "no claim" if row["is_powered"] else "no claim, not powered"


def parse_settings(**values: Any) -> Any:
    """Return the settings of an ablation; what is not meant is named as an option."""
    from pydantic import ValidationError

    from heal_core.ablation import AblationConfig
    from heal_core.errors import ConfigError

    try:
        return AblationConfig(**values)
    except ValidationError as error:
        faults = [
            str(fault["ctx"]["error"])
            if fault["type"] == "value_error"
            else f"{str(fault['loc'][0]).replace('_', '-')} {fault['input']!r}: {fault['msg'].lower()}"
            for fault in error.errors()
        ]
        raise ConfigError("; ".join(f"--{fault}" for fault in faults)) from None


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that a list of numbers and ranges names."""
    from heal_core.errors import ConfigError

    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            found = range(int(first), int(last if dash else first) + 1)
            if not found:
                raise ValueError(part)
            seeds += found
    except ValueError:
        raise ConfigError(f"--seeds {text!r} is not a list of seeds: 0,1,2 or 10-14.") from None
    return tuple(seeds)


def parse_arms(text: str | None, default: tuple[str, ...] = CONTROLS) -> tuple[str, ...]:
    """Return the controls that are named, by name or number; the default if none is."""
    from heal_core.errors import ConfigError

    if text is None:
        return default
    by_name = {arm: arm for arm in CONTROLS} | {ARMS[arm].short.lower(): arm for arm in CONTROLS}
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name.lower() not in by_name]:
        known = ", ".join(f"{ARMS[arm].short} {arm}" for arm in CONTROLS)
        raise ConfigError(f"--arms: {', '.join(unknown)} is no control; there are: {known}.")
    return tuple(dict.fromkeys(by_name[name.lower()] for name in names))
