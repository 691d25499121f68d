"""The problems of a run with all samples of each, a row per problem, in the columns of OpenR1-Math.

`heal import` reads it back. What does not belong here: examples in training order (`stage`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from heal_core.export.examples import prompt_of, turn
from heal_core.export.files import MESSAGES, write_rows
from heal_core.export.names import public_name
from heal_core.records import FinishReason, VerdictLabel
from heal_core.reference import CodeReference, reference_of
from heal_core.store.examples import count_problems, read_problem_samples
from heal_core.store.inspect import Connection

COLUMNS: dict[str, pa.DataType] = {
    "problem": pa.string(),
    "solution": pa.string(),
    "answer": pa.string(),
    "problem_type": pa.string(),
    "source": pa.string(),
    "uuid": pa.string(),
    "generations": pa.list_(pa.string()),
    "finish_reasons": pa.list_(pa.string()),
    "correctness": pa.list_(pa.bool_()),
    "correctness_count": pa.int64(),
    "messages": MESSAGES,
    "problem_id": pa.string(),
    "split": pa.string(),
    "band": pa.string(),
    "kinds": pa.list_(pa.string()),
    "trajectory_ids": pa.list_(pa.string()),
}


@dataclass(frozen=True)
class OpenR1Export:
    """A file of problems; `num_problems` is the sum of `splits`, `num_generations` that of `kinds`.

    Attributes:
        num_correct: Generations that a verifier calls correct and that were not cut.
        num_without_correct: Problems without such a one, whose `messages` are null.
        num_without_samples: Problems of the splits that were asked for without any sample, which have no row.
        num_held_out_left_out: Held-out problems that were not asked for.
    """

    path: Path
    run_id: str
    num_problems: int
    splits: dict[str, int]
    num_generations: int
    kinds: dict[str, int]
    num_correct: int
    num_without_correct: int
    num_without_samples: int
    num_held_out_left_out: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "path": str(self.path)}


def export_openr1(
    store: Connection, run_id: str, path: Path, additions: Sequence[str] = (), held_out: bool = False
) -> OpenR1Export:
    """Write the rollouts of a run's training problems, right and wrong ones.

    Args:
        additions: Phases, `guided` or `repairs`, whose kept samples follow the rollouts of a problem. They were
            written with the answer or a hint in sight, so they do not tell how hard a problem is.
        held_out: Write the held-out problems too, on which no student of the run was trained.
    """
    splits: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    num_correct = num_without_correct = 0

    def rows() -> Iterator[Mapping[str, Any]]:
        nonlocal num_correct, num_without_correct
        samples = read_problem_samples(store, run_id, additions, held_out)
        for _, group in groupby(samples, key=lambda sample: sample["problem_id"]):
            row = problem_row(list(group))
            splits[row["split"]] += 1
            kinds.update(row["kinds"])
            num_correct += row["correctness_count"]
            num_without_correct += row["messages"] is None
            yield row

    num_problems = write_rows(path, rows(), COLUMNS)
    known = count_problems(store, run_id)
    num_held_out = known.get("held_out", 0)
    return OpenR1Export(
        path=path,
        run_id=run_id,
        num_problems=num_problems,
        splits=dict(sorted(splits.items())),
        num_generations=kinds.total(),
        kinds=dict(sorted(kinds.items())),
        num_correct=num_correct,
        num_without_correct=num_without_correct,
        num_without_samples=sum(known.values()) - (0 if held_out else num_held_out) - num_problems,
        num_held_out_left_out=0 if held_out else num_held_out,
    )


def problem_row(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the row of one problem from its samples, at least one; all lists have their order.

    `correctness` is null where the verifier could not tell. `messages` is the prompt with the first correct
    generation, null without one. A program that answers a problem is its `solution` too.
    """
    problem = samples[0]
    reference = reference_of({**problem, "spec": problem.get("spec")})
    correctness = [_is_correct(sample["label"]) for sample in samples]
    generations = [sample["response"] for sample in samples]
    first = correctness.index(True) if True in correctness else None
    return {
        "problem": problem["question"],
        "solution": reference.answer if isinstance(reference, CodeReference) and reference.is_solution else None,
        "answer": problem["answer"],
        "problem_type": problem["problem_type"],
        "source": public_name(problem["source"]),
        "uuid": problem["uuid"],
        "generations": generations,
        "finish_reasons": [_finish_reason(sample) for sample in samples],
        "correctness": correctness,
        "correctness_count": correctness.count(True),
        "messages": (
            None if first is None else [turn("user", prompt_of(problem)), turn("assistant", generations[first])]
        ),
        "problem_id": problem["problem_id"],
        "split": problem["split"],
        "band": problem["band"],
        "kinds": [sample["kind"] for sample in samples],
        "trajectory_ids": [sample["trajectory_id"] for sample in samples],
    }


def _is_correct(label: str | None) -> bool | None:
    if label not in (VerdictLabel.CORRECT, VerdictLabel.WRONG):
        return None
    return label == VerdictLabel.CORRECT


def _finish_reason(sample: Mapping[str, Any]) -> str:
    """Return `stop` or `length`, which others know: a text that was given up, or is too long for the run, was cut."""
    ended = sample["finish_reason"] == FinishReason.STOP and not sample["cut"]
    return str(FinishReason.STOP if ended else FinishReason.LENGTH)
