"""The chat API, which is all that hosted models have: samples from messages, whose tokens are known by their bytes.

There are no token ids, so nothing can be continued or read: rollouts, hints and guided samples only. What does not
belong here: the completions API (`completions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing

import numpy as np

from heal_core.engines.base import GenerationRequest, SamplingConfig
from heal_core.engines.remote.answer import Answer, Token
from heal_core.engines.remote.client import Client
from heal_core.engines.remote.completions import Asking, entropy_middles, slot_seed
from heal_core.engines.remote.faults import NonsenseError, RefusalError, UnusableError
from heal_core.records import Completion, FinishReason

PATH = "/chat/completions"
UNKNOWN_TOKEN = -1
"""In the place of a token's id where the API does not tell it."""


class ChatApi:
    """Asks for answers to a user turn; `vocabulary_size` bounds the entropies."""

    def __init__(self, asking: Asking, vocabulary_size: int) -> None:
        self._asking = asking
        self._vocabulary_size = vocabulary_size

    async def complete(
        self,
        client: Client,
        request: GenerationRequest,
        sampling: SamplingConfig,
        note_life: Callable[[], None],
    ) -> Completion:
        """Return one sample; its `seconds` are for the caller to fill in.

        Raises:
            FaultError: If there is none.
        """
        if request.prefix_token_ids:
            raise RefusalError("the chat API cannot continue a text from its tokens")
        answer = Answer(self._asking.num_top)
        body = {
            "model": self._asking.model,
            "messages": [{"role": "user", "content": request.prompt}],
            "max_tokens": request.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": slot_seed(request.slot_id),
            "logprobs": True,
            "top_logprobs": self._asking.num_top,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.early_stop is not None:
            # what a prompt costs is told at the end, which would not be waited for
            raise UnusableError("over the chat API no text can be given up early; leave early_stop out")
        async with aclosing(client.stream(PATH, {**body, **self._asking.extra_body})) as pieces:
            async for piece in pieces:
                answer.add(piece)
                note_life()
        # hosted models answer under the name of their present version
        if answer.model is not None and not answer.model.startswith(self._asking.model):
            raise UnusableError(f"it was asked for the model {self._asking.model!r} and answers as {answer.model!r}")
        if answer.has_hidden_reasoning:
            raise RefusalError(
                "its reasoning comes apart from the answer and without log-probabilities; use a server with the "
                "completions API, or one that leaves the reasoning in the text"
            )
        return self._completion(request, answer)

    async def is_alive(self, client: Client) -> None:
        """Ask for one token.

        Raises:
            FaultError: If none comes.
        """
        body = {"model": self._asking.model, "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
        await client.post(PATH, {**body, **self._asking.extra_body})

    def _completion(self, request: GenerationRequest, answer: Answer) -> Completion:
        if answer.finish_reason == "stop" and answer.num_completion_tokens is not None:
            # usage may count the end of the turn, which is not among the tokens
            answer.num_completion_tokens = min(answer.num_completion_tokens, len(answer.tokens))
        answer.check(None, request.max_tokens)
        if answer.num_prompt_tokens is None:
            raise NonsenseError("no usage, which says how many tokens the prompt has")
        tokens = without_end(answer)
        text, starts = decode_bytes(tokens)
        entropies, radii = entropy_middles(tokens, self._vocabulary_size)
        return Completion(
            slot_id=request.slot_id,
            token_ids=np.array([t.token_id if t.token_id is not None else UNKNOWN_TOKEN for t in tokens], np.int32),
            logprobs=np.array([token.logprob for token in tokens], dtype=np.float32),
            entropies=entropies,
            token_starts=starts,
            text=text,
            finish_reason=FinishReason(answer.finish_reason or ""),
            num_prompt_tokens=answer.num_prompt_tokens,
            seconds=0.0,
            entropy_radii=radii,
            entropy_source=f"top_{self._asking.num_top}",
            num_cached_tokens=answer.num_cached_tokens,
        )


def without_end(answer: Answer) -> Sequence[Token]:
    """Return the tokens without the end of the turn, which vLLM lists after the others and leaves out of the text."""
    tokens = answer.tokens
    is_listed = answer.finish_reason == FinishReason.STOP and decode_bytes(tokens)[0] != answer.content
    return tokens[:-1] if is_listed and decode_bytes(tokens[:-1])[0] == answer.content else tokens


def decode_bytes(tokens: Sequence[Token]) -> tuple[str, np.ndarray]:
    """Return the text of tokens and the character at which each begins, int32, shape [T].

    A token that holds only later bytes of a character begins at that character, as in `detokenize`.
    """
    pieces = [token.text.encode(errors="surrogatepass") if token.data is None else token.data for token in tokens]
    whole = b"".join(pieces)
    is_start = np.array([byte & 0xC0 != 0x80 for byte in whole], dtype=bool)
    text = whole.decode(errors="replace")
    num_started = np.concatenate([[0], np.cumsum(is_start)])
    offsets = np.cumsum([0, *map(len, pieces)])[:-1]
    inside = np.array([offset < len(whole) and not is_start[offset] for offset in offsets], dtype=int)
    starts = np.maximum(num_started[offsets] - inside, 0)
    return text, np.minimum(starts, max(0, len(text) - 1)).astype(np.int32)
