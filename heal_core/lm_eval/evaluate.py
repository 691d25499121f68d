"""One student on the tasks of lm-evaluation-harness, in a watched child; its report as rows.

What does not belong here: what is evaluated already (`tasks.lm_eval`), and the package itself (`harness`).
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heal_core.children import child_environment, start_child
from heal_core.engines import gpu
from heal_core.engines.base import EngineConfig
from heal_core.engines.settings import adapter_base
from heal_core.errors import EvaluationError
from heal_core.lm_eval.config import LmEvalConfig
from heal_core.lm_eval.harness import interpreter

CONFIG_FILE, LOG_FILE, OUTPUT = "config.json", "lm_eval.log", "output"
_POLL_SECONDS = 0.5
_LOG_TAIL_LINES = 20
_MAX_TOLD = 1000
"""Characters of a report without numbers that an error repeats."""


@dataclass(frozen=True)
class LmEvalResult:
    """One number of the harness; `None` where it does not say."""

    task: str
    metric: str
    filter: str
    value: float
    standard_error: float | None
    higher_is_better: bool | None
    num_samples: int | None
    num_fewshot: int | None
    task_version: str | None
    task_hash: str | None
    lm_eval_version: str


def run_harness(
    config: LmEvalConfig, student: EngineConfig, model: Path, folder: Path, check_end: Callable[[], None]
) -> tuple[LmEvalResult, ...]:
    """Return the results of one student; the harness's report, with every answer, stays in `folder`.

    Args:
        student: How students run: dtype, device, whether they may bring code.
        model: The student's folder.
        folder: For the child's config, log and output.
        check_end: Called while it is waited for; what it raises ends the child.

    Raises:
        EvaluationError: If the child failed or took longer than `call_seconds`, with the end of its log; or if its
            report holds no number, with what it does hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings, log_path = folder / CONFIG_FILE, folder / LOG_FILE
    settings.write_text(json.dumps(harness_settings(config, student, model, folder / OUTPUT), indent=2))
    command = [interpreter(config), "-m", "lm_eval", "run", "--config", str(settings)]
    with log_path.open("wb") as log:
        child = start_child(command, env=child_environment(), stdout=log, stderr=log)
        try:
            _wait(child, config.call_seconds, log_path, check_end)
        finally:
            child.kill()  # a no-op unless waiting was interrupted
            child.wait()
    reports = sorted((folder / OUTPUT).rglob("results_*.json"), key=lambda path: path.name)
    if child.returncode != 0 or not reports:
        cause = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        raise EvaluationError("\n".join([f"lm-eval on {model} ended with {cause}; its log {log_path} ends:", *lines]))
    report = json.loads(reports[-1].read_text(encoding="utf-8"))
    results = tuple(read_report(report))
    if not results:
        raise EvaluationError(
            f"lm-eval on {model} gave no number for {', '.join(config.tasks)}; expected a metric of each task, found "
            f"{json.dumps(report['results'])[:_MAX_TOLD]} in {reports[-1]}. Its log is {log_path}; give tasks that "
            "measure something."
        )
    return results


def harness_settings(config: LmEvalConfig, student: EngineConfig, model: Path, output: Path) -> dict[str, Any]:
    """Return the harness's own config of an evaluation; a folder that holds an adapter alone names its base.

    Raises:
        ModelError: If what the adapter says of its base cannot be read.
    """
    base = adapter_base(model)
    pretrained = {"pretrained": str(model)}
    if base is not None:
        pretrained = {"pretrained": base, "peft": str(model), "tokenizer": str(model)}
    dtype = {"dtype": student.dtype} if student.dtype != "auto" else {}
    limit = config.limit if config.limit is None or config.limit < 1 else int(config.limit)
    return {
        "model": config.model,
        "model_args": {**pretrained, **dtype, **config.model_args},
        "tasks": list(config.tasks),
        "num_fewshot": config.num_fewshot,
        "batch_size": config.batch_size,
        # left out, it would be `cuda`, also where there is no GPU
        "device": student.device if student.device != "auto" else "cuda" if gpu.free_mib() else "cpu",
        "limit": limit,
        "include_path": config.include_path,
        "apply_chat_template": config.apply_chat_template,
        "system_instruction": config.system_instruction,
        "gen_kwargs": config.gen_kwargs,
        "trust_remote_code": student.trust_remote_code,
        "output_path": str(output),
        "log_samples": True,  # the hash of a task is made of them
    }


def read_report(report: Mapping[str, Any]) -> Iterator[LmEvalResult]:
    """Yield the numbers of a report of the harness (`results_*.json`), of tasks and groups."""
    for task, measured in report["results"].items():
        for name, value in measured.items():
            metric, separator, filter_name = name.partition(",")
            if not separator or metric.endswith("_stderr") or not _is_number(value):
                continue
            error = measured.get(f"{metric}_stderr,{filter_name}")
            version = report.get("versions", {}).get(task)
            yield LmEvalResult(
                task=task,
                metric=metric,
                filter=filter_name,
                value=float(value),
                standard_error=float(error) if _is_number(error) else None,
                higher_is_better=report.get("higher_is_better", {}).get(task, {}).get(metric),
                num_samples=report.get("n-samples", {}).get(task, {}).get("effective"),
                num_fewshot=report.get("n-shot", {}).get(task),
                task_version=None if version in (None, "N/A", "Yaml") else str(version),
                task_hash=report.get("task_hashes", {}).get(task),
                lm_eval_version=report["lm_eval_version"],
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wait(child: subprocess.Popen[bytes], seconds: float, log_path: Path, check_end: Callable[[], None]) -> None:
    ends_at = time.monotonic() + seconds
    while True:
        try:
            child.wait(_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            check_end()
        if time.monotonic() > ends_at:
            raise EvaluationError(
                f"lm-eval took longer than evaluation.lm_eval.call_seconds ({seconds:g} s) and was ended; its log is "
                f"{log_path}. Set a limit on its problems, a larger batch_size, or more time."
            )
