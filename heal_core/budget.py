"""How many tokens one start of a run may sample: counted as texts come in, asked between two pieces of work.

What does not belong here: what a token costs (`engines.price`), and how long a run may take (`deadline`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from heal_core.errors import BudgetSpentError


class TokenBudget:
    """Newly sampled completion tokens, against a limit; chunks of several threads spend from the same one.

    Args:
        max_tokens: The limit; None for no limit.
    """

    def __init__(self, max_tokens: int | None = None) -> None:
        self.max_tokens = max_tokens
        self._spent = 0
        self._lock = threading.Lock()

    @property
    def num_spent(self) -> int:
        """Return the tokens sampled so far."""
        return self._spent

    def spend(self, num_tokens: int) -> None:
        """Count the tokens of a text that is finished.

        Raises:
            BudgetSpentError: If the limit is reached.
        """
        with self._lock:
            self._spent += num_tokens
        self.check()

    def check(self) -> None:
        """Raise when nothing may be sampled any more.

        Raises:
            BudgetSpentError: If the limit is reached.
        """
        if self.max_tokens is not None and self._spent >= self.max_tokens:
            raise BudgetSpentError(
                f"the token budget is spent: this start sampled {self._spent:,} tokens of {self.max_tokens:,}"
            )

    def count_affordable(self, limits: Sequence[int], lengths: Sequence[int]) -> int:
        """Return how many of the texts that are wanted may be begun together, at least one.

        As many as what is left would pay: at the mean length of those of their kind that came so far, and at
        the longest limit before any came. So little is in flight, and lost, when the budget is spent.

        Args:
            limits: The limits of the texts that are wanted, tokens.
            lengths: The lengths of those that came, tokens.
        """
        if self.max_tokens is None:
            return len(limits)
        expected = sum(lengths) / len(lengths) if lengths else max(limits)
        return max(1, min(len(limits), int((self.max_tokens - self._spent) // max(1.0, expected))))
