"""What a model's tokens or hours cost, as its user says it: for the books, never for what is done.

What does not belong here: counting tokens (the store's views) and forecasting them (`forecast`).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PriceConfig(BaseModel):
    """Prices in any one currency: per million tokens as hosted APIs bill them, or per hour of the engine's work."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    currency: str = "USD"
    """Name of the currency."""
    prompt: float = Field(default=0.0, ge=0)
    """Per million prompt tokens."""
    cached_prompt: float | None = Field(default=None, ge=0)
    """Per million of those that the server had cached; none: as `prompt`."""
    completion: float = Field(default=0.0, ge=0)
    """Per million sampled tokens."""
    hour: float = Field(default=0.0, ge=0)
    """Per hour of the engine's work."""
