import numpy as np
import pytest
from pydantic import ValidationError

from heal_core.engines.price import PriceConfig
from heal_core.records import Completion, FinishReason
from heal_core.spend import Spend, SpendMeter, cost_of, describe_costs


def completion(num_cached_tokens: int | None) -> Completion:
    tokens = np.arange(3)
    return Completion(
        "slot", tokens, -tokens, tokens, tokens, "abc", FinishReason.STOP, 40, 1.5, num_cached_tokens=num_cached_tokens
    )


def test_a_completion_spends_its_prompt_and_its_tokens() -> None:
    assert Spend.of(completion(30)) == Spend(40, 30, 3, 1.5)
    assert Spend.of(completion(None)) == Spend(40, 0, 3, 1.5)  # an engine that does not say what it had read before


@pytest.mark.parametrize("price", [float("inf"), float("nan"), -1.0])
def test_a_price_is_a_number(price: float) -> None:
    with pytest.raises(ValidationError):  # infinity times no tokens would be no number
        PriceConfig(prompt=price)


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        # 1 M prompt tokens of which 0.4 M cached, 0.5 M sampled, half an hour
        (PriceConfig(prompt=2.0), 2.0),
        (PriceConfig(prompt=2.0, cached_prompt=0.5), 0.6 * 2.0 + 0.4 * 0.5),
        (PriceConfig(prompt=2.0, cached_prompt=0.0), 0.6 * 2.0),
        (PriceConfig(completion=6.0), 3.0),
        (PriceConfig(hour=4.0), 2.0),
        (PriceConfig(prompt=2.0, completion=6.0, hour=4.0), 7.0),
        (PriceConfig(), 0.0),
    ],
)
def test_a_cost_is_by_million_tokens_and_by_hour(price: PriceConfig, cost: float) -> None:
    assert cost_of(Spend(1_000_000, 400_000, 500_000, 1800.0), price) == pytest.approx(cost)


def test_a_meter_adds_costs_by_currency_and_tokens_of_all() -> None:
    meter = SpendMeter()
    meter.add(Spend(10, 0, 5, 1.0), None)
    meter.add(Spend(0, 0, 1_000_000), PriceConfig(completion=2.0))
    meter.add(Spend(0, 0, 1_000_000), PriceConfig(completion=3.0, currency="CHF"))
    meter.add(Spend(0, 0, 500_000), PriceConfig(completion=2.0))
    assert meter.total == Spend(10, 0, 2_500_005, 1.0)
    assert meter.costs == {"USD": 3.0, "CHF": 3.0}
    assert describe_costs(meter.costs) == "3.00 CHF + 3.00 USD"


def test_small_amounts_are_not_shown_as_nothing() -> None:
    assert describe_costs({"USD": 0.000123}) == "0.00012 USD"
    assert describe_costs({"USD": 1234.567}) == "1,234.57 USD"
    assert describe_costs({}) == ""
