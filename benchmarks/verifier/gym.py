"""A second, independent check of verdicts: problems and answers of reasoning-gym's own generators.

    python -m benchmarks.verifier.gym               one JSON line
    python -m benchmarks.verifier.gym --markdown    the table of docs/verifier.md, and each disagreement

A generator's own answer, in a box, has to be called correct, and one that was changed so that it is certainly wrong
must not be: by its scorer (problem type `reasoning_gym`), and where answers are numbers or expressions by type `math`.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from benchmarks.timing import print_report
from heal_core.gym.generate import make_lines
from heal_core.gym.library import library_version
from heal_core.reference import Reference
from heal_core.sources.config import GymConfig
from heal_core.verify.config import VerifyConfig
from heal_core.verify.pool import GradeItem, VerifierPool

GYM, MATH = "reasoning_gym", "math"

_NUMERAL = re.compile(r"\d+(?:\.\d+)?")
_TOKENS = re.compile(r"[^\s,\[\]]+")


def add_one(answer: str, others: Sequence[str]) -> str | None:
    """Return the answer with its first numeral one larger, None without one."""
    found = _NUMERAL.search(answer)
    return None if found is None else answer[: found.start()] + str(Decimal(found[0]) + 1) + answer[found.end() :]


def flip_sign(answer: str, others: Sequence[str]) -> str | None:
    """Return a number other than 0 with the other sign."""
    if not re.fullmatch(r"-?[\d.]+(?:e-?\d+)?", answer) or not Decimal(answer):
        return None
    return answer[1:] if answer.startswith("-") else f"-{answer}"


def swap_digits(answer: str, others: Sequence[str]) -> str | None:
    """Return the answer with the first two neighbouring digits that differ in each other's place."""
    for found in re.finditer(r"(?=(\d)(\d))", answer):
        if found[1] != found[2]:
            return answer[: found.start()] + found[2] + found[1] + answer[found.start() + 2 :]
    return None


def swap_parts(answer: str, others: Sequence[str]) -> str | None:
    """Return a list with the first two neighbours that differ in each other's place."""
    parts = list(_TOKENS.finditer(answer))
    for one, other in itertools.pairwise(parts):
        if one[0].casefold() != other[0].casefold():
            return (
                f"{answer[: one.start()]}{other[0]}{answer[one.end() : other.start()]}{one[0]}{answer[other.end() :]}"
            )
    return None


def drop_part(answer: str, others: Sequence[str]) -> str | None:
    """Return a list without its last part."""
    parts = list(_TOKENS.finditer(answer))
    return answer[: parts[-1].start()].rstrip(" ,\n") + answer[parts[-1].end() :] if len(parts) > 1 else None


def take_another(answer: str, others: Sequence[str]) -> str | None:
    """Return the answer of another problem, or the other option."""
    return next((other for other in others if other.strip().casefold() != answer.strip().casefold()), None)


Change = Callable[[str, Sequence[str]], str | None]

_NUMBER: tuple[Change, ...] = (add_one, flip_sign, swap_digits, take_another)
_LIST: tuple[Change, ...] = (swap_parts, drop_part, take_another)


@dataclass(frozen=True)
class Case:
    """How the answers of a generator can be made wrong, and whether type math can read them."""

    changes: tuple[Change, ...]
    is_math: bool = False


CASES: dict[str, Case] = {
    **dict.fromkeys(
        [
            "basic_arithmetic", "binary_alternation", "chain_sum", "count_bits", "count_primes", "decimal_chain_sum",
            "gcd", "gsm_symbolic", "largest_island", "lcm", "leg_counting", "letter_counting", "maze", "number_format",
            "number_sequence", "products", "rectangle_count", "rotten_oranges", "self_reference", "simple_equations",
            "simple_geometry",
        ],
        Case(_NUMBER, is_math=True),
    ),
    "decimal_arithmetic": Case((add_one, flip_sign, take_another), is_math=True),
    "dice": Case((add_one, swap_digits, take_another), is_math=True),
    "coin_flip": Case((add_one, flip_sign, take_another), is_math=True),
    "power_function": Case((flip_sign, take_another), is_math=True),  # three digits count: one more may be none
    "fraction_simplification": Case((add_one, swap_digits, take_another), is_math=True),
    "complex_arithmetic": Case((add_one, take_another), is_math=True),
    "prime_factorization": Case((add_one, drop_part, take_another), is_math=True),
    "polynomial_multiplication": Case((add_one, take_another), is_math=True),
    "simple_integration": Case((add_one, take_another), is_math=True),
    "polynomial_equations": Case((add_one, take_another), is_math=True),
    "advanced_geometry": Case((add_one, take_another), is_math=True),
    "countdown": Case((add_one, take_another)),
    "puzzle24": Case((add_one,)),
    "bitwise_arithmetic": Case((take_another,)),
    "base_conversion": Case((take_another,)),
    "cryptarithm": Case((drop_part, take_another)),  # one more can be another solution, where a letter cancels
    "number_sorting": Case(_LIST),
    "spiral_matrix": Case(_LIST),
    "pool_matrix": Case((add_one, drop_part)),
    "rotate_matrix": Case((add_one, swap_parts)),
    "string_splitting": Case((add_one, swap_parts)),
    "word_sequence_reversal": Case(_LIST),
    "word_sorting": Case(_LIST),
    "sudoku": Case((swap_parts, drop_part)),
    **dict.fromkeys(
        ["course_schedule", "game_of_life_halting", "isomorphic_strings", "ransom_note", "spell_backward", "syllogism"],
        Case((take_another,)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """An answer in a box against the reference, under an id, and whether it is right."""

    generator: str
    answer: str
    reference: Reference
    change: str  # "" for the generator's own answer

    @property
    def is_right(self) -> bool:
        return not self.change


def make_trials(generators: Sequence[str], num_items: int, seed: int) -> Iterator[Trial]:
    """Yield the trials of so many problems of each generator."""
    for name in generators:
        request = GymConfig(dataset=name, size=num_items, seed=seed).model_dump()
        rows = [line["row"] for line in make_lines(request) if "row" in line]
        answers = [row["answer"] for row in rows]
        case = CASES[name]
        for index, row in enumerate(rows):
            own = row["answer"]
            references = [Reference(own, GYM, row["spec"])] + [Reference(own, MATH)] * case.is_math
            texts = {"": own}
            for change in case.changes:
                changed = change(own, answers[index + 1 :] + answers[:index])
                if changed is not None and changed != own:
                    texts[change.__name__] = changed
            for change_name, text in texts.items():
                for reference in references:
                    yield Trial(name, text, reference, change_name)


def grade_trials(trials: Sequence[Trial]) -> list[str]:
    """Return the labels of the verifier, from its own processes."""
    items = [
        GradeItem(str(index), f"The answer is \\boxed{{{trial.answer}}}.", trial.reference)
        for index, trial in enumerate(trials)
    ]
    with VerifierPool(VerifyConfig()) as pool:
        verdicts = dict(pool.grade_all(items))
    return [str(verdicts[item.item_id].label) for item in items]


def measure(trials: Sequence[Trial], labels: Sequence[str]) -> dict[str, Any]:
    """Return, per generator and problem type, how many own answers were missed and wrong ones taken."""
    figures: dict[str, Any] = {}
    for trial, label in zip(trials, labels, strict=True):
        of_type = figures.setdefault(trial.generator, {}).setdefault(
            trial.reference.problem_type, {"own": 0, "missed": 0, "changed": 0, "taken": 0}
        )
        of_type["own" if trial.is_right else "changed"] += 1
        of_type["missed"] += trial.is_right and label != "correct"
        of_type["taken"] += not trial.is_right and label == "correct"
    return figures


def disagreements(trials: Sequence[Trial], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the trials of which the verifier says something else than the truth."""
    return [
        {
            "generator": trial.generator, "type": trial.reference.problem_type, "reference": trial.reference.answer,
            "answer": trial.answer, "change": trial.change, "label": label,
        }
        for trial, label in zip(trials, labels, strict=True)
        if (label == "correct") != trial.is_right
    ]  # fmt: skip


def markdown(figures: Mapping[str, Any], errors: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of docs/verifier.md and, under it, a line for each disagreement."""
    lines = [
        "| generator | problems | changed answers | scorer: missed | taken | math: missed | taken |",
        "|---|---|---|---|---|---|---|",
    ]
    totals = dict.fromkeys(("own", "changed", GYM, MATH), 0)
    sums = {kind: {"missed": 0, "taken": 0} for kind in (GYM, MATH)}
    for name, found in figures.items():
        cells = []
        for kind in (GYM, MATH):
            counts = found.get(kind)
            cells += ["-", "-"] if counts is None else [str(counts["missed"]), str(counts["taken"])]
            for key in sums[kind]:
                sums[kind][key] += counts[key] if counts else 0
        lines.append(f"| {name} | {found[GYM]['own']} | {found[GYM]['changed']} | {' | '.join(cells)} |")
        for key in ("own", "changed"):
            totals[key] += found[GYM][key]
    last = " | ".join(str(sums[kind][key]) for kind in (GYM, MATH) for key in ("missed", "taken"))
    lines += [f"| **all {len(figures)}** | {totals['own']} | {totals['changed']} | {last} |", ""]
    lines += [
        f"{error['generator']}, {error['type']}: {error['answer']!r} for {error['reference']!r} "
        f"({error['change'] or 'own answer'}) called {error['label']}"
        for error in errors
    ]
    return "\n".join(lines)


def main() -> None:
    """Grade own and changed answers of the generators and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print a table instead of JSON")
    parser.add_argument("--problems", type=int, default=25, help="of each generator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generators", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    asked = parser.parse_args()
    trials = list(make_trials(asked.generators, asked.problems, asked.seed))
    labels = grade_trials(trials)
    figures, errors = measure(trials, labels), disagreements(trials, labels)
    if asked.markdown:
        print(markdown(figures, errors))
    else:
        print_report(
            "verifier_gym",
            {"reasoning_gym_version": library_version(), "generators": figures, "disagreements": errors},
        )


if __name__ == "__main__":
    main()
