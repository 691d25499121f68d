"""Problem files as a run would read them, and a verifier's real worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.doctor.problems import check_problems, check_verifier
from heal_core.reference import Reference
from heal_core.sandbox.config import SandboxConfig
from heal_core.sources.config import ProblemsConfig, SourceConfig
from heal_core.verify.config import VerifyConfig

VERIFY = VerifyConfig(num_workers=1)
LAB = Path(__file__).parents[3] / "deployments/lab"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., ProblemsConfig]:
    """Return a function that writes lines to a problem file and returns its settings."""

    def problem_file(*lines: str, **settings: Any) -> ProblemsConfig:
        path = tmp_path / "problems.jsonl"
        path.write_text("\n".join(lines))
        return ProblemsConfig(path=str(path), **settings)

    return problem_file


def row(problem: str, answer: str) -> str:
    return json.dumps({"problem": problem, "answer": answer})


def test_problems_on_both_sides_are_needed(write: Callable[..., ProblemsConfig]) -> None:
    four = [row(f"{n} + {n}?", str(2 * n)) for n in range(1, 5)]
    both = check_problems(write(*four, held_out_fraction=0.5), VERIFY)
    assert both.state == "ok"
    assert both.found.startswith("4 in all (3 train, 1 held out)")
    one_sided = check_problems(write(*four[:2], held_out_fraction=0.01), VERIFY)
    assert one_sided.state == "fail"
    assert "2 in all (2 train, 0 held out)" in one_sided.found
    broken = check_problems(write(four[0], "{broken"), VERIFY)
    assert (broken.state, "to quarantine go 1 rows, 1 invalid_json; the first, invalid_json" in broken.found) == (
        "fail",
        True,
    )


def test_a_file_that_cannot_be_used_is_told(write: Callable[..., ProblemsConfig], tmp_path: Path) -> None:
    useless = check_problems(write(row("1 + 1?", "")), VERIFY)
    assert (useless.state, "no_answer" in useless.found) == ("fail", True)
    missing = check_problems(ProblemsConfig(path=str(tmp_path / "none.jsonl")), VERIFY)
    assert (missing.state, "No such file" in missing.found) == ("fail", True)


def test_a_problem_that_cannot_be_graded_is_told(write: Callable[..., ProblemsConfig]) -> None:
    finding = check_problems(write(*(row(f"{n}?", str(n)) for n in range(9)), row("set?", "{1, 2")), VERIFY)
    assert (finding.state, "1 unverifiable; the first, unverifiable: unparsable_gold" in finding.found) == (
        "warn",
        True,
    )


def test_rows_in_quarantine_are_counted_and_the_first_is_shown(write: Callable[..., ProblemsConfig]) -> None:
    lines = (LAB / "problems.jsonl").read_text().splitlines()[:30]
    config = write(lines[0], "{broken", '{"problem": "x"}', *lines[1:], held_out_fraction=0.5, duplicate_jaccard=0.95)
    finding = check_problems(config, VERIFY)
    assert finding.state == "warn"
    assert "30 in all" in finding.found
    assert "to quarantine go 2 rows, 1 invalid_json, 1 no_answer; the first, invalid_json" in finding.found
    assert f"sed -n 2p {config.path}" in finding.remedy


def test_every_source_is_spoken_of(write: Callable[..., ProblemsConfig], tmp_path: Path) -> None:
    path = write(*(json.dumps({"problem": f"{n} + {n}?", "answer": 2 * n, "n": n}) for n in range(4)), "{broken").path
    (tmp_path / "held_out.csv").write_text("problem,answer\nHow many?,3\nno answer,\n")
    held_out = {"path": str(tmp_path / "held_out.csv"), "split": "held_out"}
    finding = check_problems(
        ProblemsConfig(sources=[{"path": path, "split": "train", "filter": "n > 0"}, held_out]), VERIFY
    )
    assert finding.state == "warn"
    assert f"; {path}: 3 problems of 5 rows, 1 filtered out, 1 in quarantine" in finding.found
    assert f"; {held_out['path']}: 1 problems of 2 rows, 1 in quarantine" in finding.found
    wrong = [{"path": str(tmp_path / "none.csv")}, {"path": path, "filter": "n >"}, held_out]
    failed = check_problems(ProblemsConfig(sources=wrong), VERIFY)
    assert failed.state == "fail"
    assert "none.csv" in failed.found
    assert "'n >'" in failed.found


def test_what_cleaning_takes_out_is_told(write: Callable[..., ProblemsConfig], tmp_path: Path) -> None:
    goats = "Three goats eat a bale of hay in two days. How long does it last for one of them?"
    config = write(*(row(f"{n} + {n}?", str(2 * n)) for n in range(1, 5)), row(goats, "6"), held_out_fraction=0.5)
    (tmp_path / "exam.txt").write_text(json.dumps({"question": f"B. {goats}"}) + "\n" + json.dumps({"question": goats}))
    exam = {"path": str(tmp_path / "exam.txt")}
    finding = check_problems(config.model_copy(update={"decontaminate": (SourceConfig(**exam),)}), VERIFY)
    assert finding.state == "warn"
    assert f"; cleaning: 1 contaminated taken out of training; compared with 1 of held_out, 2 of {exam['path']}" in (
        finding.found
    )
    assert "to quarantine go 1 rows, 1 contaminated; the first, contaminated: holds" in finding.found


@pytest.mark.slow
def test_the_verifier_grades_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_verifier(VerifyConfig()).state == "ok"
    monkeypatch.setattr("heal_core.doctor.problems.Reference", lambda _: Reference("43"))
    wrong = check_verifier(VerifyConfig())
    assert wrong.state == "fail"
    assert "calls 42 for 42 wrong" in wrong.found


@pytest.mark.parametrize("solutions", [[], ["print(input())"]], ids=["outputs", "a solution to be graded"])
def test_programs_need_a_sandbox(
    solutions: list[str], write: Callable[..., ProblemsConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["cat", "river", "mountain", "seventeen"]
    rows = [
        json.dumps(
            {
                "question": f"Print {word}.",
                "solutions": solutions,
                "input_output": {"inputs": [word], "outputs": [word]},
            }
        )
        for word in words
    ]
    config = write(*rows, held_out_fraction=0.5)
    assert check_problems(config, VERIFY).state == "ok"
    monkeypatch.setattr("heal_core.sandbox.probe.find_programs", lambda: [])
    refused = check_problems(config, VERIFY)
    assert refused.state == "fail"
    assert "model-written code runs only in a sandbox" in refused.found
    assert "--unsafe-no-sandbox" in refused.remedy
    anyhow = VerifyConfig(num_workers=1, sandbox=SandboxConfig(kind="none"))
    told = check_problems(config, anyhow)
    assert (told.state, "run without a sandbox" in told.found) == ("warn", True)
