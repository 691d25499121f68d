"""Which rows become problems, and on which side: near-duplicates, contamination, one per cluster, in that order.

Every row is kept or refused with a reason, every match with an evaluation set is told. What
does not belong here: reading rows (`problems`), similarity (`duplicates`), n-grams
(`decontamination`), how a side is chosen (`split`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from heal_core.decontamination import Contamination, find_contamination
from heal_core.records import ContaminationMatch, Problem
from heal_core.sources.config import ProblemsConfig
from heal_core.sources.row import MAX_RAW_CHARS, Refusal
from heal_core.split import HELD_OUT, TRAIN, assign_sides, with_clusters

NEAR_DUPLICATE_OF_HELD_OUT, CONTAMINATED, NEAR_DUPLICATE = (
    "near_duplicate_of_held_out",
    "contaminated",
    "near_duplicate",
)


@dataclass(frozen=True)
class TakenRow:
    """A row that is a problem, with the place it came from."""

    problem: Problem
    place: str
    line: int
    raw: str


@dataclass(frozen=True)
class EvaluationText:
    """A problem of an evaluation set."""

    place: str
    line: int
    question: str


@dataclass(frozen=True)
class EvaluationSet:
    """Problems that must not be in the training data; `source` is what a person calls them."""

    source: str
    texts: tuple[EvaluationText, ...]


@dataclass(frozen=True)
class SetCounts:
    """How many problems an evaluation set has, and how many training problems hold one of them."""

    source: str
    num_problems: int
    num_contaminated: int


@dataclass(frozen=True)
class Cleaned:
    """What became of the rows, aligned with them, and how it came to that."""

    outcomes: tuple[Problem | Refusal, ...]
    matches: tuple[ContaminationMatch, ...]
    sets: tuple[SetCounts, ...]

    def describe(self) -> str:
        """Return what was compared and what it took out of training, as a person reads it."""
        codes = Counter(out.reason.partition(":")[0] for out in self.outcomes if isinstance(out, Refusal))
        names = {
            NEAR_DUPLICATE_OF_HELD_OUT: "near-duplicates of held-out problems",
            CONTAMINATED: "contaminated",
            NEAR_DUPLICATE: "near-duplicates of another training problem",
        }
        found = ", ".join(f"{codes[code]} {name}" for code, name in names.items() if codes[code])
        compared = ", ".join(f"{count.num_problems} of {count.source}" for count in self.sets)
        return f"cleaning: {found or 'nothing'} taken out of training; compared with {compared}"


def clean(
    rows: Sequence[TakenRow], wanted: Sequence[str], sets: Sequence[EvaluationSet], config: ProblemsConfig
) -> Cleaned:
    """Return the problems with cluster and side, and why other rows are none.

    Only rows of the training side are refused; what is held out stays. Nothing depends on the
    order of the rows but which of two equal matches is told first.

    Args:
        rows: Of all sources.
        wanted: "held_out", "train" or "hash", aligned with the rows.
        sets: Evaluation sets besides the held-out problems, which are always one.
        config: Similarity, n-grams, and whether a cluster may have several training problems.

    Source: definition D1 (docs/method.md).
    """
    clustered = with_clusters([row.problem for row in rows], config.duplicate_jaccard)
    outcomes: list[Problem | Refusal] = [
        replace(problem, split=side) if side in (TRAIN, HELD_OUT) else Refusal(f"{NEAR_DUPLICATE_OF_HELD_OUT}: {side}")
        for problem, side in zip(clustered, assign_sides(clustered, wanted, config.held_out_fraction), strict=True)
    ]
    held_out = tuple(
        EvaluationText(row.place, row.line, row.problem.question)
        for row, outcome in zip(rows, outcomes, strict=True)
        if isinstance(outcome, Problem) and outcome.split == HELD_OUT
    )
    all_sets = [EvaluationSet(HELD_OUT, held_out), *sets]
    matches, counts = _refuse_contaminated(rows, outcomes, all_sets, config)
    if config.one_per_cluster:
        _refuse_near_duplicates(rows, outcomes)
    return Cleaned(tuple(outcomes), tuple(matches), tuple(counts))


def _refuse_contaminated(
    rows: Sequence[TakenRow],
    outcomes: list[Problem | Refusal],
    sets: Sequence[EvaluationSet],
    config: ProblemsConfig,
) -> tuple[list[ContaminationMatch], list[SetCounts]]:
    """Replace contaminated training problems by their refusal; return the matches and what each set found."""
    training = list(_training(outcomes))
    texts = [(number, text) for number, of_set in enumerate(sets) for text in of_set.texts]
    num_contaminated = Counter[int]()
    matches: list[ContaminationMatch] = []
    for found in find_contamination(
        [problem.question for _, problem in training],
        [text.question for _, text in texts],
        config.contamination_words,
        config.contamination_share,
    ):
        index, _ = training[found.training_index]
        num_contaminated.update({texts[other][0] for other in found.evaluation_indices})
        told = [
            _match(rows[index], sets[number].source, text, match.num_shared, match.num_ngrams, match.passage)
            for match in found.matches
            for number, text in [texts[match.evaluation_index]]
        ]
        matches += told
        outcomes[index] = Refusal(_reason(told[0], found, config.contamination_words))
    counts = [
        SetCounts(of_set.source, len(of_set.texts), num_contaminated[number]) for number, of_set in enumerate(sets)
    ]
    return matches, counts


def _match(
    row: TakenRow, evaluation_set: str, text: EvaluationText, num_shared: int, num_ngrams: int, passage: str
) -> ContaminationMatch:
    return ContaminationMatch(
        source=row.place,
        line=row.line,
        problem_id=row.problem.problem_id,
        question=row.problem.question[:MAX_RAW_CHARS],
        evaluation_set=evaluation_set,
        evaluation_source=text.place,
        evaluation_line=text.line,
        evaluation_question=text.question[:MAX_RAW_CHARS],
        num_shared=num_shared,
        num_ngrams=num_ngrams,
        passage=passage[:MAX_RAW_CHARS],
    )


def _reason(match: ContaminationMatch, found: Contamination, num_words: int) -> str:
    more = len(found.evaluation_indices) - 1
    return (
        f"{CONTAMINATED}: holds {match.num_shared} of the {match.num_ngrams} {num_words}-grams of "
        f"{match.evaluation_source}, line {match.evaluation_line}" + (f", and matches {more} more" if more else "")
    )


def _refuse_near_duplicates(rows: Sequence[TakenRow], outcomes: list[Problem | Refusal]) -> None:
    """Keep of the training problems of a cluster the one with the smallest id."""
    first: dict[str, int] = {}
    for index, problem in _training(outcomes):
        other = first.get(problem.cluster_id)
        if other is None or problem.problem_id < rows[other].problem.problem_id:
            first[problem.cluster_id] = index
    for index, problem in list(_training(outcomes)):
        kept = first[problem.cluster_id]
        if index != kept:
            outcomes[index] = Refusal(f"{NEAR_DUPLICATE}: of {rows[kept].place}, line {rows[kept].line}")


def _training(outcomes: Sequence[Problem | Refusal]) -> Iterator[tuple[int, Problem]]:
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Problem) and outcome.split == TRAIN:
            yield index, outcome
