"""Answers under the scorers of reasoning-gym: the full mark is right, and nothing that an answer says is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.gym import library
from heal_core.gym.entry import pack
from heal_core.gym.library import library_version, make_generator
from heal_core.keys import STAGE_VERSIONS
from heal_core.records import VerdictLabel
from heal_core.reference import Reference
from heal_core.specs import GymSpec, write_spec
from heal_core.verify.config import DEFAULTS, VerifyConfig
from heal_core.verify.grade import grade, verifier_identities, verifier_identity
from heal_core.verify.gym import MAX_SCORED_CHARS
from heal_core.verify.pool import GradeItem, VerifierPool

pytestmark = pytest.mark.usefixtures("reasoning_gym")


def reference(generator: str, index: int = 0, **config: Any) -> Reference:
    entry = make_generator(generator, config, None, size=index + 1)[index]
    return Reference(
        entry["answer"], "reasoning_gym", write_spec(GymSpec(generator=generator, config=config, entry=pack(entry)))
    )


def outcome(answer: str, asked: Reference) -> tuple[str, str | None]:
    verdict = grade(f"So it is \\boxed{{{answer}}}.", asked)
    return str(verdict.label), verdict.reason


def test_the_full_mark_is_right_and_a_part_of_it_is_not() -> None:
    asked = reference("word_sorting")  # of a list of words; marks are given for each
    assert outcome(asked.answer, asked) == ("correct", None)
    words = asked.answer.split(", ")
    scorer = make_generator("tower_of_hanoi", {}, None, size=1)
    assert outcome(", ".join([words[1], words[0], *words[2:]]), asked) == ("wrong", "different")
    moves = reference("tower_of_hanoi")
    half = "\n".join(moves.answer.splitlines()[:-1])
    assert 0 < scorer.score_answer(half, scorer[0]) < 1
    assert outcome(half, moves) == ("wrong", "different")
    assert outcome(moves.answer, moves) == ("correct", None)


@pytest.mark.parametrize(
    ("generator", "write"),
    [
        ("needle_haystack", "\\text{{{}}}"),
        ("needle_haystack", "\\mathrm{{\\text{{{}}}}}"),
        ("sudoku", "{}"),  # several lines
        ("gcd", "${}$"),
        ("gcd", " {} "),
    ],
)
def test_the_same_answer_in_latex_is_right(generator: str, write: str) -> None:
    asked = reference(generator)
    assert outcome(write.format(asked.answer), asked) == ("correct", None)


def test_signs_of_latex_are_those_of_the_scorer() -> None:
    asked = next(found for found in (reference("prime_factorization", n) for n in range(9)) if "×" in found.answer)
    assert outcome(asked.answer.replace("×", "\\times"), asked) == ("correct", None)
    puzzle = next(found for found in (reference("countdown", n) for n in range(9)) if "*" in found.answer)
    assert outcome(puzzle.answer.replace("*", " \\times "), puzzle) == ("correct", None)
    lists = reference("group_anagrams")
    assert outcome(lists.answer.replace("[", "\\left[").replace("]", "\\right]"), lists) == ("correct", None)


def test_settings_of_the_generator_count() -> None:
    """Of decimal_arithmetic the largest error that is forgiven is one of the last place."""
    exact, rough = (reference("decimal_arithmetic", max_num_decimal_places=places) for places in (10, 3))
    for asked, expected in ((exact, "wrong"), (rough, "correct")):
        spec = GymSpec.model_validate_json(asked.spec)
        near = spec.model_copy(update={"entry": {**spec.entry, "answer": "1.0000"}})
        assert outcome("1.0005", Reference("1.0000", "reasoning_gym", write_spec(near)))[0] == expected


def test_a_tuple_of_the_entry_is_still_one() -> None:
    asked = reference("rearc")  # its scorer compares tuples, and JSON has none
    assert outcome(asked.answer, asked) == ("correct", None)


def test_what_a_scorer_cannot_read_is_wrong() -> None:
    asked = reference("prime_factorization")
    assert outcome("two times three", asked) == ("wrong", "unparsable_answer")  # it raises
    assert outcome("1" * (MAX_SCORED_CHARS + 1), asked) == ("wrong", "answer_too_long")
    assert grade("I do not know.", asked).reason == "no_answer"


def test_a_generator_that_is_not_there_and_an_entry_that_is_none_end_no_worker() -> None:
    gone = Reference("1", "reasoning_gym", write_spec(GymSpec(generator="chain_sums", entry={"answer": "1"})))
    found = grade("\\boxed{1}", gone)
    assert (found.label, found.reason) == (VerdictLabel.UNVERIFIABLE, "bad_spec")
    bare = Reference("24", "reasoning_gym", write_spec(GymSpec(generator="puzzle24", entry={"question": "Q?"})))
    found = grade("\\boxed{24}", bare)
    assert (found.label, found.reason) == (VerdictLabel.WRONG, "unparsable_answer")


def test_an_answer_is_not_run(tmp_path: Path) -> None:
    place = tmp_path / "run"
    for generator in ("spiral_matrix", "countdown", "simple_integration"):
        asked = reference(generator)
        assert outcome(f"__import__('pathlib').Path('{place}').touch()", asked)[0] == "wrong"
        assert outcome(f"\\text{{__import__('pathlib').Path('{place}').touch()}}", asked)[0] == "wrong"
    assert not place.exists()


def test_verdicts_carry_the_version_of_the_package() -> None:
    asked = reference("gcd")
    verdict = grade(f"\\boxed{{{asked.answer}}}", asked)
    identity = ("reasoning-gym", f"{library_version()}+{STAGE_VERSIONS['verdict']}")
    assert (verdict.verifier, verdict.verifier_version) == verifier_identity("reasoning_gym") == identity
    assert identity in verifier_identities(DEFAULTS)


def test_without_the_package_others_are_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = reference("gcd")
    monkeypatch.setattr("heal_core.verify.grade.library_version", lambda: None)
    assert "reasoning-gym" not in dict(verifier_identities(DEFAULTS))
    monkeypatch.setattr(library, "library_version", lambda: None)
    with VerifierPool(VerifyConfig()) as pool, pytest.raises(InputError, match=r"heal-distill\[reasoning-gym\]"):
        pool.grade_all([GradeItem("a", "\\boxed{1}", asked)])


@pytest.mark.slow
def test_workers_that_grade_load_the_package_when_it_is_first_needed() -> None:
    asked = reference("gcd")
    gym, plain = GradeItem("gym", f"\\boxed{{{asked.answer}}}", asked), GradeItem("plain", "\\boxed{5}", Reference("5"))
    # a limit far below what the import takes: it does not count against the item
    with VerifierPool(VerifyConfig(num_workers=1, timeout_seconds=0.3)) as pool:
        assert dict(pool.grade_all([plain]))["plain"].label is VerdictLabel.CORRECT
        before = pool.worker_pids
        labels = {item_id: verdict.label for item_id, verdict in pool.grade_all([plain, gym])}
        assert labels == {"gym": VerdictLabel.CORRECT, "plain": VerdictLabel.CORRECT}
        after = pool.worker_pids
        assert before != after
        assert dict(pool.grade_all([plain, gym]))["gym"].label is VerdictLabel.CORRECT
        assert pool.worker_pids == after
