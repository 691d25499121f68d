"""Teacher-forced scoring: given tokens -> their log-probabilities and entropies.

What several requests begin with is read once, where the model allows it (`packable`). Rows
are padded on the right: under causal attention no real token sees the padding, so rows
that share nothing need no mask. What does not belong here: what the scores mean (`pure`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from heal_core.chat import encode_text
from heal_core.engines.base import ScoreRequest, ScoreResult
from heal_core.engines.loading import LoadedModel
from heal_core.engines.packable import tree_arguments, why_not_packable
from heal_core.engines.packing import Row, Tree, batches, grow_trees, single_trees
from heal_core.kernels.entropy import entropy_and_logprobs
from heal_core.kernels.head import head_entropy_and_logprobs

_logger = logging.getLogger("heal")  # in the child its log

_Measure = Callable[
    [LoadedModel, torch.Tensor, dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor],
    tuple[torch.Tensor, torch.Tensor],
]


def score(
    loaded: LoadedModel,
    requests: Sequence[ScoreRequest],
    beat: Callable[[], None],
    max_tokens: int = 8192,
) -> Iterator[ScoreResult]:
    """Yield the scores of each request's tokens, in no order that matters.

    Args:
        loaded: The model.
        requests: What to score; a request without tokens gets empty arrays.
        beat: Called before every batch, as a sign of life; may raise to stop.
        max_tokens: Tokens to read at a time, padding included; one row may be longer.

    Raises:
        RequestError: If a row exceeds the context.
    """
    rows = _rows(loaded, requests)
    trees = grow_trees(rows, max_tokens)
    if any(tree.is_branched for tree in trees) and (reason := why_not_packable(loaded)) is not None:
        _warn_once(f"{loaded.description.model_name_or_path}: scoring reads each request alone: {reason}")
        trees = single_trees(rows)
    measure = _measure_plain_head if has_plain_head(loaded) else _measure_whole_model
    for batch in batches(trees, max_tokens):
        beat()
        yield from _score_batch(loaded, batch, measure)


@cache
def _warn_once(text: str) -> None:
    """Log a warning that holds for every call."""
    _logger.warning(text)


@torch.inference_mode()
def has_plain_head(loaded: LoadedModel) -> bool:
    """Return whether logits are a linear layer applied to the hidden states and nothing else.

    Some architectures scale or cap them, which shows on any tokens but padding, whose
    embedding may be 0; some layers only look linear (quantised ones). Those models must run whole.
    """
    head: Any = loaded.model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return False
    ids = torch.linspace(0, loaded.description.vocabulary_size - 1, 8, device=loaded.device).long()[None]
    whole = loaded.model(input_ids=ids, use_cache=False).logits
    # exactly: a soft cap moves small logits by very little
    return torch.equal(whole, head(_hidden_states(loaded, ids)))


def _rows(loaded: LoadedModel, requests: Sequence[ScoreRequest]) -> list[Row]:
    prompt_ids = {prompt: loaded.prompt_ids(prompt) for prompt in dict.fromkeys(r.prompt for r in requests)}
    cue_ids = {cue: encode_text(loaded.tokenizer, cue) for cue in dict.fromkeys(r.cue for r in requests)}
    texts = dict.fromkeys(r.text for r in requests if r.text is not None)
    text_ids = {text: encode_text(loaded.tokenizer, text) for text in texts}
    rows = []
    for request in requests:
        scored = request.token_ids if request.text is None else text_ids[request.text]
        ids = (*prompt_ids[request.prompt], *request.context_token_ids, *cue_ids[request.cue], *scored)
        loaded.check_length(request.request_id, ids, 0, "score less, or use a model with a longer context")
        rows.append(Row(request.request_id, ids, len(scored)))
    return rows


@torch.inference_mode()
def _score_batch(loaded: LoadedModel, trees: list[Tree], measure: _Measure) -> list[ScoreResult]:
    ids = torch.full((len(trees), len(trees[0].ids)), loaded.pad_id)
    for index, tree in enumerate(trees):
        ids[index, : len(tree.ids)] = torch.tensor(tree.ids)
    ids = ids.to(loaded.device)
    arguments = tree_arguments(trees, loaded.model.dtype, loaded.device) if trees[0].is_branched else {}
    columns = [column for tree in trees for column in tree.columns]
    at = np.repeat(np.arange(len(trees)), [sum(len(c[1:]) for c in tree.columns) for tree in trees])
    entropies = logprobs = torch.empty(0)
    if len(at):
        # the distribution of a token stands at the one before it
        places = (at, np.concatenate([c[:-1] for c in columns]), np.concatenate([c[1:] for c in columns]))
        row, column, target = (torch.from_numpy(place).to(loaded.device) for place in places)
        entropies, logprobs = measure(loaded, ids, arguments, row, column, ids[row, target])
    splits = np.cumsum([len(c[1:]) for c in columns])[:-1]
    return [
        ScoreResult(row.request_id, logprob, entropy, num_read_tokens=num_new)
        for (row, num_new), logprob, entropy in zip(
            ((row, num_new) for tree in trees for row, num_new in zip(tree.rows, tree.num_new, strict=True)),
            np.split(logprobs.cpu().numpy(), splits),
            np.split(entropies.cpu().numpy(), splits),
            strict=True,
        )
    ]


def _measure_plain_head(
    loaded: LoadedModel,
    ids: torch.Tensor,
    arguments: dict[str, torch.Tensor],
    at: torch.Tensor,
    column: torch.Tensor,
    targets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the distributions at the given places say of `targets`, entropies first, shape [T] each."""
    head: Any = loaded.model.get_output_embeddings()
    hidden = _hidden_states(loaded, ids, **arguments)[at, column]
    return head_entropy_and_logprobs(hidden, head.weight, targets, head.bias)


def _measure_whole_model(
    loaded: LoadedModel,
    ids: torch.Tensor,
    arguments: dict[str, torch.Tensor],
    at: torch.Tensor,
    column: torch.Tensor,
    targets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same tree by tree from the model as a whole; `at` never decreases."""
    parts = []
    for index in torch.unique_consecutive(at):
        own = {name: argument[index][None] for name, argument in arguments.items()}
        wanted = column[at == index]
        logits = loaded.model(input_ids=ids[index][None], use_cache=False, logits_to_keep=wanted, **own).logits[0]
        parts.append(entropy_and_logprobs(logits, targets[at == index]))
    return torch.cat([entropy for entropy, _ in parts]), torch.cat([logprob for _, logprob in parts])


def _hidden_states(loaded: LoadedModel, ids: torch.Tensor, **arguments: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = loaded.model.base_model(input_ids=ids, use_cache=False, **arguments)[0]
    return hidden
