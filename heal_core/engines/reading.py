"""Texts that were written elsewhere -> completions, as if this model had sampled them: teacher-forced.

A text is encoded alone, as one that is sampled begins anew after its prompt, so its tokens are the ones that the
tokenizer prefers; the model that wrote it may have chosen others. What does not belong here: where texts come from
(`heal_core/imports`), and the forward pass (`scoring`).
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heal_core.chat import encode_text, strip_opening
from heal_core.engines.base import GivenText, ScoreRequest, ScoreResult, UnreadableText
from heal_core.engines.detokenize import detokenize
from heal_core.engines.tokens import ModelTokens
from heal_core.records import Completion

_PROMPT_END_TOKENS = 8


@dataclass(frozen=True)
class _Answer:
    """A given text as this model's tokens; arrays of shape [T]."""

    given: GivenText
    token_ids: list[int]
    token_starts: np.ndarray
    text: str
    num_prompt_tokens: int


def read(
    loaded: ModelTokens,
    texts: Sequence[GivenText],
    score: Callable[[Sequence[ScoreRequest]], Iterator[ScoreResult]],
    beat: Callable[[], None],
) -> Iterator[Completion | UnreadableText]:
    """Yield each text as a completion, or why it is no answer of this model; refused ones first.

    `seconds` of a completion is its share, by tokens, of the time that all took.

    Args:
        loaded: The model.
        texts: What to read; their slots differ.
        score: Gives log-probabilities and entropies of tokens.
        beat: Called now and then, as a sign of life; may raise to stop.

    Raises:
        RequestError: If the chat template refuses a user turn.
    """
    started = time.monotonic()
    prompts = {prompt: loaded.prompt_ids(prompt) for prompt in dict.fromkeys(text.prompt for text in texts)}
    answers: dict[str, _Answer] = {}
    for given in texts:
        beat()
        answer = _as_answer(loaded, given, prompts[given.prompt])
        if isinstance(answer, UnreadableText):
            yield answer
        else:
            answers[given.slot_id] = answer
    requests = [ScoreRequest(slot_id, a.given.prompt, token_ids=tuple(a.token_ids)) for slot_id, a in answers.items()]
    results = list(score(requests))
    seconds = (time.monotonic() - started) / max(1, sum(len(answer.token_ids) for answer in answers.values()))
    for result in results:
        answer = answers[result.request_id]
        assert result.entropies is not None, "an engine that reads tells entropies"
        if not (np.isfinite(result.logprobs).all() and np.isfinite(result.entropies).all()):
            yield UnreadableText(result.request_id, f"not_finite: logits are nan in {loaded.description.dtype}")
            continue
        yield Completion(
            slot_id=result.request_id,
            token_ids=np.array(answer.token_ids, dtype=np.int32),
            logprobs=result.logprobs,
            entropies=result.entropies,
            token_starts=answer.token_starts,
            text=answer.text,
            finish_reason=answer.given.finish_reason,
            num_prompt_tokens=answer.num_prompt_tokens,
            seconds=seconds * len(answer.token_ids),
            entropy_radii=result.entropy_radii,
            entropy_source=result.entropy_source,
        )


def _as_answer(loaded: ModelTokens, given: GivenText, prompt_ids: list[int]) -> _Answer | UnreadableText:
    prompt_end, _ = detokenize(loaded.tokenizer, prompt_ids[-_PROMPT_END_TOKENS:])
    wanted = _without_end(loaded, strip_opening(prompt_end, given.text))
    ids = encode_text(loaded.tokenizer, wanted)
    reason = _why_no_answer(loaded, ids, len(prompt_ids))
    if reason is None:
        text, starts = detokenize(loaded.tokenizer, ids)
        if _compared(text) == _compared(wanted):
            return _Answer(given, ids, starts, text, len(prompt_ids))
        reason = f"not_given_back: the tokenizer makes {text[:40]!r} of {wanted[:40]!r}"
    return UnreadableText(given.slot_id, reason)


def _why_no_answer(loaded: ModelTokens, ids: Sequence[int], num_prompt_tokens: int) -> str | None:
    context = loaded.description.context_tokens
    if not ids:
        return "empty_text: nothing but the end of the turn"
    if num_prompt_tokens + len(ids) > context:
        return f"too_long: {num_prompt_tokens} + {len(ids)} tokens, the context has {context}"
    if max(ids) >= loaded.description.vocabulary_size:
        return f"unknown_token: {max(ids)}, the model has {loaded.description.vocabulary_size}"
    if not loaded.eos_ids.isdisjoint(ids):
        place = next(index for index, token_id in enumerate(ids) if token_id in loaded.eos_ids)
        return f"turn_ends_within: a token that ends the turn is number {place + 1} of {len(ids)}"
    return None


def _without_end(loaded: ModelTokens, text: str) -> str:
    """Return a text without the token that ends the turn, should it have been written down too."""
    ends = [str(loaded.tokenizer.decode([token_id], skip_special_tokens=False)) for token_id in loaded.eos_ids]
    for end in ends:
        if end.strip() and text.rstrip().endswith(end):
            return text.rstrip().removesuffix(end)
    return text


def _compared(text: str) -> str:
    """Return a text without what tokenizers are known to change: the space around it, how accents are composed."""
    return unicodedata.normalize("NFC", text).strip()
