"""Other readings of PURE's ratio, on the texts of a validity test: which of them tell shortcuts from natural texts?

    heal validate-pure CONFIG
    python -m benchmarks.pure_variants --workspace FOLDER [--validity-id ID]

The scores of the test hold P and U of every step, so that nothing is read again. Each variant is a mean over the
steps of the span S, with or without the step behind it that asserts a*; U_k is the uncertainty after step k.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import print_report
from heal_core.auroc import auroc, bootstrap_aurocs
from heal_core.pure import PureConfig
from heal_core.store.inspect import open_store

EPSILON = PureConfig().epsilon
NUM_RESAMPLES = 10_000
NATURAL, ALL = "natural", "all"
TEXTS = (
    "SELECT t.kind, t.problem_id, s.step_perplexities, s.answer_uncertainties, s.span_start, s.span_end "
    "FROM validity_texts t JOIN scores s USING (score_id) WHERE t.validity_id = ? AND t.ratio IS NOT NULL"
)

Variant = Callable[[np.ndarray, np.ndarray, int, int], np.floating]
"""Of P_k, shape [S], U_0 .. U_S, shape [S + 1], the span's start, and its end: the asserting step."""

VARIANTS: dict[str, Variant] = {
    "P_k / (U_k + e), D8's ratio": lambda p, u, a, b: np.mean(p[a:b] / (u[a + 1 : b + 1] + EPSILON)),
    "P_k / (U_k + e), asserting step too": lambda p, u, a, b: np.mean(p[a : b + 1] / (u[a + 1 : b + 2] + EPSILON)),
    "P_k / (U_(k-1) + e), asserting step too": lambda p, u, a, b: np.mean(p[a : b + 1] / (u[a : b + 1] + EPSILON)),
    "ln P_k": lambda p, u, a, b: np.mean(np.log(p[a:b])),
    "ln P_k, asserting step too": lambda p, u, a, b: np.mean(np.log(p[a : b + 1])),
    "ln P of the asserting step alone": lambda p, u, a, b: np.log(p[b]),
}


def measure(workspace: Path, validity_id: str | None) -> dict[str, Any]:
    """Return, by kind of shortcut, each variant's AUROC with its 95 % interval over problems."""
    with open_store(workspace) as store:
        tests = [row[0] for row in store.execute("SELECT DISTINCT validity_id FROM validity_texts").fetchall()]
        if not tests:
            raise SystemExit(f"{workspace} holds no validity test; run heal validate-pure first")
        if validity_id not in tests and (validity_id or len(tests) != 1):
            raise SystemExit(f"{workspace} holds the validity tests {tests}; say which one with --validity-id")
        texts = store.execute(TEXTS, [validity_id or tests[0]]).fetchall()
    kinds, problems = np.array([text[0] for text in texts]), np.array([text[1] for text in texts])
    values = np.array(
        [[variant(np.array(p), np.array(u), a, b) for *_, p, u, a, b in texts] for variant in VARIANTS.values()]
    )
    figures: dict[str, Any] = {}
    for kind in (ALL, *sorted(set(kinds) - {NATURAL})):
        chosen = (kinds == NATURAL) | (kinds == kind) | (kind == ALL)
        is_shortcut = kinds[chosen] != NATURAL
        resampled = bootstrap_aurocs(values[:, chosen], is_shortcut, problems[chosen], NUM_RESAMPLES)
        low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
        figures[kind] = {
            name: [round(x, 3) for x in (auroc(values[row, chosen], is_shortcut), low[row], high[row])]
            for row, name in enumerate(VARIANTS)
        }
    return {"texts": {kind: int((kinds == kind).sum()) for kind in sorted(set(kinds))}, "auroc": figures}


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--validity-id", help="of which test, where the workspace holds several")
    arguments = parser.parse_args()
    print_report("pure_variants", measure(arguments.workspace, arguments.validity_id))


if __name__ == "__main__":
    main()
