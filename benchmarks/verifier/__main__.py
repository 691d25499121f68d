"""How far verdicts can be trusted: HEAL's verifier and plain math-verify on hand-checked triples.

    python -m benchmarks.verifier               one JSON line
    python -m benchmarks.verifier --markdown    the table of docs/verifier.md, and each disagreement

Precision and recall are those of "correct"; `unverifiable` is not "correct", and counted apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.timing import print_report
from benchmarks.verifier.plain import grade_plainly
from benchmarks.verifier.triples import Triple, load_triples
from heal_core.reference import Reference
from heal_core.verify.config import VerifyConfig
from heal_core.verify.pool import GradeItem, VerifierPool

Labels = Mapping[str, Sequence[str]]
"""The verdicts of each verifier, in the order of the triples."""


def grade_with_heal(triples: Sequence[Triple]) -> list[str]:
    """Return the labels of HEAL's verifier, from its own processes."""
    items = [
        GradeItem(str(index), triple.completion, Reference(triple.gold, triple.problem_type))
        for index, triple in enumerate(triples)
    ]
    with VerifierPool(VerifyConfig()) as pool:
        verdicts = dict(pool.grade_all(items))
    return [str(verdicts[item.item_id].label) for item in items]


def score(triples: Sequence[Triple], labels: Sequence[str]) -> dict[str, Any]:
    """Return counts, precision and recall of "correct", each None where nothing was called or is correct."""
    pairs = [(triple.correct, label) for triple, label in zip(triples, labels, strict=True)]
    right = pairs.count((True, "correct"))
    called, truly = right + pairs.count((False, "correct")), sum(triple.correct for triple in triples)
    return {
        "precision": round(right / called, 4) if called else None,
        "recall": round(right / truly, 4) if truly else None,
        "false_correct": called - right,
        "missed": truly - right,
        "unverifiable": list(labels).count("unverifiable"),
    }


def measure(triples: Sequence[Triple], labels: Labels) -> dict[str, Any]:
    """Return, per class and over all, the number of triples and the scores of each verifier."""

    def of(indices: Sequence[int]) -> dict[str, Any]:
        chosen = [triples[index] for index in indices]
        scores = {name: score(chosen, [found[index] for index in indices]) for name, found in labels.items()}
        return {"n": len(chosen), **scores}

    everything = range(len(triples))
    classes = dict.fromkeys(triple.class_name for triple in triples)
    return {
        "classes": {name: of([i for i in everything if triples[i].class_name == name]) for name in classes},
        "unseen": of([i for i in everything if triples[i].unseen]),
        "all": of(everything),
    }


def disagreements(triples: Sequence[Triple], labels: Labels) -> list[dict[str, Any]]:
    """Return the triples of which a verifier says something else than the truth."""
    return [
        {**triple.model_dump(by_alias=True, exclude_defaults=True), "verifier": name, "label": label}
        for name, found in labels.items()
        for triple, label in zip(triples, found, strict=True)
        if (label == "correct") != triple.correct
    ]


def markdown(figures: Mapping[str, Any]) -> str:
    """Return the table of docs/verifier.md and, under it, a line for each of HEAL's disagreements."""
    lines = [
        "| class | n | precision | recall | unverifiable | plain: precision | recall | unverifiable |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = {**figures["classes"], "**all**": figures["all"], "of these, unseen": figures["unseen"]}
    for name, row in rows.items():
        cells = [_cells(row[verifier]) for verifier in ("heal", "math_verify")]
        lines.append(f"| {name.replace('_', ' ')} | {row['n']} | {' | '.join(cells)} |")
    lines.append("")
    for error in figures["disagreements"]:
        answer = error.get("answer", error.get("text"))
        truth = "right" if error["correct"] else "not right"
        lines.append(f"{error['verifier']}: {answer!r} for {error['gold']!r} is {truth}, called {error['label']}")
    return "\n".join(lines)


def _cells(scores: Mapping[str, Any]) -> str:
    return " | ".join(
        ["-" if scores[key] is None else f"{scores[key]:.3f}" for key in ("precision", "recall")]
        + [str(scores["unverifiable"])]
    )


def main() -> None:
    """Grade the triples with both verifiers and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print a table instead of JSON")
    parser.add_argument("--classes", nargs="+", help="only these classes")
    asked = parser.parse_args()
    triples = [triple for triple in load_triples() if not asked.classes or triple.class_name in asked.classes]
    if not triples:
        parser.error("there is no triple of these classes; leave --classes out to see all")
    labels = {"heal": grade_with_heal(triples), "math_verify": grade_plainly(triples)}
    figures = {
        "math_verify_version": version("math-verify"),
        **measure(triples, labels),
        "disagreements": disagreements(triples, labels),
    }
    if asked.markdown:
        print(markdown(figures))
    else:
        print_report("verifier", figures)


if __name__ == "__main__":
    main()
