"""What a model's tokens or hours cost, as its user says it: for the books, never for what is done.

What does not belong here: counting tokens (the store's views) and forecasting them (`forecast`).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PriceConfig(BaseModel):
    """Prices in any one currency: per million tokens as hosted APIs bill them, or per hour of the engine's work.

    `cached_prompt` is for prompt tokens that the server had read before; by default they cost as much as others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    currency: str = "USD"
    prompt: float = Field(default=0.0, ge=0)
    cached_prompt: float | None = Field(default=None, ge=0)
    completion: float = Field(default=0.0, ge=0)
    hour: float = Field(default=0.0, ge=0)
