"""Several sources at once: columns, sides, the same problem twice, and counts that add up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heal_core.errors import InputError
from heal_core.problems import LoadedProblems, load_problems
from heal_core.records import Problem
from heal_core.sources.config import ProblemsConfig

SHEEP = "a farmer has seventeen sheep and sells all but nine of them at the market on a rainy Monday in May"
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes rows of JSON Lines to a file of the test's folder."""

    def write_rows(name: str, *rows: Any) -> str:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines))
        return str(tmp_path / name)

    return write_rows


def row(problem: str, answer: Any, **more: Any) -> dict[str, Any]:
    return {"problem": problem, "answer": answer, **more}


def load(*sources: dict[str, Any], **settings: Any) -> LoadedProblems:
    return load_problems(ProblemsConfig(sources=sources, **settings))


def sides(loaded: LoadedProblems) -> dict[str, str]:
    return {problem.question: problem.split for problem in loaded.problems}


def reasons(loaded: LoadedProblems) -> list[str]:
    return [row.reason for row in loaded.quarantined]


def test_a_problem_knows_the_benchmark_that_its_source_is_named(write: Write) -> None:
    train, first, second = (write(f"{name}.jsonl", row(f"{name}?", 1)) for name in ("train", "first", "second"))
    third = write("third.jsonl", row("third?", 1, source="somewhere"))
    loaded = load(
        {"path": train, "split": "train"},
        {"path": first, "split": "held_out", "name": "exam"},
        {"path": second, "split": "held_out", "name": "exam"},
        {"path": third, "split": "held_out"},
    )
    by_question = {problem.question: loaded.benchmarks[problem.problem_id] for problem in loaded.problems}
    assert by_question == {"train?": train, "first?": "exam", "second?": "exam", "third?": third}
    # messages and counts still say where the rows are from
    assert [counts.source for counts in loaded.counts] == [train, first, second, third]


def test_a_source_without_a_name_is_serialised_as_before_there_were_names() -> None:
    named, nameless = ProblemsConfig(sources=[{"path": "p", "name": "exam"}]), ProblemsConfig(sources=[{"path": "p"}])
    assert named.model_dump()["sources"][0].keys() - nameless.model_dump()["sources"][0].keys() == {"name"}
    with pytest.raises(ValidationError, match="name"):
        ProblemsConfig(sources=[{"path": "p", "name": " "}])


def test_the_simple_form_is_one_or_two_sources(write: Write) -> None:
    train, held_out = write("a.jsonl", row("a?", 1), row("b?", 2)), write("b.jsonl", row("c?", 3))
    for simple, sources in [
        ({"path": train}, [{"path": train}]),
        ({"path": train, "limit": 1}, [{"path": train, "limit": 1}]),
        (
            {"path": train, "evaluation_path": held_out},
            [{"path": train, "split": "train"}, {"path": held_out, "split": "held_out"}],
        ),
    ]:
        assert load_problems(ProblemsConfig(**simple)) == load(*sources)


def test_a_config_without_sources_is_stored_as_before_there_were_any() -> None:
    assert ProblemsConfig(path="p.jsonl").model_dump(mode="json") == {
        "path": "p.jsonl", "limit": None, "evaluation_path": None, "held_out_fraction": 0.2, "duplicate_jaccard": 0.8
    }  # fmt: skip
    general = ProblemsConfig(sources=[{"path": "p.jsonl", "columns": {"q": "problem"}}], columns={"a": "answer"})
    assert ProblemsConfig.model_validate_json(general.model_dump_json()) == general
    cleaned = ProblemsConfig(
        path="p.jsonl",
        one_per_cluster=True,
        decontaminate=[{"path": "q"}],
        contamination_words=13,
        contamination_share=0,
    )
    assert ProblemsConfig.model_validate_json(cleaned.model_dump_json()) == cleaned


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "neither of path"),
        ({"path": "p", "sources": [{"path": "q"}]}, "both of path"),
        ({"sources": []}, "at least 1 item"),
        ({"sources": [{"path": "q"}], "limit": 3}, "problems.limit goes with problems.path"),
        ({"sources": [{"path": "q"}], "evaluation_path": "r"}, "one of them `split: held_out`"),
        ({"sources": [{}]}, "has none of path, dataset, function and reasoning_gym"),
        ({"sources": [{"path": "q", "function": "a:b"}]}, "has path and function of path, dataset, function and"),
        ({"sources": [{"function": "a:b", "format": "csv"}]}, "format csv is of files"),
        ({"sources": [{"path": "q", "sample": 3, "limit": 3}]}, "give one of them"),
        ({"sources": [{"path": "q", "sample": 0}]}, "greater than or equal to 1"),
        ({"sources": [{"path": "q", "split": "test"}]}, "'hash', 'train' or 'held_out'"),
        ({"sources": [{"path": "q", "columns": {"q": "question"}}]}, "'problem', 'answer', 'source'"),
        ({"path": "p", "columns": {"q": "problem", "r": "problem"}}, "both 'q' and 'r' are mapped to problem"),
        ({"path": "p", "decontaminate": [{"path": "q", "split": "train"}]}, "q has split train, but no problem of it"),
        ({"path": "p", "decontaminate": [{}]}, "has none of path, dataset, function and reasoning_gym"),
        ({"path": "p", "contamination_words": 0}, "greater than or equal to 1"),
        ({"path": "p", "contamination_share": 1.1}, "less than or equal to 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ProblemsConfig(**wrong)


def test_a_mapped_column_goes_before_usual_names_and_is_nothing_else(write: Write) -> None:
    # `solution` is the problem here, so that it is no answer; `problem` is a number that nobody asked for
    path = write("p.jsonl", {"problem": 7, "solution": "Solve x = 1.", "final": 1, "ground_truth": "no", "n": "set A"})
    columns = {"solution": "problem", "final": "answer", "n": "source"}
    for loaded in (
        load({"path": path, "columns": columns}),
        load({"path": path}, columns=columns),
        load_problems(ProblemsConfig(path=path, columns=columns)),
    ):
        (problem,) = loaded.problems
        assert (problem.question, problem.answer, problem.source) == ("Solve x = 1.", "1", "set A")


def test_a_column_mapped_to_the_answer_has_the_solution_of_a_program(write: Write) -> None:
    tests = {"inputs": ["3"], "outputs": ["6"]}
    rows = [{"problem": f"Print {name}.", "input_output": tests, "solutions": ["print(0)"]} for name in ("six", "6")]
    path = write("p.jsonl", rows[0] | {"mine": "print(6)"}, rows[1] | {"mine": None})
    loaded = load({"path": path}, columns={"mine": "answer"})
    assert [problem.answer for problem in loaded.problems] == ["print(6)", "6"]


def test_a_source_that_maps_columns_itself_does_without_the_common_ones(write: Write) -> None:
    a, b = write("a.jsonl", {"q": "a?", "answer": 1}), write("b.jsonl", {"p": "b?", "answer": 2})
    loaded = load({"path": a}, {"path": b, "columns": {"p": "problem"}}, columns={"q": "problem"})
    assert [problem.question for problem in loaded.problems] == ["a?", "b?"]


def test_a_null_in_a_mapped_column_is_no_problem(write: Write) -> None:
    path = write("p.jsonl", {"q": "a?", "answer": 1}, {"q": None, "problem": "b?", "answer": 2})
    loaded = load({"path": path, "columns": {"q": "problem"}})
    assert reasons(loaded) == ["no_problem: expected text in one of q"]


@pytest.mark.parametrize("meaning", ["problem", "uuid"])
def test_a_mapped_column_that_no_row_has_is_an_error(write: Write, meaning: str) -> None:
    path = write("p.jsonl", row("a?", 1))
    with pytest.raises(InputError, match=r"p\.jsonl: columns maps qestion, which no row has. Found: answer, problem"):
        load({"path": path, "columns": {"qestion": meaning}})


def test_of_the_same_problem_in_two_sources_the_first_is_taken(write: Write) -> None:
    a = write("a.jsonl", row("a?", 1), row("b?", 2))
    b = write("b.jsonl", "", row("a?", 1), row("b?", 3), row("c?", 3))
    loaded = load({"path": a}, {"path": b})
    assert [problem.question for problem in loaded.problems] == ["a?", "b?", "c?"]
    assert [(row.source, row.line) for row in loaded.quarantined] == [(b, 2), (b, 3)]
    assert reasons(loaded) == [
        f"duplicate: same problem and answer as {a}, line 1",
        f"conflicting_answer: {a}, line 2, has the same problem with another answer",
    ]


def test_a_source_that_only_repeats_another_is_no_error(write: Write) -> None:
    a, b = write("a.jsonl", row("a?", 1)), write("b.jsonl", row("a?", 1))
    counts = load({"path": a}, {"path": b}).counts
    assert [(source.num_problems, source.num_quarantined) for source in counts] == [(1, 0), (0, 1)]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("side", ["train", "hash"])
def test_a_problem_that_is_held_out_by_name_is_on_no_other_side(write: Write, side: str, order: int) -> None:
    held_out = {"path": write("h.jsonl", row(SHEEP, 9)), "split": "held_out"}
    other = {"path": write("t.jsonl", row(SHEEP, 9), row(SHEEP + " 2026", 10), row("x?", 1)), "split": side}
    loaded = load(*[held_out, other][::order], held_out_fraction=0.001)
    assert sides(loaded) == {SHEEP: "held_out", "x?": "train"}
    held_out_id = next(problem.problem_id for problem in loaded.problems if problem.split == "held_out")
    assert reasons(loaded) == [f"near_duplicate_of_held_out: {held_out_id}"] * 2


def test_a_training_problem_leaves_what_the_hash_holds_out(write: Write) -> None:
    hashed = write("h.jsonl", *(row(f"{SHEEP} {n}{n}{n}", n) for n in range(4)))
    train = write("t.jsonl", row(SHEEP, 9))
    alone = load({"path": hashed}, held_out_fraction=0.999)
    assert set(sides(alone).values()) == {"held_out"}
    loaded = load({"path": hashed}, {"path": train, "split": "train"}, held_out_fraction=0.999)
    assert sides(loaded) == sides(alone)
    assert [(row.source, row.reason.partition(":")[0]) for row in loaded.quarantined] == [
        (train, "near_duplicate_of_held_out")
    ]


def test_every_source_that_cannot_be_used_is_told(write: Write, tmp_path: Path) -> None:
    good, empty = write("good.jsonl", row("a?", 1)), write("empty.jsonl")
    with pytest.raises(InputError) as error:
        load({"path": empty}, {"path": good}, {"path": str(tmp_path / "none-*.csv")}, {"path": good, "filter": "1 = 2"})
    said = str(error.value).splitlines()
    assert len(said) == 3
    assert "empty.jsonl is empty" in said[0]
    assert "no problem file matches" in said[1]
    assert "leaves none of 1 rows" in said[2]


def test_training_leaves_what_an_evaluation_set_has(write: Write) -> None:
    train = write("t.jsonl", row("x?", 1), row(f"First. {SHEEP} Then.", 9))
    exam = write("e.jsonl", {"task": SHEEP}, {"task": "y?"}, {"task": "x?"})
    held_out = {"path": write("h.jsonl", row("y?", 1)), "split": "held_out"}
    loaded = load(
        {"path": train, "split": "train"}, held_out, decontaminate=[{"path": exam, "columns": {"task": "problem"}}]
    )
    assert sides(loaded) == {"y?": "held_out"}
    assert [(row.source, row.line, row.reason.partition(":")[0]) for row in loaded.quarantined] == [
        (train, 1, "contaminated"), (train, 2, "contaminated")
    ]  # fmt: skip
    assert next((match.line, match.evaluation_line, match.passage) for match in loaded.cleaned.matches) == (1, 3, "x")
    assert [counts.num_quarantined for counts in loaded.counts] == [2, 0]
    first = {"path": exam, "columns": {"task": "problem"}, "limit": 1}
    few = load({"path": train, "split": "train"}, held_out, decontaminate=[first])
    assert set(sides(few)) == {"x?", "y?"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"task": "a?"}], "line 1: no text in one of problem, question, instruction, prompt"),
        ([{"problem": "a?"}, "broken"], "line 2: invalid_json"),
        ([{"problem": 3}, {"problem": ["a?"]}], "line 2: bad_type: problem is list"),
        ([], "has no rows"),
    ],
)
def test_an_evaluation_set_that_cannot_be_read_whole_is_an_error(write: Write, lines: list[Any], said: str) -> None:
    train, exam = write("t.jsonl", row("a?", 1)), write("e.jsonl", *lines)
    with pytest.raises(InputError, match=r"problems\.decontaminate: .*e\.jsonl") as error:
        load({"path": train}, decontaminate=[{"path": exam}])
    assert said in str(error.value)


def test_a_problem_that_cannot_be_graded_takes_no_other_out(write: Write) -> None:
    """It could be the one that was kept of its cluster, or be held out, so that its likes were refused."""

    def refuse(problems: Sequence[Problem]) -> dict[str, str]:
        return {problem.problem_id: "unparsable_gold" for problem in problems if problem.answer == "bad"}

    first, second = (f"{SHEEP}, {end}" for end in ("how many are left?", "how many remain?"))
    for one, other in ((first, second), (second, first)):
        path = write("t.jsonl", row(one, "9"), row(other, "bad"))
        config = ProblemsConfig(sources=[{"path": path, "split": "train"}], one_per_cluster=True, duplicate_jaccard=0.5)
        loaded = load_problems(config, refuse)
        assert (sides(loaded), reasons(loaded)) == ({one: "train"}, ["unverifiable: unparsable_gold"])
    sources = [
        {"path": write("t.jsonl", row(first, "9")), "split": "train"},
        {"path": write("h.jsonl", row(second, "bad")), "split": "held_out"},
    ]
    loaded = load_problems(ProblemsConfig(sources=sources, duplicate_jaccard=0.5), refuse)
    assert (sides(loaded), reasons(loaded)) == ({first: "train"}, ["unverifiable: unparsable_gold"])
    assert loaded.cleaned.sets[0].num_problems == 0


def test_an_empty_file_of_a_glob_is_fine(write: Write, tmp_path: Path) -> None:
    write("a.jsonl")
    write("b.jsonl", row("b?", 1))
    (problem,) = load({"path": str(tmp_path / "*.jsonl")}).problems
    assert problem.source == "b.jsonl"


def test_a_limit_counts_good_rows_of_its_source_and_none_after_them(write: Write) -> None:
    path = write(
        "p.jsonl", row("a?", 1, n=1), row("b?", 2, n=0), "broken", row("c?", 3, n=1), "broken", row("d?", 4, n=1)
    )
    (counts,) = load({"path": path, "limit": 2, "filter": "n = 1"}).counts
    assert (counts.num_read, counts.num_filtered_out, counts.num_quarantined, counts.num_problems) == (4, 1, 1, 2)


def test_a_sample_of_rows_is_judged_and_broken_ones_are_told_in_any_case(write: Write) -> None:
    path = write("p.jsonl", "broken", *(row(f"number {n}?", n) for n in range(20)), row("no answer", ""))
    (counts,) = load({"path": path, "sample": 7}).counts
    assert (counts.num_read, counts.num_not_sampled) == (22, 14)
    assert counts.num_quarantined + counts.num_problems == 8
    assert counts.num_quarantined >= 1


def test_a_sample_stays_much_the_same_when_rows_arrive(write: Write) -> None:
    rows = [row(f"number {n}?", n) for n in range(200)]
    before = {problem.question for problem in load({"path": write("p.jsonl", *rows), "sample": 50}).problems}
    rows += [row(f"later number {n}?", n) for n in range(20)]
    after = {problem.question for problem in load({"path": write("p.jsonl", *rows[::-1]), "sample": 50}).problems}
    assert len(before) == len(after) == 50
    later = {question for question in after if question.startswith("later")}
    assert 0 < len(later) < 15  # 20 of 220 rows came: 4.5 expected of the 50
    assert after - before == later


good = st.builds(row, st.sampled_from("abcdef"), st.sampled_from([1, 2]), n=st.integers(0, 3))
lines = st.lists(good | st.sampled_from(["broken", "[]", '{"problem": "x?"}']), max_size=12)
kinds = st.fixed_dictionaries(
    {"split": st.sampled_from(["hash", "train", "held_out"])},
    optional={"filter": st.sampled_from(["n > 1", "n <= 2"]), "sample": st.integers(1, 5)},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.lists(st.tuples(lines, kinds), min_size=1, max_size=3))
def test_whatever_the_sources_hold_the_counts_add_up(write: Write, content: list[tuple[list[Any], Any]]) -> None:
    # a good row of its own in each, which every filter lets through
    sources = [
        {"path": write(f"{index}.jsonl", row(f"own {index}?", 1, n=2), *rows), **kind}
        for index, (rows, kind) in enumerate(content)
    ]
    try:
        loaded = load(*sources, held_out_fraction=0.5)
    except InputError as error:  # a sample may draw rows alone that are no problems
        assert "has no usable row" in str(error)
        assert any("sample" in kind for _, kind in content)
        return
    for counts, (rows, _) in zip(loaded.counts, content, strict=True):
        assert counts.num_read == len(rows) + 1
        parts = (counts.num_filtered_out, counts.num_not_sampled, counts.num_quarantined, counts.num_problems)
        assert sum(parts) == counts.num_read
    assert sum(counts.num_problems for counts in loaded.counts) == len(loaded.problems)
    assert sum(counts.num_quarantined for counts in loaded.counts) == len(loaded.quarantined)
    assert len({problem.problem_id for problem in loaded.problems}) == len(loaded.problems)
    held_out = {problem.cluster_id for problem in loaded.problems if problem.split == "held_out"}
    assert held_out.isdisjoint(problem.cluster_id for problem in loaded.problems if problem.split == "train")
