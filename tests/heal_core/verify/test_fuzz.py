"""The verifier under texts that no one would write: no crash, hardly a hang, and the pool goes on.

All goes through real worker processes. A hang is the verdict `timeout`, a crash `verifier_died`; both are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heal_core.plan import GAVE_UP
from heal_core.records import VerdictLabel
from heal_core.reference import Reference
from heal_core.specs import AnswerSpec, ChoiceSpec, write_spec
from heal_core.verify.config import VerifyConfig
from heal_core.verify.grade import MAX_ANSWER_CHARS
from heal_core.verify.pool import GradeItem, VerifierPool

# sympy writes out a tower such as 9^9^9 until it is killed; such texts are a small part of the cases
MAX_TIMEOUT_SHARE = 0.02
MAX_DEATH_SHARE = 0.002

ATOMS = st.sampled_from(
    ["x", "y", "0", "1", "-1", "7", "10", "0.5", ".5", "3.", "1,000", "1e9", "50\\%", "\\pi", "e", "i", "\\infty", "n",
     "\\text{cm}", "\\text{no solution}", "\\emptyset", "\\mathbb{R}", "\\alpha", "90^\\circ", "1011_2", "12:30", "½",
     "x²", "π", "−3", "\\$5", "A", "(B)", "5 km", "\\theta", "\\ldots", "?", "&", "\\\\", "", " "]
)  # fmt: skip
HUGE = st.one_of(
    st.integers(1, 400).map(lambda n: "9" * n),
    st.integers(-(10**30), 10**30).map(lambda n: f"10^{{{n}}}"),
    st.integers(0, 10**5).map(lambda n: f"{n}!"),
    st.tuples(st.integers(2, 9), st.integers(2, 99)).map(lambda pair: f"{pair[0]}^{{{pair[1]}^{{2}}}}"),
    st.integers(0, 10**6).map(lambda n: f"1e{n}"),
    st.integers(0, 10**6).map(lambda n: f"1/3e-{n}"),
    st.integers(2, 10**4).map(lambda n: f"\\sqrt[{n}]{{{n}}}"),
    st.integers(2, 10**4).map(lambda n: f"\\binom{{{n}}}{{{n // 2}}}"),
)
NESTED = st.builds(
    lambda opening, closing, depth, inner: opening * depth + inner + closing * depth,
    st.sampled_from(["(", "{", "\\left(", "\\sqrt{", "\\frac{1}{", "-", "\\{", "[", "\\text{", "x^{", "|", "\\boxed{"]),
    st.sampled_from([")", "}", "\\right)", "", "\\}", "]", "|"]),
    st.integers(1, 300),
    ATOMS,
)
ADVERSARIAL = st.sampled_from(
    ["__import__('os').system('false')", "x" * 900, "\\frac" * 100, "{" * 500, "}" * 500, "\\" * 501, "^" * 99,
     "_" * 99, "=" * 99, "\x00", "\ud800", "\u202e5", "a\u0301" * 300, "﷽" * 50, "\\int_0^\\infty x^x dx",
     "\\sum_{n=1}^{10^9} n",
     "\\lim_{x\\to 0} \\frac{\\sin x}{x}", "\\begin{pmatrix}" + "1&2\\\\" * 60 + "\\end{pmatrix}", "0/0", "1/0", "0^0",
     "\\frac{1}{0}", "\\log(0)", "x=" * 50 + "1", "," * 200, "1," * 300 + "1", "\\cup".join(["(0,1)"] * 40), "nan",
     "inf", "(-\\infty,\\infty)", "\\{1,2,3\\} \\setminus \\{2\\}", "\\x" * 200, "%" * 50, "#" * 50, "\n" * 100,
     "\\boxed{}", "</think>", "<think>", "\\boxed{5}\\boxed{", "x**y**z**x**y", "1" + "+1" * 400, "((x+1)^{50}+1)^{50}",
     "\\prod_{k=1}^{100000} k", "f(f(f(f(x))))", "\\sin" * 60 + "x", "2^{2^{2^{2^{2^{x}}}}}", "9^{9^{9^{9}}}"]
)  # fmt: skip


def combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(parts, parts)
    return st.one_of(
        two.map(lambda pair: f"\\frac{{{pair[0]}}}{{{pair[1]}}}"),
        two.map(lambda pair: f"{pair[0]}^{{{pair[1]}}}"),
        st.builds(lambda a, sign, b: a + sign + b, parts, st.sampled_from(
            ["+", "-", "*", "\\cdot ", "\\times ", "/", "=", ",", ";", "<", "\\le ", "\\ne ", " or ", " \\cup ",
             " \\in ", "\\pm ", "!", "_", "^", " ", "", "|", ":", "\\approx ", "&", "\\\\", "**"]), parts),
        parts.map(lambda part: f"\\sqrt{{{part}}}"),
        parts.map(lambda part: f"\\left({part}\\right)"),
        parts.map(lambda part: f"\\text{{{part}}}"),
        parts.map(lambda part: f"\\{{{part}\\}}"),
        parts.map(lambda part: f"${part}$"),
        st.builds(lambda name, part: f"\\{name}{{{part}}}", st.sampled_from(
            ["sin", "log", "ln", "exp", "overline", "mathrm", "operatorname", "int", "sum", "lim", "det"]), parts),
        st.lists(parts, min_size=2, max_size=4).map(lambda rows: f"\\begin{{bmatrix}}{'&'.join(rows)}\\end{{bmatrix}}"),
    )  # fmt: skip


ANSWERS = st.one_of(
    st.recursive(ATOMS, combined, max_leaves=12),
    st.recursive(st.one_of(ATOMS, HUGE), combined, max_leaves=4),
    HUGE,
    NESTED,
    ADVERSARIAL,
    st.text(max_size=60),
    st.text(alphabet="\\{}[]()^_$&%#0123456789xyz.,-+=/ \n", max_size=80),
)
CHOICES = write_spec(ChoiceSpec(options={"A": "Paris", "B": "London", "C": "5"}))
REFERENCES = st.one_of(
    st.builds(Reference, st.one_of(st.sampled_from(["5", "x+1", "\\frac{1}{2}", "(1,2)", "x > 3"]), ANSWERS)),
    st.builds(Reference, ANSWERS, st.just("numeric")),
    st.builds(Reference, st.just("0.5"), st.just("numeric"), st.just(write_spec(AnswerSpec(unit="cm")))),
    st.builds(Reference, ANSWERS, st.just("exact")),
    st.builds(Reference, st.sampled_from("ABC"), st.just("choice"), st.just(CHOICES)),
)
COMPLETIONS = st.one_of(
    ANSWERS.map(lambda answer: f"So it is \\boxed{{{answer}}}."),
    ANSWERS.map(lambda answer: f"<think>Hm.</think> The answer is {answer}"),
    ANSWERS,
)


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(VerifyConfig(timeout_seconds=2.0, max_memory_gib=2.0)) as shared:
        yield shared


def check(pool: VerifierPool, num_cases: int, derandomize: bool, record: Callable[[str, object], None]) -> None:
    """Grade so many cases; each has a verdict that is well made, few were given up, and the pool grades after them."""
    reasons: Counter[str | None] = Counter()
    lost: list[tuple[str, Reference]] = []

    @settings(
        max_examples=num_cases, deadline=None, derandomize=derandomize, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(COMPLETIONS, REFERENCES)
    def grade_one(text: str, reference: Reference) -> None:
        ((item_id, verdict),) = pool.grade_all([GradeItem("case", text, reference)])
        assert item_id == "case"
        assert (verdict.label is VerdictLabel.CORRECT) == (verdict.reason is None)
        assert verdict.extracted is None or len(verdict.extracted) <= MAX_ANSWER_CHARS
        reasons[verdict.reason] += 1
        if verdict.reason in GAVE_UP:
            lost.append((text, reference))

    grade_one()
    for reason, count in sorted(reasons.items(), key=str):
        record(str(reason or "correct"), count)
    num = reasons.total()
    assert num >= num_cases
    assert reasons["timeout"] <= MAX_TIMEOUT_SHARE * num, lost
    assert reasons["verifier_died"] <= MAX_DEATH_SHARE * num, lost
    # each branch was taken, so that the cases are not all refused at the door
    assert {None, "different", "no_answer", "unparsable_answer", "unparsable_gold"} <= set(reasons)
    ((_, verdict),) = pool.grade_all([GradeItem("after", "\\boxed{\\frac{2}{4}}", Reference("0.5"))])
    assert verdict.label is VerdictLabel.CORRECT


def test_odd_texts_get_a_verdict(pool: VerifierPool, record_property: Callable[[str, object], None]) -> None:
    check(pool, 500, derandomize=True, record=record_property)


@pytest.mark.full
def test_very_many_odd_texts_get_a_verdict(pool: VerifierPool, record_property: Callable[[str, object], None]) -> None:
    check(pool, 10_000, derandomize=False, record=record_property)
