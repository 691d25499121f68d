"""Reading repairs blind: which ones an auditor reads, in which order, and how far judgements agree.

Neither sample nor order says what PURE decided, and both follow from the run alone: every auditor reads the same texts.
What does not belong here: asking (`flows.cli.audit`), and where labels are kept (`store.audit`).
Source: METHOD section 3 (docs/method.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from heal_core.keys import content_key

GENUINE, SHORTCUT, UNSURE = "genuine", "shortcut", "unsure"
LABELS = (GENUINE, SHORTCUT, UNSURE)
PURE = "PURE"
"""The name under which PURE's own decisions stand beside those of auditors."""


@dataclass(frozen=True)
class Sample:
    """The repairs to read, in the order of reading; `num_kept` and `num_dropped` of them PURE kept and dropped."""

    trajectory_ids: tuple[str, ...]
    num_kept: int
    num_dropped: int


@dataclass(frozen=True)
class Agreement:
    """How far two judges agree on the texts that both have called genuine or a shortcut.

    Attributes:
        num_texts: Those texts.
        num_unsure: Texts that both have read, and at least one of them is unsure of.
        agreed_share: Share on which they agree, in [0, 1]; None without any.
        kappa: Cohen's kappa: 0 is what chance gives, 1 is full agreement; None where chance alone would agree on
            all, or without texts.
    """

    num_texts: int
    num_unsure: int
    agreed_share: float | None
    kappa: float | None


def draw_sample(run_id: str, kept: Iterable[str], dropped: Iterable[str], num_each: int) -> Sample:
    """Return `num_each` repairs that PURE kept and as many that it dropped, or all where there are fewer.

    Which ones, and their order, is decided by hashes: a larger sample holds a smaller one.
    """

    def first(ids: Iterable[str]) -> list[str]:
        return sorted(ids, key=lambda row_id: content_key("audit", run_id, row_id))[:num_each]

    some_kept, some_dropped = first(kept), first(dropped)
    order = sorted([*some_kept, *some_dropped], key=lambda row_id: content_key("audit order", run_id, row_id))
    return Sample(tuple(order), len(some_kept), len(some_dropped))


def measure_agreement(one: Mapping[str, str], other: Mapping[str, str]) -> Agreement:
    """Return how far two judges agree.

    Args:
        one: Labels by trajectory id; only texts that both have are compared.
    """
    both = [(one[row_id], other[row_id]) for row_id in sorted(one.keys() & other.keys())]
    pairs = [pair for pair in both if UNSURE not in pair]
    num = len(pairs)
    if not num:
        return Agreement(0, len(both), None, None)
    agreed = sum(a == b for a, b in pairs) / num
    ours, theirs = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    by_chance = sum(ours[label] * theirs[label] for label in LABELS) / num**2
    kappa = None if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)
    return Agreement(num, len(both) - num, agreed, kappa)


def report_audit(labels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what auditors said of a run, as JSON has it: their counts, and agreement with PURE and with each other.

    Args:
        labels: Rows of the view `audits` of one run.
    """
    by_auditor: dict[str, dict[str, str]] = {}
    pure = {}
    for row in labels:
        by_auditor.setdefault(row["auditor"], {})[row["trajectory_id"]] = row["label"]
        pure[row["trajectory_id"]] = GENUINE if row["pure_decision"] == "kept" else SHORTCUT
    names = sorted(by_auditor)
    pairs = [(name, PURE) for name in names] + list(combinations(names, 2))
    judges = {**by_auditor, PURE: pure}
    return {
        "auditors": [
            {
                "auditor": name,
                "kept": _count(by_auditor[name], pure, GENUINE),
                "dropped": _count(by_auditor[name], pure, SHORTCUT),
                "num_hint_shown": sum(row["hint_shown"] for row in labels if row["auditor"] == name),
            }
            for name in names
        ],
        "agreement": [
            {"one": one, "other": other, **vars(measure_agreement(judges[one], judges[other]))} for one, other in pairs
        ],
    }


def _count(labels: Mapping[str, str], pure: Mapping[str, str], judged: str) -> dict[str, int]:
    found = Counter(label for row_id, label in labels.items() if pure[row_id] == judged)
    return {label: found[label] for label in LABELS}


def printable(text: str) -> str:
    """Return a model's text with nothing in it that could steer a terminal; what is replaced is shown as an escape."""
    return "".join(_show(sign) for sign in text.replace("\r\n", "\n").expandtabs(4))


def _show(sign: str) -> str:
    if sign == "\n" or sign.isprintable():
        return sign
    return " " if sign.isspace() and ord(sign) > 0x7F else sign.encode("unicode_escape").decode()
