"""The decode loop: requests -> completions, with the exact entropy of every token.

What does not belong here: the child process (`worker`), which token is drawn (`drawing`), the statistics
(`kernels.entropy`), the characters (`detokenize`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from heal_core.engines.base import GenerationRequest, SamplingConfig
from heal_core.engines.detokenize import detokenize
from heal_core.engines.drawing import draw, slot_uniforms
from heal_core.engines.early_stop import LoopWatch, line_ends
from heal_core.engines.loading import LoadedModel
from heal_core.errors import RequestError
from heal_core.kernels.entropy import entropy_and_logprobs
from heal_core.records import Completion, FinishReason

_BLOCK_STEPS = 64
_COMPACT_BELOW = 0.75


@dataclass(frozen=True)
class _Row:
    request: GenerationRequest
    input_ids: tuple[int, ...]  # prompt and prefix


def generate(
    loaded: LoadedModel,
    requests: Sequence[GenerationRequest],
    sampling: SamplingConfig,
    batch_size: int,
    beat: Callable[[], None],
) -> Iterator[Completion]:
    """Yield each completion as it finishes; batches are a function of `requests` alone.

    A request's own `max_tokens` is the limit. Same requests, same machine, same threads: the same bits.

    Args:
        loaded: The model.
        requests: What to draw.
        sampling: How to draw.
        batch_size: Rows that decode together.
        beat: Called at least once per decode step, as a sign of life; may raise to stop.

    Raises:
        RequestError: If a request exceeds the context, or the model's logits are not numbers.
    """
    rows = _rows(loaded, requests)
    for row in rows:
        if row.request.max_tokens <= 0:
            yield _completion(loaded, row, np.empty((3, 0)), FinishReason.LENGTH, 0.0)
    rows = [row for row in rows if row.request.max_tokens > 0]
    ends_line = line_ends(loaded.tokenizer)
    for start in range(0, len(rows), batch_size):
        yield from _Batch(loaded, rows[start : start + batch_size], sampling, ends_line).run(beat)


def _rows(loaded: LoadedModel, requests: Sequence[GenerationRequest]) -> list[_Row]:
    """Return checked rows, longest input first, equal inputs side by side, else in order of request."""
    prompt_ids = {prompt: loaded.prompt_ids(prompt) for prompt in dict.fromkeys(r.prompt for r in requests)}
    rows = [_Row(r, (*prompt_ids[r.prompt], *r.prefix_token_ids)) for r in requests]
    first_index: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(rows):
        first_index.setdefault(row.input_ids, index)
        loaded.check_length(
            row.request.slot_id,
            row.input_ids,
            max(0, row.request.max_tokens),
            "lower max_tokens, shorten the prompt, or use a model with a longer context",
        )
    return sorted(rows, key=lambda row: (-len(row.input_ids), first_index[row.input_ids]))


class _Batch:
    """Rows that decode in lockstep; the finished ones are taken out of the cache from time to time."""

    def __init__(
        self,
        loaded: LoadedModel,
        rows: Sequence[_Row],
        sampling: SamplingConfig,
        ends_line: Callable[[int], bool],
    ) -> None:
        self.loaded = loaded
        self.rows = list(rows)
        self.sampling = sampling
        self.limits = np.array([row.request.max_tokens for row in rows])
        self.is_open = np.ones(len(rows), dtype=bool)
        self.watches = [LoopWatch(sampling.early_stop, ends_line) for _ in rows] if sampling.early_stop else None
        self.uniforms = np.empty((len(rows), 0))
        device, shape = loaded.device, (len(rows), int(self.limits.max()))
        self.token_ids = torch.empty(shape, dtype=torch.int64, device=device)
        self.logprobs = torch.empty(shape, dtype=torch.float32, device=device)
        self.entropies = torch.empty(shape, dtype=torch.float32, device=device)

    def run(self, beat: Callable[[], None]) -> Iterator[Completion]:
        """Yield the batch's completions."""
        eos_ids = np.fromiter(self.loaded.eos_ids, dtype=np.int64)
        seconds = 0.0  # of the wall time, the share of each row that is still open
        clock = time.perf_counter()
        logits = self._prefill()
        for step in range(int(self.limits.max())):
            beat()
            sampled = self._sample(logits, step)
            token_ids = sampled.cpu().numpy()
            is_eos = np.isin(token_ids, eos_ids)
            is_hopeless = self._watch(token_ids, ~is_eos)
            finished = self.is_open & (is_eos | is_hopeless | (self.limits == step + 1))
            now = time.perf_counter()
            seconds += (now - clock) / int(self.is_open.sum())
            clock = now
            for index in np.flatnonzero(finished):
                # one that is given up at its very limit would be under a higher one, too
                cut = FinishReason.HOPELESS if is_hopeless[index] else FinishReason.LENGTH
                yield self._finish(int(index), step, FinishReason.STOP if is_eos[index] else cut, seconds)
            self.is_open &= ~finished
            num_open = int(self.is_open.sum())
            if num_open == 0:
                return
            if num_open <= _COMPACT_BELOW * len(self.is_open):
                sampled = self._compact(sampled)
            logits = self._advance(sampled, step)

    @torch.inference_mode()
    def _prefill(self) -> torch.Tensor:
        """Run each distinct input once, padded on the left, and give every row a copy of its cache."""
        distinct = list(dict.fromkeys(row.input_ids for row in self.rows))
        device, width = self.loaded.device, len(distinct[0])
        ids = torch.full((len(distinct), width), self.loaded.pad_id)
        mask = torch.zeros((len(distinct), width + int(self.limits.max())), dtype=torch.int64)
        for index, input_ids in enumerate(distinct):
            ids[index, width - len(input_ids) :] = torch.tensor(input_ids)
            mask[index, width - len(input_ids) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        self.cache = _new_cache(self.loaded.model)
        logits = self.loaded.model(
            input_ids=ids,
            attention_mask=mask[:, :width],
            position_ids=(mask[:, :width].cumsum(dim=1) - 1).clamp_min(0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        position = {input_ids: index for index, input_ids in enumerate(distinct)}
        source = torch.tensor([position[row.input_ids] for row in self.rows], device=device)
        self.cache.reorder_cache(source)
        self.width = width
        self.mask = mask[source]
        self.input_lengths = mask[source, :width].sum(dim=1)
        result: torch.Tensor = logits[source]
        return result

    @torch.inference_mode()
    def _advance(self, sampled: torch.Tensor, step: int) -> torch.Tensor:
        """Return the logits after the token sampled at `step`, shape [R, V]."""
        # finished rows go on until they are compacted away; the clamp keeps them inside the context
        positions = (self.input_lengths + step).clamp_max(self.loaded.description.context_tokens - 1)
        logits: torch.Tensor = self.loaded.model(
            input_ids=sampled[:, None],
            attention_mask=self.mask[:, : self.width + step + 1],
            position_ids=positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits

    def _sample(self, logits: torch.Tensor, step: int) -> torch.Tensor:
        """Draw and record the token at `step` of every row, shape [R]."""
        if step % _BLOCK_STEPS == 0:
            self.uniforms = np.stack([slot_uniforms(row.request.slot_id, step, _BLOCK_STEPS) for row in self.rows])
        uniforms = torch.from_numpy(self.uniforms[:, step % _BLOCK_STEPS].copy()).to(logits.device)
        sampled = draw(logits, uniforms, self.sampling)
        entropies, logprobs = entropy_and_logprobs(logits, sampled)
        self.token_ids[:, step] = sampled
        self.logprobs[:, step] = logprobs
        self.entropies[:, step] = entropies
        return sampled

    def _watch(self, token_ids: np.ndarray, is_text: np.ndarray) -> np.ndarray:
        """Return which of the open rows are hopeless with the token that each just got, shape [R]."""
        is_hopeless = np.zeros(len(self.rows), dtype=bool)
        if self.watches is not None:
            for index in np.flatnonzero(self.is_open & is_text):
                is_hopeless[index] = self.watches[index].add(int(token_ids[index]))
        return is_hopeless

    def _finish(self, index: int, step: int, reason: FinishReason, seconds: float) -> Completion:
        length = step if reason is FinishReason.STOP else step + 1
        tables = (self.token_ids, self.logprobs, self.entropies)
        columns = np.array([table[index, :length].cpu().numpy() for table in tables], dtype=np.float64)
        return _completion(self.loaded, self.rows[index], columns, reason, seconds)

    def _compact(self, sampled: torch.Tensor) -> torch.Tensor:
        """Take the finished rows out; return the open rows' last tokens."""
        kept = np.flatnonzero(self.is_open)
        indices = torch.from_numpy(kept).to(sampled.device)
        self.cache.reorder_cache(indices)
        self.rows = [self.rows[index] for index in kept]
        self.watches = self.watches and [self.watches[index] for index in kept]
        self.limits, self.is_open, self.uniforms = self.limits[kept], self.is_open[kept], self.uniforms[kept]
        self.mask, self.input_lengths = self.mask[indices], self.input_lengths[indices]
        self.token_ids, self.logprobs, self.entropies = (
            table[indices] for table in (self.token_ids, self.logprobs, self.entropies)
        )
        return sampled[indices]


def _completion(
    loaded: LoadedModel, row: _Row, columns: np.ndarray, reason: FinishReason, seconds: float
) -> Completion:
    """Return a finished row's record; `columns` are ids, log-probabilities, entropies, shape [3, T]."""
    token_ids = columns[0].astype(np.int32)
    if not np.isfinite(columns).all():
        raise RequestError(
            f"{loaded.description.model_name_or_path}: {row.request.slot_id} expected finite logits, "
            f"found nan in {loaded.description.dtype}; use dtype float32 or bfloat16"
        )
    text, token_starts = detokenize(loaded.tokenizer, token_ids.tolist(), row.request.prefix_token_ids)
    return Completion(
        slot_id=row.request.slot_id,
        token_ids=token_ids,
        logprobs=columns[1].astype(np.float32),
        entropies=columns[2].astype(np.float32),
        token_starts=token_starts,
        text=text,
        finish_reason=reason,
        num_prompt_tokens=len(row.input_ids),
        seconds=seconds,
    )


class _RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A cache layer that writes into spare room; the ordinary one copies itself for every token.

    Rows are picked with `reorder_cache`: unlike `batch_select_indices`, every kind of layer has it.
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._key_room, self._value_room = key_states[:, :, :0], value_states[:, :, :0]
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._key_room.shape[-2]:
            self._key_room = _grown(self._key_room[:, :, :start], end)
            self._value_room = _grown(self._value_room[:, :, :start], end)
        self._key_room[:, :, start:end] = key_states
        self._value_room[:, :, start:end] = value_states
        return self._show(end)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        length = self.get_seq_length()
        self._key_room, self._value_room = self._key_room[beam_idx], self._value_room[beam_idx]
        self._show(length)

    def _show(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._key_room[:, :, :length], self._value_room[:, :, :length]
        self.keys, self.values = keys, values
        return keys, values


def _grown(filled: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Return a copy of `filled`, shape [R, heads, T, dim], with room for 1.5 * `num_tokens`."""
    rows, heads, length, dim = filled.shape
    room = filled.new_empty((rows, heads, num_tokens + max(64, num_tokens // 2), dim))
    room[:, :, :length] = filled
    return room


def _new_cache(model: Any) -> Any:
    cache = DynamicCache(config=model.config)
    roomy: type[Any] = _RoomyLayer
    cache.layers = [roomy() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
