"""The completions API: prompts as token ids, and completions with an interval for each token's entropy.

What vLLM alone understands is sent to vLLM alone. What does not belong here: tries (`servers`), connections
(`client`), reading the pieces of an answer (`answer`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np

from heal_core.chat import encode_text
from heal_core.engines.base import GenerationRequest, SamplingConfig, ScoreRequest, ScoreResult
from heal_core.engines.detokenize import detokenize
from heal_core.engines.early_stop import LoopWatch, line_ends
from heal_core.engines.remote.answer import IMPOSSIBLE_NATS, Answer, Token, brief
from heal_core.engines.remote.client import Client
from heal_core.engines.remote.faults import NonsenseError, UnusableError
from heal_core.engines.tokens import ModelTokens
from heal_core.entropy_bounds import entropy_interval, middle_and_radius
from heal_core.errors import ShapeError
from heal_core.records import Completion, FinishReason

PATH = "/completions"


@dataclass(frozen=True)
class Asking:
    """How a server is asked, the same for all requests.

    Attributes:
        model: Its name there.
        num_top: How many of the most probable tokens are asked for.
        is_vllm: Whether it understands what vLLM understands.
        extra_body: Further fields of each request.
    """

    model: str
    num_top: int
    is_vllm: bool
    extra_body: Mapping[str, Any]


def check_model(asking: Asking, answered: str | None) -> None:
    """Check that the model that answered is the one that was asked.

    Raises:
        UnusableError: If it is another.
    """
    if answered is not None and answered != asking.model:
        raise UnusableError(f"it was asked for the model {asking.model!r} and answers as {answered!r}")


def slot_seed(slot_id: str) -> int:
    """Return the seed of a slot's sample, within 31 bits, which every server takes."""
    return int.from_bytes(hashlib.blake2b(slot_id.encode(), digest_size=4).digest()) >> 1


class TokenNames:
    """Finds the id of a token that a server names by its text alone."""

    def __init__(self, tokens: ModelTokens) -> None:
        self._tokens = tokens
        self._ids: dict[str, int | None] | None = None

    def find(self, token: Token) -> int:
        """Return a token's id.

        Raises:
            NonsenseError: If the vocabulary has no such id.
            UnusableError: If the text is that of no token, or of several, and the server did not tell the id.
        """
        if token.token_id is not None:
            if not 0 <= token.token_id < self._tokens.description.vocabulary_size:
                raise NonsenseError(f"token id {token.token_id}, which the vocabulary lacks")
            return token.token_id
        if self._ids is None:
            self._ids = self._index()
        found = self._ids.get(token.text)
        if found is None:
            raise UnusableError(
                f"it names the token {token.text!r} without its id, and its text is not that of exactly one token; a "
                "server is needed that tells token ids (vLLM 0.10.2 or later, llama.cpp)"
            )
        return found

    def _index(self) -> dict[str, int | None]:
        ids: dict[str, int | None] = {}
        size = min(len(self._tokens.tokenizer), self._tokens.description.vocabulary_size)
        texts = self._tokens.tokenizer.batch_decode([[i] for i in range(size)], skip_special_tokens=False)
        for token_id, text in enumerate(texts):
            ids[text] = None if text in ids else token_id
        return ids


class CompletionsApi:
    """Asks for completions and for the log-probabilities of given tokens."""

    def __init__(self, tokens: ModelTokens, asking: Asking) -> None:
        self._tokens = tokens
        self._asking = asking
        self._names = TokenNames(tokens)
        self._ends_line = line_ends(tokens.tokenizer)

    async def complete(
        self,
        client: Client,
        request: GenerationRequest,
        input_ids: Sequence[int],
        sampling: SamplingConfig,
        note_life: Callable[[], None],
    ) -> Completion:
        """Return one sample; its `seconds` are for the caller to fill in.

        Raises:
            FaultError: If there is none.
        """
        answer = Answer(self._asking.num_top)
        body = self._body(input_ids, request.max_tokens) | {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": slot_seed(request.slot_id),
            "logprobs": self._asking.num_top,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        watch = LoopWatch(sampling.early_stop, self._ends_line) if sampling.early_stop else None
        async with aclosing(client.stream(PATH, {**body, **self._asking.extra_body})) as pieces:
            async for piece in pieces:
                note_life()
                if is_hopeless(answer, answer.add(piece), watch, self._names.find, self._tokens.eos_ids):
                    break  # closing the stream ends the work at the server
        check_model(self._asking, answer.model)
        answer.check(len(input_ids), request.max_tokens)
        return self._completion(request, answer, len(input_ids))

    async def score(
        self, client: Client, request: ScoreRequest, ids: Sequence[int], num: int, num_top: int
    ) -> ScoreResult:
        """Return the log-probabilities of the last `num` of `ids`, with `num_top` > 0 their entropies too.

        Raises:
            FaultError: If there are none.
        """
        body = self._body(ids, 1) | {"temperature": 0.0, "prompt_logprobs": num_top, "logprobs": 0}
        told = await client.post(PATH, {**body, **self._asking.extra_body})
        try:
            check_model(self._asking, told["model"])
            entries = told["choices"][0]["prompt_logprobs"]
            if entries is None:
                raise UnusableError("it tells no log-probabilities of given tokens (prompt_logprobs)")
            if len(entries) != len(ids):
                raise NonsenseError(f"log-probabilities of {len(entries)} tokens, where {len(ids)} were sent")
            tail = list(zip(ids, entries, strict=True))[len(ids) - num :]
            tokens = [_given_token(token_id, entry, num_top) for token_id, entry in tail]
        except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
            raise NonsenseError(
                f"no log-probabilities of given tokens ({type(error).__name__}): {brief(told)}"
            ) from error
        logprobs = np.array([token.logprob for token in tokens], dtype=np.float32)
        if num_top == 0:
            return ScoreResult(request.request_id, logprobs, None, num_read_tokens=len(ids))
        entropies, radii = self._entropies(tokens)
        return ScoreResult(request.request_id, logprobs, entropies, radii, f"top_{num_top}", len(ids))

    def scored_ids(self, request: ScoreRequest) -> tuple[tuple[int, ...], int]:
        """Return all tokens of a request, and how many of them, at the end, are scored.

        Raises:
            RequestError: If they exceed the context.
        """
        tokenizer = self._tokens.tokenizer
        scored = request.token_ids if request.text is None else encode_text(tokenizer, request.text)
        cue = encode_text(tokenizer, request.cue) if request.cue else []
        ids = (*self._tokens.prompt_ids(request.prompt), *request.context_token_ids, *cue, *scored)
        self._tokens.check_length(request.request_id, ids, 1, "score less, or use a model with a longer context")
        return ids, len(scored)

    async def is_alive(self, client: Client) -> None:
        """Ask for one token.

        Raises:
            FaultError: If none comes.
        """
        body = self._body(self._tokens.prompt_ids("?"), 1) | {"temperature": 0.0, "logprobs": 1}
        await client.post(PATH, {**body, **self._asking.extra_body})

    def _body(self, ids: Sequence[int], max_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._asking.model, "prompt": list(ids), "max_tokens": max_tokens}
        if not self._asking.is_vllm:
            return body
        return body | {
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,  # several tokens may have one text
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "stop_token_ids": sorted(self._tokens.eos_ids),
            # else a model's generation_config.json would decide
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }

    def _completion(self, request: GenerationRequest, answer: Answer, num_prompt_tokens: int) -> Completion:
        tokens, reason = answer.tokens, FinishReason(answer.finish_reason or "")
        ids = [self._names.find(token) for token in tokens]
        # a server may know fewer tokens that end a turn, or call one at the very limit a cut
        end = next((index for index, token_id in enumerate(ids) if token_id in self._tokens.eos_ids), None)
        if end is not None:
            ids, tokens, reason = ids[:end], tokens[:end], FinishReason.STOP
        logprobs = np.array([token.logprob for token in tokens], dtype=np.float32)
        if (logprobs < IMPOSSIBLE_NATS).any():
            raise NonsenseError("a sampled token of probability 0")
        text, starts = detokenize(self._tokens.tokenizer, ids, request.prefix_token_ids)
        entropies, radii = self._entropies(tokens)
        return Completion(
            slot_id=request.slot_id,
            token_ids=np.array(ids, dtype=np.int32),
            logprobs=logprobs,
            entropies=entropies,
            token_starts=starts,
            text=text,
            finish_reason=reason,
            num_prompt_tokens=num_prompt_tokens,
            seconds=0.0,
            entropy_radii=radii,
            entropy_source=f"top_{self._asking.num_top}",
            num_cached_tokens=answer.num_cached_tokens,
        )

    def _entropies(self, tokens: Sequence[Token]) -> tuple[np.ndarray, np.ndarray]:
        return entropy_middles(tokens, self._tokens.description.vocabulary_size)


def is_hopeless(
    answer: Answer,
    new: Sequence[Token],
    watch: LoopWatch | None,
    find_id: Callable[[Token], int],
    eos_ids: Collection[int],
) -> bool:
    """Return whether a text is to be given up with one of its new tokens; it is cut after that one."""
    if watch is None:
        return False
    for index, token in enumerate(new, start=1 - len(new)):
        token_id = find_id(token)
        if token_id not in eos_ids and watch.add(token_id):
            answer.give_up(len(answer.tokens) + index)
            return True
    return False


def empty_completion(request: GenerationRequest, num_prompt_tokens: int, num_top: int) -> Completion:
    """Return what a request without room for a token comes to."""
    none = np.empty(0, dtype=np.float32)
    return Completion(
        slot_id=request.slot_id,
        token_ids=np.empty(0, dtype=np.int32),
        logprobs=none,
        entropies=none,
        token_starts=np.empty(0, dtype=np.int32),
        text="",
        finish_reason=FinishReason.LENGTH,
        num_prompt_tokens=num_prompt_tokens,
        seconds=0.0,
        entropy_radii=none,
        entropy_source=f"top_{num_top}",
    )


def entropy_middles(tokens: Sequence[Token], vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of each token's entropy interval and half its width, float32, shape [T], nats.

    Raises:
        NonsenseError: If the alternatives are no part of a distribution.
    """
    width = max((len(token.top_logprobs) for token in tokens), default=1)
    tops = np.full((len(tokens), width), -np.inf)
    for row, token in zip(tops, tokens, strict=True):
        row[: len(token.top_logprobs)] = token.top_logprobs
    try:
        has_gaps = np.array([token.has_gaps for token in tokens], dtype=bool)
        return middle_and_radius(*entropy_interval(tops, vocabulary_size, has_gaps))
    except ShapeError as error:
        raise NonsenseError(str(error)) from error


def _given_token(token_id: int, entry: Mapping[str, Any] | None, num_top: int) -> Token:
    if entry is None:
        raise NonsenseError("no log-probability of a given token that is not the first")
    values = {int(name): float(told["logprob"]) for name, told in entry.items()}
    logprob = values[token_id]
    if not np.isfinite(list(values.values())).all() or logprob < IMPOSSIBLE_NATS:
        raise NonsenseError(f"log-probabilities of a given token: {brief(entry)}")
    possible = sorted((value for value in values.values() if value > IMPOSSIBLE_NATS), reverse=True)
    tops = tuple(possible[:num_top]) if num_top else (min(logprob, 0.0),)
    return Token("", token_id, None, min(logprob, 0.0), tops)
