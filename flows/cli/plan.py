"""`heal plan`: what a run will generate, before it does.

Loads neither torch nor Prefect, writes nothing, asks no server and needs no lock, unless a probe is asked for.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from flows.cli.run import ConfigArgument, OverridesArgument

if TYPE_CHECKING:
    from heal_core.forecast.collect import Plan
    from heal_core.forecast.sums import Work

_PIPE_WIDTH = 160
_NAMES = {
    "pure": "PURE scores",
    "validity": "validity test",
    "validity_scores": "validity test, scores",
    "equal_tokens": "equal tokens",
    "control_hints": "hints of controls",
    "control_repairs": "repairs of controls",
    "control_pure": "scores of controls",
    "ceiling": "rollouts of the ceiling",
    "guided": "guided samples",
    "evaluation": "answers",
    "promotion": "answers, promoted",
}


def plan(
    config_path: ConfigArgument,
    overrides: OverridesArgument = None,
    probe: Annotated[
        int | None,
        typer.Option(min=1, help="First sample 4 rollouts of that many problems, which the run then uses."),
    ] = None,
    num_problems: Annotated[
        int | None,
        typer.Option("--problems", min=2, help="Assume that many problems instead of reading the sources."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what a run would generate: how many of each kind, tokens, time, cost and room on the disk."""
    from heal_core.config import load_config
    from heal_core.errors import InputError
    from heal_core.forecast.collect import make_plan

    config = load_config(config_path, overrides or [])
    probed = 0
    if probe is not None:
        if num_problems is not None:
            raise InputError("--probe samples problems of the sources, which --problems leaves out; give one of them.")
        from heal_core.forecast.probe import sample_probe

        probed = sample_probe(config, probe)
    made = make_plan(config, num_problems, probed)
    if as_json:
        typer.echo(json.dumps(_as_dict(made), indent=2))
    else:
        _print(Console(highlight=False), made)


def _as_dict(plan: Plan) -> dict[str, Any]:
    from heal_core.forecast.sums import total, total_costs

    whole = total(plan.works)
    return {
        **dataclasses.asdict(plan),
        "works": [{**dataclasses.asdict(work), "missing": work.missing} for work in plan.works],
        "total": {
            "tokens": whole.tokens,
            "prompt_tokens": whole.prompt_tokens,
            "seconds": whole.seconds,
            "costs": total_costs(plan.works),
            "disk_bytes": whole.disk_bytes,
            "without_time": _without_time(plan.works),
        },
    }


def _print(console: Console, plan: Plan) -> None:
    quarantined = f"; {plan.num_quarantined:,} rows in quarantine" if plan.num_quarantined else ""
    cleaned = f"; {plan.cleaned}" if plan.cleaned else ""
    num = plan.num_train + plan.num_held_out
    _say(console, f"{num:,} problems ({plan.num_train:,} train, {plan.num_held_out:,} held out){quarantined}{cleaned}")
    bands = ", ".join(f"{band.replace('_', ' ')} {_num(num)}" for band, num in plan.bands.items() if num >= 0.5)
    _say(console, f"bands of the training problems: {bands} ({plan.bands_basis})")
    if plan.run_id is not None:
        state = "is complete: `heal run` has nothing to do" if plan.is_complete else "goes on"
        _say(console, f"run {plan.run_id} {state}")
    table = _table(plan)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH  # a pipe has no width to keep to
    console.print(table)
    rests: dict[str, list[str]] = {}
    for work in plan.works:
        for basis in work.basis:
            rests.setdefault(basis, []).append(_name(work))
    if rests:
        _say(console, "what it rests on:")
    for basis, names in rests.items():
        _say(console, f"  {basis}: {', '.join(names)}")
    if without := _without_time(plan.works):
        _say(console, f"the time is not known of: {', '.join(without)}")
    for what in plan.unknown:
        _say(console, f"not known: {what}")


def _table(plan: Plan) -> Table:
    from heal_core.forecast.sums import total, total_costs
    from heal_core.spend import describe_costs

    columns: dict[str, Callable[[Work], str]] = {
        "work": _name,
        "wanted": lambda work: f"{_about(work)}{_num(work.wanted)}",
        "stored": lambda work: _num(work.stored),
        "to make": lambda work: f"{_about(work)}{_num(work.missing)}",
        "tokens": lambda work: _num(work.tokens) if work.tokens else "",
        "prompt tokens": lambda work: _num(work.prompt_tokens) if work.prompt_tokens else "",
        "time": _time,
        "cost": lambda work: describe_costs({str(work.currency): work.cost}) if work.cost else "",
        "disk": lambda work: _size(work.disk_bytes) if work.disk_bytes else "",
    }
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_footer=True)
    whole = total(plan.works)
    feet = {
        "work": "in all",
        "tokens": _num(whole.tokens),
        "prompt tokens": _num(whole.prompt_tokens),
        "time": ("> " if _without_time(plan.works) else "") + _time(whole),
        "cost": describe_costs(total_costs(plan.works)),
        "disk": _size(whole.disk_bytes),
    }
    has_cost = bool(total_costs(plan.works))
    shown = [name for name in columns if name != "cost" or has_cost]
    for name in shown:
        table.add_column(name, feet.get(name, ""), justify="left" if name == "work" else "right")
    for work in plan.works:
        table.add_row(*(columns[name](work) for name in shown))
    return table


def _without_time(works: list[Work]) -> list[str]:
    return [_name(work) for work in works if work.seconds is None and work.missing]


def _name(work: Work) -> str:
    return f"training, {work.unit}" if work.name == "training" else _NAMES.get(work.name, work.name)


def _about(work: Work) -> str:
    return "" if work.is_exact else "~"


def _num(num: float) -> str:
    """Return a number in full, a large one in millions or thousands of millions."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e7, "M")):
        if num >= unit:
            return f"{num / (1e6 if name == 'M' else unit):,.1f} {name}"
    return f"{num:,.0f}"


def _time(work: Work) -> str:
    from heal_core.progress import describe_seconds

    if work.seconds is None:
        return "?"
    return describe_seconds(work.seconds) if work.seconds else ""


def _size(num_bytes: float) -> str:
    from heal_core.doctor.finding import describe_size

    return describe_size(num_bytes)


def _say(console: Console, words: str) -> None:
    console.print(words, markup=False, soft_wrap=True)
