"""Teacher-forced scoring: given tokens -> their log-probabilities and entropies.

Rows are padded on the right: under causal attention no real token sees the padding,
so no mask is needed. What does not belong here: what the scores mean (`pure`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heal_core.chat import encode_text
from heal_core.engines.base import ScoreRequest, ScoreResult
from heal_core.engines.loading import LoadedModel
from heal_core.kernels.entropy import MAX_CHUNK_LOGITS, entropy_and_logprobs

_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class _Row:
    request_id: str
    ids: tuple[int, ...]
    num_scored: int


def score(loaded: LoadedModel, requests: Sequence[ScoreRequest], beat: Callable[[], None]) -> Iterator[ScoreResult]:
    """Yield the scores of each request's tokens, longest rows first.

    Args:
        loaded: The model.
        requests: What to score; a request without tokens gets empty arrays.
        beat: Called before every batch, as a sign of life; may raise to stop.

    Raises:
        RequestError: If a row exceeds the context.
    """
    rows = _rows(loaded, requests)
    run = _plain_head_logits if has_plain_head(loaded) else _full_logits
    for batch in _batches(rows):
        beat()
        yield from _score_batch(loaded, batch, run)


@torch.inference_mode()
def has_plain_head(loaded: LoadedModel) -> bool:
    """Return whether logits are the output layer applied to the hidden states and nothing else.

    Some architectures scale or cap them, which shows on any tokens but padding, whose
    embedding may be 0. Those models must run whole.
    """
    ids = torch.linspace(0, loaded.description.vocabulary_size - 1, 8, device=loaded.device).long()[None]
    whole = loaded.model(input_ids=ids, use_cache=False).logits
    # exactly: a soft cap moves small logits by very little
    return torch.equal(whole, _hidden_to_logits(loaded, _hidden_states(loaded, ids)))


def _rows(loaded: LoadedModel, requests: Sequence[ScoreRequest]) -> list[_Row]:
    prompt_ids = {prompt: loaded.prompt_ids(prompt) for prompt in dict.fromkeys(r.prompt for r in requests)}
    cue_ids = {cue: encode_text(loaded.tokenizer, cue) for cue in dict.fromkeys(r.cue for r in requests)}
    rows = []
    for request in requests:
        scored = request.token_ids if request.text is None else encode_text(loaded.tokenizer, request.text)
        ids = (*prompt_ids[request.prompt], *request.context_token_ids, *cue_ids[request.cue], *scored)
        loaded.check_length(request.request_id, ids, 0, "score less, or use a model with a longer context")
        rows.append(_Row(request.request_id, ids, len(scored)))
    return sorted(rows, key=lambda row: -len(row.ids))


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Yield runs of rows, sorted by length, whose rectangle stays within the token budget."""
    start = 0
    while start < len(rows):
        size = max(1, _BATCH_TOKENS // len(rows[start].ids))
        yield list(rows[start : start + size])
        start += size


@torch.inference_mode()
def _score_batch(
    loaded: LoadedModel,
    rows: Sequence[_Row],
    run: Callable[[LoadedModel, torch.Tensor, torch.Tensor, torch.Tensor], Iterator[torch.Tensor]],
) -> list[ScoreResult]:
    ids = torch.full((len(rows), len(rows[0].ids)), loaded.pad_id)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
    counts = np.array([row.num_scored for row in rows])
    row_index = np.repeat(np.arange(len(rows)), counts)
    columns = np.concatenate([np.arange(len(row.ids) - row.num_scored, len(row.ids)) for row in rows])
    at, column = torch.from_numpy(row_index).to(loaded.device), torch.from_numpy(columns).to(loaded.device)
    ids = ids.to(loaded.device)
    targets = ids[at, column]
    entropies: list[np.ndarray] = []
    logprobs: list[np.ndarray] = []
    # the distribution of a token stands at the position before it
    for logits in run(loaded, ids, at, column - 1) if len(columns) else ():
        done = sum(len(part) for part in entropies)
        entropy, logprob = entropy_and_logprobs(logits, targets[done : done + len(logits)])
        entropies.append(entropy.cpu().numpy())
        logprobs.append(logprob.cpu().numpy())
    splits = np.cumsum(counts)[:-1]
    empty = np.empty(0, dtype=np.float32)
    return [
        ScoreResult(row.request_id, logprob, entropy)
        for row, logprob, entropy in zip(
            rows,
            np.split(np.concatenate([empty, *logprobs]), splits),
            np.split(np.concatenate([empty, *entropies]), splits),
            strict=True,
        )
    ]


def _plain_head_logits(
    loaded: LoadedModel, ids: torch.Tensor, at: torch.Tensor, column: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Yield logits of the wanted positions only, in chunks of bounded memory, shape [<= T, V]."""
    hidden = _hidden_states(loaded, ids)[at, column]
    for chunk in torch.split(hidden, max(1, MAX_CHUNK_LOGITS // loaded.description.vocabulary_size)):
        yield _hidden_to_logits(loaded, chunk)


def _full_logits(
    loaded: LoadedModel, ids: torch.Tensor, at: torch.Tensor, column: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Yield the same row by row from the model as a whole; `at` never decreases."""
    for index in torch.unique_consecutive(at):
        wanted = column[at == index]
        yield loaded.model(input_ids=ids[index][None], use_cache=False, logits_to_keep=wanted).logits[0]


def _hidden_states(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = loaded.model.base_model(input_ids=ids, use_cache=False)[0]
    return hidden


def _hidden_to_logits(loaded: LoadedModel, hidden: torch.Tensor) -> torch.Tensor:
    head: Any = loaded.model.get_output_embeddings()
    logits: torch.Tensor = head(hidden)
    return logits
