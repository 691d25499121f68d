"""The hand-checked triples: well made, and graded as known. A verdict that changes, for better or worse, fails here."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.verifier.__main__ import disagreements, measure, score
from benchmarks.verifier.plain import grade_plainly
from benchmarks.verifier.triples import Triple, load_triples
from heal_core.reference import Reference
from heal_core.verify.config import VerifyConfig
from heal_core.verify.pool import GradeItem, VerifierPool

TRIPLES = load_triples()

# (gold, answer) of each; docs/verifier.md tells of them
FALSE_CORRECT = {
    ("12:30", "\\frac{2}{5}"),
    ("7", "7 \\approx 7.5"),
}
MISSED = {
    ("\\frac{3}{2}", "1 \\text{ and } \\frac{1}{2}"),
    ("0.333\\ldots", "\\frac{1}{3}"),
    ("17", "\\underline{17}"),
    ("1011_2", "1011_{\\text{two}}"),
    ("abc", "cba"),
    ("(1,2)", "P(1,2)"),
    ("(1,2)", "\\text{the point }(1,2)"),
    ("1<x<2", "2 > x > 1"),
    ("x > 3", "2x > 6"),
    ("\\ln 2", "\\log_e 2"),
    ("B", "\\text{Option B}"),
    ("C", "\\text{C) } 42"),
    ("8", "2^3"),
}
UNREADABLE = {
    "A \\cup B",
    "\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}",
    "\\text{5:30 p.m.}",
}
HANGS = {"9^{9^{9^{9}}}", "10000000!", "\\boxed{" + "(" * 400 + "5}"}


def test_the_set_is_large_and_each_class_has_both_truths() -> None:
    assert len(TRIPLES) >= 400
    truths = {name: {t.correct for t in TRIPLES if t.class_name == name} for name in {t.class_name for t in TRIPLES}}
    assert len(truths) >= 20 and all(found == {True, False} for found in truths.values())
    assert min(Counter(triple.class_name for triple in TRIPLES).values()) >= 20
    assert {triple.problem_type for triple in TRIPLES} == {"math", "numeric", "exact"}


def test_no_triple_stands_twice() -> None:
    keys = Counter((triple.problem_type, triple.gold, triple.completion) for triple in TRIPLES)
    assert [key for key, count in keys.items() if count > 1] == []


def test_a_triple_has_one_answer() -> None:
    with pytest.raises(ValueError, match="either an `answer`"):
        Triple.model_validate({"class": "x", "gold": "1", "correct": True})
    with pytest.raises(ValueError, match="either an `answer`"):
        Triple.model_validate({"class": "x", "gold": "1", "correct": True, "answer": "1", "text": "1"})


def shown(triple: Triple) -> str:
    return triple.answer if triple.answer is not None else triple.completion


READABLE = [triple for triple in TRIPLES if shown(triple) not in HANGS]


def grade(triples: list[Triple], seconds: float) -> list[str]:
    items = [GradeItem(str(i), t.completion, Reference(t.gold, t.problem_type)) for i, t in enumerate(triples)]
    with VerifierPool(VerifyConfig(timeout_seconds=seconds)) as pool:
        verdicts = dict(pool.grade_all(items))
    return [str(verdicts[item.item_id].label) for item in items]


def check_verdicts(triples: list[Triple]) -> None:
    graded = list(zip(triples, grade(triples, seconds=60), strict=True))  # a busy machine must not change a verdict
    for label, truth, known in (("correct", False, FALSE_CORRECT), ("wrong", True, MISSED)):
        found = {(t.gold, shown(t)) for t, verdict in graded if (verdict, t.correct) == (label, truth)}
        assert found == {(t.gold, shown(t)) for t in triples} & known
    assert {t.gold for t, label in graded if label == "unverifiable"} == {t.gold for t in triples} & UNREADABLE


def test_the_known_errors_and_every_sixth_triple_are_graded_as_known() -> None:
    errors = [t for t in READABLE if (t.gold, shown(t)) in FALSE_CORRECT | MISSED or t.gold in UNREADABLE]
    assert {(t.gold, shown(t)) for t in errors} >= FALSE_CORRECT | MISSED and {t.gold for t in errors} >= UNREADABLE
    check_verdicts(list(dict.fromkeys([*errors, *READABLE[::6]])))


@pytest.mark.full
def test_every_triple_is_graded_as_known() -> None:
    check_verdicts(READABLE)


def test_what_hangs_is_unverifiable() -> None:
    triples = [triple for triple in TRIPLES if shown(triple) in HANGS]
    assert len(triples) == len(HANGS) and not any(triple.correct for triple in triples)
    assert grade(triples, seconds=1) == ["unverifiable"] * len(HANGS)


def triple(*, correct: bool, name: str = "x") -> Triple:
    return Triple.model_validate({"class": name, "gold": "1", "answer": "1", "correct": correct})


def test_precision_and_recall_are_those_of_correct() -> None:
    triples = [triple(correct=truth) for truth in (True, True, True, True, False, False)]
    labels = ["correct", "correct", "wrong", "unverifiable", "correct", "wrong"]
    # 3 called correct, 2 of them right; 4 are right, 2 of them found
    assert score(triples, labels) == {
        "precision": 0.6667, "recall": 0.5, "false_correct": 1, "missed": 2, "unverifiable": 1
    }  # fmt: skip
    assert score(triples[4:], ["wrong", "wrong"])["precision"] is None
    assert [error["label"] for error in disagreements(triples, {"v": labels})] == ["wrong", "unverifiable", "correct"]


def test_classes_are_measured_apart() -> None:
    triples = [triple(correct=True, name="a"), triple(correct=True, name="b")]
    figures = measure(triples, {"v": ["correct", "wrong"]})
    assert figures["classes"]["a"]["v"]["recall"] == 1.0
    assert figures["classes"]["b"]["v"]["recall"] == 0.0
    assert (figures["all"]["n"], figures["all"]["v"]["recall"], figures["unseen"]["n"]) == (2, 0.5, 0)


def test_the_peer_goes_on_after_an_answer_that_ends_its_process() -> None:
    """`pow` of huge integers is out of reach of its limits, which are signals between bytecodes."""
    lines = [("2", "2"), ("5", "9^{9^{9^{9}}}"), ("3", "4")]
    triples = [Triple.model_validate({"class": "x", "gold": g, "answer": a, "correct": False}) for g, a in lines]
    labels = grade_plainly(triples)
    assert (labels[0], labels[2]) == ("correct", "wrong") and labels[1] != "correct"
