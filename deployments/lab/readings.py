"""What students of the lab learnt: do their answers name the unusual words, read them rightly, and calculate?

`python -m deployments.lab.readings WORKSPACE` takes the texts of a store of the lab apart, step by step, which a
benchmark of real problems does not allow: what the last stage of each arm shows its student, and what that one then
answers. The answer of a lab problem is one of 100 numbers, so that a misread chain may hit it by luck; this tells such
answers from those that were understood.

What does not belong here: anything that HEAL itself uses.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from deployments.lab.world import FRONTIER_WORDS, MEANINGS, TRUE_MEANING, parse_question
from heal_core.arms import ARMS
from heal_core.errors import StoreError
from heal_core.store.inspect import open_store

_STEP = re.compile(r"(\d+)\. (.+?)\.?$", re.MULTILINE)
_READING = re.compile(r"(?P<word>\w+): (?P<working>[a-z0-9 ]+?) (?P<before>\d+) to get (?P<after>\d+)")
_STATED = re.compile(r"(?:The final answer is \\boxed\{|The result is )(\d+)")
_SHOWN = """
    SELECT DISTINCT s.run_id, s.arm, p.question, p.answer, t.prefix || t.text, TRUE, t.trajectory_id
    FROM stage_examples s JOIN trajectories t USING (trajectory_id) JOIN problems p ON p.problem_id = s.problem_id
    WHERE p.source = 'lab' AND s.stage = 'III' AND ($run_id IS NULL OR s.run_id = $run_id)
    AND s.run_id IN (SELECT run_id FROM evaluations)
"""  # each text once, though shuffled stages repeat it; and none of runs that were asked for no students
_ANSWERS = """
    SELECT r.run_id, r.arm, p.question, p.answer, r.text, r.label = 'correct', r.trajectory_id
    FROM run_trajectories r JOIN problems p USING (problem_id)
    JOIN decisions b ON b.run_id = r.run_id AND b.problem_id = r.problem_id AND b.phase = 'band'
    WHERE p.source = 'lab' AND r.phase = 'evaluation' AND ($run_id IS NULL OR r.run_id = $run_id)
"""
_ALL_ANSWERS = "answers to all held-out problems"
_TABLES = {
    "texts of the last stage": _SHOWN,
    "answers to held-out problems that are extremely hard": f"{_ANSWERS} AND b.decision = 'extremely_hard'",
    _ALL_ANSWERS: _ANSWERS,
}


@dataclass
class Counts:
    """Sums over the answers of an arm, or over what it learns from.

    Attributes:
        num_steps: Steps of the problems with a word of the frontier; in `num_named` the answer's step of that number
            names the word, in `num_read` with its true meaning, in `num_calculated` with the right number as well.
        num_with_words: Answers to problems with unusual words; in `num_understood` each is named and read rightly.
        num_lucky: Correct answers among the others.
        num_stated: Answers whose stated number is right, boxed or not.
    """

    num_answers: int = 0
    num_correct: int = 0
    num_stated: int = 0
    num_steps: int = 0
    num_named: int = 0
    num_read: int = 0
    num_calculated: int = 0
    num_with_words: int = 0
    num_understood: int = 0
    num_understood_correct: int = 0
    num_lucky: int = 0

    def add(self, question: str, answer: str, text: str, is_correct: bool) -> None:
        """Count one answer to a question of the lab, which `answer` is right for."""
        chain, steps = parse_question(question), dict(_STEP.findall(text))
        self.num_answers += 1
        self.num_correct += is_correct
        stated = _STATED.findall(text)
        self.num_stated += bool(stated) and stated[-1] == answer
        are_read = []
        for number, (word, _) in enumerate(chain.operations, 1):
            if word not in TRUE_MEANING:
                continue
            reading = _READING.match(steps.get(str(number), ""))
            is_named = reading is not None and reading["word"] == word
            meaning = MEANINGS[TRUE_MEANING[word]]
            is_read = is_named and reading is not None and reading["working"] == meaning.working
            are_read.append(is_read)
            if word in FRONTIER_WORDS:
                self.num_steps += 1
                self.num_named += is_named
                self.num_read += is_read
                self.num_calculated += (
                    is_read and reading is not None and meaning.apply(int(reading["before"])) == int(reading["after"])
                )
        if are_read:
            self.num_with_words += 1
            self.num_understood += all(are_read)
            self.num_understood_correct += all(are_read) and is_correct
            self.num_lucky += not all(are_read) and is_correct


def count(answers: Iterable[tuple[str, str, str, str, bool]]) -> dict[str, Counts]:
    """Return the sums by arm of (arm, question, answer, text, is_correct)."""
    counts: dict[str, Counts] = defaultdict(Counts)
    for arm, question, answer, text, is_correct in answers:
        counts[arm].add(question, answer, text, is_correct)
    return dict(counts)


def table(counts: dict[str, Counts], title: str) -> Table:
    """Return the sums in the order of arms."""
    found = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    columns = ("", "answers", "correct", "stated", "frontier steps", "named", "read rightly", "calculated",
               "with words", "understood", "of them correct", "others correct")  # fmt: skip
    for name in columns:
        found.add_column(name, justify="right" if name else "left", no_wrap=not name)
    for arm in (arm for arm in ARMS if arm in counts):
        one = counts[arm]
        numbers = (one.num_answers, one.num_correct, one.num_stated, one.num_steps, one.num_named, one.num_read,
                   one.num_calculated, one.num_with_words, one.num_understood, one.num_understood_correct,
                   one.num_lucky)  # fmt: skip
        found.add_row(ARMS[arm].label, *(f"{number:,}" for number in numbers))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--run", help="of one run alone (a run_id); else of all in the workspace")
    args = parser.parse_args()
    try:
        with open_store(args.workspace) as connection:
            found = {
                title: connection.execute(query, {"run_id": args.run}).fetchall() for title, query in _TABLES.items()
            }
    except StoreError as error:
        parser.error(str(error))
    if not found[_ALL_ANSWERS]:
        parser.error(
            f"no answer to a held-out problem of the lab is in {args.workspace}; expected a run that has evaluated"
        )
    for title, rows in found.items():
        if rows:  # a small run may have no problem of a band
            Console(width=140).print(table(count(row[1:6] for row in rows), title))


if __name__ == "__main__":
    main()
