"""Each rule is needed, refuses what the scorer would run or take, and lets the right answer pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from heal_core.gym.library import make_generator
from heal_core.gym.rules import REFUSED, RULES, permits

pytestmark = pytest.mark.usefixtures("reasoning_gym")

RUNS_ANSWERS = {
    "string_insertion", "spiral_matrix", "binary_matrix", "n_queens", "simple_integration", "intermediate_integration",
    "polynomial_multiplication", "countdown", "puzzle24",
}  # fmt: skip
CALL = "__import__('pathlib').Path('PLACE').touch()"


def entry_of(name: str, index: int = 0) -> tuple[Any, dict[str, Any]]:
    made = make_generator(name, {}, None, size=index + 1, seed=1)
    return made, made[index]


@pytest.mark.parametrize("name", sorted(RUNS_ANSWERS))
def test_an_answer_is_never_run(name: str, tmp_path: Path) -> None:
    scorer, entry = entry_of(name)
    place = tmp_path / "run"
    attack = CALL.replace("PLACE", str(place))
    assert not permits(name, attack, entry)
    scorer.score_answer(attack, entry)
    assert place.exists()  # which is why: the scorer does run it
    for other in (
        attack + "#",
        f"[{attack}]",
        f"x.{attack}",
        "().__class__",
        'exec("1")',
        "x[0]",
        "f'{x}'",
        "lambda: 1",
    ):
        assert not permits(name, other, entry)


# what a scorer gives the full mark, and is wrong
TAKEN = [
    ("puzzle24", lambda entry: "6*4*1*1"),
    ("gsm_symbolic", lambda entry: f"-{entry['answer']}"),
    ("gsm_symbolic", lambda entry: f"{entry['answer']} or 1"),
    ("coin_flip", lambda entry: "0"),
    ("complex_arithmetic", lambda entry: "nan"),
    ("game_of_life_halting", lambda entry: "perhaps"),
    ("number_sorting", lambda entry: re.sub(r"\d+", lambda digits: str(int(digits[0]) + 1), entry["answer"], count=1)),
    ("intermediate_integration", lambda entry: f"Integral({entry['metadata']['integrand']}, x)"),
]


@pytest.mark.parametrize(("name", "wrong"), TAKEN, ids=[name for name, _ in TAKEN])
def test_a_wrong_answer_that_the_scorer_takes_is_refused(name: str, wrong: Any) -> None:
    scorer, entry = entry_of(name)
    assert scorer.score_answer(wrong(entry), entry) >= 1.0
    assert not permits(name, wrong(entry), entry)


def test_twenty_four_is_not_its_integer_part() -> None:
    scorer, entry = entry_of("puzzle24")
    entry["metadata"]["numbers"] = [7, 7, 2, 4]
    assert scorer.score_answer("7*7/2", entry) < 1.0  # three numbers
    entry["metadata"]["numbers"] = [7, 7, 2, 1]
    assert scorer.score_answer("7*7/2*1", entry) == 1.0
    assert not permits("puzzle24", "7*7/2*1", entry)
    entry["metadata"]["numbers"] = [6, 4, 1, 1]
    assert permits("puzzle24", "6*4*1*1", entry)


@pytest.mark.parametrize("name", sorted(RULES))
def test_the_right_answer_passes(name: str) -> None:
    passed = 0
    for index in range(6):
        scorer, entry = entry_of(name, index)
        if "Integral" in entry["answer"]:  # a task that sympy could not solve
            continue
        assert permits(name, entry["answer"], entry), entry["answer"]
        assert scorer.score_answer(entry["answer"], entry) == 1.0
        passed += 1
    assert passed >= 3


def test_no_other_scorer_runs_anything() -> None:
    """A new version of the package, whose scorers may run more, fails here."""
    import reasoning_gym

    root = Path(reasoning_gym.__file__).parent
    running = re.compile(r"\b(?:eval|exec|parse_expr|sympify|literal_eval|system|Popen|loads)\(")
    found = {}
    for path in root.rglob("*.py"):
        scorers = re.findall(r"    def score_answer\(.*?(?=\n    def |\n\S|\Z)", path.read_text(), re.DOTALL)
        calls = sorted({call for scorer in scorers for call in running.findall(scorer)} - {"loads("})
        if calls:
            found[path.stem] = calls
    # number_sorting evaluates its own answer; propositional_logic has a parser of its own, outside of its scorer
    assert set(found) == RUNS_ANSWERS | {"number_sorting"}


def test_rules_and_refusals_are_of_known_generators() -> None:
    from reasoning_gym.factory import DATASETS

    assert set(RULES) | set(REFUSED) <= set(DATASETS)
    assert not set(RULES) & set(REFUSED)
