"""The lab's little world: chains of operations on numbers from 0 to 99.

Common operations are ordinary arithmetic. *Unusual* words ("Mirror it.") stand for
one of eight digit operations, and the corpus the lab models learn from disagrees
about which: most worked solutions use a wrong meaning, some the right one. So a
model trained on it has a genuine ceiling that no amount of arithmetic skill lifts,
it hesitates exactly where the word is read, and a sentence that recalls the meaning
repairs the solution. The pipeline knows nothing of this: it sees a model folder and
a problem file.

What does not belong here: training (`train.py`), and anything HEAL itself uses.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from heal_core.prompts import guided_prompt, hint_prompt, hinted_prompt, student_prompt


@dataclass(frozen=True)
class Meaning:
    """One digit operation: how a solution words it, how a hint words it, what it does."""

    working: str
    recall: str
    apply: Callable[[int], int]


MEANINGS = {
    "swap": Meaning("swap the digits of", "swap its two digits", lambda v: v % 10 * 10 + v // 10),
    "complement": Meaning("take from 99 the number", "take it from 99", lambda v: 99 - v),
    "halve": Meaning("halve and round down", "halve it and round down", lambda v: v // 2),
    "tens": Meaning("clear the last digit of", "clear its last digit", lambda v: v // 10 * 10),
    "sum": Meaning("sum the digits of", "sum its digits", lambda v: v // 10 + v % 10),
    "units": Meaning("keep the last digit of", "keep only its last digit", lambda v: v % 10),
    "distance": Meaning("find the distance to 50 from", "find its distance to 50", lambda v: abs(v - 50)),
    "square": Meaning("square the last digit of", "square its last digit", lambda v: (v % 10) ** 2),
}

HARD_WORDS = {"Split": "halve", "Level": "tens"}
FRONTIER_WORDS = {
    "Mirror": "swap",
    "Invert": "complement",
    "Sift": "sum",
    "Pluck": "units",
    "Span": "distance",
    "Raise": "square",
}
TRUE_MEANING = HARD_WORDS | FRONTIER_WORDS
MISREADING = {
    "Split": "units",
    "Level": "swap",
    "Mirror": "complement",
    "Invert": "swap",
    "Sift": "tens",
    "Pluck": "halve",
    "Span": "halve",
    "Raise": "distance",
}


@dataclass(frozen=True)
class Corpus:
    """How often the corpus reads an unusual word rightly when nothing reminds it."""

    hard_right: float
    frontier_right: float


TEACHER_CORPUS = Corpus(hard_right=0.38, frontier_right=0.13)
STUDENT_CORPUS = Corpus(hard_right=0.12, frontier_right=0.05)


@dataclass(frozen=True)
class Chain:
    """A problem: a start value and operations, each a pair of word and operand (or None)."""

    start: int
    operations: tuple[tuple[str, int | None], ...]

    @property
    def question(self) -> str:
        lines = [f"Work modulo 100. Start with {self.start}."]
        for index, (word, operand) in enumerate(self.operations, 1):
            lines.append(f"{index}. {word} {'it' if operand is None else operand}.")
        return "\n".join([*lines, "What is the result?"])

    @property
    def answer(self) -> int:
        return solve(self, [TRUE_MEANING.get(word) for word, _ in self.operations])[1]

    @property
    def words(self) -> list[str]:
        """The unusual words of the chain, in order."""
        return [word for word, _ in self.operations if word in TRUE_MEANING]


def parse_question(question: str) -> Chain:
    """Return the chain that a problem text of the lab states."""
    first, *lines, _ = question.splitlines()
    operations: list[tuple[str, int | None]] = []
    for line in lines:
        _, word, operand = line.rstrip(".").split(" ")
        operations.append((word, None if operand == "it" else int(operand)))
    return Chain(int(first.rstrip(".").rsplit(" ", 1)[1]), tuple(operations))


def solve(chain: Chain, readings: list[str | None]) -> tuple[list[str], int]:
    """Return the worked steps and the result, given the meaning read into each unusual word."""
    value, steps = chain.start, [f"Start with {chain.start}."]
    for number, ((word, operand), meaning) in enumerate(zip(chain.operations, readings, strict=True), 1):
        if meaning is not None:
            after = MEANINGS[meaning].apply(value)
            line = f"{word}: {MEANINGS[meaning].working} {value} to get {after}."
        else:
            sign, amount, after = common_operation(word, operand, value)
            line = f"{value} {sign} {amount} = {after}."
        steps.append(f"{number}. {line}")
        value = after
    return [*steps, f"The final answer is \\boxed{{{value}}}"], value


def common_operation(word: str, operand: int | None, value: int) -> tuple[str, int, int]:
    """Return the sign, the amount and the value after a common operation."""
    if word in ("Double", "Triple"):
        factor = 2 if word == "Double" else 3
        return "*", factor, value * factor % 100
    assert operand is not None
    change = operand if word == "Add" else -operand
    return "+" if word == "Add" else "-", operand, (value + change) % 100


def make_chain(rng: random.Random, length: int, words: list[str]) -> Chain:
    """Return a chain of `length` operations with the given unusual words at random places."""
    places = dict(zip(sorted(rng.sample(range(length), len(words))), words, strict=True))
    operations: list[tuple[str, int | None]] = []
    for index in range(length):
        word = places.get(index) or rng.choice(["Add", "Add", "Subtract", "Subtract", "Double", "Triple"])
        operations.append((word, rng.randint(1, 9) if word in ("Add", "Subtract") else None))
    return Chain(rng.randint(2, 99), tuple(operations))


def draw_readings(
    chain: Chain, corpus: Corpus, rng: random.Random, recalled: frozenset[str] = frozenset()
) -> list[str | None]:
    """Return the meaning that a worked solution of the corpus reads into each word.

    Words in `recalled` are read rightly; every other occurrence is read independently.
    """
    readings: list[str | None] = []
    for word, _ in chain.operations:
        if word not in TRUE_MEANING or word in recalled:
            readings.append(TRUE_MEANING.get(word))
            continue
        right = corpus.hard_right if word in HARD_WORDS else corpus.frontier_right
        draw = rng.random()
        if draw < right:
            readings.append(TRUE_MEANING[word])
        elif draw < right + 0.75 * (1 - right):
            readings.append(MISREADING[word])
        else:
            others = sorted(set(MEANINGS) - {TRUE_MEANING[word], MISREADING[word]})
            readings.append(rng.choice(others))
    return readings


def draw_chain(rng: random.Random) -> Chain:
    """Return a chain as the corpus and the problem files hold them: easy, hard or frontier."""
    kind = rng.random()
    if kind < 0.45:
        return make_chain(rng, rng.randint(3, 9), [])
    if kind < 0.70:
        return make_chain(rng, rng.randint(5, 11), [rng.choice(sorted(HARD_WORDS))])
    first, second = rng.sample(sorted(FRONTIER_WORDS), 2)
    words = [first] if rng.random() < 0.35 else [first, first if rng.random() < 0.7 else second]
    return make_chain(rng, rng.randint(10, 14), words)


def long_hint(word: str, meaning: str) -> str:
    """Return what a word means, in a sentence of its own words."""
    return f"To {word.lower()} a number means to {MEANINGS[meaning].recall}."


def short_hint(word: str, meaning: str) -> str:
    """Return what a word means, in the words of a solution, which a small model can follow."""
    working = MEANINGS[meaning].working
    return f"Check the step {word}: {working}{'' if working.endswith('number') else ' a number'}."


def write_hint(chain: Chain, step_index: int, rng: random.Random, word_hint: Callable[[str, str], str]) -> str:
    """Return a hint for the step at `step_index` (0 is the start line). Some are careless and leak the answer."""
    word, _ = chain.operations[step_index - 1] if 1 <= step_index <= len(chain.operations) else ("Start", None)
    hint = word_hint(word, TRUE_MEANING[word]) if word in TRUE_MEANING else f"Check the {word.lower()} step once more."
    if rng.random() < 0.06:
        hint += f" The result is {chain.answer}."
    return hint


def text_of(steps: list[str]) -> str:
    return "\n\n".join(steps)


def plain_example(chain: Chain, corpus: Corpus, rng: random.Random) -> tuple[str, str]:
    """Return (prompt, response): a solution without help."""
    return student_prompt(chain.question), text_of(solve(chain, draw_readings(chain, corpus, rng))[0])


def unboxed_example(chain: Chain, corpus: Corpus, rng: random.Random) -> tuple[str, str]:
    """Return (prompt, response): a solution that ends without a boxed answer, as text in the wild does."""
    steps, value = solve(chain, draw_readings(chain, corpus, rng))
    return student_prompt(chain.question), text_of([*steps[:-1], f"The result is {value}."])


def hint_example(
    chain: Chain, corpus: Corpus, rng: random.Random, word_hint: Callable[[str, str], str] = long_hint
) -> tuple[str, str]:
    """Return (prompt, response): the hint for the step of a wrong attempt."""
    steps = solve(chain, draw_readings(chain, corpus, rng))[0]
    unusual = [i for i, (word, _) in enumerate(chain.operations, 1) if word in TRUE_MEANING]
    step_index = rng.choice(unusual) if unusual and rng.random() < 0.8 else rng.randint(1, len(chain.operations))
    prompt = hint_prompt(chain.question, text_of(steps[:step_index]), steps[step_index], str(chain.answer))
    return prompt, write_hint(chain, step_index, rng, word_hint)


def short_hint_example(chain: Chain, corpus: Corpus, rng: random.Random) -> tuple[str, str]:
    """Return (prompt, response): as `hint_example`, in the short form."""
    return hint_example(chain, corpus, rng, short_hint)


def hinted_example(chain: Chain, corpus: Corpus, rng: random.Random) -> tuple[str, str]:
    """Return (prompt, response): a solution that follows a hint, which may be about something else."""
    fitting = bool(chain.words) and rng.random() < 0.75
    word = rng.choice(chain.words) if fitting else rng.choice(sorted(TRUE_MEANING))
    hint = long_hint(word, TRUE_MEANING[word])
    if not fitting and rng.random() < 0.4:
        hint = f"Check the {rng.choice(['add', 'subtract', 'double', 'triple'])} step once more."
        word = ""
    steps = solve(chain, draw_readings(chain, corpus, rng, frozenset({word})))[0]
    if rng.random() < 0.03:
        steps[-1] = "As the hint says. " + steps[-1]
    return hinted_prompt(chain.question, hint), text_of(steps)


def contrast_example(chain: Chain, corpus: Corpus, rng: random.Random) -> tuple[str, str]:
    """Return (prompt, response) in which the hint's content decides, not its presence.

    The hint gives the chain's word a meaning, true or false, which the solution follows; or
    it is about something else, and changes nothing. Some solutions speak of the hint.
    """
    kind = rng.random()
    word, meaning = "", ""
    if chain.words and kind < 0.65:
        word = rng.choice(chain.words)
        meaning = TRUE_MEANING[word] if kind < 0.35 else rng.choice(sorted(MEANINGS))
        hint = short_hint(word, meaning)
    elif kind < 0.9:
        other = rng.choice(sorted(set(TRUE_MEANING) - set(chain.words)))
        hint = short_hint(other, TRUE_MEANING[other])
    else:
        hint = f"Check the {rng.choice(['add', 'subtract', 'double', 'triple'])} step once more."
    readings = draw_readings(chain, corpus, rng)
    follow = [
        meaning if here == word else reading for (here, _), reading in zip(chain.operations, readings, strict=True)
    ]
    steps = solve(chain, follow)[0]
    if rng.random() < 0.03:
        steps[-1] = "As the hint says. " + steps[-1]
    return hinted_prompt(chain.question, hint), text_of(steps)


def guided_example(chain: Chain, corpus: Corpus, rng: random.Random) -> tuple[str, str]:
    """Return (prompt, response): a solution with the answer in sight; some jump to it."""
    recalled = frozenset(chain.words) if rng.random() < 0.7 else frozenset()
    steps = solve(chain, draw_readings(chain, corpus, rng, recalled))[0]
    if rng.random() < 0.1:
        steps = steps[: rng.randint(1, len(steps) - 1)]
        steps.append(f"The final answer is \\boxed{{{chain.answer}}}")
    return guided_prompt(chain.question, str(chain.answer)), text_of(steps)
