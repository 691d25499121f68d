"""What engines were made to do, in tokens and seconds, and what that costs at a price.

What does not belong here: prices as settings (`engines.price`), what a run's rows cost in SQL (the view
`phase_spend`, by the same rule), and what a run is going to cost (`forecast`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from heal_core.engines.price import PriceConfig
from heal_core.records import Completion


@dataclass(frozen=True)
class Spend:
    """Tokens and engine time of some work.

    Attributes:
        prompt_tokens: Tokens of prompts and prefixes, and those that a scorer read; the cached ones too.
        cached_tokens: Those of them that the engine had read before.
        completion_tokens: Sampled tokens.
        engine_seconds: Wall time of the engine; of several requests at once each has its share.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    engine_seconds: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.engine_seconds + other.engine_seconds,
        )

    @classmethod
    def of(cls, completion: Completion) -> Spend:
        """Return what a completion took."""
        return cls(
            completion.num_prompt_tokens,
            completion.num_cached_tokens or 0,
            len(completion.token_ids),
            completion.seconds,
        )


def cost_of(spend: Spend, price: PriceConfig) -> float:
    """Return what it costs, in the currency of the price."""
    cached_price = price.prompt if price.cached_prompt is None else price.cached_prompt
    millionths = (
        (spend.prompt_tokens - spend.cached_tokens) * price.prompt
        + spend.cached_tokens * cached_price
        + spend.completion_tokens * price.completion
    )
    return millionths / 1e6 + spend.engine_seconds / 3600 * price.hour


class SpendMeter:
    """Adds up what is spent, by whichever thread; costs by currency, of what has a price."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = Spend()
        self._costs: dict[str, float] = {}

    def add(self, spend: Spend, price: PriceConfig | None) -> None:
        """Count some work."""
        with self._lock:
            self._total += spend
            if price is not None:
                self._costs[price.currency] = self._costs.get(price.currency, 0.0) + cost_of(spend, price)

    @property
    def total(self) -> Spend:
        return self._total

    @property
    def costs(self) -> dict[str, float]:
        with self._lock:
            return dict(self._costs)

    def as_dict(self) -> dict[str, Any]:
        """Return what was spent, as an event of a run has it: without costs, since a price may change."""
        return asdict(self._total)


def describe_costs(costs: dict[str, float]) -> str:
    """Return amounts as a person reads them, such as `0.41 USD`; nothing without any."""
    return " + ".join(f"{describe_amount(amount)} {currency}" for currency, amount in sorted(costs.items()))


def describe_amount(amount: float) -> str:
    """Return an amount of money with two decimals, a small one with two digits that say something."""
    return f"{amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{amount:.2g}"


def add_costs(parts: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return amounts by currency."""
    costs: dict[str, float] = {}
    for currency, amount in parts:
        costs[currency] = costs.get(currency, 0.0) + amount
    return costs
