"""What `early_stop` would have done to the texts of a workspace: how many right ones it would have cost, what it saved.

    python -m benchmarks.early_stop --workspace FOLDER [--rule NGRAM,REPEATS,MAX_STEP_TOKENS ...]

Each text is read again token by token under each rule; `none` or 0 switches a part of a rule off. Texts that came
to their end and are correct are what a rule must not touch. Of texts cut at the limit the tokens after the
place where they would have been given up are what it saves.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import print_report
from heal_core.engines.early_stop import EarlyStopConfig, LoopWatch
from heal_core.store.inspect import open_store

RULES = ("20,5,none", "20,3,none", "10,5,none", "none,5,256", "none,5,128")
TEXTS = (
    "SELECT k.token_ids, k.token_starts, t.text, "
    "CASE WHEN t.finish_reason <> 'stop' THEN 'cut' WHEN v.label = 'correct' THEN 'correct' ELSE 'wrong' END AS became "
    "FROM trajectories t JOIN tokens k USING (trajectory_id) JOIN latest_verdicts v USING (trajectory_id)"
)


def parse_rule(text: str) -> EarlyStopConfig:
    """Return the rule that `20,5,none` means."""
    ngram, repeats, max_step_tokens = (None if part in ("none", "0") else int(part) for part in text.split(","))
    return EarlyStopConfig(ngram=ngram, repeats=repeats or 2, max_step_tokens=max_step_tokens)


def find_stop(rule: EarlyStopConfig, token_ids: Sequence[int], ends_line: Sequence[bool]) -> int | None:
    """Return how many tokens a text has where it is given up, None where it is not."""
    position = 0
    watch = LoopWatch(rule, lambda _: ends_line[position])
    for position, token_id in enumerate(token_ids):
        if watch.add(token_id):
            return position + 1
    return None


def line_ends(text: str, token_starts: np.ndarray) -> list[bool]:
    """Return of each token whether a line ends in it."""
    ends = [*token_starts[1:], len(text)]
    return ["\n" in text[start:end] for start, end in zip(token_starts, ends, strict=True)]


def measure(workspace: Path, rules: Sequence[str]) -> dict[str, Any]:
    """Return, by rule, what would have become of the graded texts of a workspace."""
    with open_store(workspace) as store:
        texts = [
            (token_ids, line_ends(text, np.array(token_starts)), became)
            for token_ids, token_starts, text, became in store.execute(TEXTS).fetchall()
            if token_ids
        ]
    found = Counter(became for _, _, became in texts)
    figures: dict[str, Any] = {"texts": dict(found), "tokens": sum(len(ids) for ids, _, _ in texts)}
    for name in rules:
        rule, stopped, saved = parse_rule(name), Counter[str](), Counter[str]()
        for token_ids, ends_line, became in texts:
            if (end := find_stop(rule, token_ids, ends_line)) is not None:
                stopped[became] += 1
                saved[became] += len(token_ids) - end
        figures[name] = {
            became: {"stopped": stopped[became], "tokens_saved": saved[became]} for became in sorted(found)
        }
    return figures


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--rule", action="append", metavar="NGRAM,REPEATS,MAX_STEP_TOKENS")
    arguments = parser.parse_args()
    print_report("early_stop", measure(arguments.workspace, arguments.rule or RULES))


if __name__ == "__main__":
    main()
