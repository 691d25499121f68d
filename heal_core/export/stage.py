"""The examples of a stage -> a file for a trainer, with counts that add up.

Nothing of Prefect is loaded, and torch only with the tokenizer that checks chat templates. What does not belong here:
the problems with all their samples (`openr1`), a trained model (`model`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from heal_core.engines.base import EngineConfig
from heal_core.engines.tokens import load_tokenizer
from heal_core.errors import ConfigError, InputError, ModelError
from heal_core.export.examples import CONVERSATIONS, TRACE_COLUMNS, Layout, TracedExample, as_sharegpt, traced_example
from heal_core.export.files import MESSAGES, write_rows
from heal_core.export.template_check import FAULTS, TemplateCheck, TemplateReport
from heal_core.store.examples import check_stage, read_stage_rows, read_trained_stage
from heal_core.store.inspect import Connection, find_run
from heal_core.store.workspace import Workspace

_TRACE = dict.fromkeys(TRACE_COLUMNS, pa.string())
_SHAREGPT = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "messages": {"messages": MESSAGES, **_TRACE},
    "prompt-completion": {"prompt": MESSAGES, "completion": MESSAGES, **_TRACE},
    "text": {"prompt": pa.string(), "completion": pa.string(), **_TRACE},
    "sharegpt": {"conversations": _SHAREGPT, **_TRACE},
}
"""The columns of each layout."""


@dataclass(frozen=True)
class StageExport:
    """A file of examples; `num_examples` is the sum of `kinds`.

    Attributes:
        num_dropped_over_long: How many of them training dropped, since they are longer than `max_length_tokens`; None
            where the stage is not trained so far.
        num_with_reasoning: How many responses hold `</think>`.
        template: What the student's chat template makes of them; None where that was not checked.
        unchecked_because: Why not.
    """

    path: Path
    run_id: str
    arm: str
    stage: str
    layout: str
    num_examples: int
    kinds: dict[str, int]
    num_dropped_over_long: int | None
    max_length_tokens: int | None
    num_with_reasoning: int
    template: TemplateReport | None
    unchecked_because: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "path": str(self.path)}


class StageExporter:
    """Writes the examples of one stage of one arm of a run.

    Args:
        store: A published store.
        workspace: Where it stands; the tokenizer that checks templates is that of the stage, or of the student.

    Raises:
        InputError: If the run has no such examples.
    """

    def __init__(self, store: Connection, workspace: Workspace, run_id: str, arm: str, stage: str) -> None:
        check_stage(store, run_id, arm, stage)
        self._store, self._workspace = store, workspace
        self._run_id, self._arm, self._stage = run_id, arm, stage
        self._trained = read_trained_stage(store, run_id, arm, stage)
        self._kinds: Counter[str] = Counter()
        self._num_with_reasoning = 0

    def write_for_trl(self, path: Path, layout: Layout, with_check: bool = True, strict: bool = False) -> StageExport:
        """Write one of TRL's layouts.

        Raises:
            InputError: If the layout needs a tokenizer and there is none; with `strict`, if the template would change
                or lose what HEAL trained on, or that cannot be checked.
        """
        check, why_not = self._open_check(layout) if with_check or layout == "text" else (None, "--no-check")
        if check is None and (layout == "text" or strict):
            wanted = "--layout text" if layout == "text" else "--strict"
            raise InputError(f"{wanted} needs the student's tokenizer: {why_not}. Train the stage, or leave it out.")
        self._write(path, layout, row_maker(layout, check), check, strict)
        return self._result(path, layout, check.report if check else None, why_not)

    def write_for_sharegpt(self, path: Path, with_check: bool = True) -> StageExport:
        """Write ShareGPT's layout. LLaMA-Factory has templates of its own, so that none is checked here."""
        check, _ = self._open_check("messages") if with_check else (None, "")
        complete: Callable[[TracedExample], TracedExample] = check.complete if check else lambda example: example
        self._write(path, "sharegpt", lambda example: as_sharegpt(complete(example)), None, False)
        return self._result(path, "sharegpt", None, "LLaMA-Factory renders with a template of its own")

    def _write(
        self,
        path: Path,
        layout: str,
        as_row: Callable[[TracedExample], dict[str, Any]],
        check: TemplateCheck | None,
        strict: bool,
    ) -> None:
        def rows() -> Iterator[Mapping[str, Any]]:
            for row in read_stage_rows(self._store, self._run_id, self._arm, self._stage):
                example = traced_example(row, self._arm, self._stage)
                self._kinds[example.kind] += 1
                self._num_with_reasoning += "</think>" in example.response
                if check is not None:
                    check.note(example)
                yield as_row(example)
            if strict and check is not None and check.report.num_losing:
                raise InputError(f"nothing was written (--strict): {describe_faults(check.report)}")

        write_rows(path, rows(), COLUMNS[layout])

    def _open_check(self, layout: Layout) -> tuple[TemplateCheck | None, str | None]:
        """Return what checks, or why nothing can."""
        folder, name = self._tokenizer_folder()
        if folder is None:
            return None, name
        try:
            tokenizer = load_tokenizer(EngineConfig(model_name_or_path=str(folder)), folder)
        except ModelError as error:
            return None, str(error)
        return TemplateCheck(tokenizer, name, layout), None

    def _tokenizer_folder(self) -> tuple[Path | None, str]:
        """Return where the student's tokenizer is and how to call it; None, and why, where it is nowhere."""
        if self._trained is not None and (folder := self._workspace.root / self._trained["folder"]).is_dir():
            return folder, str(self._trained["folder"])
        from heal_core.config import parse_config
        from heal_core.engines.identity import find_folder

        try:
            student = parse_config(
                json.loads(find_run(self._store, self._run_id)["config"]), "the run's config"
            ).student
            folder = find_folder(student)
        except (ConfigError, ModelError) as error:
            return None, str(error)
        if folder is None or not folder.is_dir():
            return None, f"{student.model_name_or_path} is not on this machine, and the stage has no checkpoint here"
        return folder, student.model_name_or_path

    def _result(self, path: Path, layout: str, report: TemplateReport | None, why_not: str | None) -> StageExport:
        trained = self._trained
        result = json.loads(trained["result"]) if trained is not None else {}
        return StageExport(
            path=path,
            run_id=self._run_id,
            arm=self._arm,
            stage=self._stage,
            layout=layout,
            num_examples=self._kinds.total(),
            kinds=dict(sorted(self._kinds.items())),
            num_dropped_over_long=trained["num_dropped_over_long"] if trained is not None else None,
            max_length_tokens=result.get("preflight", {}).get("max_length_tokens"),
            num_with_reasoning=self._num_with_reasoning,
            template=report,
            unchecked_because=why_not if report is None else None,
        )


def row_maker(layout: Layout, check: TemplateCheck | None) -> Callable[[TracedExample], dict[str, Any]]:
    """Return what makes the row of an example; `text` needs the check, which has the tokenizer."""
    if check is None:
        return CONVERSATIONS[layout]
    if layout == "text":
        return check.as_text
    return lambda example: CONVERSATIONS[layout](check.complete(example))


def describe_faults(report: TemplateReport) -> str:
    """Return what becomes of examples that are not trained as HEAL trained them, with some of each named."""
    return "; ".join(
        f"{report.faults[fault]} examples {words} (such as {', '.join(report.named[fault])})"
        for fault, words in FAULTS.items()
        if report.faults[fault]
    )
