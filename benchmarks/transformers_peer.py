"""The peer of the benchmarks of sampling: transformers' own `generate`, as one writes it without HEAL.

What does not belong here: HEAL's side, and timing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heal_core.engines.base import SamplingConfig


class TransformersPeer:
    """A model in this process; loaded once, so that no side's timings contain it."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        self._model = model.eval()

    def generate(self, input_ids: Sequence[int], num: int, sampling: SamplingConfig) -> int:
        """Return how many tokens `num` continuations of one input have, their ends included; entropies are not made."""
        ids = self._torch.tensor([list(input_ids)])
        with self._torch.no_grad():
            out = self._model.generate(
                ids,
                attention_mask=self._torch.ones_like(ids),
                do_sample=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=0,
                max_new_tokens=sampling.max_tokens,
                num_return_sequences=num,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return int((out[:, ids.shape[1] :] != self.tokenizer.pad_token_id).sum())
