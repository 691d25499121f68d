"""Cleaning at 100,000 problems: near-duplicates and decontamination, beside MinHash.

    python -m benchmarks.cleaning
    pip install rensa datasketch && python -m benchmarks.cleaning --sides exact rensa datasketch

Each side runs in a process of its own, so that its peak of memory is its own, and begins with
the texts. `exact` is HEAL's. `rensa` and `datasketch` are MinHash with 128 permutations and LSH, over the
same hashed 5-grams; their candidates are compared exactly, so that a pair that is found is right. Recall is
the share of planted pairs, all of them at the threshold or above, that end in one cluster.
`decontamination` compares nine tenths of the texts with the others. The peers are no dependencies.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.problem_texts import ProblemTexts, make_texts
from benchmarks.timing import interleave, print_report, spread, timed
from heal_core.decontamination import Contamination, find_contamination
from heal_core.duplicates import SHINGLE_WORDS, cluster_labels
from heal_core.sources.config import ProblemsConfig
from heal_core.words import hashed_ngrams

MIN_JACCARD = 0.8
PERMUTATIONS, BANDS = 128, 16
"""16 bands of 8 rows find a pair at the threshold with a probability of 0.95."""
DEFAULTS = ProblemsConfig(path="")
LAB = Path(__file__).parents[1] / "deployments/lab/problems.jsonl"

Labels = Sequence[int]


def rensa_labels(texts: Sequence[str]) -> Labels:
    """Return clusters of candidates of RMinHash and its LSH."""
    import rensa

    shingles = _shingle_sets(texts)
    tokens = [[value.to_bytes(8, "little") for value in row] for row in shingles]
    hashes = rensa.RMinHash.from_token_sets(tokens, PERMUTATIONS, 42)
    index = rensa.RMinHashLSH(MIN_JACCARD, PERMUTATIONS, BANDS)
    index.insert_many(hashes)
    return _join(shingles, enumerate(index.query_all(hashes)))


def datasketch_labels(texts: Sequence[str]) -> Labels:
    """Return clusters of candidates of MinHash and its LSH."""
    import datasketch

    shingles = _shingle_sets(texts)
    tokens = [[value.to_bytes(8, "little") for value in row] for row in shingles]
    hashes = datasketch.MinHash.bulk(tokens, num_perm=PERMUTATIONS)
    index = datasketch.MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, PERMUTATIONS // BANDS))
    with index.insertion_session() as session:
        for number, value in enumerate(hashes):
            session.insert(number, value)
    return _join(shingles, ((number, index.query(value)) for number, value in enumerate(hashes)))


SIDES: dict[str, Callable[[Sequence[str]], Labels]] = {
    "exact": lambda texts: cluster_labels(texts, MIN_JACCARD),
    "rensa": rensa_labels,
    "datasketch": datasketch_labels,
}


def _shingle_sets(texts: Sequence[str]) -> list[set[int]]:
    return [set(row.tolist()) for row in hashed_ngrams(texts, SHINGLE_WORDS)]


def _join(shingles: Sequence[set[int]], candidates: Iterable[tuple[int, Iterable[int]]]) -> Labels:
    """Return clusters of those candidates that reach the threshold."""
    parents = list(range(len(shingles)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for index, others in candidates:
        for other in others:
            left, right = root(index), root(other)
            if left == right:
                continue
            shared = len(shingles[index] & shingles[other])
            if shared / (len(shingles[index]) + len(shingles[other]) - shared) >= MIN_JACCARD:
                parents[max(left, right)] = min(left, right)
    return [root(index) for index in range(len(parents))]


def measure_side(side: str, made: ProblemTexts) -> dict[str, Any]:
    """Return seconds of clock and processor, memory added, the number of clusters, and the planted pairs found."""
    before = _peak_bytes()
    labels: list[int] = []
    seconds = _timed(lambda: labels.extend(SIDES[side](made.texts)))
    found: dict[str, list[bool]] = {}
    for first, second, jaccard in made.planted:
        found.setdefault(f"{np.floor(jaccard * 20) / 20:.2f}", []).append(labels[first] == labels[second])
    return {
        **seconds,
        "added_bytes": _peak_bytes() - before,
        "num_clusters": len(set(labels)),
        "recall": {level: round(float(np.mean(hits)), 4) for level, hits in sorted(found.items())},
    }


def measure_decontamination(made: ProblemTexts, num_words: int, min_share: float) -> dict[str, Any]:
    """Return seconds, and what share of each kind of text is found to hold one of a random tenth of all.

    Of near-duplicates those count of whose pair just one is in that tenth. `lab`: of the lab's
    problems the 300 last ones, compared with the first 100.
    """
    before = _peak_bytes()
    asked = set(random.Random(0).sample(range(len(made.texts)), len(made.texts) // 10))
    training = [index for index in range(len(made.texts)) if index not in asked]
    evaluation = [made.texts[index] for index in sorted(asked)]
    found: list[Contamination] = []
    texts = [made.texts[index] for index in training]
    seconds = _timed(lambda: found.extend(find_contamination(texts, evaluation, num_words, min_share)))
    added = _peak_bytes() - before
    hit = {training[one.training_index] for one in found}
    templated = [[index for index in training if made.kind(index) == kind] for kind in made.kinds[1:]]
    pairs = [sorted(pair, key=asked.__contains__) for *pair, _ in made.planted if len(asked.intersection(pair)) == 1]
    copies = [index for index, _ in pairs]
    lab = [json.loads(line)["problem"] for line in LAB.read_text().splitlines()]
    of_lab = list(find_contamination(lab[100:], lab[:100], num_words, min_share))
    kinds = dict(zip((*made.kinds[1:], "near_duplicate"), (*templated, copies), strict=True))
    shares = {name: round(len(hit.intersection(indices)) / max(1, len(indices)), 4) for name, indices in kinds.items()}
    return {
        **seconds,
        "added_bytes": added,
        "num_matches": sum(len(one.evaluation_indices) for one in found),
        "contaminated_share": {**shares, "lab": round(len(of_lab) / len(lab[100:]), 4)},
    }


def _timed(work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds of the clock, and those of the processor, which a busy machine changes little."""
    started = time.process_time()
    seconds = timed(work)
    return {"seconds": seconds, "cpu_seconds": round(time.process_time() - started, 2)}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100_000)
    parser.add_argument("--templates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["exact"])
    parser.add_argument("--words", type=int, default=DEFAULTS.contamination_words, help="n of the n-grams")
    parser.add_argument("--share", type=float, default=DEFAULTS.contamination_share)
    parser.add_argument("--alone", choices=[*SIDES, "decontamination"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        made = make_texts(asked.problems, asked.templates)
        is_side = asked.alone in SIDES
        figures = (
            measure_side(asked.alone, made) if is_side else measure_decontamination(made, asked.words, asked.share)
        )
        print(json.dumps(figures), flush=True)
        return
    sides = dict(_sides([*asked.sides, "decontamination"], asked))
    last: dict[str, dict[str, Any]] = {}

    def work(name: str) -> float:
        last[name] = sides[name]()
        return float(last[name].pop("seconds"))

    seconds = interleave({name: lambda name=name: work(name) for name in sides}, asked.rounds)  # type: ignore[misc]
    print_report(
        "cleaning",
        {
            "num_problems": asked.problems,
            "num_templates": asked.templates,
            "num_rounds": asked.rounds,
            "ngram": {"words": asked.words, "share": asked.share},
            "seconds": {name: spread(values) for name, values in seconds.items()},
            "found": last,
        },
    )


def _sides(names: Iterable[str], asked: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    for name in names:
        command = [sys.executable, "-m", "benchmarks.cleaning", "--alone", name]
        command += ["--problems", str(asked.problems), "--templates", str(asked.templates)]
        command += ["--words", str(asked.words), "--share", str(asked.share)]
        yield name, lambda command=command: _run(command)  # type: ignore[misc]


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    main()
